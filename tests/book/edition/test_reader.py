"""The reader's copy follows the book, and what a reader changed is left alone."""

import nbformat
import pytest
from edition.reader import Copy
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_markdown_cell, new_notebook


def book(**texts):
    return {
        f"wing/{name}.ipynb": new_notebook(cells=[new_markdown_cell(text, id="a")])
        for name, text in texts.items()
    }


def words(folder, name):
    return nbformat.read(folder / f"wing/{name}.ipynb", as_version=4).cells[0].source


def change(folder, name, text):
    path = folder / f"wing/{name}.ipynb"
    path.write_text(nbformat.writes(book(x=text)["wing/x.ipynb"]), encoding="utf-8")


def test_what_nobody_changed_follows_the_book(tmp_path):
    assert Copy(tmp_path).take(book(a="one", b="two")) == []
    assert Copy(tmp_path).take(book(a="three", b="two", c="new")) == []
    assert [words(tmp_path, name) for name in "abc"] == ["three", "two", "new"]


@pytest.mark.parametrize("later", [{"a": "two"}, {"a": "one"}, {}])
def test_what_a_reader_changed_is_kept_and_named(tmp_path, later):
    Copy(tmp_path).take(book(a="one"))
    change(tmp_path, "a", "mine")
    for _ in range(2):
        assert Copy(tmp_path).take(book(**later)) == ["wing/a.ipynb"]
        assert words(tmp_path, "a") == "mine"


def test_a_file_that_was_there_before_is_kept(tmp_path):
    (tmp_path / "wing").mkdir()
    change(tmp_path, "a", "mine")
    assert Copy(tmp_path).take(book(a="one")) == ["wing/a.ipynb"]
    assert words(tmp_path, "a") == "mine"


def test_what_a_reader_took_away_comes_back_and_what_the_book_gave_up_goes(tmp_path):
    Copy(tmp_path).take(book(a="one", b="two"))
    (tmp_path / "wing/a.ipynb").unlink()
    assert Copy(tmp_path).take(book(a="one")) == []
    assert words(tmp_path, "a") == "one"
    assert not (tmp_path / "wing/b.ipynb").exists()


def test_a_lost_record_costs_nothing_where_nothing_changed(tmp_path):
    Copy(tmp_path).take(book(a="one"))
    (tmp_path / ".derived.json").unlink()
    assert Copy(tmp_path).take(book(a="one")) == []
    assert Copy(tmp_path).take(book(a="two")) == []
    assert words(tmp_path, "a") == "two"


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from("ab"), st.text("xyz", max_size=2)), max_size=8
    )
)
def test_no_word_of_a_reader_is_ever_lost(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("copy")
    mine, state = {}, dict.fromkeys("ab", "")
    Copy(folder).take(book(**state))
    for by_reader, name, text in steps:
        if by_reader:
            change(folder, name, f"mine {text}")
            mine[name] = f"mine {text}"
        else:
            state[name] = text
            Copy(folder).take(book(**state))
        for each in "ab":
            assert words(folder, each) == mine.get(each, words(folder, each))
