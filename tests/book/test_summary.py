"""The reference of the package: a page a part, with an example that runs and a table of all that it describes."""

import doctest
import importlib
import re
from pathlib import Path

import pytest
from summary import described, first_sentence, members

from bncore.mechanics import transform
from bncore.page import exercises

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "book/api").glob("*.md"))


def text(page):
    return page.read_text(encoding="utf-8")


def example(page):
    """The example on top of a page."""
    return re.match(r"# .*\n\n.*\n\n```pycon\n(.*?)```\n", text(page), re.DOTALL)[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_begins_with_an_example_that_runs(page, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    test = doctest.DocTestParser().get_doctest(example(page), {}, page.name, str(page), 0)
    found = []
    doctest.DocTestRunner(verbose=False).run(test, out=found.append)
    assert found == []
    code = [line for line in example(page).splitlines() if line.startswith((">>>", "..."))]
    assert 4 <= len(code) <= 10
    assert max(map(len, example(page).splitlines())) <= 64


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_describes_modules_of_its_part(page):
    names = [name for name, _ in described(text(page))]
    assert names
    assert len(set(names)) == len(names) == text(page).count("automodule::")
    for name in names:
        assert name.startswith(f"bncore.{page.stem}.")
        importlib.import_module(name)


def test_every_page_is_in_the_table_of_contents_and_in_the_index():
    contents, index = text(ROOT / "_toc.yml"), text(ROOT / "book/api.md")
    assert re.findall(r"file: book/api/(\w+)$", contents, re.M) == re.findall(
        r"^\| \[.*?\]\(api/(\w+)\.md\)", index, re.M
    )
    assert {page.stem for page in PAGES} == set(re.findall(r"\(api/(\w+)\.md\)", index))


def test_what_is_described_is_what_autodoc_takes():
    page = ".. automodule:: bncore.a\n   :members:\n.. automodule:: bncore.b\n   :members: X, y\n"
    assert described(page) == [("bncore.a", []), ("bncore.b", ["X", "y"])]
    assert list(members(exercises, ["Exercise", "check"])) == ["Exercise", "check"]
    found = members(transform)
    assert {"forward", "backward", "Gradients"} <= set(found)
    assert not {"np", "annotations"} & set(found)
    assert not [name for name in found if name.startswith("_")]


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("One.", "One."),
        ("One two. Three.", "One two."),
        ("One\n    two, e.g. this. Three.\n\n    Four.", "One two, e.g. this."),
        ("(B - 2) / (B - 3): a rate", "(B - 2) / (B - 3): a rate"),
    ],
)
def test_a_summary_is_the_first_sentence(docstring, sentence):
    assert first_sentence(docstring) == sentence
