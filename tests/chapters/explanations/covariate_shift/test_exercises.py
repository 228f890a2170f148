"""The reference answers of the chapter on covariate shift, against other libraries and the package."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bncore.chapters.explanations.covariate_shift import (
    exercises,
)
from bncore.explanations.covariate_shift import gradient_shift

EPS = np.finfo(np.float64).eps
SEEDS = st.integers(0, 10**6)
few = settings(max_examples=25)


def half_square(outputs, targets):
    return ((outputs - targets) ** 2).sum() / (2 * len(targets))


def linear_model(*weights):
    layers = [nn.Linear(*W.shape[::-1], bias=False, dtype=torch.float64) for W in weights]
    for layer, W in zip(layers, weights, strict=True):
        layer.weight = nn.Parameter(torch.tensor(W))
    return nn.Sequential(*layers)


@few
@given(SEEDS, st.floats(0, 1))
def test_the_exercise_of_two_weights_is_the_measure(seed, rate):
    a, b, c = np.random.default_rng(seed).normal(size=3)
    model = linear_model(np.full((1, 1), a), np.full((1, 1), b))
    one = torch.ones(1, 1, dtype=torch.float64)
    shift = gradient_shift(model, half_square, one, c * one, rate)
    # Sums of a few products of powers of all three.
    rounding = 16 * EPS * np.prod(1 + np.abs([a, b, c])) ** 2
    assert abs(exercises.two_weights(a, b, c, rate)) == pytest.approx(shift.norm[1], abs=rounding)


@few
@given(SEEDS, st.floats(0, 1))
def test_the_exercise_of_three_layers_is_the_measure(seed, rate):
    rng = np.random.default_rng(seed)
    W1, W2, W3 = rng.normal(size=(3, 2)), rng.normal(size=(4, 3)), rng.normal(size=(2, 4))
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(7, 2))
    shift = gradient_shift(
        linear_model(W1, W2, W3), half_square, torch.tensor(x), torch.tensor(y), rate
    )
    answer = exercises.three_layers(W1, W2, W3, x, y, rate)
    # Gradients are products of x with all layers, twice.
    size = (1 + np.abs(x).max()) * np.prod([1 + np.linalg.norm(W, 2) for W in (W1, W2, W3)])
    np.testing.assert_allclose(answer, shift.norm, rtol=64 * EPS, atol=EPS * size**2)


@given(SEEDS, st.integers(1, 3), st.floats(0.01, 1))
def test_the_exercise_of_the_first_order_is_exact_for_a_quadratic(seed, size, rate):
    rng = np.random.default_rng(seed)
    root, start = rng.normal(size=(3 * size, 3 * size)), rng.normal(size=3 * size)
    hessian = root + root.T
    parts = np.split(start - rate * hessian @ start, 3)
    expected = []
    for i in range(3):
        mixed = np.concatenate([*parts[:i], start[i * size :]])
        expected.append(np.linalg.norm((hessian @ (mixed - start))[i * size : (i + 1) * size]))
    answer = exercises.first_order(hessian, hessian @ start, size, rate)
    rounding = 3 * size * EPS * np.linalg.norm(hessian, 2) ** 2 * np.linalg.norm(start)
    np.testing.assert_allclose(answer, expected, rtol=0, atol=rounding)


@pytest.mark.parametrize("relative", [0.1, 0.5, 0.9, 1.5, 3.0])
def test_the_worst_cosine_is_approached_and_never_passed(relative):
    angles, apart = np.linspace(0, np.pi, 20001, retstep=True)
    after = 1 + relative * np.exp(1j * angles)
    cosines = after.real / np.abs(after)
    # The least on a grid is off by a half of the curvature times the spacing squared.
    missed = (apart / (1 - relative)) ** 2
    assert cosines.min() == pytest.approx(exercises.worst_cosine(relative), abs=missed)
