"""The execution cache: a chapter runs again when its code, or what it reads, changes; else it rests."""

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
    "rows/first.csv": "1\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package named bncore that shadows the installed one in the kernels."""
    folder = tmp_path / "bncore"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return folder


def write(path, *code):
    cells = [new_markdown_cell("# Title"), *map(new_code_cell, code)]
    metadata = {"language_info": {"name": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


@pytest.fixture
def chapter(tmp_path):
    """A chapter that prints what the package answers."""
    return write(tmp_path / "chapter.ipynb", "from bncore.used import answer\nprint(answer())")


def store(tmp_path, package):
    return execution.Store(tmp_path / "_build/executed", package.parent)


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
    with (package / name).open("a", encoding="utf-8") as file:
        file.write("# a line\n")
    assert not store(executed, package).is_fresh("chapter", chapter)


def test_running_again_shows_the_new_number(executed, package, chapter):
    (package / "indirect.py").write_text("number = 42\n", encoding="utf-8")
    again = store(executed, package)
    again.execute("chapter", chapter)
    assert again.is_fresh("chapter", chapter)
    assert printed(again, chapter) == "42\n"


def test_a_module_that_it_does_not_import_leaves_it_fresh(executed, package, chapter):
    (package / "unused.py").write_text("other = 2\n", encoding="utf-8")
    assert store(executed, package).is_fresh("chapter", chapter)


@pytest.mark.parametrize("name", ["new.py", "table.csv", "sub/new.py", "../chapter2.ipynb"])
def test_what_it_does_not_read_leaves_it_fresh(executed, package, chapter, name):
    (package / name).parent.mkdir(exist_ok=True)
    (package / name).write_text("3,4\n", encoding="utf-8")
    assert store(executed, package).is_fresh("chapter", chapter)


READERS = {
    "open": "print(open('bncore/table.csv', encoding='utf-8').read())",
    "pathlib": "from pathlib import Path\nprint(Path('bncore/table.csv').read_bytes())",
    "numpy": "import numpy as np\nprint(np.loadtxt('bncore/table.csv', delimiter=','))",
    "resources": "from importlib.resources import files\n"
    "print(files('bncore').joinpath('table.csv').read_text(encoding='utf-8'))",
    "failed": "import os\ntry:\n    os.open('bncore/table2.csv', os.O_RDONLY)\n"
    "except FileNotFoundError:\n    print('none')\nopen('bncore/table.csv').close()",
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("change", ["changed", "gone"])
def test_data_that_it_opens_makes_it_stale(tmp_path, package, reader, change):
    path = write(tmp_path / "chapter.ipynb", READERS[reader])
    store(tmp_path, package).execute("chapter", path)
    assert store(tmp_path, package).is_fresh("chapter", path)
    if change == "changed":
        (package / "table.csv").write_text("3,4\n", encoding="utf-8")
    else:
        (package / "table.csv").unlink()
    assert not store(tmp_path, package).is_fresh("chapter", path)


def test_a_file_that_it_looked_for_and_that_came_later_makes_it_stale(tmp_path, package):
    path = write(tmp_path / "chapter.ipynb", READERS["failed"])
    store(tmp_path, package).execute("chapter", path)
    (package / "table2.csv").write_text("", encoding="utf-8")
    assert not store(tmp_path, package).is_fresh("chapter", path)


def test_what_it_writes_is_nothing_that_it_reads(tmp_path, package):
    path = write(tmp_path / "chapter.ipynb", "open('bncore/table.csv', 'w').write('5')")
    store(tmp_path, package).execute("chapter", path)
    (package / "table.csv").write_text("6", encoding="utf-8")
    assert store(tmp_path, package).is_fresh("chapter", path)


@pytest.mark.parametrize(
    "lists",
    [
        "import os; os.listdir('bncore/rows')",
        "import os; list(os.scandir('bncore/rows'))",
        "import pathlib; list(pathlib.Path('bncore/rows').iterdir())",
    ],
)
def test_a_folder_that_it_lists_counts_by_its_names(tmp_path, package, lists):
    path = write(tmp_path / "chapter.ipynb", lists)
    store(tmp_path, package).execute("chapter", path)
    (package / "rows" / "first.csv").write_text("2", encoding="utf-8")
    (package / "rows" / ".hidden").write_text("", encoding="utf-8")
    assert store(tmp_path, package).is_fresh("chapter", path)
    (package / "rows" / "second.csv").write_text("", encoding="utf-8")
    assert not store(tmp_path, package).is_fresh("chapter", path)


def test_the_key_belongs_to_what_was_run_and_not_to_what_came_meanwhile(tmp_path, package):
    edit = "from pathlib import Path\nPath('bncore/indirect.py').write_text('number = 43')"
    path = write(tmp_path / "chapter.ipynb", "import bncore.used", edit)
    store(tmp_path, package).execute("chapter", path)
    assert not store(tmp_path, package).is_fresh("chapter", path)


def test_another_version_of_an_imported_dependency_makes_it_stale(
    executed, package, chapter, monkeypatch
):
    version = execution.importlib.metadata.version
    changed = []
    monkeypatch.setattr(
        execution.importlib.metadata,
        "version",
        lambda name: "99.0" if name in changed else version(name),
    )
    changed.append("torch")
    assert store(executed, package).is_fresh("chapter", chapter)
    changed.append("ipykernel")
    assert not store(executed, package).is_fresh("chapter", chapter)


def test_another_python_makes_it_stale(executed, package, chapter, monkeypatch):
    monkeypatch.setattr(execution.sys, "version", "3.99.0")
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
    (package / "used.py").write_text("raise RuntimeError('broken')\n", encoding="utf-8")
    with pytest.raises(execution.CellExecutionError, match="broken"):
        store(executed, package).execute("chapter", chapter)
    assert not store(executed, package).is_fresh("chapter", chapter)


def test_a_run_that_broke_off_takes_the_run_before_with_it(executed, package, chapter):
    """Its frames are gone, so mending the code must not bring the old record back to life."""
    before = (package / "used.py").read_text(encoding="utf-8")
    (package / "used.py").write_text("raise RuntimeError('broken')\n", encoding="utf-8")
    with pytest.raises(execution.CellExecutionError, match="broken"):
        store(executed, package).execute("chapter", chapter)
    (package / "used.py").write_text(before, encoding="utf-8")
    assert not store(executed, package).is_fresh("chapter", chapter)


@pytest.mark.parametrize("part", ["notebook", "record", "frames"])
def test_nothing_is_reused_once_a_part_is_gone(executed, package, chapter, part):
    kept = store(executed, package)
    path = getattr(kept, part)("chapter")
    path.rmdir() if part == "frames" else path.unlink()
    assert not kept.is_fresh("chapter", chapter)


def test_a_record_cut_off_in_the_middle_is_no_record(executed, package, chapter):
    kept = store(executed, package)
    text = kept.record("chapter").read_text(encoding="utf-8")
    kept.record("chapter").write_text(text[: len(text) // 2], encoding="utf-8")
    assert not kept.is_fresh("chapter", chapter)


def test_a_record_of_another_kind_is_no_record(executed, package, chapter):
    """As an older version of the build left it."""
    kept = store(executed, package)
    kept.record("chapter").write_text('{"imported": [], "key": "0"}', encoding="utf-8")
    assert not kept.is_fresh("chapter", chapter)
    assert kept.key("chapter", chapter) is None


def test_a_package_from_elsewhere_is_refused(tmp_path, package, chapter):
    """Its changes would go unseen."""
    elsewhere = execution.Store(tmp_path / "_build/executed", tmp_path / "other")
    with pytest.raises(RuntimeError, match=r"expected it below .*other: install it"):
        elsewhere.execute("chapter", chapter)
    assert not elsewhere.is_fresh("chapter", chapter)


def test_the_kernel_keeps_what_observes_it_out_of_the_chapter(tmp_path, package):
    path = write(tmp_path / "chapter.ipynb", "print(sorted(n for n in dir() if n[0] != '_'))", "1")
    kept = store(tmp_path, package)
    kept.execute("chapter", path)
    cells = nbformat.read(kept.notebook("chapter"), as_version=4).cells
    assert cells[1].outputs[0].text == "['In', 'Out', 'exit', 'get_ipython', 'open', 'quit']\n"
    assert [cell.execution_count for cell in cells[1:]] == [1, 2]


SPHINX = """
extensions = ["myst_nb", "execution"]
html_theme = "basic"
nb_execution_mode = "off"
"""


@pytest.fixture
def site(tmp_path, package, chapter, monkeypatch):
    """Build a small site with Sphinx: what it said, and the page of a chapter."""
    source = tmp_path / "source"
    source.mkdir()
    chapter.rename(source / "chapter.ipynb")
    write(source / "other.ipynb", "print(sorted(__import__('os').listdir('../bncore')))")
    toctree = "# Root\n\n```{toctree}\nchapter\nother\n```\n"
    (source / "index.md").write_text(toctree, encoding="utf-8")
    (source / "conf.py").write_text(SPHINX, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT / "book" / "_ext")]))

    def build(name="chapter", *options, html="html"):
        command = [sys.executable, "-m", "sphinx", "-W", str(source), str(tmp_path / html)]
        command += ["-d", str(tmp_path / "doctrees"), *options]
        command += [f"-Dexecution_store={tmp_path / '_build/executed'}"]
        command += [f"-Dexecution_root={tmp_path}"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        page = (tmp_path / html / f"{name}.html").read_text(encoding="utf-8")
        return done, page.replace("<span></span>", "")

    return build


def test_the_site_shows_the_new_number_and_rests_when_nothing_changed(site, package):
    """Through Sphinx: build, build again, change one line of the package, build again."""
    first, page = site()
    assert "executing chapters" in first.stderr
    assert "<pre>41\n</pre>" in page

    second, _ = site()
    assert "executing chapters" not in second.stderr
    assert "0 added, 0 changed, 0 removed" in second.stdout or "no targets" in second.stdout

    (package / "indirect.py").write_text("number = 42\n", encoding="utf-8")
    third, page = site()
    assert "executing chapters" in third.stderr
    assert "<pre>42\n</pre>" in page


def test_a_build_interrupted_between_running_and_reading_is_made_good(
    site, tmp_path, package, monkeypatch
):
    site()
    (package / "indirect.py").write_text("number = 42\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    store(tmp_path, package).execute("chapter", tmp_path / "source/chapter.ipynb")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT / "book" / "_ext")]))
    done, page = site()
    assert "executing chapters" not in done.stderr
    assert "<pre>42\n</pre>" in page


def test_one_chapter_alone_leaves_the_others_as_they_stand(site, tmp_path):
    """The others are read without their outputs, and by the next whole build with them."""
    alone, page = site("chapter", "-Dexecution_only=chapter", html="alone")
    assert "<pre>41\n</pre>" in page
    assert not (tmp_path / "_build/executed/other.ipynb").exists()
    assert "1/1" in alone.stderr
    _, page = site("other")
    assert "indirect.py" in page
