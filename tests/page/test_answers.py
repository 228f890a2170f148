"""Answers are compared in words, and values are shown to a reader."""

from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.page.answers import difference, identical, shown
from bncore.page.exercises import arguments

Pair = namedtuple("Pair", ["mean", "var"])
values = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-5, 5),
        st.floats(-5, 5, width=16),
        st.sampled_from(["", "train"]),
        arguments("a b", a=(0, 2), b=(1, 2)).map(lambda drawn: drawn[0]),
        arguments("a", a=(1, 3)).map(lambda drawn: torch.tensor(drawn[0])),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner).map(lambda pair: Pair(*pair)),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    ),
    max_leaves=6,
)


@given(values)
def test_a_value_agrees_with_itself(value):
    assert difference(value, value, 0.0, 0.0) is None
    assert identical(value, value)
    assert shown(value) == shown(value)


@given(arguments("a b", a=(1, 3), b=(1, 3)), st.data())
def test_the_worst_entry_is_found(drawn, data):
    (expected,) = drawn
    at = tuple(data.draw(st.integers(0, n - 1)) for n in expected.shape)
    answer = expected + 1e-12
    answer[at] += 100
    assert difference(expected, answer, 1e-6, 1e-9).endswith(f"off by 1e+02 at index {list(at)}")


def test_cancelled_entries_are_held_to_the_scale_of_their_neighbours():
    expected = np.array([1.0, 0.0])
    assert difference(expected, np.array([1.0, 0.9e-6]), 1e-6, 0.0) is None
    assert difference(expected, np.array([1.0, 1.1e-6]), 1e-6, 0.0) is not None


@pytest.mark.parametrize("kind", [float, lambda number: np.array([0.0, number])])
def test_an_answer_may_be_off_by_both_tolerances_together(kind):
    """Here by 0.5 and by a quarter of 4."""
    assert difference(kind(4.0), kind(5.5), 0.25, 0.5) is None
    assert difference(kind(4.0), kind(5.625), 0.25, 0.5).startswith("the answer is off by 1.6")


@pytest.mark.parametrize(
    ("expected", "answer", "problem"),
    [
        (True, 1, "the answer is an int, expected a bool"),
        (True, np.False_, "the answer is the opposite of what is expected"),
        (1.0, True, "the answer is a bool, expected a number"),
        (1.0, np.ones(1), "the answer is a ndarray, expected a number"),
        (1.0, "1", "the answer is a str, expected a number"),
        (1.0, 2, "the answer is off by 1"),
        (np.nan, 2, "the answer is 2, expected nan"),
        ("train", "eval", "the answer is not what is expected"),
        ("train", 1, "the answer is an int, expected a str"),
        (np.array([1, 2]), np.array([1.0, 2.0]), "the answer has dtype float64, expected int64"),
        (np.array(["a"]), np.array(["b"]), "the answer is not what is expected"),
        (np.array([True, False]), np.array([True, True]), "the answer is off by 1 at index [1]"),
        (torch.ones(1), np.ones(1), "the answer is a ndarray, expected a torch tensor"),
        (np.ones(1), torch.ones(1), "the answer is a Tensor, expected a NumPy array"),
        (
            torch.ones(1),
            torch.ones(1).double(),
            "the answer has dtype torch.float64, expected torch.float32",
        ),
        (torch.ones(2), 2 * torch.ones(2), "the answer is off by 1 at index [0]"),
        ((1, 2), 1, "the answer is an int, expected a tuple of 2 values"),
        ([1, 2], [1], "the answer has 1 values, expected 2"),
        ((1, 2), (1, 3), "value 1 of the answer is off by 1"),
        (Pair(1, 2), (1,), "the answer has 1 values, expected 2 (mean, var)"),
        (Pair(1, 2), (1, None), "var is None: is a `return` missing?"),
        ({"a": 1}, 1, "the answer is an int, expected a dictionary"),
        ({"a": 1}, {}, "the answer has the keys none, expected 'a'"),
        ({"a": 1}, {"a": 2}, "entry 'a' is off by 1"),
    ],
)
def test_a_difference_is_put_in_words(expected, answer, problem):
    assert difference(expected, answer, 1e-6, 1e-9) == problem


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (1, 1.0),
        (1.0, np.float32(1)),
        (1.0, np.array(1.0)),
        (np.array([1, 2]), np.array([1, 2], dtype=np.int32)),
        (np.array([np.nan, np.inf]), np.array([np.nan, np.inf])),
        (Pair(1, 2), (1, 2)),
        (None, None),
        (np.array(["a"]), np.array(["a"])),
    ],
)
def test_forms_that_mean_the_same_agree(expected, answer):
    assert difference(expected, answer, 1e-6, 1e-9) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, 1.0),
        (np.zeros(2), np.zeros((2, 1))),
        (np.ones(2), np.array([1, 1 + 1e-15])),
        ([1, 2], [1]),
        ({"a": 1}, {"a": 2}),
        (SimpleNamespace(x=1), SimpleNamespace(x=2)),
        (0.0, 1.0),
        (torch.zeros(1), torch.ones(1)),
    ],
)
def test_changed_arguments_are_noticed(first, second):
    assert not identical(first, second)
    assert identical(first, first)


def test_nan_and_functions_are_not_changes():
    assert identical([float("nan"), abs], [float("nan"), abs])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1 / 3, "0.3333"),
        (np.float32(0.5), "0.5"),
        (np.int64(3), "3"),
        (np.array([1 / 3, -1e-17, 100.0]), "array([  0.3,   0. , 100. ])"),
        (np.array([1e-7, 2e-7 / 3]), "array([1.00e-07, 6.67e-08])"),
        (np.array([-0.0]), "array([0.])"),
        (np.array([1, 2]), "array([1, 2])"),
        (np.zeros((0, 2)), "an empty array of shape (0, 2)"),
        (torch.tensor([0.5]), "tensor([0.5])"),
        (Pair(1.0, (2,)), "Pair(mean=1, var=(2,))"),
        ([1, "a", None], "[1, 'a', None]"),
        ({"a": 0.25}, "{'a': 0.25}"),
        (np.tanh, "tanh"),
        (object(), "an object"),
        ("a" * 300, "'" + "a" * 199 + "…"),
    ],
)
def test_values_are_shown_rounded_and_without_addresses(value, text):
    assert shown(value) == text
