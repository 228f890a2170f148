"""Exercises say where they can be run."""

from types import SimpleNamespace

import pytest
import running
from docutils import nodes
from docutils.utils import new_document


@pytest.fixture
def page():
    """A page with a section on exercises, and one on something else."""
    document = new_document("page")
    for name in ("exercises", "claims"):
        document += nodes.section(
            "", nodes.title(text=name), nodes.paragraph(text="One."), ids=[name]
        )
    return document


def said(page, path, monkeypatch, address):
    monkeypatch.setattr(running, "repository_address", lambda root: address)
    env = SimpleNamespace(doc2path=lambda docname: path)
    running._say_where(SimpleNamespace(env=env, srcdir="."), page, path.split(".")[0])
    return [section.astext().split("\n\n") for section in page.findall(nodes.section)]


def test_without_an_address_the_command_is_named(page, monkeypatch):
    exercises, claims = said(page, "book/a/b.ipynb", monkeypatch, None)
    assert len(exercises) == 3
    assert "make lab" in exercises[1]
    assert claims == ["claims", "One."]
    assert not list(page.findall(nodes.reference))


def test_with_an_address_buttons_open_the_edition(page, monkeypatch):
    said(page, "book/a/b.ipynb", monkeypatch, "https://github.com/some-one/the-book")
    assert [link["refuri"] for link in page.findall(nodes.reference)] == [
        "https://colab.research.google.com/github/some-one/the-book/blob/launch/book/a/b.ipynb",
        "https://mybinder.org/v2/gh/some-one/the-book/launch?urlpath=lab/tree/book/a/b.ipynb",
    ]


def test_what_is_no_notebook_says_nothing(page, monkeypatch):
    assert said(page, "book/a/b.md", monkeypatch, None)[0] == ["exercises", "One."]
