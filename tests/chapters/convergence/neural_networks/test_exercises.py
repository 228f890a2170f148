"""The reference answers of the chapter on neural networks, against other libraries and the package."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from bncore.chapters.convergence.neural_networks import deep, exercises, experiments
from bncore.convergence import EmpiricalNetwork
from bncore.lab import data, networks

EPS, SINGLE = (float(np.finfo(kind).eps) for kind in (np.float64, np.float32))
GTOL = 1e-9  # The gradient at which the search for a best unit stops.
seeds = st.integers(0, 10**6)


def test_a_unit_on_the_line_stays_there_only_with_the_others():
    plane = experiments.Plane(experiments.U, experiments.S, [3.0, 3.0])
    for angle, off in ((0, False), (60, True)):
        other = experiments.turned(angle, 1.5)
        best = plane.best_first(experiments.line(), other)
        assert (experiments.off_line(best[np.newaxis])[0] > 1) == off
        alpha, B = plane.second_order(np.vstack([best, other]))
        answer = exercises.one_unit(alpha[0], B[0, 0], B[0, 1:], other[None], plane.u, plane.S)
        np.testing.assert_allclose(answer, best, rtol=0, atol=1000 * GTOL)  # over its curvature


@settings(deadline=None)
@given(seeds)
def test_the_exercise_on_b_agrees_with_the_package(seed):
    rng = np.random.default_rng(seed)
    Z, W, theta = rng.normal(size=(9, 3)), rng.normal(size=(2, 3)), rng.normal(size=2)
    out = np.tanh(Z @ W.T)
    first = 1 / (1 + np.exp(-out @ theta))
    answer = exercises.second_order(
        first, first * (1 - first), 1 - out**2, -2 * out * (1 - out**2), theta
    )
    expected = EmpiricalNetwork(Z, theta).second_order(W)[1]
    rounding = 9 * EPS * (1 + np.abs(theta).max()) ** 2  # means of nine terms
    np.testing.assert_allclose(answer, expected, rtol=0, atol=rounding)


@given(seeds)
def test_the_split_is_orthogonal_in_s(seed):
    rng = np.random.default_rng(seed)
    W, u, factor = rng.normal(size=(3, 4)), rng.normal(size=4), rng.normal(size=(4, 4))
    S = factor @ factor.T + np.eye(4)
    p, V = exercises.split(W, u, S)
    rounding = 16 * EPS * np.linalg.cond(S) * np.abs(W).max()
    found = np.outer(p, np.linalg.solve(S, u)) + V
    np.testing.assert_allclose(found, W, rtol=0, atol=rounding)
    np.testing.assert_allclose(V @ u, 0, atol=rounding * np.abs(u).sum())


def test_with_batch_norm_the_whole_gradient_turns():
    split = data.digits()
    for normalization, whole in (("batch", True), (None, False)):
        model = networks.mlp([64, 8, 10], "tanh", normalization, eps=1e-12)
        cross_entropy(model(split.x_train[:50]), split.y_train[:50]).backward()
        layer = model.linear1.weight
        part = deep.direction_part(layer.grad, layer.detach())
        rounding = 64 * SINGLE * layer.grad.abs().max().item()
        assert torch.allclose(part, layer.grad, rtol=0, atol=rounding) == whole
        expected = exercises.direction_change(
            layer.grad.numpy(), 2 * layer.grad.numpy(), layer.detach().numpy()
        )
        assert expected == pytest.approx(1, rel=64 * SINGLE, abs=0)
