"""The page "Why does it work?" carries no number that a chapter does not."""

import re
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).resolve().parents[4] / "book"
PAGE = nbformat.read(BOOK / "explanations/why.ipynb", as_version=4)
NUMBER = re.compile(r"[−-]?\d+(?:\.\d+)?")
SHARE = re.compile(r"\b(?:a quarter to a third|a half|two fifths|half as much again)\b")


def carried(chapter):
    """What a chapter says, in words and in outputs."""
    cells = nbformat.read(BOOK / chapter, as_version=4).cells
    outputs = [o.get("text", "") for cell in cells for o in cell.get("outputs", ())]
    return "\n".join([*(cell.source for cell in cells if cell.cell_type == "markdown"), *outputs])


def passages():
    """Each row of the table and item of a list that links to a chapter, with the chapter."""
    for cell in PAGE.cells:
        for line in cell.source.splitlines():
            for target in re.findall(r"\]\(([\w./]+\.ipynb)\)", line):
                yield line, (BOOK / "explanations" / target).resolve().relative_to(BOOK)


PASSAGES = [(line, chapter) for line, chapter in passages() if NUMBER.search(line)]


@pytest.mark.parametrize(("line", "chapter"), PASSAGES, ids=[str(c) for _, c in PASSAGES])
def test_each_number_stands_in_the_chapter_that_is_linked(line, chapter):
    text = carried(chapter)
    missing = [
        number
        for number in NUMBER.findall(line)
        if not re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]*\d)", text)
    ]
    assert missing == []


SHARES = [(line, chapter) for line, chapter in passages() if SHARE.search(line)]


@pytest.mark.parametrize(("line", "chapter"), SHARES, ids=[str(c) for _, c in SHARES])
def test_each_share_stands_in_the_chapter_that_is_linked(line, chapter):
    text = carried(chapter).lower()
    assert [share for share in SHARE.findall(line) if share not in text] == []


def test_every_line_with_a_number_names_its_chapter():
    words = [cell.source for cell in PAGE.cells if cell.cell_type == "markdown"]
    lines = [
        line
        for text in words
        for line in text.splitlines()
        if NUMBER.search(line) and not line.startswith("*Reading time*")
    ]
    assert [line for line in lines if not re.search(r"\]\([\w./]+\.ipynb\)", line)] == []
    assert len(PASSAGES) >= 5
    assert [str(chapter) for _, chapter in SHARES] == ["mechanics/forward.ipynb"] * 2
