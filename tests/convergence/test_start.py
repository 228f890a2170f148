"""Where a run may start, and where it may not."""

import functools

import numpy as np
import pytest

from bncore.convergence import (
    EmpiricalHalfspace,
    GaussianHalfspace,
    LeastSquares,
    accelerated_gradient_descent,
    gdnp,
    gradient_descent,
    solvers,
    yardsticks,
)
from bncore.convergence.network import GaussianNetwork

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
