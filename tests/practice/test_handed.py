"""What a batch hands on is what stands in it, and nothing else is taken for labels."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bncore.practice import handed

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
        ([[X, X[:2]], Y], ([X, X[:2]],), {}),
        (X.numpy(), (X,), {}),
        ((X.numpy(), Y), (X,), {}),
        ([X.numpy(), Y], (X,), {}),
        (X.tolist(), (X,), {}),
        ((X.tolist(), Y), (X,), {}),
        (list(map(tuple, X.tolist())), (X,), {}),
        ((Y, X), (Y,), {}),
    ],
)
@pytest.mark.parametrize("model", [MODEL, nn.Identity()])
def test_inputs_are_what_stands_first(batch, positional, keywords, model):
    found = handed.arguments(batch, model, 0)
    torch.testing.assert_close(found, (positional, keywords), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [torch.Tensor.tolist, torch.Tensor.numpy])
def test_numbers_take_the_precision_of_the_model_and_tensors_keep_theirs(kind, dtype):
    model = nn.Linear(3, 2, dtype=dtype)
    for x in (X, Y):
        ((found,), _) = handed.arguments((kind(x), Y), model, 0)
        torch.testing.assert_close(found, x.to(dtype), rtol=0, atol=0)
        ((found,), _) = handed.arguments((x, Y), model, 0)
        assert found is x


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
        (
            "x",
            r"batches\[7\] is a str, expected a tensor, an array, a list of tensors or of numbers",
        ),
        (True, r"batches\[7\] is a bool"),
        (({3}, Y), r"batches\[7\]\[0\] is a set"),
        (([], Y), r"batches\[7\]\[0\] is a list"),
        (([X, 3], Y), r"batches\[7\]\[0\] is a list"),
        ((), r"batches\[7\] is a tuple"),
    ],
)
def test_what_is_no_input_is_named_with_its_place(batch, said):
    with pytest.raises(TypeError, match=said):
        handed.arguments(batch, MODEL, 7)


def test_tensors_are_found_in_what_models_return():
    from dataclasses import dataclass

    @dataclass
    class Output:
        scores: torch.Tensor
        aside: object = None

    a, b, c = torch.zeros(1), torch.zeros(2), torch.zeros(3)
    found = handed.leaves({"x": a, "y": [b, (Output(c), 3, None)]})
    assert [one.shape for one in found] == [a.shape, b.shape, c.shape]
    assert handed.leaves(Output) == []


def test_what_the_model_raises_names_the_batch():
    with pytest.raises(RuntimeError) as caught:
        handed.apply(MODEL, ((X[:, :2],), {}), 5, "someone")
    assert caught.value.__notes__ == ["someone applied the model to batch 5, of shape (4, 2)"]
    torch.testing.assert_close(handed.apply(MODEL, ((), {"input": X}), 5, "someone"), MODEL(X))
