"""The repository's address: where it comes from, and what the pages do with and without it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from address import commit, repository_address, site_address
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path):
    """A git working tree without a remote."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


def add_remote(tree, url):
    subprocess.run(["git", "-C", str(tree), "remote", "add", "origin", url], check=True)


def test_the_environment_decides(tree):
    add_remote(tree, "https://github.com/from/remote.git")
    assert repository_address({"GITHUB_REPOSITORY": "a/b"}, tree) == "https://github.com/a/b"
    assert repository_address({"GITHUB_REPOSITORY": ""}, tree) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/some-one/the.book.git",
        "https://github.com/some-one/the.book",
        "https://token@github.com/some-one/the.book/",
        "git@github.com:some-one/the.book.git",
        "ssh://git@github.com/some-one/the.book.git",
    ],
)
def test_the_remote_is_asked_otherwise(tree, url):
    add_remote(tree, url)
    assert repository_address({}, tree) == "https://github.com/some-one/the.book"


def test_no_address_is_made_up(tree, tmp_path_factory):
    assert repository_address({}, tree) is None
    assert repository_address({}, tmp_path_factory.mktemp("no-git")) is None
    add_remote(tree, "https://example.org/some-one/the-book.git")
    assert repository_address({}, tree) is None


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("https://github.com/some-one/the-book", "https://some-one.github.io/the-book/"),
        ("https://github.com/Some-One/The.Book", "https://some-one.github.io/The.Book/"),
        ("https://github.com/Some-One/some-one.github.io", "https://some-one.github.io/"),
    ],
)
def test_the_site_is_where_github_pages_shows_it(address, site):
    assert site_address(address) == site


def test_the_commit_comes_from_the_environment_or_from_git(tree, tmp_path_factory):
    assert commit({"GITHUB_SHA": "c0ffee"}, tree) == "c0ffee"
    assert commit({}, tree) is None
    assert commit({}, tmp_path_factory.mktemp("no-git")) is None
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    made = ["git", "-C", str(tree), *author, "commit", "--quiet", "--allow-empty", "-m", "x"]
    subprocess.run(made, check=True)
    head = ["git", "-C", str(tree), "rev-parse", "HEAD"]
    assert commit({}, tree) == subprocess.check_output(head, encoding="utf-8").strip()


@pytest.mark.parametrize("repository", ["some-one/the-book", ""])
def test_pages_link_to_the_repository_only_where_it_is_known(tmp_path, repository):
    """Build a small book with the book's own configuration, and look."""
    for name in ("book/_ext", "book/_static", "book/_templates", "_config.yml", "requirements.txt"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(ROOT / name)
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nchapters:\n- file: book/chapter\n",
        encoding="utf-8",
    )
    (tmp_path / "book" / "references.bib").write_text("", encoding="utf-8")
    (tmp_path / "book" / "intro.md").write_text("# Intro\n", encoding="utf-8")
    cells = [new_markdown_cell("# Chapter\n\n{doc}`intro`"), new_code_cell("print(1)")]
    metadata = {
        "language_info": {"name": "python"},
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    }
    nbformat.write(new_notebook(cells=cells, metadata=metadata), tmp_path / "book/chapter.ipynb")
    environment = {**os.environ, "GITHUB_REPOSITORY": repository, "GITHUB_SHA": "c0ffee"}
    command = [Path(sys.executable).parent / "jupyter-book", "build", str(tmp_path), "-W"]
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

    page = (tmp_path / "_build/html/book/chapter.html").read_text(encoding="utf-8")
    links = set(re.findall(r'href="(https://[^"]*)"', page))
    edition = nbformat.read(tmp_path / "_build/edition/book/chapter.ipynb", as_version=4)
    assert edition == nbformat.read(tmp_path / "_build/html/_sources/book/chapter.ipynb", 4)
    binder = tmp_path / "_build/edition/.binder/postBuild"
    if repository:
        site = f"https://github.com/{repository}"
        assert {
            site,
            f"{site}/edit/main/book/chapter.ipynb",
            f"https://mybinder.org/v2/gh/{repository}/launch?urlpath=lab/tree/book/chapter.ipynb",
            f"https://colab.research.google.com/github/{repository}/blob/launch/book/chapter.ipynb",
        } <= links
        assert "initThebe" in page
        assert f"git+{site}@c0ffee" in edition.cells[1].source
        assert f"git+{site}@c0ffee" in binder.read_text(encoding="utf-8")
        assert (
            '<link rel="canonical" href="https://some-one.github.io/the-book/book/chapter.html"'
            in page
        )
        assert 'property="og:image" content="https://some-one.github.io/the-book/_static/' in page
        places = (tmp_path / "_build/html/sitemap.xml").read_text(encoding="utf-8")
        assert "<loc>https://some-one.github.io/the-book/book/chapter.html</loc>" in places
        missing = (tmp_path / "_build/html/404.html").read_text(encoding="utf-8")
        assert '<base href="/the-book/" />' in missing
        assert "](https://some-one.github.io/the-book/book/intro.html)" in edition.cells[0].source
    else:
        assert not any(re.search("github|binder|colab", link) for link in links)
        assert "launch-buttons" not in page
        assert [cell.source for cell in edition.cells] == ["# Chapter\n\nIntro", "print(1)"]
        assert not binder.parent.exists()
        assert "canonical" not in page
        assert "og:" not in page
        assert not (tmp_path / "_build/html/sitemap.xml").exists()
