"""An edition has the notebook's code cells and its folds, and ids that are the same at every build."""

import copy

import nbformat
import pytest
from edition.resolved import CannotDerive

STARTER, ANSWER = ("def f(): ...",), ("def f(): return 1",)
CELLS = [
    "# T\n\n## Exercises\n\n```{exercise-start} Try *it*\n:label: ex-first\n```\nTry.",
    STARTER,
    "```{exercise-end}\n```\n\nA hint.\n\n```{solution-start} ex-first\n:class: dropdown\n```\nSo:",
    ANSWER,
    "Thus.\n```{solution-end}\n```\n\n```{exercise-start} Again\n:label: ex-second\n```",
    STARTER,
    "```{exercise-end}\n```\n```{solution-start} ex-second\n```",
    ANSWER,
    "```{solution-end}\n```\n\n## End",
]


@pytest.fixture
def made(derive):
    return derive(*CELLS)


def test_a_cell_between_two_exercises_is_split_where_a_fold_begins_or_ends(made):
    sources = [cell.source for cell in made.cells]
    assert sources == [
        "# T\n\n## Exercises\n\n### Exercise 1.1: Try *it*\n\nTry.",
        STARTER[0],
        "A hint.",
        "#### Solution to Exercise 1.1",
        "So:",
        ANSWER[0],
        "Thus.",
        "### Exercise 2.1: Again",
        STARTER[0],
        "#### Solution to Exercise 2.1",
        ANSWER[0],
        "## End",
    ]


def test_ids_are_those_of_the_notebook_and_the_same_at_every_build(made, derive):
    ids = [cell.id for cell in made.cells]
    assert ids == [cell.id for cell in derive(*CELLS).cells]
    assert ids[2:6] == ["text-2", "text-2-2", "text-2-3", "code-3"]
    assert len(set(ids)) == len(ids)
    nbformat.validate(made)


def test_a_solution_s_heading_is_folded_for_jupyter_and_for_colab(made):
    folded = [cell for cell in made.cells if cell.metadata.get("jp-MarkdownHeadingCollapsed")]
    assert [cell.source for cell in folded] == [
        "#### Solution to Exercise 1.1",
        "#### Solution to Exercise 2.1",
    ]
    assert [cell.metadata["id"] for cell in folded] == [cell.id for cell in folded]
    assert made.metadata["colab"] == {"collapsed_sections": [cell.id for cell in folded]}


@pytest.mark.parametrize(
    "after",
    ["More words.", ANSWER, "##### Below", ("# no heading, but a comment\nf()",)],
)
def test_what_would_fold_with_a_solution_is_an_error(derive, after):
    last = "```{solution-end}\n```" + (f"\n\n{after}" if isinstance(after, str) else "")
    cells = [*CELLS[:-1], last, *([after] if isinstance(after, tuple) else [])]
    with pytest.raises(CannotDerive, match=r"cell \d+: what follows a solution would fold with it"):
        derive(*cells)


@pytest.mark.parametrize("after", ["## A", "### A", "#### A"])
def test_a_heading_ends_the_fold(derive, after):
    assert derive(*CELLS[:-1], f"```{{solution-end}}\n```\n\n{after}").cells[-1].source == after


def test_a_whole_solution_folds_too(derive):
    cells = derive(
        "# T\n\n```{exercise} A\n:label: ex-first\n\nB\n```\n```{solution} ex-first\nC\n```"
    ).cells
    assert [cell.source for cell in cells] == [
        "# T\n\n## Exercise 1.1: A\n\nB",
        "### Solution to Exercise 1.1",
        "C",
    ]


def test_a_solution_inside_another_directive_is_an_error(derive):
    with pytest.raises(CannotDerive, match=r"cell 1, line 2: .*could not fold"):
        derive(CELLS[0], "````{note}\n```{solution} ex-first\nC\n```\n````")


def test_hidden_inputs_are_folded_and_all_code_is_the_notebook_s(derive):
    source = "x = 1\n# {ref}`x` ```{note}"
    shown, hidden = derive((source,), (source, "hide-input")).cells
    assert shown.source == hidden.source == source
    assert shown.metadata == {"tags": []}
    assert hidden.metadata == {
        "tags": ["hide-input"],
        "jupyter": {"source_hidden": True},
        "cellView": "form",
    }


def test_the_notebook_stays_as_it_is(app):
    from edition.derive import edition
    from edition.resolved import Page

    from .conftest import notebook

    before = notebook(*CELLS, ("1", "hide-input"))
    kept = copy.deepcopy(before)
    edition(before, Page(app, "book/second", lambda *_: None), None)
    assert before == kept
