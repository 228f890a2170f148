"""`make lab` opens a copy of the book that follows it, without running a chapter."""

import lab
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = lab.ROOT


@pytest.fixture
def tree(tmp_path):
    """A small book with the book's own configuration, and one chapter that cannot run."""
    for name in ("book/_ext", "book/_static", "book/_templates", "_config.yml"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(ROOT / name)
    contents = "format: jb-book\nroot: book/intro\nchapters:\n- file: book/wing/chapter\n"
    (tmp_path / "_toc.yml").write_text(contents, encoding="utf-8")
    (tmp_path / "book" / "references.bib").write_text("", encoding="utf-8")
    (tmp_path / "book" / "intro.md").write_text("# Intro\n", encoding="utf-8")
    (tmp_path / "book" / "wing").mkdir()
    return tmp_path


def write(tree, text):
    cells = [new_markdown_cell(text, id="a"), new_code_cell("1 / 0", id="b")]
    nbformat.write(new_notebook(cells=cells), tree / "book/wing/chapter.ipynb")


def test_the_copy_follows_the_book_until_the_reader_changes_it(tree, capfd):
    folder = tree / "notebooks"
    chapter = folder / "wing" / "chapter.ipynb"
    write(tree, "# Chapter\n\n```{note}\nOne.\n```")
    assert lab.main(folder, tree) == 0
    assert "1 notebooks" not in capfd.readouterr().out
    cells = nbformat.read(chapter, as_version=4).cells
    assert [cell.source for cell in cells] == ["# Chapter\n\n> **Note**\n>\n> One.", "1 / 0"]

    mine = chapter.read_text(encoding="utf-8").replace("1 / 0", "1 / 2")
    chapter.write_text(mine, encoding="utf-8")
    write(tree, "# Chapter\n\nTwo.")
    assert lab.main(folder, tree) == 0
    assert "left as they are" in (said := capfd.readouterr().out)
    assert "wing/chapter.ipynb" in said
    assert chapter.read_text(encoding="utf-8") == mine

    chapter.rename(chapter.with_name("mine.ipynb"))
    assert lab.main(folder, tree) == 0
    assert nbformat.read(chapter, as_version=4).cells[0].source == "# Chapter\n\nTwo."
    assert "left as" not in capfd.readouterr().out


def test_a_book_that_cannot_be_read_leaves_the_copy_alone(tree, capfd):
    write(tree, "# Chapter\n\n{nope}`x`")
    assert lab.main(tree / "notebooks", tree) == 1
    assert not (tree / "notebooks").exists()
    assert "book/wing/chapter.ipynb, cell 0, line 3" in "".join(capfd.readouterr())
