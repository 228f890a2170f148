"""What a batch hands on is what stands in it, and nothing else is taken for labels."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bncore.practice.diagnosis import handed

X, Y = torch.arange(12.0).reshape(4, 3), torch.arange(4)
MODEL = nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("batch", "positional", "keywords"),
    [
        (X, (X,), {}),
        ((X, Y), (X,), {}),
        ([X], (X,), {}),
        ({"x": X}, (), {"x": X}),
        (({"x": X, "n": 3}, Y), (), {"x": X, "n": 3}),
        (([X, X[:2]], Y), ([X, X[:2]],), {}),
    ],
)
@pytest.mark.parametrize("model", [MODEL, nn.Identity()])
def test_inputs_are_what_stands_first(batch, positional, keywords, model):
    found = handed.arguments(batch, model, 0)
    torch.testing.assert_close(found, (positional, keywords), rtol=0, atol=0)


def test_inputs_go_where_the_model_is():
    there = nn.Linear(3, 2, device="meta")
    ((one, other),), keywords = handed.arguments(([X, X], Y), there, 0)
    assert (one.device.type, other.device.type, keywords) == ("meta", "meta", {})
    _, keywords = handed.arguments({"x": X, "deep": {"y": Y}, "n": 3}, there, 0)
    assert keywords["x"].is_meta
    assert keywords["deep"]["y"].is_meta
    assert keywords["n"] == 3


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ((X, Y), True),
        ([X, Y, 3], True),
        ({"x": X, "labels": Y}, True),
        (X, False),
        ((X,), False),
        ((X, X), False),
        ((X, Y[:, None]), False),
        ((X, Y.float()), False),
        ({"x": X}, False),
        ((X, [0, 1, 2, 3]), False),
    ],
)
def test_labels_are_whole_numbers_one_for_each_example(batch, found):
    assert handed.labels(batch) is (Y if found else None)


@given(st.integers(1, 9), st.integers(1, 5))
def test_examples_are_counted(n, m):
    x = torch.zeros(n, m)
    assert handed.examples(((x,), {})) == n
    assert handed.examples(((), {"scale": torch.tensor(2.0), "x": x})) == n
    assert handed.examples((([x] * m,), {})) == m
    assert handed.examples(((), {"n": 3})) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_enough(value):
    bad = X.clone()
    bad[1, 2] = value
    assert handed.finite(((X,), {"y": Y}))
    assert not handed.finite(((X,), {"deep": [bad]}))
    assert handed.finite(None)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (3, "batch 7 of batches is a int, expected a tensor, a list of tensors, or a dict"),
        ((3, Y), "the first entry of batch 7 of batches is a int"),
        (([], Y), "the first entry of batch 7 of batches is a list"),
        (([X, 3], Y), "the first entry of batch 7 of batches is a list"),
        ((), "batch 7 of batches is a tuple"),
    ],
)
def test_what_is_no_input_is_named_with_its_place(batch, said):
    with pytest.raises(TypeError, match=said):
        handed.arguments(batch, MODEL, 7)
