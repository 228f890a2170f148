"""Where a run may start, and where it may not."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.convergence import (
    EmpiricalHalfspace,
    GaussianHalfspace,
    LeastSquares,
    accelerated_gradient_descent,
    gdnp,
    gradient_descent,
    losses,
    solvers,
    yardsticks,
)
from bncore.convergence.network import GaussianNetwork
from bncore.convergence.start import plain_start, start

EPS = np.finfo(np.float64).eps
U, S = np.array([0.3, -0.2]), np.array([[1.0, 0.2], [0.2, 0.8]])
Z = np.random.default_rng(0).normal(-0.3, 1, size=(40, 2))
W = np.array([1.0, 0.5])
PROBLEMS = {
    "least squares": LeastSquares(U, S),
    "Gaussian": GaussianHalfspace(U, S, "softplus"),
    "sample": EmpiricalHalfspace(Z, "softplus"),
    "unit": GaussianNetwork(U, S, np.ones(1)).unit(0, np.zeros((1, 2))),
}
SOLVERS = {
    "gdnp": gdnp,
    "gd": gradient_descent,
    "agd": accelerated_gradient_descent,
    "bn": functools.partial(solvers.batch_norm_gradient_descent, learning_rate=0.1),
    "wn": functools.partial(solvers.weight_normalization, learning_rate=0.1),
    "lbfgs": yardsticks.lbfgs,
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_starts_and_budgets_are_refused(solver, problem, refuses):
    run, problem = SOLVERS[solver], PROBLEMS[problem]
    refuses("w0 has shape (3,), expected (2,)", run, problem, np.ones(3))
    refuses("w0[0] is nan, expected finite", run, problem, np.array([np.nan, 1]))
    refuses("steps is -1, expected at least", run, problem, W, steps=-1)
    refuses("steps is a float, expected an integer", run, problem, W, steps=2.5, kind=TypeError)
    refuses("tolerance is -1, expected", run, problem, W, tolerance=-1)
    refuses("tolerance is nan, expected", run, problem, W, tolerance=np.nan)
    if solver in ("gd", "agd", "bn", "wn"):
        for rate in (0, -0.1, np.nan, np.inf):
            refuses(f"learning_rate is {rate}, expected", run, problem, W, learning_rate=rate)
        refuses("learning_rate is a str", run, problem, W, learning_rate="1", kind=TypeError)
    if solver in ("bn", "wn"):
        refuses("g0 is nan, expected", run, problem, W, g0=np.nan)
        refuses("w0 is 0, expected a direction", run, problem, 0 * W)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_dead_starts_of_gdnp_are_refused(problem, refuses):
    problem = PROBLEMS[problem]
    refuses("w0 is 0, expected a direction", gdnp, problem, 0 * W)
    orthogonal = np.array([-problem.u[1], problem.u[0]])
    refuses("rho(w0) is 0 because w0 is orthogonal to u", gdnp, problem, orthogonal)
    refuses("bisection_steps is -1, expected", gdnp, problem, W, bisection_steps=-1)
    refuses("length_search is 'newton', expected", gdnp, problem, W, length_search="newton")


def test_a_mean_of_zero_is_refused(refuses):
    for problem in (
        LeastSquares(0 * U, S),
        GaussianHalfspace(0 * U, S, "softplus"),
        EmpiricalHalfspace(np.r_[Z, -Z], "softplus"),  # 0 but for rounding
    ):
        refuses("u is 0, expected a mean of z that is not", gdnp, problem, W)
    assert gdnp(LeastSquares(1e-9 * U, S), W, steps=2).status == "budget"


def test_a_start_where_f_is_not_finite_is_refused(refuses):
    for solver in ("gd", "agd"):
        run = functools.partial(SOLVERS[solver], PROBLEMS["least squares"])
        refuses("f is inf at the start", run, 1e200 * W)


def test_a_start_along_which_the_data_do_not_move_is_refused(refuses):
    problem = EmpiricalHalfspace(np.c_[Z, np.zeros(40)], "softplus")
    refuses("w0 has length 0 in the norm of S", gdnp, problem, np.array([0.0, 0.0, 1.0]))


def test_a_loss_without_bounds_needs_a_learning_rate(refuses):
    triple = (np.sin, np.cos, lambda a: -np.sin(a))
    for problem in (GaussianHalfspace(U, S, triple), EmpiricalHalfspace(Z, triple)):
        for solver in ("gd", "agd"):
            refuses("learning_rate", SOLVERS[solver], problem, W)
            assert len(SOLVERS[solver](problem, W, steps=2, learning_rate=0.1).w) == 3


# ---- in any units ----


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    j=st.integers(0, 3),
    factor=st.sampled_from([1e-100, 1e-8, 1e8, 1e100]),
    kind=st.sampled_from(["least squares", "Gaussian", "sample"]),
)
def test_units_of_features_decide_no_start(seed, j, factor, kind, problem_of, near):
    """Dead starts stay dead, and others alive, whatever the units; u stays as far from 0 as it was."""
    plain, rng = problem_of(kind, seed), np.random.default_rng(seed)
    units = np.where(np.arange(4) == j, factor, 1.0)
    other = in_units(plain, units)
    w = rng.normal(size=4)
    live = w * np.sign(plain.u)  # every part of u'w counts
    pairs = [(w0, True) for w0 in (w, live, 1e-6 * w)]
    i, k = rng.choice(4, size=2, replace=False)
    orthogonal = np.zeros(4)
    orthogonal[[i, k]] = -1 / plain.u[i], 1 / plain.u[k]
    pairs.append((orthogonal, False))
    for w0, alive in pairs:
        for problem, at in ((plain, w0), (other, w0 / units)):
            if alive:
                found, line = start(problem, at)
                np.testing.assert_array_equal(found, at)
                near(line.mean, problem.u @ at, 4 * EPS * np.abs(problem.u) @ np.abs(at))
            else:
                with pytest.raises(ValueError, match="rho\\(w0\\) is 0 because w0 is orthogonal"):
                    start(problem, at)


def in_units(problem, units):
    if isinstance(problem, EmpiricalHalfspace):
        return EmpiricalHalfspace(problem.Z * units)
    return type(problem)(problem.u * units, problem.S * np.outer(units, units))


@pytest.mark.parametrize("factor", [1e-100, 1e-8, 1.0, 1e8, 1e100])
@pytest.mark.parametrize("n", [20, 500, 20000])
def test_a_mean_of_zero_but_for_rounding_is_refused_in_any_units(factor, n, refuses):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        A = (rng.normal(size=(n, 2)) + 3 * rng.normal(size=2)) * [factor, 1.0]
        Z = rng.permutation(np.r_[A, -A])
        problem, w = EmpiricalHalfspace(Z), np.array([1 / factor, 1.0])
        refuses("u is 0, expected a mean of z that is not", start, problem, w)
        y = np.sign(rng.normal(size=n)) * 1e6
        regression = LeastSquares.from_data(np.r_[A, A], np.r_[y, -y])
        refuses("u is 0, expected a mean of z that is not", start, regression, w)
        shifted = Z + 1e-9 * np.array([factor, 1.0])
        start(EmpiricalHalfspace(shifted), w)


def test_a_mean_of_zero_in_one_feature_is_a_start():
    start(LeastSquares(np.array([0.3, 0.0]), S), W)
    flat = EmpiricalHalfspace(
        np.r_[Z, Z * [1, -1]]
    )  # the second feature has mean 0 but for rounding
    start(flat, W)


def test_a_direction_along_which_the_data_do_not_move_is_refused_in_any_units(refuses):
    for seed in range(50):
        rng = np.random.default_rng(seed)
        A, units = rng.normal(size=(60, 3)), 10.0 ** rng.uniform(-8, 8, size=4)
        for dtype in (np.float64, np.float32):
            # powers of 2 keep the sum exact in single precision
            factors = units if dtype == np.float64 else np.exp2(np.rint(np.log2(units)))
            problem = EmpiricalHalfspace((np.c_[A, A.sum(axis=1)] * factors).astype(dtype))
            w0 = np.array([1.0, 1.0, 1.0, -1.0]) / factors
            refuses("w0 has length 0 in the norm of S, expected", start, problem, w0)
            start(problem, w0 * [1, 1, 1, -1])


def test_starts_out_of_range_are_refused(refuses):
    for problem in PROBLEMS.values():
        for size in (1e-200, 1e200):
            refuses("w0 makes scores of size", start, problem, size * W)


@pytest.mark.parametrize(
    "given_", [[1, 2], (1.0, 2.0), np.array([1, 2]), np.array([1, 2], np.float32)]
)
def test_starts_are_taken_in_every_form_and_copied(given_):
    for problem in PROBLEMS.values():
        found = plain_start(problem, given_)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, [1.0, 2.0])
        assert found is not given_


def test_tensors_get_a_hint(refuses):
    message = "w0 is a torch Tensor, expected a numpy.ndarray: hand in w0.detach()"
    for run in SOLVERS.values():
        refuses(message, run, PROBLEMS["Gaussian"], torch.ones(2), kind=TypeError)


def test_a_curvature_of_zero_needs_a_learning_rate(refuses):
    """A loss without curvature has no default step."""
    linear = losses.Loss(np.positive, np.ones_like, np.zeros_like, 1.0, 0.0, "linear")
    refuses("the smoothness is 0", gradient_descent, EmpiricalHalfspace(Z, linear), W)
