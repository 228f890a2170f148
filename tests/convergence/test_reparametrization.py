"""Length and direction, and the chain rule between the two parametrisations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.convergence import EmpiricalHalfspace, GaussianHalfspace, LeastSquares
from bncore.convergence import reparametrization as rp

EPS = np.finfo(np.float64).eps
SEEDS = st.integers(0, 10**6)
few = settings(max_examples=25)


def error_of_norms(S):
    """Relative: |w|'|S||w|, of d^2 products, is w'Sw times sqrt(d) times the condition number at most."""
    values = np.linalg.eigvalsh(S)
    return (4 + len(S) ** 1.5) * EPS * values[-1] / values[0]


@few
@given(seed=SEEDS, d=st.integers(1, 9), condition=st.sampled_from([1.0, 10.0, 1e4]))
def test_decoupling_and_coupling_are_inverse(seed, d, condition, moments, near):
    _, S = moments(seed, d, condition)
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=d) * 10.0 ** rng.integers(-6, 7)
    direction, length = rp.decouple(weights, S)
    assert length > 0
    error = 4 * error_of_norms(S)
    near(direction @ S @ direction, 1.0, error)
    near(rp.couple(direction, length, S), weights, error * np.abs(weights))
    g, a = rng.normal(), np.exp(rng.normal())
    expected = rp.couple(weights, g, S)
    near(rp.couple(a * weights, g, S), expected, error * np.abs(expected))
    near(rp.couple(weights, -g, S), -expected, EPS * np.abs(expected))


@few
@given(seed=SEEDS, d=st.integers(1, 6), share=st.floats(0.05, 0.9))
def test_the_gradients_are_those_of_autograd_through_the_normalisation(
    seed, d, share, moments, near
):
    u, S = moments(seed, d, share=share)
    rng = np.random.default_rng(seed)
    w, g = rng.normal(size=d), float(rng.normal())
    tw, tg = torch.tensor(w, requires_grad=True), torch.tensor(g, requires_grad=True)
    tg = torch.tensor(g, dtype=torch.float64, requires_grad=True)
    weights = tg * tw / torch.sqrt(tw @ torch.tensor(S) @ tw)
    f = 2 * torch.tensor(u) @ weights + weights @ torch.tensor(S) @ weights
    expected = torch.autograd.grad(f, (tw, tg))
    problem = LeastSquares(u, S)
    dw, dg = rp.gradients(w, g, S, problem.gradient(rp.couple(w, g, S)))
    # the gradient of f adds up u and S weights, and w'Sw may lose what lengths do
    size, norm = np.linalg.norm, np.sqrt(w @ S @ w)
    error = 8 * error_of_norms(S) * (size(u) + size(S, 2) * abs(g) * size(w) / norm)
    near(dw, expected[0].numpy(), error * abs(g) / norm)
    near(dg, expected[1].item(), error * size(w) / norm)


@few
@given(seed=SEEDS, a=st.sampled_from([1e-3, 0.3, 50.0]))
def test_the_direction_gradient_is_orthogonal_and_shrinks_with_the_scale(seed, a, moments, near):
    u, S = moments(seed, 6)
    problem = GaussianHalfspace(u, S, "softplus")
    rng = np.random.default_rng(seed)
    w, g = rng.normal(size=6), 1.3
    gradient = problem.gradient(rp.couple(w, g, S))
    dw, dg = rp.gradients(w, g, S, gradient)
    norm = np.sqrt(w @ S @ w)
    error = error_of_norms(S) * np.linalg.norm(gradient)
    near(dw @ w, 0.0, error * g / norm * np.linalg.norm(w))
    scaled, same = rp.gradients(a * w, g, S, gradient)
    near(a * scaled, dw, error * g / norm)
    near(same, dg, error * np.linalg.norm(w) / norm)
    # The split loses nothing: the gradient is put together again from its two parts.
    near(norm / g * dw + dg * S @ w / norm, gradient, error)


@few
@given(seed=SEEDS, share=st.floats(0.02, 0.9))
def test_the_direction_gradient_of_a_halfspace_is_a_multiple_of_that_of_rho(
    seed, share, moments, near, error_of
):
    """grad_w f(w, g) = -(g c1 ||w||_S / (2 u'w)) grad rho(w), whatever the loss."""
    u, S = moments(seed, 4, share=share)
    rng = np.random.default_rng(seed)
    w, g = rng.normal(size=4), float(np.exp(rng.normal()))
    for name in ("softplus", "sigmoid", "tanh", "squared"):
        problem = GaussianHalfspace(u, S, name)
        weights = rp.couple(w, g, S)
        dw, _ = rp.gradients(w, g, S, problem.gradient(weights))
        c1, _ = problem.coefficients(weights)
        factor = -g * c1 * np.sqrt(w @ S @ w) / 2
        # grad rho / u'w stays finite where u'w vanishes
        over_mean = -2 * u / (w @ S @ w) + 2 * (u @ w) * S @ w / (w @ S @ w) ** 2
        error = problem.condition_number * error_of(problem, weights)[1]
        near(dw, factor * over_mean, error * g / np.sqrt(w @ S @ w), name)


def test_the_directional_derivative_is_the_slope_of_the_line(cloud, near, error_of):
    problem = EmpiricalHalfspace(cloud(0), "softplus")
    w = np.array([0.3, -1.0, 0.2, 0.5])
    line = problem.line(w)
    for g in (-2.0, 0.1, 3.0):
        weights = rp.couple(w, g, problem.S)
        _, dg = rp.gradients(w, g, problem.S, problem.gradient(weights))
        error = error_of(problem, weights)[1] * np.linalg.norm(w) / line.norm
        near(line.slope(g / line.norm) / line.norm, dg, error)


@pytest.mark.parametrize("g", [0.0, 1.0])
def test_at_length_zero_the_direction_has_no_gradient(g, moments):
    u, S = moments(0)
    dw, _ = rp.gradients(np.ones(5), g, S, u)
    assert np.any(dw) == (g != 0)


def test_reparametrizations_are_refused(refuses):
    S = np.array([[1.0, 0.2], [0.2, 0.8]])
    refuses("0", rp.decouple, np.zeros(2), S)
    refuses("0", rp.couple, np.zeros(2), 1.0, S)
    refuses("shape (3,), expected (2,)", rp.decouple, np.ones(3), S)
    refuses("shape (3,), expected (2,)", rp.couple, np.ones(3), 1.0, S)
    refuses("is nan, expected", rp.couple, np.ones(2), np.nan, S)
    refuses("S is not symmetric", rp.decouple, np.ones(2), np.array([[1.0, 0.3], [0.2, 0.8]]))
    refuses("shape (3,), expected (2,)", rp.gradients, np.ones(2), 1.0, S, np.ones(3))


def test_vectors_come_in_the_precision_of_the_weights_and_lists_are_taken(near):
    S, w, gradient = [[2.0, 0.5], [0.5, 1.0]], [1.0, -2.0], [0.25, 0.5]

    def everything(w, S, gradient):
        return rp.decouple(w, S)[0], rp.couple(w, 0.5, S), rp.gradients(w, 0.5, S, gradient)[0]

    exact = everything(np.array(w), np.array(S), np.array(gradient))
    for given_, dtype in (
        (w, np.float64), (np.array(w, np.float32), np.float32), (np.array(w, np.float16), np.float16)
    ):  # fmt: skip
        for ours, expected in zip(everything(given_, S, gradient), exact, strict=True):
            assert ours.dtype == dtype
            near(ours, expected.astype(dtype), np.finfo(dtype).eps * np.abs(expected))


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_squares_of_weights_may_leave_the_range(size, refuses, near):
    S, w = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([1.0, -2.0])
    direction, length = rp.decouple(w, S)
    scaled, longer = rp.decouple(size * w, S)
    error = error_of_norms(np.array(S))
    near(scaled, direction, error * np.abs(direction))
    near(longer, size * length, error * size * length)
    near(rp.couple(size * w, 2.0, S), 2 * direction, error * 2 * np.abs(direction))
    refuses("||w||_S is", rp.couple, size * w, 1.0, (1e280 if size > 1 else 1e-280) * S)
    refuses("the weights.* is inf, beyond the largest float64", rp.couple, w, 1e308, 1e-4 * S)
