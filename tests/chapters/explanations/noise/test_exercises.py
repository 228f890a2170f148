"""The reference answers of the chapter on noise, against other libraries and the package."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.chapters.explanations.noise import exercises
from bncore.explanations import ghost_batches, noise, uncertainty, variance_shift

EPS = np.finfo(np.float64).eps
seeds = st.integers(0, 10**6)


@given(seeds, st.integers(2, 4), st.floats(0.1, 1))
def test_the_exercise_on_ghost_batches_agrees_with_the_layer(seed, size, eps):
    x = np.random.default_rng(seed).normal(size=(3 * size, 2))
    layer = ghost_batches.GhostBatchNorm(2, size, eps=eps).double()
    answer = exercises.ghost_batches(x, size, eps)
    rounding = 4 * size * EPS * np.abs(x).max() / eps**0.5
    expected = layer(torch.tensor(x)).detach()
    np.testing.assert_allclose(answer, expected, rtol=0, atol=rounding)


@given(seeds, st.integers(2, 9), st.floats(1, 9), st.floats(0.1, 1))
def test_the_other_exercises_agree_with_the_package(seed, m, kurtosis, keep):
    assert exercises.variance_of_the_variance(m, 2.0, kurtosis) == pytest.approx(
        noise.variance_variance(m, 2.0, kurtosis)
    )
    rng = np.random.default_rng(seed)
    weight, mean, factor = rng.normal(size=3), rng.normal(size=3), rng.normal(size=(3, 3))
    covariance = factor @ factor.T
    assert exercises.variance_shift(keep, weight, mean, covariance) == pytest.approx(
        variance_shift.behind_weights(keep, weight, mean, covariance)
    )
    rows, labels = rng.dirichlet([1, 1, 1], size=20), rng.integers(3, size=20)
    found = uncertainty.calibration(torch.tensor(rows), torch.tensor(labels), m)
    right = (rows.argmax(1) == labels).astype(float)
    assert exercises.calibration_error(rows.max(1), right, m) == pytest.approx(found.ece)
