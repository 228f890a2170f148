"""Batch norm by running statistics: against the fixed transform, and against expectations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bncore.lab.running_norm import RunningNorm
from bncore.mechanics import transform

EPS = np.finfo(np.float64).eps
SHAPES = [(2, 3), (5, 3), (2, 3, 4), (1, 3, 2, 2)]
LAYERS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}


@settings(max_examples=40)
@given(
    st.sampled_from(SHAPES),
    st.sampled_from([0.1, 0.7, None]),
    st.integers(1, 4),
    st.integers(0, 1000),
)
def test_statistics_move_as_torchs_and_are_constants_of_the_gradient(
    shape, momentum, batches, seed
):
    rng = np.random.default_rng(seed)
    layer, plain = (
        kind(3, momentum=momentum).double() for kind in (RunningNorm, LAYERS[len(shape)])
    )
    gamma, beta = rng.normal(size=(2, 3))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(gamma))
        layer.bias.copy_(torch.from_numpy(beta))
    for _ in range(batches):
        x = torch.from_numpy(rng.normal(2, 3, size=shape)).requires_grad_()
        y = layer(x)
        plain(x)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(layer, name), getattr(plain, name))
    dy = rng.normal(size=shape)
    y.backward(torch.from_numpy(dy))
    fixed = plain.running_mean.numpy(), plain.running_var.numpy()
    expected, cache = transform.forward_fixed(x.detach().numpy(), *fixed, gamma, beta)
    size = (np.abs(expected).max() + np.abs(x.detach().numpy() / fixed[1].min() ** 0.5).max()) * 64
    np.testing.assert_allclose(y.detach(), expected, rtol=0, atol=EPS * size)
    dx, dgamma, dbeta = transform.backward_fixed(dy, cache)
    for found, one in ((x.grad, dx), (layer.weight.grad, dgamma), (layer.bias.grad, dbeta)):
        np.testing.assert_allclose(found, one, rtol=0, atol=EPS * size * dy.size * 16)
    before = layer.running_mean.clone()
    torch.testing.assert_close(layer.eval()(x), y)
    assert layer.running_mean.equal(before)


@pytest.mark.parametrize("momentum", [0.3, 0.1, 0.02])
def test_values_that_come_one_by_one_give_the_variance_in_expectation(momentum):
    """Features are independent, and so many repetitions."""
    layer = RunningNorm(4000, momentum=momentum)
    generator = torch.Generator().manual_seed(0)
    for _ in range(round(12 / momentum)):
        layer(5 + 3 * torch.randn(1, 4000, generator=generator))
    spread = layer.running_var.std() / 4000**0.5
    assert abs(layer.running_var.mean() - 9) < 4 * spread
    assert abs(layer.running_mean.mean() - 5) < 4 * (layer.running_mean.std() / 4000**0.5)


@settings(max_examples=30)
@given(st.integers(2, 9), st.integers(0, 1000))
def test_values_that_come_one_by_one_are_averaged_equally_without_momentum(count, seed):
    """As of Welford: a mean, and the squared deviations over their number."""
    x = torch.from_numpy(np.random.default_rng(seed).normal(3, 2, size=(count, 5)))
    layer = RunningNorm(5, momentum=None).double()
    for row in x:
        layer(row[None])
    torch.testing.assert_close(layer.running_mean, x.mean(0))
    torch.testing.assert_close(layer.running_var, x.var(0, correction=0))
    assert layer.num_batches_tracked == count


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.ones((2, 3)), TypeError, "x is a ndarray, expected a tensor"),
        (torch.ones(2, 4), ValueError, "x has 4 features on axis 1, expected 3"),
        (torch.ones(2, 3).double(), TypeError, "x has dtype torch.float64, expected torch.float32"),
    ],
)
def test_what_cannot_be_normalised_is_refused_in_words(x, error, message):
    for mode in (True, False):
        with pytest.raises(error, match=message):
            RunningNorm(3).train(mode)(x)
