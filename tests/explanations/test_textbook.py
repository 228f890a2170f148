"""What is written on the board equals what is used, and stays short."""

import ast
import inspect
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator
from torch import nn

from bncore.explanations import (
    covariate_shift,
    depth,
    effective_rate,
    ghost_batches,
    gradient_norms,
    noise,
    smoothness,
    spectrum,
    sphere,
    textbook,
    weight_length,
)

seeds = st.integers(0, 10**6)
EPS = np.finfo(np.float64).eps
HERMITE = 1e-8  # what the textbook's hundred nodes leave of tanh, whose poles are near
SMOOTH = {
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "identity": (lambda z: z, np.ones_like),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: 1 / (2 + 2 * np.cosh(z))),
}


@given(seeds)
def test_the_identities_of_smoothness(seed):
    rng = np.random.default_rng(seed)
    m = int(rng.integers(3, 30))
    y, g, A, gamma = rng.normal(size=m), rng.normal(size=m), rng.normal(size=(m, m)), rng.normal()
    H = A + A.T
    loss = smoothness.OneFeature(y, g, H, gamma)
    slope, sigma = abs(gamma) / y.std(), y.std()
    d = textbook.normalised_gradient(y, g, gamma)
    # Sums of m products, each as large as the vectors; the mean of y is rounded beside sigma.
    size = 20 * m * EPS * (1 + np.abs(y).max() / sigma)
    np.testing.assert_allclose(loss.gradient[:, 0], d, rtol=0, atol=size * slope * np.abs(g).max())
    second = textbook.normalised_hessian(y, g, H, gamma)
    scale = slope**2 * np.linalg.norm(H) + slope / sigma * np.linalg.norm(g)
    np.testing.assert_allclose(loss.hessian, second, rtol=0, atol=size * scale)


@given(seeds)
def test_lengths_and_rates(seed):
    rng = np.random.default_rng(seed)
    rate, decay = 10 ** rng.uniform(-2, 1), rng.uniform(0, 0.05)
    slopes, start = 10 ** rng.uniform(-1, 1, size=40), 10 ** rng.uniform(-1, 1)
    found = weight_length.squared_lengths(rate, slopes, start, decay)
    # Forty steps of a few roundings each; what is too long shrinks, so that none of them grows.
    expected = textbook.squared_lengths(rate, slopes, start, decay)
    np.testing.assert_allclose(found, expected, rtol=4 * len(found) * EPS)
    length = start**0.5
    found = effective_rate.effective_rate(rate, length, decay)
    assert found == pytest.approx(textbook.effective_rate(rate, length, decay), rel=10 * EPS, abs=0)


@given(seeds)
def test_lanczos_and_its_spectrum(seed):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(12, 12))
    A, v = A + A.T, rng.normal(size=12)
    diagonal, off = textbook.lanczos(A, v, 5)
    found = spectrum.tridiagonal(aslinearoperator(A), v, 5)
    # Rounding grows by the norm over an off-diagonal entry at each step.
    grown = 100 * EPS * np.linalg.norm(A) * np.prod(1 + np.linalg.norm(A) / off)
    np.testing.assert_allclose(found[0], diagonal, rtol=0, atol=grown)
    np.testing.assert_allclose(found[1], off, rtol=0, atol=grown)
    points, weights = textbook.spectrum(diagonal, off)
    nodes, shares = spectrum.quadrature(diagonal, off)
    np.testing.assert_allclose(nodes, points, rtol=0, atol=50 * EPS * np.linalg.norm(A))
    gap = np.diff(points).min()
    np.testing.assert_allclose(shares, weights, rtol=0, atol=100 * EPS * np.linalg.norm(A) / gap)


def test_products_with_the_curvature_and_its_largest_eigenvalue():
    model, x = layered([5, 6, 4], 1), torch.randn(9, 5, dtype=torch.float64)
    y = torch.arange(9) % 4
    operator = spectrum.hessian_operator(model, x, y)
    v = [torch.randn_like(w) for w in model.parameters() if w.ndim > 1]

    def flat(parts):
        return torch.cat([part.reshape(-1) for part in parts]).detach().numpy()

    found = flat(textbook.curvature_product(model, x, y, v))
    expected = operator @ flat(v)
    # Sums over nine examples, through three layers.
    size = 64 * len(x) * EPS * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=size)

    values, vectors = np.linalg.eigh(operator @ np.eye(len(expected)))
    order = np.argsort(np.abs(values))
    gap = np.abs(values[order[-2]] / values[order[-1]])
    steps = int(np.ceil(np.log(1e-5) / np.log(gap)))
    value, direction = textbook.stiffest(
        lambda u: textbook.curvature_product(model, x, y, u), v, steps
    )
    # The angle falls by the gap at each step, and the quotient misses by its square.
    top = vectors[:, order[-1]]
    angle = 1e-5 * np.linalg.norm(flat(v)) / abs(top @ flat(v))
    assert value == pytest.approx(values[order[-1]], rel=4 * angle**2 + 1e4 * EPS)
    assert abs(top @ flat(direction)) == pytest.approx(1, abs=4 * angle**2 + 1e4 * EPS)


@pytest.mark.parametrize("name", SMOOTH)
def test_growth_rates(name):
    found = textbook.growth_rate(*SMOOTH[name])
    assert found == pytest.approx(depth.growth_rate(name), rel=HERMITE)
    for size in (4, 5, 8, 20, 64):
        found = textbook.growth_rate_of_a_batch(*SMOOTH[name], size)
        # Two hundred nodes each way resolve a smooth function.
        assert depth.growth_rate(name, size) == pytest.approx(found, rel=sphere.ACCURACY)


def layered(widths, seed):
    torch.manual_seed(seed)
    layers = []
    for inputs, units in pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, units, False), nn.BatchNorm1d(units, eps=1e-3), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(*widths[-2:], False)).double()


def test_squared_gradients_of_a_network():
    model, x = layered([5, 7, 6, 4], 0), torch.randn(9, 5, dtype=torch.float64)
    white = torch.randn((9, 4), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weights = [m.weight.detach().numpy() for m in model if isinstance(m, nn.Linear)]
    found = textbook.gradient_norms(weights, x.numpy(), white.numpy(), *SMOOTH["tanh"], eps=1e-3)
    expected = gradient_norms.gradient_norms(model, x, seed=3).signals
    # Sums over nine examples, which two norms may make cancel by a digit.
    np.testing.assert_allclose(found, expected, rtol=64 * len(x) * EPS)


def test_the_shift_of_a_linear_network():
    rng = np.random.default_rng(0)
    old = [rng.normal(size=shape) for shape in ((4, 3), (5, 4), (2, 5))]
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 2))
    model = nn.Sequential(*(nn.Linear(*w.shape[::-1], False) for w in old)).double()
    with torch.no_grad():
        for layer, w in zip(model, old, strict=True):
            layer.weight.copy_(torch.tensor(w))

    def gradient(weights):
        a, b, c = weights
        error = (x @ a.T @ b.T @ c.T - y) / 8
        return [(b.T @ c.T @ error.T) @ x, c.T @ error.T @ (x @ a.T), error.T @ (x @ a.T @ b.T)]

    new = [w - 0.1 * g for w, g in zip(old, gradient(old), strict=True)]
    update = {f"{i}.weight": w for i, w in enumerate(new)}
    shift = covariate_shift.gradient_shift(
        model, lambda z, y: ((z - y) ** 2).sum() / 16, x, y, update
    )
    found = textbook.gradient_shift(gradient, old, new)
    size = max(np.linalg.norm(g) for g in gradient(old))
    # Sums over eight examples through three layers.
    np.testing.assert_allclose(found, shift.norm, rtol=0, atol=64 * len(x) * EPS * size)


@given(seeds)
def test_noise_and_ghost_batches(seed):
    rng = np.random.default_rng(seed)
    m, var, kurtosis = int(rng.integers(2, 500)), 10 ** rng.uniform(-3, 3), rng.uniform(1, 20)
    found = noise.variance_variance(m, var, kurtosis)
    size = var**2 * kurtosis / m
    assert found == pytest.approx(textbook.variance_variance(m, var, kurtosis), abs=10 * EPS * size)
    x = rng.normal(size=(12, 3))
    layer = ghost_batches.GhostBatchNorm(3, 4, eps=1e-3).double()
    expected = textbook.ghost_batch_norm(x, 4, 1e-3)
    np.testing.assert_allclose(
        layer(torch.tensor(x)).detach().numpy(), expected, rtol=0, atol=100 * EPS
    )


def test_no_function_is_longer_than_fifteen_lines():
    for function in ast.parse(inspect.getsource(textbook)).body:
        if isinstance(function, ast.FunctionDef):
            body = function.body[1:]
            assert body[-1].end_lineno - body[0].lineno < 15, function.name
