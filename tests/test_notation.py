"""The page on notation: a letter has one meaning within a wing, or stands in the table of those that have two."""

import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).resolve().parents[1] / "book"
TEXT = (BOOK / "notation.md").read_text(encoding="utf-8")
WING = {
    "The transform": "Mechanics",
    "Statistics for inference": "Mechanics",
    "Data and gradient descent": "Mechanics",
    "Explanations": "Explanations",
    "Convergence": "Convergence",
}


def sections():
    parts = re.split(r"^## (.*)\n", TEXT, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(section):
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [re.split(r" +\| *", line.strip("| ")) for line in lines[1:]]


def symbols(cell):
    return [s for formula in re.findall(r"\$([^$]+)\$", cell) for s in formula.split(",\\ ")]


SHARED = rows(sections()["Symbols with two meanings"])


def test_a_symbol_stands_once_in_a_wing_or_among_those_with_two_meanings():
    found = {wing: Counter() for wing in WING.values()}
    for name, wing in WING.items():
        found[wing].update(s for row in rows(sections()[name]) for s in symbols(row[0]))
    assert all(found.values())
    twice = {(w, s) for w, counts in found.items() for s, count in counts.items() if count > 1}
    assert twice <= {(row[0], symbols(row[1])[0]) for row in SHARED}


@pytest.mark.parametrize("row", SHARED, ids=lambda row: f"{row[0]} {row[1]}")
def test_a_symbol_with_two_meanings_stands_in_both_chapters(row):
    wing, symbol, *meanings = row
    assert len(meanings) == 2
    letter = re.compile(rf"{re.escape(symbols(symbol)[0])}(?![a-zA-Z])")
    for meaning in meanings:
        chapters = re.findall(r"\]\(([\w/]+)\.ipynb\)", meaning)
        assert chapters, meaning
        for chapter in chapters:
            assert chapter.startswith(f"{wing.lower()}/")
            cells = nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4).cells
            text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
            assert any(letter.search(math) for math in re.findall(r"\$+([^$]+)\$+", text)), chapter


def test_sections_that_other_pages_may_link_to_are_those_of_the_test():
    assert [*WING, "Symbols with two meanings", "Shapes", "Colours"] == list(sections())
