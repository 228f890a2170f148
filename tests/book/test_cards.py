"""Each cell of a table of cards is under the name of its column, but for the first; other tables stay."""

from types import SimpleNamespace

import cards
import pytest
from docutils import nodes

HTML, TEXT = (
    SimpleNamespace(builder=SimpleNamespace(format=name, name=name)) for name in ("html", "text")
)


def row(*words):
    cells = [nodes.entry("", *([nodes.paragraph("", word)] if word else [])) for word in words]
    return nodes.row("", *cells)


def table(*rows, classes):
    head, *rest = rows
    parts = nodes.thead("", row(*head)), nodes.tbody("", *(row(*words) for words in rest))
    return nodes.table("", nodes.tgroup("", *parts), classes=classes)


def cells(tree):
    return [[entry.astext().split("\n\n") for entry in one] for one in tree.findall(nodes.row)]


def test_cells_of_a_card_are_named():
    tree = table("abc", ("1", "2", ""), ("4", "5", "6"), classes=["bn-cards"])
    cards._name_cells(HTML, tree, "page")
    expected = [[["a"], ["b"], ["c"]], [["1"], ["b", "2"], ["c"]], [["4"], ["b", "5"], ["c", "6"]]]
    assert cells(tree) == expected
    named = [
        node.astext() for node in tree.findall(nodes.paragraph) if "bn-column" in node["classes"]
    ]
    assert named == ["b", "c", "b", "c"]


@pytest.mark.parametrize(("app", "classes"), [(HTML, []), (TEXT, ["bn-cards"])])
def test_other_tables_and_other_builders_have_none(app, classes):
    tree = table("ab", "12", classes=classes)
    cards._name_cells(app, tree, "page")
    assert cells(tree) == [[["a"], ["b"]], [["1"], ["2"]]]
