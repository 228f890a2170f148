import importlib.util
from pathlib import Path

import pytest
from docutils import nodes

SOURCE = Path(__file__).parents[2] / "book" / "_ext" / "repairs.py"


@pytest.fixture(scope="module")
def repairs():
    spec = importlib.util.spec_from_file_location("repairs", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("after", "kept"),
    [(". Next", "."), (", and", ","), ("), so", "),"), ("’s mean", "’s"), (" is", ""), ("", "")],
)
def test_punctuation_stays_with_the_formula_before_it(repairs, after, kept):
    formula = nodes.math("x", "x")
    line = nodes.paragraph("", "", nodes.Text("Take "), formula, nodes.Text(after))
    repairs._keep_punctuation_with_its_formula(None, line, "page")
    assert line.astext() == f"Take x{after}"
    together = [node.astext() for node in line.findall(nodes.inline)]
    assert together == ([f"x{kept}"] if kept else [])


def test_a_formula_without_text_behind_it_is_left_alone(repairs):
    line = nodes.paragraph("", "", nodes.math("x", "x"))
    repairs._keep_punctuation_with_its_formula(None, line, "page")
    assert [type(node) for node in line.children] == [nodes.math]


def test_a_fold_of_the_sidebar_is_named_after_its_page(repairs):
    drawn = (
        '<li><a href="a.html">A</a><details open="open"><summary><i></i></summary></details></li>'
    )
    context = {"generate_toctree_html": lambda kind: drawn}
    repairs._name_the_folds_of_the_sidebar(None, "page", "page.html", context, None)
    named = '<summary aria-label="Pages below A"><i>'
    assert context["generate_toctree_html"]("sidebar") == drawn.replace("<summary><i>", named)
    repairs._name_the_folds_of_the_sidebar(None, "page", "page.html", {}, None)
