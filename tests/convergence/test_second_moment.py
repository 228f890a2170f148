"""What may be a second moment, and what is asked of one."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from bncore.convergence import GaussianHalfspace, LeastSquares
from bncore.convergence.second_moment import Metric

EPS = np.finfo(np.float64).eps
SEEDS = st.integers(0, 10**6)

U, S = np.array([0.3, -0.2]), np.array([[1.0, 0.2], [0.2, 0.8]])


def with_entry(a, index, value):
    a = a.copy()
    a[index] = value
    return a


SECOND_MOMENTS = {
    "text": (np.full((2, 2), "a"), TypeError, "S has dtype <U1, expected"),
    "complex": (S.astype(complex), TypeError, "S has dtype complex128, expected"),
    "vector": (U, ValueError, "S has shape (2,), expected 2 axes"),
    "oblong": (S[:1], ValueError, "S has shape (1, 2), expected a square matrix"),
    "empty": (S[:0, :0], ValueError, "S has shape (0, 0), expected a square matrix"),
    "NaN": (with_entry(S, (1, 0), np.nan), ValueError, "S[1, 0] is nan, expected finite"),
    "infinite": (with_entry(S, (0, 0), np.inf), ValueError, "S[0, 0] is inf, expected finite"),
    "not symmetric": (
        with_entry(S, (0, 1), 0.3),
        ValueError,
        "S is not symmetric: S[0, 1] is 0.3 and S[1, 0] is 0.2",
    ),
    "singular": (np.ones((2, 2)), ValueError, "has the smallest eigenvalue .* positive definite"),
    "indefinite": (
        np.diag([1.0, -1.0]),
        ValueError,
        "the diagonal of S[1] is -1.0, expected at least 0",
    ),
    "negative": (-S, ValueError, "the diagonal of S[0] is -1.0, expected"),
    "zero": (0 * S, ValueError, "has the smallest eigenvalue 0, expected"),
}
MEANS = {
    "matrix": (U[None], ValueError, "u has shape (1, 2), expected (2,): one entry for each"),
    "long": (
        np.ones(3),
        ValueError,
        "u has shape (3,), expected (2,): one entry for each of the 2 features of S",
    ),
    "NaN": (np.array([np.nan, 0]), ValueError, "u[0] is nan, expected finite"),
}


@pytest.mark.parametrize("kind", [LeastSquares, GaussianHalfspace])
@pytest.mark.parametrize("case", SECOND_MOMENTS)
def test_second_moments_are_refused(case, kind, refuses):
    value, error, message = SECOND_MOMENTS[case]
    refuses(message, kind, U, value, kind=error)


@pytest.mark.parametrize("kind", [LeastSquares, GaussianHalfspace])
@pytest.mark.parametrize("case", MEANS)
def test_means_are_refused(case, kind, refuses):
    value, error, message = MEANS[case]
    refuses(message, kind, value, S, kind=error)


# ---- the metric, in any units ----


def exactly(S, digits=420):
    """Extreme eigenvalues and the inverse of S, in high precision."""
    with mpmath.workdps(digits):
        exact = mpmath.matrix(S.tolist())
        values = sorted(mpmath.eigsy(exact, eigvals_only=True))
        inverse = exact**-1
        return float(values[0]), float(values[-1]), inverse


def error_of_inverse(d, condition=10):
    """Relative: d^2 products and the condition number, which scaling to length 1 raises d times at most."""
    return 4 * d**2 * EPS * d * condition


@settings(max_examples=25)
@given(seed=SEEDS, largest=st.sampled_from([0.0, 8.0, 100.0]), d=st.integers(1, 4))
def test_eigenvalues_and_inverse_are_right_in_any_units(seed, largest, d, moments, near):
    """Relative to each other, the features have sizes of 10^-largest to 10^largest."""
    rng = np.random.default_rng(seed)
    u, S = moments(seed, d, condition=10)
    units = 10.0 ** rng.uniform(-largest, largest, size=d)
    scaled = S * np.outer(units, units)
    metric = Metric(scaled)
    smallest, most, inverse = exactly(scaled)
    assert not metric.singular
    error = error_of_inverse(d)
    near(metric.smallest, smallest, error * smallest)
    near(metric.largest, most, error * most)
    sizes = units * np.sqrt(np.diag(S))
    near(metric.sizes, sizes, 4 * EPS * sizes)
    for v in (u, rng.normal(size=d)):
        with mpmath.workdps(420):
            column = mpmath.matrix((v * units).tolist())
            solved = inverse * column
            square = float((column.T * solved)[0])
            expected = np.array([float(solved[j]) for j in range(d)])
        near(metric.square(v * units), square, error * square)
        size = np.abs(expected * units).max()
        near(metric.solve(v * units) * units, expected * units, error * size)


@settings(max_examples=25)
@given(seed=SEEDS, j=st.integers(0, 3), factor=st.sampled_from([1e-100, 1e-8, 1e8, 1e100]))
def test_units_decide_nothing_about_moments(seed, j, factor, moments, near):
    u, S = moments(seed, 4)
    units = np.where(np.arange(4) == j, factor, 1.0)
    for kind in (LeastSquares, GaussianHalfspace):
        problem, other = kind(u, S), kind(u * units, S * np.outer(units, units))
        best, solution = problem.rayleigh_optimum, problem.solution_direction
        near(other.rayleigh_optimum, best, error_of_inverse(4) * abs(best))
        error = error_of_inverse(4) * np.abs(solution).max()
        near(other.solution_direction * units, solution, error)
    twice = S[np.ix_([0, 1, 2, 3, j], [0, 1, 2, 3, j])]
    units = np.append(units, 1 / factor)
    _refused("expected a positive definite matrix", LeastSquares, np.ones(5), twice)
    _refused(
        "expected a positive definite matrix",
        LeastSquares,
        np.ones(5),
        twice * np.outer(units, units),
    )
    skew = S.copy()
    skew[0, 1] += 1e-6 * np.sqrt(S[0, 0] * S[1, 1])
    _refused("S is not symmetric", LeastSquares, u, skew)
    units = units[:4]
    _refused("S is not symmetric", LeastSquares, u, skew * np.outer(units, units))


def _refused(message, function, *arguments):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_a_singular_metric_says_so_and_inverts_over_its_range(near):
    A = np.random.default_rng(0).normal(size=(50, 2))
    Z = np.c_[A, A.sum(axis=1), np.zeros(50)]
    metric, plain = Metric(Z.T @ Z / 50), Metric(A.T @ A / 50)
    assert metric.singular
    assert metric.smallest == 0
    v = A.mean(axis=0)
    wide = np.r_[v, v.sum(), 0.0]
    error = 50 * EPS * metric.largest / plain.smallest  # fifty terms, and what S^-1 makes of them
    near(metric.square(wide), plain.square(v), error * plain.square(v))
    solved = metric.solve(wide)
    near(Z.T @ (Z @ solved) / 50, wide, error * np.linalg.norm(wide))


def test_moments_out_of_range_are_refused(refuses):
    for size in (1e-301, 1e301):
        refuses(
            "S[1, 1] is 1e.*, expected between 1e-300 and 1e300",
            LeastSquares,
            U,
            np.diag([1, size]),
        )
    refuses("u'S^-1 u leaves the range of float64: scale u", LeastSquares, 1e200 * U, S)


def test_lists_are_taken():
    for kind in (LeastSquares, GaussianHalfspace):
        one, other = kind(U, S), kind(U.tolist(), S.tolist())
        np.testing.assert_array_equal(other.S, one.S)
        np.testing.assert_array_equal(other.u, one.u)
    assert LeastSquares([1, 2], [[2, 0], [0, 3]]).S.dtype == np.float64


def test_tensors_get_a_hint(refuses):
    message = "S is a torch Tensor, expected a numpy.ndarray: hand in S.detach()"
    refuses(message, LeastSquares, U, torch.eye(2), kind=TypeError)
    message = "S is a sparse csr_array, expected a dense array"
    refuses(message, LeastSquares, U, sparse.csr_array(S), kind=TypeError)
