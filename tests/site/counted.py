"""What of a page counts against its budgets, taken from the built HTML.

Words are what a reader reads as prose: no code, no printed output, no controls. A formula is one word.
"""

import ast
import copy
import re

from bs4 import BeautifulSoup
from source import columns, lines

FOLDS = "details.bn-fold, details.sd-dropdown"
"""What a reader opens to read on; inputs that are hidden are not among them: code is not counted in words."""

_NO_PROSE = (
    "script, style, svg, img, pre, .headerlink, .bn-controls, .bn-frame, .cell_input, .bn-source, "
    ".bn-ledger, .bn-rows, details.hide"
)
_APART = ("#exercises", "#claims", "#where-it-comes-from")
_TASKS = ".exercise, .solution"
_BESIDE_THE_ANSWER = re.compile(r"\s*(What to know first|Reading time)\b")
_TRUTH = re.compile(r"\b(True|False)\b")


def article(html):
    """The text of a page, parsed."""
    return BeautifulSoup(html, "html.parser").select_one("article")


def words(element):
    """How many words of prose an element holds."""
    element = copy.copy(element)
    for part in element.select(_NO_PROSE):
        part.decompose()
    for formula in element.select(".math"):
        formula.replace_with("formula")
    text = element.get_text("\0", strip=False)
    text = re.sub(r"\0(?=[.,;:!?)\]’”…s-])|(?<=[(\[“‘-])\0", "", text)
    return sum(any(c.isalnum() for c in word) for word in text.replace("\0", " ").split())


def in_short(page):
    """Words of the answer in *In short*: the question, what to know first and the reading time aside."""
    section = page.select_one("#in-short")
    if section is None:
        return 0
    section = copy.copy(section)
    section.select_one("h2").decompose()
    first = section.select_one("p")
    if first and first.strong and first.get_text().strip() == first.strong.get_text().strip():
        first.decompose()
    for line in section.select("p"):
        if _BESIDE_THE_ANSWER.match(line.get_text()):
            line.decompose()
    for figure in section.select(".cell, figure"):
        figure.decompose()
    return words(section)


def main_line(page):
    """Words outside folds, exercises, claims and sources."""
    page = copy.copy(page)
    for part in page.select(", ".join((FOLDS, *_APART, _TASKS))):
        part.decompose()
    return words(page)


def folded(page):
    """Words inside folds, exercises, claims and sources aside."""
    page = copy.copy(page)
    for part in page.select(", ".join((*_APART, _TASKS))):
        part.decompose()
    outermost = [fold for fold in page.select(FOLDS) if not fold.find_parent(_is_fold)]
    return sum(map(words, outermost))


def code(page):
    """The code of every cell and of everything that is shown from its source, hidden inputs included."""
    blocks = page.select(".cell_input pre, .bn-source pre")
    return [block.get_text().strip("\n") for block in blocks]


def length(text):
    """Lines of code that are not empty; a docstring, the caption of a figure, is none."""
    kept = dict(enumerate(text.splitlines(), 1))
    try:
        tree = ast.parse(text)
    except SyntaxError:  # a magic, or a part of a function
        tree = ast.Module([], [])
    for node in ast.walk(tree):
        held = getattr(node, "body", None)
        first = held[0] if isinstance(held, list) and held else None
        if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
            for number in range(first.lineno, first.end_lineno + 1):
                kept.pop(number, None)
    return lines("\n".join(kept.values()))


def longest(page):
    """Lines of the longest code."""
    return max(map(length, code(page)), default=0)


def widest(page):
    """Columns of the widest line of code."""
    return max(map(columns, code(page)), default=0)


def truths(page):
    """Printed lines that say `True` or `False`."""
    printed = [
        line for block in page.select(".cell_output pre") for line in block.get_text().splitlines()
    ]
    return sum(bool(_TRUTH.search(line)) for line in printed)


def _is_fold(tag):
    classes = tag.get("class") or []
    return tag.name == "details" and ("bn-fold" in classes or "sd-dropdown" in classes)
