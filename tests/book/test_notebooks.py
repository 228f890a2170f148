"""Running a notebook in a kernel of its own."""

import nbformat
import notebooks
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


@pytest.fixture
def path(tmp_path):
    """A notebook that prints what its surroundings are."""
    code = "import os, pathlib\nprint(os.environ['GREETING'], pathlib.Path.cwd().name)"
    cells = [new_markdown_cell("# T"), new_code_cell(code), new_code_cell("x = 2")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "chapter.ipynb")
    return tmp_path / "chapter.ipynb"


def test_it_runs_where_it_lies_with_the_environment_given_and_reports_each_code_cell(path):
    seen = []
    notebook = notebooks.read(path)
    done = notebooks.run(notebook, path.parent, {"GREETING": "hello"}, lambda: seen.append(1))
    assert done is notebook
    assert len(done.cells) == 3
    assert done.cells[1].outputs[0].text == f"hello {path.parent.name}\n"
    assert len(seen) == 2


def test_a_question_is_answered_by_the_kernel_that_ran_the_notebook(path, monkeypatch):
    monkeypatch.setenv("GREETING", "hello")
    assert notebooks.ask_after(path, "print(x + 1, os.environ['BNCORE_FACE'])") == "3 text\n"


def test_what_it_read_comes_back_with_it(path):
    (path.parent / "data.txt").write_text("1", encoding="utf-8")
    notebook = notebooks.read(path)
    notebook.cells.append(new_code_cell("open('data.txt').close()"))
    nbformat.write(notebook, path)
    done, seen = notebooks.run_observed(path, path.parent, {"GREETING": "hello"})
    assert len(done.cells) == 4
    assert list(seen["files"]) == ["data.txt"]
    assert {"os", "json", "IPython"} <= set(seen["modules"])


@pytest.mark.parametrize(
    "path", sorted((notebooks.ROOT / "book").rglob("*.ipynb")), ids=lambda p: p.stem
)
def test_what_a_chapter_prints_fits_a_phone(path):
    """Tables in Markdown scroll by themselves; a printed line holds 42 characters there."""
    printed = [
        line
        for cell in notebooks.read(path).cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream"
        for line in output.text.splitlines()
    ]
    assert [line for line in printed if len(line) > 42] == []
