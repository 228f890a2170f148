"""Attentive norm: the formula written out, one component, equal components, and its weights."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import batch_norm, group_norm

from bncore.practice.normalization import Attentive, LayerNorm
from bncore.practice.normalization.attentive import PlainBatchNorm

SEEDS = st.integers(0, 10**6)
SHAPES = st.one_of(
    st.tuples(st.integers(2, 5), st.integers(2, 5)),
    st.tuples(st.integers(2, 4), st.integers(1, 4), st.integers(2, 5)),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(2, 4)),
)
KINDS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}


def made(features, components, seed, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Attentive(features, components, **options).double()


def drawn(shape, seed, count=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, dtype=torch.float64, generator=generator)


def columns(vector, x):
    return vector.reshape(-1, *[1] * (x.ndim - 2))


@settings(max_examples=30)
@given(SHAPES, st.integers(1, 4), SEEDS)
def test_it_is_the_mixture_written_out(shape, components, seed):
    layer, (x,) = made(shape[1], components, seed), drawn(shape, seed + 1)
    y = layer(x)
    x_hat = batch_norm(x, None, None, training=True)
    for i, example in enumerate(x):
        means = example.reshape(shape[1], -1).mean(1)
        scores = (layer.attention.weight @ means + layer.attention.bias).exp()
        expected = sum(
            score / scores.sum() * (columns(weight, x) * x_hat[i] + columns(bias, x))
            for score, weight, bias in zip(scores, layer.weight, layer.bias, strict=True)
        )
        torch.testing.assert_close(y[i], expected, rtol=0, atol=1e-12 * (1 + y.abs().max().item()))


@settings(max_examples=30)
@given(SHAPES, SEEDS)
def test_with_one_component_it_is_batch_norm_in_training_and_evaluation(shape, seed):
    layer = made(shape[1], 1, seed)
    assert (layer.weight == 1).all()
    assert not layer.bias.any()
    norm = KINDS[len(shape)](shape[1]).double()
    with torch.no_grad():
        for ours, theirs in ((layer.weight[0], norm.weight), (layer.bias[0], norm.bias)):
            ours.copy_(drawn(ours.shape, seed)[0])
            theirs.copy_(ours)
    x, dy = drawn(shape, seed, 2)
    x.requires_grad_()
    y, expected = layer(x), norm(x)
    found = torch.autograd.grad(y, [x, layer.weight, layer.bias], dy)
    theirs = torch.autograd.grad(expected, [x, norm.weight, norm.bias], dy)
    for one, other in zip((y, *found), (expected, *theirs), strict=True):
        torch.testing.assert_close(one.reshape(other.shape), other, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.eval()(x), norm.eval()(x), rtol=1e-12, atol=1e-12)


@settings(max_examples=30)
@given(SHAPES, st.integers(2, 4), SEEDS)
def test_with_equal_components_the_attention_does_not_matter(shape, components, seed):
    layer, (x,) = made(shape[1], components, seed), drawn(shape, seed + 1)
    with torch.no_grad():
        layer.weight[:] = layer.weight[0].clone()
        layer.bias[:] = layer.bias[0].clone()
    y = layer(x)
    expected = batch_norm(x, None, None, layer.weight[0], layer.bias[0], training=True)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    y.square().sum().backward()
    assert layer.attention.weight.grad.abs().max() <= 1e-10


@settings(max_examples=30)
@given(SHAPES, st.integers(2, 5), SEEDS)
def test_weights_are_shares_and_outputs_lie_between_those_of_the_components(
    shape, components, seed
):
    layer, (x,) = made(shape[1], components, seed), drawn(shape, seed + 1)
    p = layer.weights_of(x)
    assert p.shape == (shape[0], components)
    assert (p >= 0).all()
    torch.testing.assert_close(p.sum(1), torch.ones(shape[0]).double(), rtol=0, atol=1e-14)
    assert shape[0] == 1 or p.std(0).max() > 0
    x_hat = batch_norm(x, None, None, training=True)
    each = torch.stack([
        columns(w, x) * x_hat + columns(b, x) for w, b in zip(layer.weight, layer.bias, strict=True)
    ])  # fmt: skip
    y = layer(x)
    assert (y >= each.amin(0) - 1e-12).all()
    assert (y <= each.amax(0) + 1e-12).all()


@given(SEEDS)
def test_the_order_of_components_does_not_matter(seed):
    layer, (x,) = made(3, 4, seed), drawn((5, 3, 2), seed)
    y, order = layer(x), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        for value in (layer.weight, layer.bias, layer.attention.weight, layer.attention.bias):
            value.copy_(value[order].clone())
    torch.testing.assert_close(layer(x), y, rtol=0, atol=1e-13)


@given(SEEDS)
def test_another_normalisation_may_stand_below(seed):
    layer = made(4, 1, seed, normalization=partial(LayerNorm, affine=False))
    (x,) = drawn((3, 4, 2), seed)
    torch.testing.assert_close(layer(x), group_norm(x, 1), rtol=0, atol=1e-13)


def test_half_precision_comes_back():
    y = Attentive(3)(torch.randn(4, 3, 2).half())
    assert y.dtype == torch.float16
    assert torch.isfinite(y).all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Attentive(0), ValueError, "features is 0, expected at least 1"),
        (lambda: Attentive(3, 0), ValueError, "components is 0, expected at least 1"),
        (lambda: Attentive(3, 2, lambda n: n), TypeError, r"normalization\(3\) returned a int, exp"),
        (lambda: Attentive(3)(torch.ones(1, 3)), ValueError, "1 values of each feature, expected at"),
        (lambda: Attentive(3)(torch.ones(4, 2)), ValueError, "x has 2 features on axis 1, expected"),
        (lambda: Attentive(3)(torch.ones(4, 3, 0)), ValueError, "expected at least one value"),
        (lambda: Attentive(3)(torch.ones(4, 3).double()), TypeError, "x has dtype torch.float64"),
        (lambda: PlainBatchNorm(3)(torch.ones(4)), ValueError, r"x has shape \(4,\), expected \(bat"),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
