"""Every page: nothing complains, all mathematics is typeset, everyone can read it."""

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from built import DESKTOP, PHONE, SITE, UNFOLD, chapters, pages

BOOK = pages("book/**/*.html")

UNRENDERED = """() => [...document.querySelectorAll('.math')]
    .filter(e => !e.querySelector('mjx-container') || e.querySelector('mjx-merror, [data-mjx-error]'))
    .map(e => e.textContent.slice(0, 80))"""

LEFT_OVER = r"""() => {
    const walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
        const node = walker.currentNode;
        if (node.parentElement.closest('pre, code, script, style, mjx-container')) continue;
        if (/\\\(|\\\[|\$[^$]+\$|\\frac|\{cite\}|\{prf:/.test(node.data)) found.push(node.data.trim());
    }
    return found;
}"""

WITHOUT_ALTERNATIVE = """() => [
    ...[...document.querySelectorAll('img, svg')]
        .filter(e => !e.closest('[aria-hidden=true], button, mjx-container, .bn-frame')
            && !(e.getAttribute('alt') || e.getAttribute('aria-label'))),
    ...[...document.querySelectorAll('[role=img]:not([aria-hidden=true])')]
        .filter(e => !e.getAttribute('aria-label') && !e.closest('mjx-container')),
].map(e => e.outerHTML.slice(0, 120))"""

# What axe sees of a formula is its box and its hidden text, and of a chapter's code the colours of
# each kind of token, which the style sheet knows by its classes. A box stands for the drawn formula,
# and one token of each kind for all of it, which spares axe two elements of three. (Of a token of one
# letter axe says nothing.) What is folded says nothing to anyone, and of the objects of the reference
# those stand for all that have between them every kind of element, by its classes and those around it.
LIGHTEN = """() => {
    const kept = [];
    const replace = (element, nodes) => {
        kept.push([element, [...element.childNodes], element.getAttribute('style')]);
        element.replaceChildren(...nodes);
    };
    for (const fold of document.querySelectorAll('details:not([open])'))
        replace(fold, fold.querySelectorAll(':scope > summary'));
    const kinds = new Set();
    for (const object of document.querySelectorAll('dl.py')) {
        if (!object.isConnected) continue;
        const found = [...object.querySelectorAll('*')].map(element => {
            let kind = '';
            for (let e = element; e !== object; e = e.parentElement) kind += ` ${e.localName}.${e.className}`;
            return `${object.className}: ${kind}`;
        });
        if (found.every(kind => kinds.has(kind))) replace(object, []);
        found.forEach(kind => kinds.add(kind));
    }
    const formulas = [...document.querySelectorAll('mjx-math')]
        .map(formula => [formula, formula.getBoundingClientRect()]);
    const blocks = [...document.querySelectorAll('pre')].map(block => {
        const { fontSize, color, backgroundColor } = getComputedStyle(block);
        return [block, block.checkVisibility() && `${fontSize} ${color} ${backgroundColor}`];
    });
    for (const [formula, box] of formulas) {
        replace(formula, []);
        if (box.width)
            formula.style.cssText +=
                `; display: inline-block; width: ${box.width}px; height: ${box.height}px`;
    }
    const seen = new Set();
    for (const [block, look] of blocks) {
        const copy = block.cloneNode(true);
        const tokens = [...copy.querySelectorAll('span')].map(token => {
            let kind = look;
            for (let e = token; e !== copy; e = e.parentElement) kind += `, ${e.className}`;
            return [token, kind];
        });
        for (const [token, kind] of tokens) {
            if (!look || seen.has(kind)) token.replaceWith(...token.childNodes);
            else if (token.textContent.trim().length > 1) seen.add(kind);
        }
        copy.normalize();
        replace(block, [...copy.childNodes]);
    }
    window.lightened = kept;
}"""

RESTORE = """() => {
    for (const [element, nodes, style] of window.lightened.reverse()) {
        element.replaceChildren(...nodes);
        if (style === null) element.removeAttribute('style');
        else element.setAttribute('style', style);
    }
}"""

# In the ledger axe sees one chapter of each wing with the evidence of one row, and all other
# chapters folded: their rows stand unfolded on the chapters' own pages, which axe sees too.
FOLD = """() => {
    for (const wing of document.querySelectorAll('.bn-wing')) {
        for (const folded of wing.querySelectorAll('details')) folded.open = false;
        wing.querySelector('.bn-chapter').open = true;
        wing.querySelector('.bn-claims details').open = true;
    }
}"""

TOO_WIDE = """() => document.documentElement.scrollWidth - document.documentElement.clientWidth"""

CUT_OFF_OUTPUT = """() => [...document.querySelectorAll('.cell_output pre')]
    .filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1
        && !e.closest('.bn-claims'))
    .map(e => e.innerText.slice(0, 80))"""

SMALL_FIGURE_TEXT = """() => [...document.querySelectorAll('.bn-frame')]
    .map(e => 12 * e.clientWidth / Number(e.style.aspectRatio.split('/')[0]))
    .filter(size => size < 9.5)"""


def serious(tab):
    """What axe finds of serious or critical impact."""
    tab.evaluate(LIGHTEN)
    found = Axe().run(tab, options={"resultTypes": ["violations"]}).response["violations"]
    tab.evaluate(RESTORE)
    return [
        f"{violation['id']}: {node['html'][:160]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def test_the_root_leads_to_the_first_page(visit):
    visit("index.html").wait_for_url("**/book/intro.html")


# The pages of source code are alike.
DIFFERENT = [page for page in pages() if page != "index.html" and "_modules/bncore" not in page]
SOURCE = pages("_modules/bncore/**/*.html")[::20]
INDEXES = [page for page in DIFFERENT if page not in BOOK]


@pytest.mark.parametrize("page", BOOK)
def test_the_page_of_symptoms_is_one_step_away(page):
    html = (SITE / page).read_text(encoding="utf-8")
    footer = html[html.index('class="extra_footer"') :]
    target = re.search(r'href="((?:[^"]*/)?symptoms\.html|#)"', footer)
    assert target or page == "book/practice/symptoms.html"


@pytest.mark.parametrize("page", [*DIFFERENT, *SOURCE])
def test_a_page_loads_without_a_complaint(page, look):
    assert look(page).complaints == []


@pytest.mark.parametrize("page", BOOK)
def test_all_mathematics_is_typeset(page, look):
    tab = look(page)
    assert tab.evaluate(UNRENDERED) == []
    assert tab.evaluate(LEFT_OVER) == []


# Formulas that wait to be typeset, in sight and folded.
WAITING = """() => {
    const waiting = [...document.querySelectorAll('.math')]
        .filter(formula => !formula.querySelector('mjx-container'));
    const seen = waiting.filter(formula => formula.checkVisibility({ contentVisibilityAuto: true }));
    return [seen.length, waiting.length - seen.length];
}"""


@pytest.mark.parametrize(
    ("page", "fold"),
    [
        ("book/convergence/decoupling.html", "details.bn-fold:has(.math)"),
        ("book/claims.html", ".bn-chapter:has(.math)"),
    ],
)
def test_formulas_in_a_fold_are_typeset_as_it_opens_or_is_printed(page, fold, visit):
    tab = visit(page)
    seen, folded = tab.evaluate(WAITING)
    assert seen == 0
    assert folded > 20
    tab.locator(fold).first.locator("summary").first.click()
    tab.wait_for_function(
        f"folded => {{ const now = ({WAITING})(); return !now[0] && now[1] < folded; }}", arg=folded
    )
    tab.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate(WAITING)[0] == 0


@pytest.mark.parametrize("page", BOOK)
def test_every_picture_has_a_text_alternative(page, look):
    assert look(page).evaluate(WITHOUT_ALTERNATIVE) == []


@pytest.mark.parametrize(
    ("viewport", "theme"),
    [(DESKTOP, "light"), (PHONE, "dark")],
    ids=["desktop-light", "phone-dark"],
)
@pytest.mark.parametrize("page", BOOK)
def test_axe_finds_nothing_serious(page, viewport, theme, look):
    tab = look(page, viewport, theme)
    tab.evaluate(FOLD)
    found = serious(tab)
    tab.evaluate(UNFOLD)
    assert found == []


# Where a mistake is made, and how what it spoils begins.
CODE_AND_WORDS = {
    ".highlight .k": '<span class="k">',
    ".highlight .mi": '<span class="mi">',
    ".bd-article p": "<p>",
}
STATEMENT = {".bn-statement": '<div class="bn-statement">'}
REFERENCE = {
    ".sig-name .pre": '<span class="pre">',
    ".field-list dd p": "<p>",
    ".field-list dt": '<dt class="field-',
}


@pytest.mark.parametrize(
    ("page", "places"),
    [
        ("book/mechanics/forward.html", CODE_AND_WORDS),
        ("book/claims.html", STATEMENT),
        ("book/api/lab.html", REFERENCE),
    ],
)
def test_axe_sees_a_mistake_among_what_is_alike(page, places, visit):
    tab = visit(page)
    tab.evaluate(UNFOLD)
    tab.evaluate(FOLD)
    tab.add_style_tag(
        content=f"{', '.join(places)} {{ color: #ddd !important; background: white }}"
    )
    before = tab.evaluate("() => document.querySelector('main').outerHTML")
    found = serious(tab)
    assert tab.evaluate("() => document.querySelector('main').outerHTML") == before
    for place, element in places.items():
        assert any(f.startswith(f"color-contrast: {element}") for f in found), place


@pytest.mark.parametrize("page", BOOK)
def test_a_phone_shows_the_whole_width(page, look):
    tab = look(page, PHONE, "dark")
    assert tab.evaluate(TOO_WIDE) <= 0
    assert tab.evaluate(SMALL_FIGURE_TEXT) == []
    assert tab.evaluate(CUT_OFF_OUTPUT) == []


@pytest.mark.parametrize("page", [*SOURCE, *INDEXES])
def test_a_phone_shows_the_whole_width_of_source_code_and_indexes(page, look):
    assert look(page, PHONE, "dark").evaluate(TOO_WIDE) <= 0


# What the keyboard stopped at, when that is no link, control or fold, nor scrolls.
OTHER_STOP = """() => {
    const stop = document.activeElement;
    const seen = stop === document.body || stop.dataset.stopped;
    stop.dataset.stopped = true;
    if (seen) return null;
    const known = stop.matches('a[href], button, input, select, summary, [type=search]');
    return known || stop.scrollWidth > stop.clientWidth ? '' : stop.outerHTML.slice(0, 80);
}"""


def test_the_keyboard_stops_at_links_controls_and_folds(visit):
    tab = visit("book/mechanics/forward.html")
    stops = []
    while True:
        tab.keyboard.press("Tab")
        stop = tab.evaluate(OTHER_STOP)
        if stop is None:
            break
        stops.append(stop)
    assert len(stops) > 50, "it went through the page"
    assert [stop for stop in stops if stop] == []


@pytest.mark.parametrize(
    ("page", "missing"),
    [
        ("book/mechanics/forward.html", "formulas stay as they are typed, figures do not move, "),
        ("book/claims.html", "formulas stay as they are typed, claims are not filtered, "),
        ("book/bibliography.html", ""),
    ],
)
def test_without_script_a_page_says_what_is_missing(page, missing, visit, look):
    notice = visit(page, javascript=False).locator(".bn-notice")
    assert notice.is_visible()
    assert notice.text_content() == f"Without JavaScript {missing}the search finds nothing."
    assert look(page).locator(".bn-notice").count() == 0


def test_a_phone_shows_a_row_of_a_table_of_cards_as_a_card(visit):
    place = """() => [...document.querySelectorAll('table.bn-cards tbody tr:first-child td')]
        .map(cell => [cell.getBoundingClientRect(), cell.querySelector('.bn-column')])
        .map(([box, name]) => [box.left, box.top, box.width, name && name.checkVisibility()])"""
    (a, top, wide, _), *rest = visit("book/explanations/why.html", PHONE).evaluate(place)
    assert wide > 0.8 * PHONE["width"]
    assert len(rest) == 2
    assert all(box[0] == a and box[1] > top and box[2] == wide and box[3] for box in rest)
    (a, top, _, _), *rest = visit("book/explanations/why.html", DESKTOP).evaluate(place)
    assert all(box[0] > a and box[1] == top and not box[3] for box in rest)


@pytest.mark.parametrize("page", BOOK)
def test_no_id_is_there_twice(page):
    seen = Counter(re.findall(r'<[^>]*\sid="([^"]+)"', (SITE / page).read_text(encoding="utf-8")))
    assert [name for name, count in seen.items() if count > 1] == []


@pytest.mark.parametrize("page", chapters())
def test_figures_follow_the_theme(page, look):
    def ink(viewport, theme):
        tab = look(page, viewport, theme)
        tab.locator("figure.bn-figure").first.scroll_into_view_if_needed()
        tab.wait_for_selector(".bn-frame svg")
        return tab.evaluate(
            """() => {
                const frame = [...document.querySelectorAll('.bn-frame')].find(e => e.shadowRoot);
                const mark = frame.shadowRoot.querySelector('[style*="fill: var(--bn-ink"]');
                return getComputedStyle(mark).fill;
            }"""
        )

    light, dark = ink(DESKTOP, "light"), ink(PHONE, "dark")
    assert _brightness(light) < 60
    assert _brightness(dark) > 180


def _brightness(colour):
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.anchors = [], set()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.update(filter(None, (attributes.get("id"), attributes.get("name"))))
        link = attributes.get("href" if tag in ("a", "link") else "src")
        if link:
            self.links.append(link)

    def has(self, anchor):
        return not anchor or anchor in self.anchors


@pytest.fixture(scope="module")
def parsed():
    """Links and anchors of every page."""
    found = {}
    for page in pages():
        found[page] = _Links()
        found[page].feed((SITE / page).read_text(encoding="utf-8"))
    return found


def test_every_link_inside_the_site_resolves(parsed):
    broken = []
    for page, document in parsed.items():
        for link in document.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = page if not parts.path else _join(page, unquote(parts.path))
            if not (SITE / target).is_file():
                broken.append(f"{page}: {link}")
            elif target in parsed and not parsed[target].has(unquote(parts.fragment)):
                broken.append(f"{page}: {link} (no such anchor)")
    assert broken == []


def test_pages_name_no_script_style_or_image_of_another_host():
    pattern = re.compile(
        r"""<(?:script|img|iframe|source)[^>]*\ssrc=["'](?:https?:)?//|<link[^>]*rel=["'](?:stylesheet|preload|icon)["'][^>]*href=["'](?:https?:)?//"""
    )
    named = {page: pattern.findall((SITE / page).read_text(encoding="utf-8")) for page in pages()}
    assert {page: found for page, found in named.items() if found} == {}


def _join(page, path):
    parts = []
    for part in (PurePosixPath(page).parent / path).parts:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
