"""What there is to look at: the built site's pages, and the screens on which they are read."""

from pathlib import Path

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 780}

UNFOLD = """async () => {
    const closed = [...document.querySelectorAll('details:not([open])')];
    window.folded ??= closed;
    const heard = closed.map(e => new Promise(done => { e.addEventListener('toggle', done, { once: true }); }));
    closed.forEach(e => { e.open = true; });
    if (window.MathJax?.startup) {  // without script no event is heard, either
        await Promise.all(heard);
        await window.MathJax.startup.promise;
    }
    const fades = document.getAnimations().filter(e => e.timeline instanceof DocumentTimeline);
    await Promise.allSettled(fades.map(fade => fade.finished));
}"""
"""Open every fold, and wait until what it holds is typeset and has faded in: axe is silent about what is
not there yet."""
FOLD_AGAIN = "() => window.folded.forEach(e => { e.open = false; })"
"""As the page opened, after `UNFOLD`."""


def pages(pattern="**/*.html"):
    """Every page of the built site, as paths below its root."""
    found = sorted(str(path.relative_to(SITE)) for path in SITE.glob(pattern))
    return [page for page in found if not page.startswith(("_static/", "_frames/"))]


def chapters():
    """The pages that show figures."""
    return [page for page in pages() if "bn-figure" in (SITE / page).read_text(encoding="utf-8")]


def wings():
    """The folders of chapters."""
    return sorted({page.split("/")[1] for page in chapters() if page.count("/") == 2})
