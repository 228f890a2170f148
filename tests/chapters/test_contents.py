"""Chapters and the pages under them."""

import pytest

from bncore.chapters.contents import PAGES, TITLES, chapter_of, titles

UNDER = [(page, chapter) for chapter, pages in PAGES.items() for page in pages]


def test_every_chapter_is_followed_by_its_pages():
    found = list(titles())
    assert [name for name in found if name in TITLES] == list(TITLES)
    for chapter, pages in PAGES.items():
        start = found.index(chapter) + 1
        assert found[start : start + len(pages)] == list(pages)
    assert len(found) == len(TITLES) + len(UNDER)


def test_titles_are_those_of_chapters_and_pages():
    assert {name: titles()[name] for name in TITLES} == TITLES
    assert {page: titles()[page] for page, _ in UNDER} == {
        page: title for pages in PAGES.values() for page, title in pages.items()
    }


@pytest.mark.parametrize(("page", "chapter"), UNDER)
def test_a_page_belongs_to_its_chapter(page, chapter):
    assert chapter_of(page) == chapter


@pytest.mark.parametrize("name", [*TITLES, "mechanics/backwards", ""])
def test_what_is_no_page_belongs_to_itself(name):
    assert chapter_of(name) == name
