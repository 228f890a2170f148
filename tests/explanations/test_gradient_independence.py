"""Expected gradients against autograd: one layer exactly, many with sampled weights."""

import numpy as np
import pytest
import torch
from torch import nn

from bncore.explanations import activation, depth
from bncore.explanations.gradient_independence import expected_gradients

EPS = np.finfo(np.float64).eps
NAMES = [*activation.ACTIVATIONS, torch.sin]


def batch_norm(h):
    centred = h - h.mean(0)
    return centred / centred.square().mean(0).sqrt()


def rounding(preactivations):
    """Of values beside the deviation of their unit, in sums over the batch, layer by layer."""
    spread = [np.abs(h).max(axis=0) / h.std(axis=0) for h in preactivations]
    return 16 * len(preactivations[-1]) * EPS * sum(map(np.max, spread))


def loop(preactivations, function):
    """The recursion with one dense Jacobian for each unit."""
    batch = len(preactivations[-1])
    covariance = torch.eye(batch, dtype=torch.float64) / batch
    squares = []
    for h in map(torch.as_tensor, reversed(preactivations)):
        units = [
            torch.autograd.functional.jacobian(lambda c: function(batch_norm(c)), column)
            for column in h.T
        ]
        covariance = sum(J.T @ covariance @ J for J in units) / len(units)
        squares.append(covariance.trace().item())
    return squares[::-1]


@pytest.mark.parametrize("name", NAMES)
def test_against_dense_jacobians(name):
    function = activation.ACTIVATIONS.get(name, name) if isinstance(name, str) else name
    rng = np.random.default_rng(0)
    for batch in 6 * (3, 4, 7):
        layers = [
            rng.normal(size=(batch, units)) * 10.0 ** rng.uniform(-3, 3) + rng.normal(size=units)
            for units in rng.integers(1, 9, 3)
        ]
        expected = loop(layers, function)
        found = expected_gradients(layers, name)
        np.testing.assert_allclose(found, expected, rtol=rounding(layers))


@pytest.mark.parametrize("activation", [nn.functional.relu, torch.tanh])
def test_against_sampled_weights(activation):
    """Backward through a network whose weights are drawn anew for every gradient."""
    batch, widths, draws = 6, (9, 12, 7), 3000
    generator = torch.Generator().manual_seed(0)
    hs = [torch.randn(batch, n, generator=generator, dtype=torch.float64) for n in widths]
    squares = np.zeros((draws, 3))
    for draw in range(draws):
        weight = torch.randn(widths[-1], 5, generator=generator, dtype=torch.float64)
        g = torch.randn(batch, 5, generator=generator, dtype=torch.float64) @ weight.T
        g = g / (widths[-1] * batch * 5) ** 0.5
        for layer in (2, 1, 0):
            h = hs[layer].clone().requires_grad_()
            (g,) = torch.autograd.grad(activation(batch_norm(h)), h, g)
            squares[draw, layer] = g.square().sum()
            if layer:
                inputs = widths[layer - 1]
                weight = torch.randn(inputs, len(g[0]), generator=generator, dtype=torch.float64)
                g = g @ weight.T / inputs**0.5
    errors = squares.mean(axis=0) - expected_gradients([h.numpy() for h in hs], activation)
    assert (np.abs(errors) < 4 * squares.std(axis=0) / draws**0.5).all()


@pytest.mark.parametrize("name", ["relu", "tanh", "identity", "gelu"])
@pytest.mark.parametrize("batch", [8, 32])
def test_a_symmetric_batch_of_many_units_grows_by_the_rate_of_depth(name, batch):
    rng = np.random.default_rng(1)
    layers = [rng.normal(size=(batch, 40_000)) for _ in range(4)]
    layers[0] += 3 * rng.normal(size=40_000)
    squares = expected_gradients(layers, name)
    # White pre-activations have variance 1, those of a network the variance of the layer below.
    growth = squares[:-1] / squares[1:] / depth.batch_variance(name, batch)
    rate = depth.growth_rate(name, batch)
    np.testing.assert_allclose(growth[:-1], rate, rtol=4 / 40_000**0.5)


def test_the_scale_and_the_mean_of_a_unit():
    """Gradients scale with the inverse of the pre-activations, and do not see their mean."""
    rng = np.random.default_rng(2)
    for _ in range(100):
        h = [rng.normal(size=(5, 6)) for _ in range(2)]
        scale, shift = 10.0 ** rng.uniform(-3, 3), rng.normal(size=6)
        near = [scale * h[0] + shift, h[1]]
        moved, plain = expected_gradients(near, "tanh"), expected_gradients(h, "tanh")
        np.testing.assert_allclose(moved * [scale**2, 1], plain, rtol=rounding(near))


def test_a_unit_that_varies_little_is_not_constant():
    rng = np.random.default_rng(3)
    h = [rng.normal(size=(5, 6)) for _ in range(2)]
    near = [1 + 1e-8 * h[0], h[1]]
    squares = expected_gradients(near, "tanh") * [1e-16, 1]
    np.testing.assert_allclose(squares, expected_gradients(h, "tanh"), rtol=rounding(near))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "preactivations is empty"),
        ([np.ones((3, 2)), np.eye(4)], r"preactivations\[0\] has a batch of 3, expected 4"),
        (
            [np.eye(4), np.ones((2, 2))],
            r"preactivations\[1\] has a batch of 2, expected at least 3",
        ),
        (
            [np.eye(3), np.full((3, 2), np.nan)],
            r"preactivations\[1\]\[0, 0\] is nan, expected finite",
        ),
        ([np.eye(3), np.full((3, 2), 0.1)], r"preactivations\[1\] has the same value .* unit 0"),
        ([np.zeros((3, 1))], r"preactivations\[0\] has the same value"),
    ],
)
def test_preactivations_are_refused(layers, message, unchecked):
    with pytest.raises(ValueError, match=message):
        expected_gradients(layers, "relu")


def test_an_activation_is_refused(unchecked):
    with pytest.raises(ValueError, match="activation is 'rely'"):
        expected_gradients([np.eye(3)], "rely")


def test_squares_scale_with_the_inverse_square_of_a_layer():
    h = np.random.default_rng(0).normal(size=(6, 4))
    expected = expected_gradients([h, h], "tanh")
    for size in (1e-150, 1e-100, 1e100, 1e150):
        found = expected_gradients([size * h, h], "tanh")
        np.testing.assert_allclose(found * [size**2, 1], expected, rtol=rounding([h, h]))
    with pytest.raises(ValueError, match=r"preactivations\[0\] varies by as little as .*e-200"):
        expected_gradients([1e-200 * h, h], "tanh")
    np.testing.assert_array_equal(expected_gradients([h.tolist(), h.tolist()], "tanh"), expected)
