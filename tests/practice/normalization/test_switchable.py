"""Switchable norm: the formula written out, its vertices, its invariances, and its statistics."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from bncore.practice.normalization import Switchable

SEEDS = st.integers(0, 10**6)
SHAPES = st.one_of(
    st.tuples(st.integers(2, 5), st.integers(2, 5)),
    st.tuples(st.integers(2, 4), st.integers(1, 4), st.integers(2, 5)),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(2, 4)),
    st.tuples(*[st.integers(2, 3)] * 5),
)
BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
FAR = 1e4


def drawn(shape, seed, count=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, dtype=torch.float64, generator=generator)


def made(features, seed, eps=0.1):
    layer = Switchable(features, eps).double()
    values = drawn((2 * features + 6,), seed)[0]
    sizes = [features, features, 3, 3]
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values.split(sizes), strict=True):
            parameter.copy_(value)
    return layer


def at_vertex(features, seed, kind):
    layer = made(features, seed)
    with torch.no_grad():
        for logits in (layer.mean_logits, layer.var_logits):
            logits.fill_(-FAR)[kind] = 0
    return layer


def with_gradients(y, leaves, dy):
    return [y, *torch.autograd.grad(y, leaves, dy)]


def columns(vector, x):
    return vector.reshape(-1, *[1] * (x.ndim - 2))


@settings(max_examples=30)
@given(SHAPES, SEEDS)
def test_it_is_the_mixture_written_out(shape, seed):
    layer, (x,) = made(shape[1], seed), drawn(shape, seed + 1)
    sets = [tuple(range(2, x.ndim)), tuple(range(1, x.ndim)), (0, *range(2, x.ndim))]
    first = 1 if x.ndim == 2 else 0
    parts = [layer.mean_logits[first:].exp(), layer.var_logits[first:].exp()]
    mean, var = 0, 0
    for p, q, axes in zip(*parts, sets[first:], strict=True):
        mean = mean + p / parts[0].sum() * x.mean(axes, keepdim=True)
        var = var + q / parts[1].sum() * x.var(axes, correction=0, keepdim=True)
    expected = (x - mean) / (var + 0.1).sqrt() * columns(layer.weight, x) + columns(layer.bias, x)
    bound = 1e-12 * (1 + x.abs().max() ** 2) * (1 + layer.weight.abs().max())
    assert (layer(x) - expected).abs().max() <= bound


@settings(max_examples=30)
@given(SHAPES, SEEDS)
def test_at_a_vertex_it_is_batch_norm_in_training_and_evaluation(shape, seed):
    layer = at_vertex(shape[1], seed, 2)
    norm = BATCH_NORMS[len(shape)](shape[1], eps=0.1).double()
    with torch.no_grad():
        norm.weight.copy_(layer.weight)
        norm.bias.copy_(layer.bias)
    bound = 1e-11 * (1 + layer.weight.abs().max().item())
    for step in range(2):
        x, dy = drawn(shape, seed + step, 2)
        x.requires_grad_()
        ours = with_gradients(layer(x), [x, layer.weight, layer.bias], dy)
        theirs = with_gradients(norm(x), [x, norm.weight, norm.bias], dy)
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=bound)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(layer, name), getattr(norm, name), rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.eval()(x), norm.eval()(x), rtol=1e-11, atol=bound)


@settings(max_examples=30)
@given(SHAPES, SEEDS, st.booleans())
def test_at_a_vertex_it_is_layer_or_instance_norm(shape, seed, training):
    x, dy = drawn(shape, seed, 2)
    x.requires_grad_()
    for kind, groups in ((1, 1), (0, shape[1])):
        if kind == 0 and len(shape) == 2:
            continue
        layer = at_vertex(shape[1], seed, kind).train(training)
        ours = with_gradients(layer(x), [x, layer.weight, layer.bias], dy)
        y = functional.group_norm(x, groups, layer.weight, layer.bias, 0.1)
        theirs = with_gradients(y, [x, layer.weight, layer.bias], dy)
        bound = 1e-11 * (1 + layer.weight.abs().max().item())
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=bound)


@given(SHAPES, SEEDS, st.floats(0.5, 4), st.floats(-3, 3))
def test_whatever_the_mixture_a_common_scale_and_shift_are_forgotten(shape, seed, scale, shift):
    layer, (x,) = made(shape[1], seed, 1e-12), drawn(shape, seed + 1)
    y, moved = layer(x), layer(scale * x + shift)
    # The least variance that is divided by has a mixture of at least e^-8 of one that is near 1.
    torch.testing.assert_close(moved, y, rtol=0, atol=1e-6 * (1 + y.abs().max().item()))


@given(SHAPES, SEEDS)
def test_all_parameters_learn_but_those_of_instances_without_positions(shape, seed):
    if 1 in shape[:2]:
        shape = (2, 2, *shape[2:])
    layer, (x, dy) = made(shape[1], seed), drawn(shape, seed, 2)
    (layer(x) * dy).sum().backward()
    for logits in (layer.mean_logits, layer.var_logits):
        assert logits.grad.abs().max() > 0
        assert (logits.grad[0] == 0) == (len(shape) == 2)
        # Softmax does not change when all logits do.
        assert logits.grad.sum().abs() <= 1e-12 * (1 + dy.abs().sum())


@given(SEEDS)
def test_in_evaluation_no_example_sees_another(seed):
    layer, (x,) = made(3, seed), drawn((4, 3, 5), seed)
    layer(x)
    layer.eval()
    before = copy.deepcopy(layer.state_dict())
    alone = torch.cat([layer(x[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(alone, layer(x), rtol=0, atol=1e-13)
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


def test_half_precision_is_computed_in_single():
    x = torch.randn(4, 3, 5).half() * 300
    y = Switchable(3)(x)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y.float(), Switchable(3)(x.float()), rtol=0, atol=2e-3)


def test_it_says_what_it_is():
    assert repr(Switchable(3, 0.1, 0.2)) == "Switchable(3, eps=0.1, momentum=0.2)"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Switchable(0), ValueError, "features is 0, expected at least 1"),
        (lambda: Switchable(2, 0.0), ValueError, "eps is 0.0, expected a finite number above 0"),
        (lambda: Switchable(2, momentum=2.0), ValueError, r"momentum is 2.0, expected a number in"),
        (lambda: Switchable(2)(torch.ones(1, 2)), ValueError, "2 values of each feature in train"),
        (lambda: Switchable(1)(torch.ones(4, 1)), ValueError, "2 values of each example, got 1: on"),
        (lambda: Switchable(2)(torch.ones(0, 2)), ValueError, "of each feature in training mode, g"),
        (lambda: Switchable(2)(torch.ones(4, 3)), ValueError, "x has 3 features on axis 1, expecte"),
        (lambda: Switchable(2)(torch.ones(4, 2).double()), TypeError, "x has dtype torch.float64"),
        (lambda: Switchable(2)([[1.0, 2.0]]), TypeError, "x is a list, expected a tensor"),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_one_example_will_do_in_evaluation():
    assert Switchable(2).eval()(torch.ones(1, 2)).shape == (1, 2)
