"""The page that goes through the sources: no statement of theirs is without an answer."""

import re
from html.parser import HTMLParser

import pytest
from built import SITE

from bncore.chapters.statements import read

PAGE = "book/coverage.html"
STATEMENTS = read()


class Items(HTMLParser):
    """The items of the lists inside folds: their words, and where their links lead."""

    def __init__(self):
        super().__init__()
        self.folds, self.items, self.inside = 0, [], False

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.folds += tag == "details" and "bn-fold" in found.get("class", "")
        if tag == "li" and self.folds:
            self.items.append(["", []])
            self.inside = True
        if tag == "a" and self.inside:
            self.items[-1][1].append(found["href"])

    def handle_data(self, data):
        if self.inside:
            self.items[-1][0] += data

    def handle_endtag(self, tag):
        self.folds -= tag == "details" and self.folds > 0
        self.inside &= tag != "li"


@pytest.fixture(scope="module")
def items():
    page = Items()
    page.feed((SITE / PAGE).read_text(encoding="utf-8"))
    return page.items


def plain(text):
    """Words alone: of a formula the page shows what MathJax reads, with other marks around it."""
    return re.sub(r"\$.*?\$|\\\(.*?\\\)", "", text)


def by_source():
    order = ("encyclopaedia", "cs682slides", "sharad", "readingnotes", "whatisbn")
    return [one for source in order for one in STATEMENTS if one.source == source]


def test_every_statement_is_there_in_its_order(items):
    expected = by_source()
    assert len(items) == len(expected) == len(STATEMENTS)
    for (words, _), one in zip(items, expected, strict=True):
        letters = [re.sub(r"\W", "", plain(text)) for text in (words, one.text)]
        assert letters[0].startswith(letters[1]), one.text


def test_every_statement_has_a_link_or_a_reason(items):
    for (words, links), one in zip(items, by_source(), strict=True):
        if one.claims:
            assert [link.rpartition("#claim-")[2] for link in links] == list(one.claims)
        elif links:
            assert links == [f"{one.chapter.removeprefix('book/')}.html"]
            assert (SITE / "book" / links[0]).is_file()
        elif one.why:
            assert one.why[:20] in words
        else:
            assert words.endswith("Its chapter is not written yet.")
            assert not (SITE / f"book/{one.chapter}.html").is_file()
