"""Stochastic norm: without noise, the noise that batch norm has, and who shares it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.nn.functional import group_norm

from bncore.practice.normalization import Stochastic

SEEDS = st.integers(0, 10**6)
SHAPES = st.lists(st.integers(2, 4), min_size=1, max_size=3).map(lambda rest: (3, 4, *rest[1:]))


def drawn(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def made(seed, **options):
    layer = Stochastic(4, **options).double()
    with torch.no_grad():
        for number, value in enumerate(layer.parameters()):
            value.copy_(drawn((4,), seed + number))
    return layer


@given(SHAPES, SEEDS, st.sampled_from([1, 2]))
def test_without_noise_it_is_group_norm(shape, seed, groups):
    x = drawn(shape, seed)
    quiet, noisy = made(seed, batch_size=math.inf, groups=groups), made(seed, groups=groups)
    expected = group_norm(x, groups, quiet.weight, quiet.bias)
    for layer in (quiet, quiet.eval(), noisy.eval()):
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)
    assert (noisy.train()(x) - expected).abs().max() > 0


@given(SHAPES, SEEDS, st.sampled_from([2, 5.5, 64]))
def test_noise_is_a_scale_and_a_shift_that_the_whole_batch_shares(shape, seed, m):
    """A layer that draws the same noise again says which, and y is the formula with it."""
    layer, x = made(seed, batch_size=m), drawn(shape, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        y = layer(x)
        assert (layer(x) - y).abs().max() > 0
        torch.manual_seed(seed)
        shift, scale = layer.noise()
    each = (-1, *[1] * (x.ndim - 2))
    x_hat = (group_norm(x, 1) - shift.reshape(each)) / scale.reshape(each)
    expected = layer.weight.reshape(each) * x_hat + layer.bias.reshape(each)
    size = ((1 + x_hat.abs().max()) * (1 + layer.weight.abs().max()) * (1 / scale).max()).item()
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-13 * (1 + size))


@settings(max_examples=10)
@given(SEEDS, st.sampled_from([2, 5, 32]))
def test_the_noise_is_that_of_the_statistics_of_a_normal_batch(seed, m):
    """Both are samples of 20000; a Kolmogorov-Smirnov test of equality at 1e-6 for each."""
    count = 20000
    batches = drawn((m, count), seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        shift, scale = Stochastic(count, batch_size=m).double().noise()
    for ours, theirs in (
        (shift, batches.mean(0)),
        (scale, batches.std(0, correction=0)),
        (shift / scale, batches.mean(0) / batches.std(0, correction=0)),
    ):
        assert stats.ks_2samp(ours.numpy(), theirs.numpy()).pvalue > 1e-6


@settings(max_examples=10)
@given(SEEDS, st.sampled_from([8, 32]))
def test_one_value_is_as_uncertain_behind_it_as_behind_batch_norm(seed, m):
    """A value of x_hat = 1.5 becomes y with E y² = (1.5² + 1 / m) m / (m - 3), within five errors."""
    count, a = 40000, 1.5
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shift, scale = Stochastic(count, batch_size=m).double().noise()
    ours = (a - shift) / scale
    batches = drawn((m, count), seed + 1)
    theirs = (a - batches.mean(0)) / batches.std(0, correction=0)
    square = (a * a + 1 / m) * m / (m - 3)
    for values in (ours, theirs):
        error = (values**2).std() / count**0.5
        assert abs((values**2).mean() - square) <= 5 * error


@given(SEEDS)
def test_the_noise_vanishes_as_the_batch_grows(seed):
    layer, x = made(seed), drawn((3, 4, 5), seed)
    expected = group_norm(x, 1, layer.weight, layer.bias)
    size = ((1 + x.abs().max()) * layer.weight.abs().max()).item()
    for m in (1e4, 1e8, 1e12):
        layer.batch_size = m
        assert (layer(x) - expected).abs().max() <= 20 * size / m**0.5


def test_parameters_learn_and_the_noise_is_a_constant_to_the_gradient():
    layer = Stochastic(4, 8)
    layer(torch.randn(3, 4, 5)).square().sum().backward()
    assert all(value.grad.abs().max() > 0 for value in layer.parameters())
    assert not any(value.requires_grad for value in layer.noise())


def test_it_says_what_it_is():
    assert repr(Stochastic(4, 8)).endswith("batch_size=8.0)")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Stochastic(4, 1), ValueError, "batch_size is 1, expected a number of at least 2"),
        (lambda: Stochastic(4, math.nan), ValueError, "batch_size is nan, expected a number of at l"),
        (lambda: Stochastic(4, "8"), TypeError, "batch_size is a str, expected a real number"),
        (lambda: Stochastic(4, groups=3), ValueError, "groups is 3, expected a divisor of features"),
        (lambda: Stochastic(1)(torch.ones(2, 1)), ValueError, "1 value in each of 1 groups"),
        (lambda: Stochastic(4)(torch.ones(2, 3)), ValueError, "x has 3 features on axis 1, expecte"),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
