"""The build derives the edition of every notebook, or says what has none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from edition import links

from .conftest import notebook

SITE = "https://some-one.github.io/the-book/"
ADDRESS = "https://github.com/some-one/the-book"


def targets(editions, docname):
    return "\n".join(cell.source for cell in editions[docname].cells)


def test_every_notebook_has_an_edition(whole):
    assert list(whole()) == ["book/second", "book/wing/first"]


def test_without_an_address_notebooks_link_to_each_other_and_install_nothing(app, whole, root):
    follow = links.to_neighbours(app)
    assert follow("book/wing/first", "book/second.html", "thm-second") == "../second.ipynb"
    assert follow("book/second", "book/wing/first.html", "") == "wing/first.ipynb"
    assert follow("book/second", "book/second.html", "thm-second") is None
    assert follow("book/second", "book/intro.html", "") is None
    assert not any("pip" in cell.source for made in whole().values() for cell in made.cells)
    assert "![A dot](data:image/png;base64,iVBO" in targets(whole(), "book/second")


def test_with_an_address_links_lead_to_the_site_and_pictures_to_the_commit(whole):
    made = whole(ADDRESS, "c0ffee")
    assert all("git+https" in edition.cells[1].source for edition in made.values())
    raw = "https://raw.githubusercontent.com/some-one/the-book/c0ffee/book/dot.png"
    assert f"![A dot]({raw})" in targets(made, "book/second")


def test_a_citation_without_a_site_links_to_its_doi_or_stands_in_words(app):
    from edition.resolved import Page

    page = Page(app, "book/second", links.to_neighbours(app))
    assert page.citation("lone") == ("Lone (1990)", "https://doi.org/10.1/x")
    assert page.citation("pair") == ("Lone and Mate (1991)", None)


def test_what_has_no_edition_fails_the_build_with_its_place(root, tmp_path):
    """Warnings are no errors in this build, and Sphinx knows the directive: only the edition does not."""
    small = tmp_path / "small"
    shutil.copytree(root, small, symlinks=True, ignore=shutil.ignore_patterns("_build"))
    lost = notebook("# Second", "a\n\n```{sidebar} B\nC\n```\n")
    nbformat.write(lost, small / "book/second.ipynb")
    nbformat.write(notebook("# First\n\n{abbr}`x (y)` [^n]"), small / "book/wing/first.ipynb")
    done = subprocess.run(
        [Path(sys.executable).parent / "jupyter-book", "build", small],
        env={**os.environ, "GITHUB_REPOSITORY": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode != 0
    assert "book/second.ipynb, cell 1, line 3: directive {sidebar} has no edition" in done.stdout
    assert "book/wing/first.ipynb, cell 0, line 3: footnote [^n]" in done.stdout
