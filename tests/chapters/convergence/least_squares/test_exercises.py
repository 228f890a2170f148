"""The reference answers of the chapter on least squares, against other libraries and the package."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import brentq

from bncore.chapters.convergence.least_squares import exercises, experiments
from bncore.convergence import (
    bounds,
)

EPS = np.finfo(np.float64).eps
CONDITIONS = st.sampled_from([1.5, 4, 30, 500])
SEEDS = st.integers(0, 10**6)


@given(CONDITIONS, SEEDS, st.floats(0.05, 1.99))
def test_other_step_sizes_keep_their_factor(condition, seed, size):
    problem, w = experiments.random_problem(condition, seed)
    gap = [problem.line(at).rayleigh_gap for at in (w, experiments.step(problem, w, size))]
    factor = exercises.other_steps(problem.smallest_eigenvalue, problem.largest_eigenvalue, size)
    # Vectors of length 1 are divided by the root of S.
    rounding = 10 * condition**0.5 * EPS
    assert gap[1] <= factor * gap[0] + rounding * (gap[0] ** 0.5 + rounding)


@given(CONDITIONS, SEEDS, st.integers(2, 12))
def test_the_final_factor_solves_its_equation(condition, seed, dimension):
    problem, _ = experiments.random_problem(condition, seed, dimension)
    values, vectors = np.linalg.eigh(problem.S)
    squares = (vectors.T @ problem.u) ** 2 / values
    assume(squares.min() > 1e-6)
    inset = 1e-9 * (values[1] - values[0])
    nu = brentq(
        lambda nu: (squares / (values - nu)).sum(), values[0] + inset, values[1] - inset, xtol=1e-15
    )
    factor = experiments.final_factor(problem)
    # Solving with the root of S multiplies the rounding of 1 - nu, whose square this is.
    rounding = 16 * dimension * condition**0.5 * EPS
    lost = rounding * (2 * abs(1 - nu) + rounding)
    assert factor == pytest.approx((1 - nu) ** 2, abs=lost)
    assert factor == pytest.approx(exercises.final_factor(problem.u, problem.S), abs=lost)
    assert (1 - values[1]) ** 2 - lost <= factor <= bounds.rate(problem) + lost
