"""How the book is found: titles, descriptions and cards of its pages, a map of the site, and what a search shows first.

Cards, canonical addresses and the map need the site's own address; where that is unknown there are none.
"""

import re
from html import escape, unescape
from pathlib import Path

from address import repository_address, site_address
from docutils import nodes

SCORER = Path(__file__).parents[1] / "_static" / "scorer.js"
CARD = "_static/screenshot.png"
LENGTH = 160
"""Of a description, in characters: search engines show no more."""

_FIGURE = re.compile(
    r'data-frames="[./]*(?P<folder>[^"]+)/[^"/]+".*?aria-label="(?P<alt>[^"]+)"', re.DOTALL
)
_FORMULA = "\ufffc"
_INTRODUCTION = "In short."


def description(doctree, length=LENGTH):
    """The first sentences of *In short*, or else of the page, without formulas."""
    sections = (s for s in doctree.findall(nodes.section) if "in-short" in s["ids"])
    said, start = "", next(sections, doctree)
    for sentence in _sentences(start):
        if _FORMULA in sentence or sentence == _INTRODUCTION:
            continue
        longer = f"{said} {sentence}".strip()
        if len(longer) > length:
            return said or f"{longer[: length - 1].rpartition(' ')[0]}…"
        said = longer
    return said


def _sentences(section):
    for paragraph in section.findall(nodes.paragraph):
        plain = paragraph.deepcopy()
        for formula in list(plain.findall(nodes.math)):
            formula.replace_self(nodes.Text(_FORMULA))
        yield from re.split(r"(?<=[.?!:])\s+", " ".join(plain.astext().split()))


def card(body):
    """The picture of a page's card and what it shows: its first figure, or else a page of the book."""
    if figure := _FIGURE.search(body):
        return f"{figure['folder']}/card.png", unescape(figure["alt"])
    return CARD, "A page of the book, with a figure that moves"


def tags(title, said, site, file, picture, alt):
    """The head of a page in HTML, without what needs the address of the site if that is None."""
    found = {"name": {"description": said}, "property": {}}
    if site:
        found["property"] = {
            "og:type": "article",
            "og:title": title,
            "og:description": said,
            "og:url": f"{site}{file}",
            "og:image": f"{site}{picture}",
            "og:image:alt": alt,
        }
        found["name"]["twitter:card"] = "summary_large_image"
    return "".join(
        f'\n<meta {kind}="{name}" content="{escape(content)}" />'
        for kind, named in found.items()
        for name, content in named.items()
    )


def site_map(site, files):
    """The map of the site for search engines, in XML."""
    places = "".join(f"<url><loc>{escape(site + file)}</loc></url>\n" for file in sorted(files))
    namespace = "http://www.sitemaps.org/schemas/sitemap/0.9"
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="{namespace}">\n{places}</urlset>\n'
    )


def _site(app):
    address = repository_address(root=app.srcdir)
    return site_address(address) if address else ""


def _configure(app, config):
    config.html_baseurl = _site(app)
    config.html_search_scorer = str(SCORER)


def _leave_numbers_to_headings(app, env):
    """The number of a chapter would stand as markup in what a search finds, and keep a title from being known again."""
    for docname, title in env.longtitles.items():
        plain = title.deepcopy()
        plain.attributes.pop("secnumber", None)
        env.longtitles[docname] = plain


def _describe(app, pagename, templatename, context, doctree):
    if doctree is not None:
        title = re.sub("<[^>]+>", "", context["title"])
        file = app.builder.get_target_uri(pagename)
        own = tags(
            title, description(doctree), app.config.html_baseurl, file, *card(context["body"])
        )
        context["metatags"] = context.get("metatags", "") + own


def _map(app, exception):
    if not exception and app.builder.name == "html" and app.config.html_baseurl:
        files = map(app.builder.get_target_uri, app.env.found_docs)
        text = site_map(app.config.html_baseurl, files)
        Path(app.outdir, "sitemap.xml").write_text(text, encoding="utf-8")


def setup(app):
    app.connect("config-inited", _configure)
    app.connect("env-updated", _leave_numbers_to_headings)
    app.connect("html-page-context", _describe)
    app.connect("build-finished", _map)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
