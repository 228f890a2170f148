"""A chapter keeps to its budgets, or stands by name in the list of those that do not yet.

The list, `over_budget.toml`, may only be true: who is within a budget leaves it.
"""

import tomllib
from pathlib import Path

import counted
import pytest
from built import DESKTOP, FOLD_AGAIN, PHONE, SITE, UNFOLD

from bncore.chapters.contents import titles

LIMITS = {
    "words in short": 120,
    "words": 2200,
    "words folded": 2200,
    "screens": 22,
    "lines of code": 15,
    "columns of code": 64,
    "printed truths": 0,
}
"""Words outside folds, exercises, claims and sources; screens of the article, as it opens, on a phone."""

CHAPTERS = {f"book/{chapter.removeprefix('front/')}.html": chapter for chapter in titles()}

SCREEN = {"width": 390, "height": 844}

OVER = tomllib.loads(Path(__file__).with_name("over_budget.toml").read_text(encoding="utf-8"))

END = "() => document.querySelector('article').getBoundingClientRect().bottom + window.scrollY"

HEIGHT = "() => document.querySelector('article').getBoundingClientRect().height"


def measured(page, look):
    """What a page takes of each budget."""
    article = counted.article((SITE / page).read_text(encoding="utf-8"))
    tab = look(page, PHONE, "dark")
    tab.evaluate(FOLD_AGAIN)
    tab.set_viewport_size(SCREEN)
    height = tab.evaluate(HEIGHT)
    tab.set_viewport_size(PHONE)
    tab.evaluate(UNFOLD)
    return {
        "words in short": counted.in_short(article),
        "words": counted.main_line(article),
        "words folded": counted.folded(article),
        "screens": height / SCREEN["height"],
        "lines of code": counted.longest(article),
        "columns of code": counted.widest(article),
        "printed truths": counted.truths(article),
    }


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_is_within_its_budgets_or_in_the_list_of_those_that_are_over(page, look):
    chapter, found = CHAPTERS[page], measured(page, look)
    listed = OVER.get(chapter, [])
    over = {name: found[name] for name in LIMITS if found[name] > LIMITS[name]}
    new = {name: f"{over[name]:.0f} of {LIMITS[name]}" for name in over if name not in listed}
    kept = {name: f"{found[name]:.0f} of {LIMITS[name]}" for name in listed if name not in over}
    assert new == {}, "over a budget: shorten it"
    assert kept == {}, "within a budget: take it from over_budget.toml"


def test_the_list_names_chapters_and_budgets_that_there_are():
    assert set(OVER) <= set(titles())
    for chapter, names in OVER.items():
        assert names, chapter
        assert len(set(names)) == len(names), chapter
        assert set(names) <= set(LIMITS), chapter


@pytest.mark.parametrize(
    ("screen", "screens"), [(DESKTOP, 1), (PHONE, 4)], ids=["desktop", "phone"]
)
def test_the_front_page_ends_on_its_last_screen(visit, screen, screens):
    tab = visit("book/intro.html", screen)
    assert tab.evaluate(END) <= screens * screen["height"]
