"""Least squares of moments and of data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from bncore.convergence import EmpiricalHalfspace, LeastSquares

EPS = np.finfo(np.float64).eps
SEEDS = st.integers(0, 10**6)
few = settings(max_examples=12)
U, S = np.array([0.3, -0.2]), np.array([[1.0, 0.2], [0.2, 0.8]])
Z = np.random.default_rng(0).normal(-0.3, 1, size=(40, 2))
LABELS = np.where(Z[:, 0] > 0, 1.0, -1.0)


def with_entry(a, index, value):
    a = a.copy()
    a[index] = value
    return a


def error_of_moments(X, y):
    """Of X'X / n and of X'y / n: n terms, of sizes that Cauchy and Schwarz bound."""
    x, y = np.sqrt(np.mean(X**2, axis=0)), np.sqrt(np.mean(np.square(y)))
    return len(X) * EPS * np.outer(x, x), len(X) * EPS * x * y


def error_of_solution(X, y):
    """Of S^-1 u, from moments that are off: S^-1 (du + dS w)."""
    S, w = X.T @ X / len(X), np.linalg.lstsq(X, y, rcond=None)[0]
    of_S, of_u = error_of_moments(X, y)
    mu, *_ = np.linalg.eigvalsh(S)
    return np.linalg.norm(of_u + of_S @ np.abs(w)) / mu


@few
@given(seed=SEEDS)
def test_moments_of_data_are_sample_means(seed, near, error_of):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(30, 4)), rng.normal(size=30)
    problem = LeastSquares.from_data(X, y)
    of_S, of_u = error_of_moments(X, y)
    near(problem.u, -X.T @ y / 30, of_u)
    near(problem.S, X.T @ X / 30, of_S)
    w = rng.normal(size=4)
    size = np.mean((np.abs(y) + np.abs(X) @ np.abs(w)) ** 2)
    near(problem.value(w), np.mean((y - X @ w) ** 2), 30 * EPS * size)
    error = error_of_solution(X, y)
    near(problem.closed_form, np.linalg.lstsq(X, y, rcond=None)[0], error)
    near(problem.gradient(problem.closed_form), np.zeros(4), problem.smoothness * error)
    labels = np.where(y > 0, 1.0, -1.0)
    halfspace = EmpiricalHalfspace.from_data(X, labels, "softplus")
    near(halfspace.u, -X.T @ labels / 30, error_of_moments(X, labels)[1])
    near(halfspace.S, X.T @ X / 30, of_S)
    expected = np.mean(np.log1p(np.exp(-labels * (X @ w))))
    near(halfspace.value(w), expected, error_of(halfspace, w)[0])


def test_a_constant_is_a_number(refuses):
    refuses("constant is nan, expected a finite number", LeastSquares, U, S, np.nan)
    refuses("constant is a str, expected a real number", LeastSquares, U, S, "1", kind=TypeError)


def test_data_of_least_squares_are_refused(refuses):
    from_data = LeastSquares.from_data
    refuses("X has shape (0, 2), expected at least one sample", from_data, Z[:0], LABELS[:0])
    refuses("y has shape (39,), expected (40,)", from_data, Z, LABELS[1:])
    refuses("X[0, 0] is nan, expected finite", from_data, with_entry(Z, (0, 0), np.nan), LABELS)
    twice = np.c_[Z, Z[:, 0]]
    refuses("has 2 independent columns, expected all 3", from_data, twice, LABELS)
    refuses("has 1 independent columns, expected all 2", from_data, Z[:1], LABELS[:1])


@few
@given(seed=SEEDS, j=st.integers(0, 3), factor=st.sampled_from([1e-100, 1e-8, 1e8, 1e100]))
def test_units_of_data_decide_nothing(seed, j, factor, near):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(30, 4)), rng.normal(size=30)
    units = np.where(np.arange(4) == j, factor, 1.0)
    problem = LeastSquares.from_data(X * units, y)
    expected = np.linalg.lstsq(X, y, rcond=None)[0]
    near(problem.closed_form * units, expected, error_of_solution(X, y))
    twice = np.c_[X, X @ [1.0, 2.0, 3.0, 4.0]]
    for data in (twice, twice * np.append(units, 1 / factor)):
        with pytest.raises(ValueError, match="has 4 independent columns, expected all 5"):
            LeastSquares.from_data(data, y)
    # in other units of y, u differs from 0 as much as it did
    for size in (1e-100, 1e100):
        LeastSquares.from_data(X, size * y).expect_mean()
        with pytest.raises(ValueError, match="u is 0"):
            LeastSquares.from_data(np.r_[X, X], size * np.r_[y, -y]).expect_mean()


@pytest.mark.parametrize(
    "kind", [np.asarray, np.float32, sparse.csr_array, sparse.coo_matrix, list]
)
def test_data_are_taken_in_every_form(kind):
    rng = np.random.default_rng(0)
    X, y = rng.integers(-4, 5, size=(30, 3)).astype(float), rng.integers(-4, 5, size=30)
    expected = LeastSquares.from_data(X, y.astype(float))
    problem = LeastSquares.from_data(X.tolist() if kind is list else kind(X), y.tolist())
    # sums of integers are exact
    np.testing.assert_array_equal(problem.S, expected.S)
    np.testing.assert_array_equal(problem.u, expected.u)
    assert problem.constant == expected.constant
