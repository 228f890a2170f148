"""Every chapter, and every page under one, keeps to its budgets."""

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

CHAPTERS = [f"book/{chapter.removeprefix('front/')}.html" for chapter in titles()]

SCREEN = {"width": 390, "height": 844}

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
def test_a_chapter_is_within_its_budgets(page, look):
    found = measured(page, look)
    over = {
        name: f"{found[name]:.1f} of {limit}"
        for name, limit in LIMITS.items()
        if found[name] > limit
    }
    assert over == {}


@pytest.mark.parametrize(
    ("screen", "screens"), [(DESKTOP, 1), (PHONE, 4)], ids=["desktop", "phone"]
)
def test_the_front_page_ends_on_its_last_screen(visit, screen, screens):
    tab = visit("book/intro.html", screen)
    assert tab.evaluate(END) <= screens * screen["height"]
