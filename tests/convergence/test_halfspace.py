"""Halfspaces of Gaussian examples and of samples."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.datasets import load_wine

from bncore.convergence import EmpiricalHalfspace, GaussianHalfspace, LeastSquares, gdnp, losses

NAMES = ["softplus", "sigmoid", "tanh", "squared"]
EPS, EPS32 = np.finfo(np.float64).eps, np.finfo(np.float32).eps
SEEDS = st.integers(0, 10**6)
few = settings(max_examples=12)
U, S = np.array([0.3, -0.2]), np.array([[1.0, 0.2], [0.2, 0.8]])
Z = np.random.default_rng(0).normal(-0.3, 1, size=(40, 2))
LABELS = np.where(Z[:, 0] > 0, 1.0, -1.0)


def with_entry(a, index, value):
    a = a.copy()
    a[index] = value
    return a


@few
@given(seed=SEEDS)
def test_the_squared_loss_makes_every_problem_one_of_least_squares(
    seed, moments, cloud, near, error_of
):
    u, S = moments(seed, 4)
    sample = EmpiricalHalfspace(cloud(seed), "squared")
    for problem in (GaussianHalfspace(u, S, "squared"), sample):
        twin = LeastSquares(problem.u, problem.S, 1.0)
        w, v = np.random.default_rng(seed).normal(size=(2, 4))
        of_value, of_gradient, of_product = error_of(problem, w, v)
        near(problem.value(w), twin.value(w), of_value)
        near(problem.gradient(w), twin.gradient(w), of_gradient)
        near(problem.hessian_product(w, v), twin.hessian_product(w, v), of_product)
        near(problem.smoothness, twin.smoothness, 16 * EPS * twin.smoothness)


@few
@given(seed=SEEDS, name=st.sampled_from(NAMES))
def test_relabelling_both_classes_changes_nothing(seed, name, near, error_of):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(40, 3)), rng.choice([-1.0, 1.0], size=40)
    w = rng.normal(size=3)
    one, other = (EmpiricalHalfspace.from_data(s * X, s * y, name) for s in (1.0, -1.0))
    np.testing.assert_array_equal(one.Z, other.Z)  # signs alone
    near(one.value(w), other.value(w), error_of(one, w)[0])
    near(one.gradient(w), other.gradient(w), error_of(one, w)[1])
    near(one.u, other.u, 40 * EPS * np.abs(X).mean(axis=0))


def test_the_sample_comes_near_the_gaussian_at_the_rate_of_monte_carlo(moments):
    """The error of value and gradient falls like n^-1/2.

    The logarithm of a deviation that k samples estimate has the standard error (2 k)^-1/2.
    """
    u, S = moments(1, 4, condition=5, share=0.4)
    root = np.linalg.cholesky(S - np.outer(u, u))
    w = np.array([0.6, -1.2, 0.4, 0.8])
    sizes = np.array([100, 1000, 10000, 100000])
    for name in NAMES:
        exact = GaussianHalfspace(u, S, name)
        errors = np.zeros((2, len(sizes), 12))
        for i, n in enumerate(sizes):
            for seed in range(errors.shape[2]):
                rng = np.random.default_rng([seed, n])
                sample = EmpiricalHalfspace(u + rng.normal(size=(n, 4)) @ root.T, name)
                errors[0, i, seed] = sample.value(w) - exact.value(w)
                errors[1, i, seed] = np.linalg.norm(sample.gradient(w) - exact.gradient(w))
        spread = np.sqrt((errors**2).mean(axis=2))
        standard_error = (2 * errors.shape[2]) ** -0.5
        of_rate = standard_error / (np.std(np.log(sizes)) * np.sqrt(len(sizes)))
        for row in spread:
            rate = np.polyfit(np.log(sizes), np.log(row), 1)[0]
            assert abs(rate + 0.5) < 3 * of_rate, (name, rate)
        # The standard error of the value is known: that of phi(z'w) over the square root of n.
        a = (u + np.random.default_rng(0).normal(size=(10**5, 4)) @ root.T) @ w
        expected = np.std(losses.get(name).phi(a)) / np.sqrt(sizes)
        assert (np.abs(np.log(spread[0] / expected)) < 3 * standard_error).all()


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csc_array, sparse.csr_matrix])
@pytest.mark.parametrize("name", NAMES)
def test_sparse_rows_equal_dense_ones(kind, name, near, error_of):
    rng = np.random.default_rng(0)
    Z = np.where(rng.random((80, 6)) < 0.3, rng.normal(-0.3, 1, size=(80, 6)), 0)
    w, v = rng.normal(size=(2, 6))
    dense, thin = EmpiricalHalfspace(Z, name), EmpiricalHalfspace(kind(Z), name)
    of_mean = 80 * EPS * np.abs(Z).mean(axis=0)
    near(thin.u, dense.u, of_mean)
    near(thin.S, dense.S, 80 * EPS * np.abs(Z).T @ np.abs(Z) / 80)
    assert type(thin.S) is np.ndarray
    of_value, of_gradient, of_product = error_of(dense, w, v)
    near(thin.value(w), dense.value(w), of_value)
    near(thin.gradient(w), dense.gradient(w), of_gradient)
    near(thin.hessian_product(w, v), dense.hessian_product(w, v), of_product)
    assert sparse.issparse(thin.Z)
    y = rng.choice([-1.0, 1.0], size=80)
    one = EmpiricalHalfspace.from_data(Z, y, name)
    other = EmpiricalHalfspace.from_data(kind(Z), y, name)
    assert sparse.issparse(other.Z)
    near(other.u, one.u, of_mean)


def test_single_precision_data_stay_single_precision(cloud, near):
    Z = cloud(0, 300).astype(np.float32)
    problem = EmpiricalHalfspace(Z, "softplus")
    assert problem.Z is Z or np.shares_memory(problem.Z, Z)
    assert problem.Z.dtype == np.float32
    double = EmpiricalHalfspace(Z.astype(float), "softplus")
    w = np.array([0.5, -1.0, 0.3, 0.2])
    # scores and the sums of a gradient are single; the softplus has the slope 1 and the bend 1/4
    of_scores = 4 * EPS32 * np.abs(Z) @ np.abs(w)
    near(problem.value(w), double.value(w), of_scores.mean())
    of_gradient = (of_scores / 4 + 300 * EPS32) @ np.abs(Z) / 300
    near(problem.gradient(w), double.gradient(w), of_gradient)
    for y in (np.ones(300), np.ones(300, np.float32), np.ones(300, int)):
        for X in (-Z, sparse.csr_array(-Z)):
            assert EmpiricalHalfspace.from_data(X, y, "softplus").Z.dtype == np.float32


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_integer_data_are_taken_as_double_precision(kind, near, error_of):
    rng = np.random.default_rng(0)
    X, y, w = rng.integers(-3, 4, size=(30, 3)), rng.choice([-1, 1], size=30), rng.normal(size=3)
    expected = EmpiricalHalfspace.from_data(X.astype(float), y.astype(float), "softplus")
    for problem in (
        EmpiricalHalfspace.from_data(kind(X), y, "softplus"),
        EmpiricalHalfspace(kind(-y[:, None] * X), "softplus"),
    ):
        near(problem.value(w), expected.value(w), error_of(expected, w)[0])
        near(problem.gradient(w), expected.gradient(w), error_of(expected, w)[1])


def test_a_single_precision_problem_needs_no_second_copy_of_the_data():
    Z = np.random.default_rng(0).standard_normal((20000, 200), dtype=np.float32)
    w = np.full(200, 0.05)
    tracemalloc.start()
    try:
        problem = EmpiricalHalfspace(Z, "softplus")
        problem.gradient(w)
        problem.hessian_product(w, w)
        assert problem.condition_number < 2
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < Z.nbytes


def test_a_problem_keeps_its_own_moments(moments, near, error_of):
    u, S = moments(0)
    problems = [LeastSquares(u, S), GaussianHalfspace(u, S, "tanh")]
    w = np.ones(5)
    before = [p.gradient(w) for p in problems]
    u[:] = 0
    S[:] = np.eye(5)
    for problem, gradient in zip(problems, before, strict=True):
        near(problem.gradient(w), gradient, error_of(problem, w)[1])


def test_a_covariance_that_is_none_is_refused(refuses):
    long = np.array([1.0, 0.0]) * np.sqrt(1 / np.linalg.inv(S)[0, 0])
    for factor in (1.0, 2.0):
        refuses("u'S^-1 u is .*, expected below 1", GaussianHalfspace, factor * long, S, "tanh")
    GaussianHalfspace(0.999 * long, S, "tanh")
    LeastSquares(2 * long, S)


@pytest.mark.parametrize("X", [Z, sparse.csr_array(Z)], ids=["dense", "sparse"])
def test_labels_are_refused(X, refuses):
    from_data = EmpiricalHalfspace.from_data
    refuses("y contains 0, expected labels of -1 and 1", from_data, X, with_entry(LABELS, 5, 0))
    refuses("y contains 2, expected labels of -1 and 1", from_data, X, 2 * np.abs(LABELS))
    refuses("y has shape (39,), expected (40,)", from_data, X, LABELS[1:])
    refuses("y[0] is nan, expected finite", from_data, X, with_entry(LABELS, 0, np.nan))


# ---- units and rank ----


def wine():
    data = load_wine()
    X = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    return X, np.where(data.target == 1, 1.0, -1.0)


@pytest.mark.parametrize("factor", [1.0, 1e8, 1e-8, 1e100, 1e-100])
def test_wine_in_other_units(factor, near, rounding):
    """rho* and the gap of -u are computed with numpy from the features as they are."""
    X, y = wine()
    units = np.where(np.arange(13) == 0, factor, 1.0)
    plain = EmpiricalHalfspace.from_data(X, y)
    problem = EmpiricalHalfspace.from_data(X * units, y)
    Q, _ = np.linalg.qr(X)
    best = -np.sum((Q.T @ y) ** 2) / len(y)
    assert f"{best:.3f}" == "-0.772"
    error = rounding(plain) * plain.condition_number
    near(problem.rayleigh_optimum, best, error * abs(best))
    assert problem.condition_number < np.inf
    u = X.T @ y / len(y)
    scores = X @ (u * units**2) / max(units[0], 1) ** 2  # those of u in the new units, scaled
    gap = -((scores @ y) ** 2) / (scores @ scores) / len(y) - best
    if factor == 1e8:
        assert f"{gap:.3f}" == "0.266"
    line = problem.line(-problem.u / max(units[0], 1) ** 2)
    near(line.rayleigh_gap, gap, error * abs(best))
    regression = LeastSquares.from_data(X * units, y)
    near(regression.rayleigh_optimum, best, error * abs(best))
    expected = np.linalg.lstsq(X, y, rcond=None)[0]
    near(regression.closed_form * units, expected, error * np.linalg.norm(expected))
    w0 = 0.1 * np.ones(13)
    one, other = gdnp(plain, w0, steps=0), gdnp(problem, w0 / units, steps=0)
    near(other.rayleigh_gap, one.rayleigh_gap, error * abs(best))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("shape", [(500, 3), (12, 5), (3000, 2)])
def test_dependent_columns_are_found_in_every_sample(shape, dtype):
    for seed in range(150):
        rng = np.random.default_rng(seed)
        A = (rng.normal(size=shape) + rng.normal(size=shape[1])).astype(dtype)
        units = 2.0 ** rng.integers(-4, 5, size=shape[1] + 1)
        if dtype == np.float64:
            units = 10.0 ** rng.uniform(-8, 8, size=shape[1] + 1)
        for factors in (np.ones(shape[1] + 1), units):
            Z = np.c_[A, A.sum(axis=1)] * factors.astype(dtype)
            kinds = [Z] if dtype == np.float16 else [Z, sparse.csr_array(Z)]
            for data in kinds:
                problem = EmpiricalHalfspace(data)
                assert problem.smallest_eigenvalue == 0, seed
                assert problem.condition_number == np.inf
        independent = EmpiricalHalfspace(A * units[:-1].astype(dtype))
        assert independent.smallest_eigenvalue > 0, seed


@few
@given(seed=SEEDS)
def test_dependent_columns_change_no_gap(seed, cloud, near, rounding):
    rng = np.random.default_rng(seed)
    A = cloud(seed)
    factors = 10.0 ** rng.uniform(-8, 8, size=5)
    plain, problem = EmpiricalHalfspace(A), EmpiricalHalfspace(np.c_[A, A.sum(axis=1)] * factors)
    best = plain.rayleigh_optimum
    error = rounding(problem) * plain.condition_number * abs(best)
    near(problem.rayleigh_optimum, best, error)
    w = rng.normal(size=5)
    # w and what the last column adds to it may cancel
    left = plain.line(w[:4] + w[4])
    lost = np.linalg.norm(w) * np.sqrt(plain.largest_eigenvalue) / left.norm
    near(problem.line(w / factors).rayleigh_gap, left.rayleigh_gap, (1 + lost) * error)
    with pytest.raises(ValueError, match="w has length 0 in the norm of S"):
        problem.rayleigh(np.array([1.0, 1, 1, 1, -1]) / factors)


# ---- precision and range ----


def test_single_precision_is_scaled_into_its_range(near):
    """Weights and scores beyond the range of float32, exactly as in double precision."""
    Z = np.random.default_rng(0).integers(-8, 9, size=(40, 3)).astype(np.float32)
    single, double = (
        EmpiricalHalfspace(Z, "squared"),
        EmpiricalHalfspace(Z.astype(float), "squared"),
    )
    for w in (np.array([1.0, -2.0, 3.0]) * 2.0**200, np.array([1.0, -2.0, 3.0]) * 2.0**-200):
        near(single.value(w), double.value(w), 40 * EPS * double.value(w))
        sizes = 2 * (1 + np.abs(Z) @ np.abs(w)) @ np.abs(Z) / 40
        near(single.gradient(w), double.gradient(w), 40 * EPS32 * sizes)


def test_half_precision_is_computed_in_single(near):
    Z = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float16)
    problem, twin = EmpiricalHalfspace(Z), EmpiricalHalfspace(Z.astype(np.float64))
    w = np.array([300.0, -500.0, 20.0])
    assert problem.Z.dtype == np.float32
    near(problem.value(w), twin.value(w), 3 * EPS32 * np.mean(np.abs(Z) @ np.abs(w)))


def test_what_leaves_the_range_is_refused(refuses):
    problem = EmpiricalHalfspace(Z, "squared")
    refuses("f at w leaves the range of float64", problem.value, 1e200 * np.ones(2))
    refuses(
        "w makes scores of size .*, expected between 1e-150", problem.rayleigh, 1e200 * np.ones(2)
    )
    refuses("w makes scores of size", problem.rayleigh_gradient, 1e-200 * np.ones(2))
    refuses("||w||_S at w leaves the range", problem.norm, 1e200 * np.ones(2))
    refuses("Z is 0, expected examples", EmpiricalHalfspace, 0 * Z)
    refuses("u is 0, expected a mean of z", lambda p: p.solution_direction, LeastSquares(0 * U, S))
    refuses(
        "u is 0, expected a mean of z",
        lambda p: p.solution_direction,
        EmpiricalHalfspace(np.r_[Z, -Z]),
    )
