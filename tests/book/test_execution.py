"""The execution cache: a chapter runs again when its code, its bncore or its dependencies change."""

import os
import subprocess
import sys
from pathlib import Path

import execution
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]

FILES = {
    "__init__.py": "",
    "used.py": "from bncore.indirect import number\n\n\ndef answer():\n    return number\n",
    "indirect.py": "number = 41\n",
    "unused.py": "other = 1\n",
    "table.csv": "1,2\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package named bncore that shadows the installed one in the kernels."""
    folder = tmp_path / "bncore"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return folder


@pytest.fixture
def chapter(tmp_path):
    """A chapter that prints what the package answers."""
    path = tmp_path / "chapter.ipynb"
    code = new_code_cell("from bncore.used import answer\nprint(answer())")
    metadata = {"language_info": {"name": "python"}}
    cells = [new_markdown_cell("# Title"), code]
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


def store(tmp_path, package):
    return execution.Store(tmp_path / "executed", package)


def printed(store, path):
    return store.with_outputs("chapter", path).cells[1].outputs[0].text


@pytest.fixture
def executed(tmp_path, package, chapter):
    """The folder of a store in which the chapter has run."""
    store(tmp_path, package).execute("chapter", chapter)
    return tmp_path


def test_a_chapter_that_never_ran_is_not_fresh(tmp_path, package, chapter):
    assert not store(tmp_path, package).is_fresh("chapter", chapter)


def test_nothing_changed_nothing_runs(executed, package, chapter):
    fresh = store(executed, package)
    assert fresh.is_fresh("chapter", chapter)
    assert printed(fresh, chapter) == "41\n"


@pytest.mark.parametrize("name", ["used.py", "indirect.py", "__init__.py"])
def test_one_line_of_an_imported_module_makes_it_stale(executed, package, chapter, name):
    with (package / name).open("a") as file:
        file.write("# a line\n")
    assert not store(executed, package).is_fresh("chapter", chapter)


def test_running_again_shows_the_new_number(executed, package, chapter):
    (package / "indirect.py").write_text("number = 42\n")
    again = store(executed, package)
    again.execute("chapter", chapter)
    assert again.is_fresh("chapter", chapter)
    assert printed(again, chapter) == "42\n"


def test_a_module_that_it_does_not_import_leaves_it_fresh(executed, package, chapter):
    (package / "unused.py").write_text("other = 2\n")
    assert store(executed, package).is_fresh("chapter", chapter)


@pytest.mark.parametrize("name", ["new.py", "table.csv"])
def test_a_new_module_and_changed_data_make_it_stale(executed, package, chapter, name):
    (package / name).write_text("3,4\n")
    assert not store(executed, package).is_fresh("chapter", chapter)


def test_another_version_of_a_dependency_makes_it_stale(executed, package, chapter, monkeypatch):
    versions = execution._versions()
    monkeypatch.setattr(execution, "_versions", lambda: [*versions, "numpy==99.0"])
    assert not store(executed, package).is_fresh("chapter", chapter)


def test_code_makes_it_stale_and_prose_does_not(executed, package, chapter):
    notebook = nbformat.read(chapter, as_version=4)
    notebook.cells[0].source = "# Another title"
    nbformat.write(notebook, chapter)
    unchanged = store(executed, package)
    assert unchanged.is_fresh("chapter", chapter)
    assert unchanged.with_outputs("chapter", chapter).cells[0].source == "# Another title"
    notebook.cells[1].source += "\n"
    notebook.cells[1].source += "print(1)"
    nbformat.write(notebook, chapter)
    assert not store(executed, package).is_fresh("chapter", chapter)


def test_a_run_that_broke_off_leaves_nothing_to_reuse(executed, package, chapter):
    (package / "used.py").write_text("raise RuntimeError('broken')\n")
    with pytest.raises(execution.CellExecutionError, match="broken"):
        store(executed, package).execute("chapter", chapter)
    assert not store(executed, package).is_fresh("chapter", chapter)


SPHINX = """
extensions = ["myst_nb", "execution"]
html_theme = "basic"
nb_execution_mode = "off"
"""


def test_the_site_shows_the_new_number_and_rests_when_nothing_changed(
    tmp_path, package, chapter, monkeypatch
):
    """Through Sphinx: build, build again, change one line of the package, build again."""
    source = tmp_path / "source"
    source.mkdir()
    chapter.rename(source / "chapter.ipynb")
    (source / "index.md").write_text("# Root\n\n```{toctree}\nchapter\n```\n")
    (source / "conf.py").write_text(SPHINX)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT / "book" / "_ext")]))

    def build():
        command = [sys.executable, "-m", "sphinx", "-W", str(source), str(tmp_path / "html")]
        command += [f"-Dexecution_store={tmp_path / 'executed'}", f"-Dexecution_package={package}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done, (tmp_path / "html" / "chapter.html").read_text()

    first, page = build()
    assert "executing chapters" in first.stderr
    assert "<pre>41\n</pre>" in page.replace("<span></span>", "")

    second, _ = build()
    assert "executing chapters" not in second.stderr
    assert "0 added, 0 changed, 0 removed" in second.stdout or "no targets" in second.stdout

    (package / "indirect.py").write_text("number = 42\n")
    third, page = build()
    assert "executing chapters" in third.stderr
    assert "<pre>42\n</pre>" in page.replace("<span></span>", "")
