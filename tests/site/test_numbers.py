"""Chapters are numbered through the book, and what is stated in them and on their pages by chapter."""

import re

import pytest
from built import SITE, pages

from bncore.chapters.contents import PAGES, TITLES

CHAPTERS = [chapter for chapter in TITLES if not chapter.startswith("front/")]
CAPTION = r'<span class="caption-number">(\w+) ([\d.]+) </span>'


def html(chapter):
    return (SITE / "book" / f"{chapter}.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_statements_and_exercises_are_numbered_by_chapter_each_in_one_sequence(chapter):
    number = CHAPTERS.index(chapter) + 1
    found = re.findall(CAPTION, "".join(map(html, (chapter, *PAGES.get(chapter, ())))))
    exercises = [n for kind, n in found if kind == "Exercise"]
    statements = [n for kind, n in found if kind != "Exercise"]
    assert exercises == [f"{number}.{place}" for place, _ in enumerate(exercises, 1)]
    assert statements == [f"{number}.{place}" for place, _ in enumerate(statements, 1)]


def test_titles_begin_with_the_number_in_headings_and_in_the_sidebar():
    sidebar = re.findall(r"(\d+) ([^<\n]+)</a>", html(CHAPTERS[0]).split('id="main-content"')[0])
    numbered = [(str(place), TITLES[chapter]) for place, chapter in enumerate(CHAPTERS, 1)]
    assert sidebar == numbered
    for chapter, (number, title) in zip(CHAPTERS, numbered, strict=True):
        heading = f'<h1><span class="section-number">{number} </span>{title}<'
        assert heading in html(chapter)


def test_pages_outside_the_wings_have_no_number():
    outside = [page for page in pages("book/**/*.html") if page[5:-5] not in CHAPTERS]
    assert len(outside) >= 4
    for page in outside:
        assert "section-number" not in (SITE / page).read_text("utf-8").split("<h1>")[1][:40], page
