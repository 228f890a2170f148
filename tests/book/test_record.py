"""`make record`: no edit of a notebook or of its Markdown twin is ever lost."""

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import notebooks
import pytest
import record
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted(
    path for path in (ROOT / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
NAME = "wing/name"


def test_recording_keeps_text_and_drops_the_rest():
    outputs = [
        new_output("stream", text="1\n"),
        new_output(
            "display_data", {"image/png": "aGk=", "text/plain": "Figure"}, metadata={"a": 1}
        ),
        new_output(
            "display_data",
            {"application/vnd.jupyter.widget-view+json": {}, "text/html": "<b>", "text/plain": "W"},
        ),
    ]
    cells = [new_markdown_cell("# T"), new_code_cell("1", outputs=outputs)]
    metadata = {"widgets": {"state": 1}, "kernelspec": {"name": "mine", "display_name": "Mine"}}
    notebook = record.only_text(new_notebook(cells=cells, metadata=metadata))
    stream, figure, widget = notebook.cells[1].outputs
    assert stream.text == "1\n"
    assert figure.data == {"text/plain": "Figure"}
    assert figure.metadata == {}
    assert widget.data == {"text/plain": "W"}
    assert "widgets" not in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"


def test_what_a_slow_cell_prints_in_parts_is_kept_as_one(tmp_path):
    slow = "import time\nfor part in 'ab':\n    print(part, flush=True)\n    time.sleep(0.5)"
    notebook = new_notebook(cells=[new_code_cell(slow)])
    notebooks.run_cells(notebook, tmp_path, {})
    assert [out.text for out in notebook.cells[0].outputs] == ["a\nb\n"]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_committed_chapter_is_as_recording_leaves_it(path):
    committed = nbformat.read(path, as_version=4)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert not code or any(cell.outputs for cell in code), (
        "no recorded output: nbval would compare nothing"
    )
    assert not any(out.output_type == "error" for cell in code for out in cell.outputs)
    assert record.only_text(nbformat.read(path, as_version=4)) == committed
    for mark in ("NBVAL_SKIP", "NBVAL_IGNORE_OUTPUT"):
        assert not any(mark in cell.source for cell in code)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_survives_the_way_through_its_twin(path):
    notebook = nbformat.read(path, as_version=4)
    twin = jupytext.reads(jupytext.writes(notebook, record.MYST), record.MYST)
    said = [[(c.cell_type, c.source, c.metadata) for c in n.cells] for n in (notebook, twin)]
    assert said[0] == said[1]


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """A chapter without a twin; running it prints what its code says, without a kernel."""

    def run(notebook, folder, environment, on_cell=lambda: None):
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [new_output("stream", text=f"ran {cell.source}")]
                cell.execution_count = 1
        return notebook

    monkeypatch.setattr(record, "run", run)
    pair = record.Pair(NAME, tmp_path)
    pair.notebook.parent.mkdir(parents=True)
    cells = [new_markdown_cell("# Title"), new_code_cell("1"), new_markdown_cell("Prosa, β.")]
    nbformat.write(new_notebook(cells=cells), pair.notebook)
    return pair


@pytest.fixture
def recorded(pair):
    """The same chapter, recorded once."""
    assert record.main([NAME], pair.root) == 0
    return pair


def edit_notebook(pair, old, new):
    notebook = nbformat.read(pair.notebook, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace(old, new)
    nbformat.write(notebook, pair.notebook)


def edit_twin(pair, old, new):
    text = pair.twin.read_text(encoding="utf-8")
    assert old in text
    pair.twin.write_text(text.replace(old, new), encoding="utf-8")


def said(pair):
    """The sources of the notebook's cells, which the twin must say too."""
    notebook = nbformat.read(pair.notebook, as_version=4)
    twin = jupytext.reads(pair.twin.read_text(encoding="utf-8"), record.MYST)
    sources = [cell.source for cell in notebook.cells]
    assert sources == [cell.source for cell in twin.cells]
    return sources


def touch(path, seconds):
    """Make a file look that much newer than it is."""
    stat = path.stat()
    os.utime(path, (stat.st_atime + seconds, stat.st_mtime + seconds))


def both(pair):
    return pair.notebook.read_bytes(), pair.twin.read_bytes()


def test_the_first_run_writes_the_twin_and_the_outputs(recorded):
    assert said(recorded) == ["# Title", "1", "Prosa, β."]
    notebook = nbformat.read(recorded.notebook, as_version=4)
    assert notebook.cells[1].outputs[0].text == "ran 1"


def test_recording_twice_changes_nothing(recorded):
    before = both(recorded)
    assert record.main([NAME], recorded.root) == 0
    assert both(recorded) == before


@pytest.mark.parametrize("touched", ["notebook", "twin"])
def test_an_edit_of_the_twin_wins_whatever_was_touched(recorded, touched):
    edit_twin(recorded, "# Title", "# Another")
    touch(getattr(recorded, touched), 1000)
    assert record.main([NAME], recorded.root) == 0
    assert said(recorded)[0] == "# Another"


@pytest.mark.parametrize("touched", ["notebook", "twin"])
def test_an_edit_of_the_notebook_wins_whatever_was_touched(recorded, touched):
    edit_notebook(recorded, "# Title", "# Another")
    touch(getattr(recorded, touched), 1000)
    assert record.main([NAME], recorded.root) == 0
    assert said(recorded)[0] == "# Another"


@pytest.mark.parametrize("touched", ["notebook", "twin"])
def test_touching_changes_nothing(recorded, touched):
    before = both(recorded)
    touch(getattr(recorded, touched), 1000)
    assert record.main([NAME], recorded.root) == 0
    assert both(recorded) == before


def test_two_edits_are_a_conflict_and_both_stay(recorded, capsys):
    edit_twin(recorded, "# Title", "# Twin")
    edit_notebook(recorded, "Prosa", "Verse")
    before = both(recorded)
    for _ in range(2):
        assert record.main([NAME], recorded.root) == 1
        assert both(recorded) == before
    words = capsys.readouterr().err
    for part in ("book/wing/name.ipynb", "text/wing/name.md", "both were edited", "by hand"):
        assert part in words
    assert "Traceback" not in words


def test_a_conflict_ends_when_both_say_the_same(recorded):
    edit_twin(recorded, "# Title", "# Twin")
    edit_notebook(recorded, "Prosa", "Verse")
    edit_twin(recorded, "Prosa", "Verse")
    edit_notebook(recorded, "# Title", "# Twin")
    assert record.main([NAME], recorded.root) == 0
    assert said(recorded) == ["# Twin", "1", "Verse, β."]


@pytest.mark.parametrize("kept", ["twin", "notebook"])
def test_a_conflict_ends_when_one_is_moved_away(recorded, kept):
    edit_twin(recorded, "# Title", "# The twin")
    edit_notebook(recorded, "# Title", "# The notebook")
    getattr(recorded, {"twin": "notebook", "notebook": "twin"}[kept]).unlink()
    assert record.main([NAME], recorded.root) == 0
    assert said(recorded)[0] == f"# The {kept}"


def test_one_conflict_stops_the_recording_of_all_before_anything_ran(recorded, tmp_path):
    other = record.Pair("wing/another", tmp_path)
    nbformat.write(new_notebook(cells=[new_code_cell("2")]), other.notebook)
    edit_twin(recorded, "# Title", "# Twin")
    edit_notebook(recorded, "# Title", "# Notebook")
    before = other.notebook.read_bytes()
    assert record.main([], tmp_path) == 1
    assert other.notebook.read_bytes() == before
    assert not other.twin.exists()


def test_outputs_and_counts_are_no_edit_of_the_notebook(recorded):
    edit_twin(recorded, "# Title", "# Twin")
    notebook = nbformat.read(recorded.notebook, as_version=4)
    notebook.cells[1].outputs = [new_output("stream", text="from JupyterLab")]
    notebook.cells[1].execution_count = 17
    notebook.cells[1].metadata["execution"] = {"iopub.status.idle": "2026-01-01"}
    notebook.metadata["widgets"] = {"state": {}}
    nbformat.write(notebook, recorded.notebook)
    assert record.main([NAME], recorded.root) == 0
    assert said(recorded)[0] == "# Twin"
    assert nbformat.read(recorded.notebook, as_version=4).cells[1].outputs[0].text == "ran 1"


def test_a_tag_is_an_edit(recorded):
    notebook = nbformat.read(recorded.notebook, as_version=4)
    notebook.cells[1].metadata["tags"] = ["hide-input"]
    nbformat.write(notebook, recorded.notebook)
    assert record.main([NAME], recorded.root) == 0
    assert "hide-input" in recorded.twin.read_text(encoding="utf-8")


def test_cells_keep_their_ids_through_an_edit_of_the_twin(recorded):
    before = [cell.id for cell in nbformat.read(recorded.notebook, as_version=4).cells]
    edit_twin(recorded, "Prosa", "Verse")
    assert record.main([NAME], recorded.root) == 0
    assert [cell.id for cell in nbformat.read(recorded.notebook, as_version=4).cells] == before


def test_a_twin_without_a_notebook_is_a_new_chapter(pair):
    pair.twin.parent.mkdir(parents=True)
    pair.twin.write_text("# New\n\n```{code-cell}\n2 + 2\n```\n", encoding="utf-8")
    pair.notebook.unlink()
    assert record.main([NAME], pair.root) == 0
    assert said(pair) == ["# New", "2 + 2"]
    notebook = nbformat.read(pair.notebook, as_version=4)
    assert record.only_text(nbformat.read(pair.notebook, as_version=4)) == notebook


@pytest.mark.parametrize("deleted", ["notebook", "twin"])
def test_what_was_deleted_comes_back_with_the_edits_of_the_other(recorded, deleted):
    (edit_twin if deleted == "notebook" else edit_notebook)(recorded, "# Title", "# Edited")
    getattr(recorded, deleted).unlink()
    assert record.main([NAME], recorded.root) == 0
    assert said(recorded)[0] == "# Edited"


@pytest.mark.parametrize("damage", ["gone", "broken"])
def test_without_knowing_when_they_agreed_only_what_differs_is_a_conflict(recorded, damage, capsys):
    def forget():
        if damage == "gone":
            recorded.agreed.unlink()
        else:
            recorded.agreed.write_bytes(b"\xff---\n[")

    forget()
    assert record.main([NAME], recorded.root) == 0
    forget()
    edit_twin(recorded, "# Title", "# Twin")
    before = both(recorded)
    assert record.main([NAME], recorded.root) == 1
    assert both(recorded) == before
    assert "nothing is known of when they last agreed" in capsys.readouterr().err


BROKEN = {
    "empty": (b"", "empty"),
    "not UTF-8": (b"# Title \xff\n", "utf-8"),
    "header": (b"---\nfoo: [\n---\n\n# Title\n", "cannot be read"),
    "cut off": (b"# Title\n\n```{code-cell}\n1\n", "begins in line 3 does not end"),
    "swallowed": (
        b"# T\n\n```{code-cell}\n1\n\nProse.\n\n```{code-cell}\n2\n```\n",
        "begins in line 3 does not end",
    ),
    "unmerged": (b"<<<<<<< HEAD\n# A\n=======\n# B\n>>>>>>> mine\n", "line 1 is a mark"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("alone", [False, True])
def test_a_broken_twin_stops_in_words_and_stays(recorded, kind, alone, capsys):
    content, words = BROKEN[kind]
    recorded.twin.write_bytes(content)
    if alone:
        recorded.notebook.unlink()
    else:
        kept = recorded.notebook.read_bytes()
    assert record.main([NAME], recorded.root) == 1
    assert recorded.twin.read_bytes() == content
    assert alone != recorded.notebook.exists()
    assert alone or recorded.notebook.read_bytes() == kept
    said = capsys.readouterr().err
    assert "text/wing/name.md cannot be read as a chapter" in said
    assert words in said


@pytest.mark.parametrize("content", ["", "<<<<<<< HEAD\n{}", "[1]", '{"cells": 1}'])
def test_a_broken_notebook_stops_in_words_and_stays(recorded, content, capsys):
    recorded.notebook.write_text(content, encoding="utf-8")
    kept = recorded.twin.read_bytes()
    assert record.main([NAME], recorded.root) == 1
    assert recorded.notebook.read_text(encoding="utf-8") == content
    assert recorded.twin.read_bytes() == kept
    assert "book/wing/name.ipynb is no notebook" in capsys.readouterr().err


def test_fences_of_other_kinds_and_lengths_are_whole(pair):
    pair.twin.parent.mkdir(parents=True)
    text = "# New\n\n````{code-cell}\ns = '''\n```\n'''\n````\n\n~~~{code-cell}\n1\n~~~\n\n```python\nx\n```\n"
    pair.twin.write_text(text, encoding="utf-8")
    pair.notebook.unlink()
    assert record.main([NAME], pair.root) == 0
    assert said(pair)[1:3] == ["s = '''\n```\n'''", "1"]


@pytest.mark.parametrize("name", ["wing/nothing", "../name", ""])
def test_an_unknown_chapter_is_named(pair, name, capsys):
    assert record.main([name], pair.root) == 1
    assert f"There is no chapter {name!r}" in capsys.readouterr().err


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("moment", ["run", "first write", "second write", "third write"])
def test_an_interrupted_recording_loses_nothing(recorded, monkeypatch, moment):
    """Whatever was written when it was interrupted, the next recording ends with the edit."""
    edit_twin(recorded, "# Title", "# Twin")
    with monkeypatch.context() as patch:
        if moment == "run":
            patch.setattr(record, "run", lambda *_: (_ for _ in ()).throw(Interrupted))
        else:
            left = ["first write", "second write", "third write"].index(moment)
            replace, done = os.replace, []

            def interrupted(part, path):
                if len(done) == left:
                    raise Interrupted
                done.append(path)
                replace(part, path)

            patch.setattr(record.os, "replace", interrupted)
        try:
            record.main([NAME], recorded.root)
        except Interrupted:
            pass
        else:
            assert moment == "third write"
    assert "# Twin" in recorded.twin.read_text(encoding="utf-8")
    assert record.main([NAME], recorded.root) == 0
    assert said(recorded) == ["# Twin", "1", "Prosa, β."]


@pytest.mark.parametrize("side", ["twin", "notebook"])
def test_an_edit_while_the_chapter_runs_is_kept(recorded, monkeypatch, side, capsys):
    run = record.run

    def edited(notebook, *arguments):
        (edit_twin if side == "twin" else edit_notebook)(recorded, "Prosa", "Verse")
        return run(notebook, *arguments)

    edit_twin(recorded, "# Title", "# Twin")
    if side == "notebook":
        assert record.main([NAME], recorded.root) == 0
    with monkeypatch.context() as patch:
        patch.setattr(record, "run", edited)
        assert record.main([NAME], recorded.root) == 1
    assert "was edited while it ran" in capsys.readouterr().err
    assert record.main([NAME], recorded.root) == 0
    assert said(recorded) == ["# Twin", "1", "Verse, β."]


def test_a_chapter_that_does_not_run_keeps_notebook_and_edit(tmp_path):
    """With a kernel, from the command line."""
    pair = record.Pair(NAME, tmp_path)
    pair.notebook.parent.mkdir(parents=True)
    nbformat.write(new_notebook(cells=[new_code_cell("print(1)")]), pair.notebook)
    command = "import sys, pathlib, record; sys.exit(record.main([sys.argv[1]], pathlib.Path(sys.argv[2])))"

    def run():
        return subprocess.run(
            [sys.executable, "-c", command, NAME, str(tmp_path)],
            capture_output=True,
            encoding="utf-8",
            cwd=ROOT / "book" / "_ext",
            check=False,
        )

    assert run().returncode == 0
    assert nbformat.read(pair.notebook, as_version=4).cells[0].outputs[0].text == "1\n"
    edit_twin(pair, "print(1)", "print(1 / 0)")
    before = both(pair)
    done = run()
    assert done.returncode == 1
    assert both(pair) == before
    assert "wing/name does not run, its notebook is as it was" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_a_cell_that_hangs_is_said_in_words(tmp_path, monkeypatch, capsys):
    pair = record.Pair(NAME, tmp_path)
    pair.notebook.parent.mkdir(parents=True)
    cells = [new_code_cell("import time; time.sleep(60)")]
    nbformat.write(new_notebook(cells=cells), pair.notebook)
    before = pair.notebook.read_bytes()
    monkeypatch.setattr(notebooks, "TIMEOUT", 1)
    assert record.main([NAME], tmp_path) == 1
    assert pair.notebook.read_bytes() == before
    assert "timed out" in capsys.readouterr().err


def test_whether_the_twin_is_ahead(recorded):
    assert not recorded.twin_is_ahead()
    edit_notebook(recorded, "# Title", "# Another")
    assert not recorded.twin_is_ahead()
    edit_twin(recorded, "# Title", "# Twin")
    assert recorded.twin_is_ahead()
    recorded.twin.unlink()
    assert not recorded.twin_is_ahead()


def test_pages_outside_the_wings_lie_in_the_book_itself(tmp_path):
    assert record.Pair("front/start", tmp_path).notebook == tmp_path / "book" / "start.ipynb"
    assert record.Pair("claims", tmp_path).twin == tmp_path / "text" / "claims.md"
