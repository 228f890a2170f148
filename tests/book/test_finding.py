"""What pages say of themselves to search engines, and the map of the site."""

import re

import pytest
from docutils import nodes
from docutils.utils import new_document
from finding import LENGTH, card, description, site_map, tags
from missing import root

from bncore.page import explore, static_face, style

SITE = "https://some-one.github.io/the-book/"


def page(*paragraphs, section="in-short"):
    document = new_document("page")
    document += nodes.paragraph(text="Not this.")
    part = nodes.section("", nodes.title(text="In short"), ids=[section])
    for parts in paragraphs:
        part += nodes.paragraph("", "", *parts)
    document += part
    return document


def words(text):
    return nodes.Text(text)


def test_a_description_is_the_first_whole_sentences_of_in_short():
    document = page([words("Why? ")], [words("Because it is\nso. "), words("Long. " * 40)])
    said = description(document)
    assert said.startswith("Why? Because it is so. Long.")
    assert LENGTH - 6 < len(said) <= LENGTH
    assert said.endswith(".")


def test_a_sentence_with_a_formula_is_left_out():
    document = page([words("Let "), nodes.math("x", "x"), words(" be. One. In short. Two.")])
    assert description(document) == "One. Two."
    assert document.astext().count("x") == 1


def test_without_in_short_the_page_speaks_and_one_long_sentence_is_cut_at_a_word():
    assert description(page([words("This.")], section="other")) == "Not this. This."
    said = description(page([words("word " * 60 + "end.")]))
    assert re.fullmatch(r"(word )*word…", said)
    assert len(said) <= LENGTH
    assert description(new_document("empty")) == ""


@pytest.mark.parametrize("site", ["", SITE])
def test_a_card_needs_the_address_and_a_description_does_not(site):
    head = tags('A "title"', "Said < so.", site, "book/a.html", "_frames/book/a/card.png", "<Dots>")
    assert '<meta name="description" content="Said &lt; so." />' in head
    assert ('property="og:title" content="A &quot;title&quot;"' in head) == bool(site)
    assert re.findall(r'og:(?:url|image)" content="([^"]*)"', head) == (
        [f"{SITE}book/a.html", f"{SITE}_frames/book/a/card.png"] if site else []
    )


def test_a_card_shows_the_first_figure_of_its_page(tmp_path):
    def first(a=0):
        """The caption."""
        return style.axes()[0]

    def second(a=0):
        """The caption."""
        return style.axes()[0]

    url = "../../_frames/book/wing/page"
    figures = [
        static_face.html(explore(alt=f'The {f.__name__} & "only".', a=[0, 1])(f), tmp_path, url)
        for f in (first, second)
    ]
    body = f"<p>Words.</p>{''.join(figures)}"
    assert card(body) == ("_frames/book/wing/page/card.png", 'The first & "only".')
    picture, words = card("<p>Words.</p>")
    assert picture == "_static/screenshot.png"
    assert words


def test_the_map_names_each_page_by_its_address():
    text = site_map(SITE, ["b.html", "a&b.html"])
    assert re.findall("<loc>(.*?)</loc>", text) == [f"{SITE}a&amp;b.html", f"{SITE}b.html"]


@pytest.mark.parametrize(
    ("site", "path"), [("", "/"), (SITE, "/the-book/"), ("https://some-one.github.io/", "/")]
)
def test_the_page_for_what_is_missing_links_from_the_root_of_the_site(site, path):
    assert root(site) == path
