"""Pages are found: by their titles and descriptions, by the search, and what is not there leads on."""

import re
from collections import Counter

import matplotlib.pyplot as plt
import pytest
from built import DESKTOP, SITE, pages
from tabs import open_tab

from bncore.chapters.contents import titles

BOOK = pages("book/**/*.html")
RESULTS = "() => [...document.querySelectorAll('#search-results li > a')].map(e => e.pathname)"


def head(page):
    return (SITE / page).read_text(encoding="utf-8").split("</head>")[0]


def test_no_title_repeats_itself_and_no_two_pages_have_one():
    titles = [re.search("<title>(.*?)</title>", head(page))[1] for page in BOOK]
    for title in titles:
        own, *book = title.split(" &#8212; ")
        assert book != [own]
        assert not re.match(r"\d", own)
    assert titles[BOOK.index("book/intro.html")] == "Batch Normalization"


def test_every_page_has_a_description_of_its_own():
    found = [re.findall('<meta name="description" content="(.*?)" />', head(page)) for page in BOOK]
    for page, said in zip(BOOK, found, strict=True):
        assert len(said) == 1, page
        assert 20 < len(said[0]) < 260, page
    assert max(Counter(said for [said] in found).values()) == 1


@pytest.mark.parametrize("chapter", titles())
def test_a_page_with_a_figure_has_a_card_of_its_own(chapter):
    page = f"book/{chapter.removeprefix('front/')}"
    if "data-frames=" in (SITE / f"{page}.html").read_text(encoding="utf-8"):
        assert plt.imread(SITE / "_frames" / page / "card.png").shape[:2] == (630, 1200)


@pytest.fixture(scope="module")
def search(chromium, address):
    """A tab that shows what is found."""
    tab = open_tab(chromium, f"{address}/search.html", DESKTOP, "light")

    def ask(words):
        tab.goto(f"{address}/search.html?q={words.replace(' ', '+')}")
        return tab

    yield ask
    tab.context.close()


@pytest.mark.xdist_group("search")
@pytest.mark.parametrize("chapter", titles())
def test_the_search_for_a_title_shows_its_page_first(chapter, search):
    tab = search(titles()[chapter])
    tab.wait_for_selector("#search-results li > a")
    assert tab.evaluate(RESULTS)[0] == f"/book/{chapter.removeprefix('front/')}.html"


@pytest.mark.parametrize("depth", ["", "book/", "book/a/b/c/"])
def test_what_is_not_there_leads_to_the_book_from_any_depth(depth, visit):
    tab = visit(f"{depth}nowhere.html")
    assert tab.title().startswith("Not here")
    for name in ("front page", "ledger", "package"):
        path = tab.get_by_role("link", name=name).evaluate("e => e.pathname")
        assert (SITE / path[1:]).is_file()
    tab.get_by_role("searchbox").fill("epsilon")
    tab.get_by_role("button").click()
    tab.wait_for_url("**/search.html?q=epsilon")
    tab.wait_for_selector("#search-results li > a")


WITH_EXERCISES = [page for page in BOOK if 'id="exercises"' in (SITE / page).read_text("utf-8")]


@pytest.mark.parametrize("page", [page for page in WITH_EXERCISES if "/api/" not in page])
def test_exercises_say_where_they_can_be_run(page):
    html = (SITE / page).read_text(encoding="utf-8")
    said = re.search(
        r'id="exercises">\s*<h2>.*?</h2>\s*<p class="bn-run">(.*?)</p>', html, re.DOTALL
    )
    words = re.sub("<[^>]+>", "", said[1])
    assert "make lab" in words or "colab.research.google.com" in said[1]
