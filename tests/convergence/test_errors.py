"""Bad input: each message says what was wrong, what it was, and what it should be."""

import functools
import re

import numpy as np
import pytest
from scipy import sparse

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
from bncore.convergence import reparametrization as rp
from bncore.convergence.network import EmpiricalNetwork, GaussianNetwork, gdnp_network

pytestmark = pytest.mark.usefixtures("unchecked")

U, S = np.array([0.3, -0.2]), np.array([[1.0, 0.2], [0.2, 0.8]])
Z = np.random.default_rng(0).normal(-0.3, 1, size=(40, 2))
W = np.array([1.0, 0.5])
LABELS = np.where(Z[:, 0] > 0, 1.0, -1.0)


def with_entry(a, index, value):
    a = a.copy()
    a[index] = value
    return a


def refuses(message, function, *arguments, kind=ValueError, **options):
    pattern = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(kind, match=pattern):
        function(*arguments, **options)


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
    "singular": (np.ones((2, 2)), ValueError, "S has the smallest eigenvalue .* positive definite"),
    "indefinite": (np.diag([1.0, -1.0]), ValueError, "S has the smallest eigenvalue -1 beside"),
    "negative": (-S, ValueError, "expected a positive definite matrix"),
    "zero": (0 * S, ValueError, "S has the smallest eigenvalue 0"),
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
def test_second_moments_are_refused(case, kind):
    value, error, message = SECOND_MOMENTS[case]
    refuses(message, kind, U, value, kind=error)


@pytest.mark.parametrize("kind", [LeastSquares, GaussianHalfspace])
@pytest.mark.parametrize("case", MEANS)
def test_means_are_refused(case, kind):
    value, error, message = MEANS[case]
    refuses(message, kind, value, S, kind=error)


def test_a_covariance_that_is_none_is_refused():
    long = np.array([1.0, 0.0]) * np.sqrt(1 / np.linalg.inv(S)[0, 0])
    for factor in (1.0, 2.0):
        refuses("u'S^-1 u is .*, expected below 1", GaussianHalfspace, factor * long, S, "tanh")
    GaussianHalfspace(0.999 * long, S, "tanh")
    LeastSquares(2 * long, S)


def test_a_constant_is_a_number():
    refuses("constant is nan, expected a finite number", LeastSquares, U, S, np.nan)
    refuses("constant is a str, expected a real number", LeastSquares, U, S, "1", kind=TypeError)


LOSSES = {
    "name": ("hinge", ValueError, "loss is 'hinge', expected one of softplus, sigmoid, tanh"),
    "number": (3, TypeError, "loss is a int, expected a name, a triple"),
    "None": (None, TypeError, "loss is a None, expected a name"),
    "pair": ((np.sin, np.cos), TypeError, "loss is a tuple, expected a name, a triple"),
    "triple of numbers": ((1, 2, 3), TypeError, "loss is a tuple, expected"),
}


@pytest.mark.parametrize("case", LOSSES)
def test_losses_are_refused(case):
    value, error, message = LOSSES[case]
    refuses(message, losses.get, value, kind=error)
    refuses(message, GaussianHalfspace, U, S, value, kind=error)
    refuses(message, EmpiricalHalfspace, Z, value, kind=error)


def test_derivatives_that_are_none_are_refused():
    wrong = (np.sin, lambda a: np.cos(a) + 1e-3, lambda a: -np.sin(a))
    refuses("dphi(.*) is .*, expected .*, the derivative", losses.check_derivatives, wrong)
    flat = (np.sin, lambda a: 1.0, lambda a: -np.sin(a))
    refuses("dphi returns shape () for scores of shape (401,)", losses.check_derivatives, flat)
    nan = (np.sin, lambda a: np.full_like(a, np.nan), lambda a: -np.sin(a))
    refuses("dphi(-10) is nan, expected", losses.check_derivatives, nan)
    refuses("largest is 0, expected", losses.check_derivatives, "tanh", 0)
    refuses("tolerance is -1, expected", losses.check_derivatives, "tanh", 1.0, -1)


SAMPLES = {
    "vector": (Z[:, 0], ValueError, "Z has shape (40,), expected 2 axes"),
    "no rows": (Z[:0], ValueError, "Z has shape (0, 2), expected at least one sample"),
    "no columns": (Z[:, :0], ValueError, "Z has shape (40, 0), expected at least one"),
    "NaN": (with_entry(Z, (3, 1), np.nan), ValueError, "Z[3, 1] is nan, expected finite"),
    "complex": (Z.astype(complex), TypeError, "Z has dtype complex128, expected real"),
    "sparse NaN": (
        sparse.csr_array(with_entry(Z, (3, 1), np.nan)),
        ValueError,
        "Z.* is nan, expected finite",
    ),
    "sparse and empty": (
        sparse.csr_array((0, 2)),
        ValueError,
        "Z has shape (0, 2), expected at least one sample",
    ),
}


@pytest.mark.parametrize("case", SAMPLES)
def test_samples_are_refused(case):
    value, error, message = SAMPLES[case]
    refuses(message, EmpiricalHalfspace, value, "softplus", kind=error)


@pytest.mark.parametrize("X", [Z, sparse.csr_array(Z)], ids=["dense", "sparse"])
def test_labels_are_refused(X):
    from_data = EmpiricalHalfspace.from_data
    refuses("y contains 0, expected labels of -1 and 1", from_data, X, with_entry(LABELS, 5, 0))
    refuses("y contains 2, expected labels of -1 and 1", from_data, X, 2 * np.abs(LABELS))
    refuses("y has shape (39,), expected (40,)", from_data, X, LABELS[1:])
    refuses("y[0] is nan, expected finite", from_data, X, with_entry(LABELS, 0, np.nan))


def test_data_of_least_squares_are_refused():
    from_data = LeastSquares.from_data
    refuses("X has shape (0, 2), expected at least one sample", from_data, Z[:0], LABELS[:0])
    refuses("y has shape (39,), expected (40,)", from_data, Z, LABELS[1:])
    refuses("X[0, 0] is nan, expected finite", from_data, with_entry(Z, (0, 0), np.nan), LABELS)
    twice = np.c_[Z, Z[:, 0]]
    refuses("has 2 independent columns, expected all 3", from_data, twice, LABELS)
    refuses("has 1 independent columns, expected all 2", from_data, Z[:1], LABELS[:1])


PROBLEMS = {
    "least squares": LeastSquares(U, S),
    "Gaussian": GaussianHalfspace(U, S, "softplus"),
    "sample": EmpiricalHalfspace(Z, "softplus"),
    "unit": GaussianNetwork(U, S, np.ones(1)).unit(0, np.zeros((1, 2))),
}
METHODS = ["value", "gradient", "rayleigh", "rayleigh_gradient", "norm", "coefficients"]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("method", METHODS)
def test_weights_are_refused(problem, method):
    function = getattr(PROBLEMS[problem], method)
    refuses(
        "w has shape (3,), expected (2,): one entry for each of the 2 features of the problem",
        function,
        np.ones(3),
    )
    refuses("w has shape (1, 2), expected (2,): one entry", function, W[None])
    refuses("w[1] is nan, expected finite", function, np.array([1, np.nan]))
    if method.startswith("rayleigh"):
        refuses("w has length 0 in the norm of S, expected a direction", function, 0 * W)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_arguments_of_hessian_products_are_refused(problem):
    function = PROBLEMS[problem].hessian_product
    refuses("w has shape (3,), expected (2,)", function, np.ones(3), W)
    refuses("v has shape (3,), expected (2,)", function, W, np.ones(3))
    refuses("v[0] is inf, expected finite", function, W, np.array([np.inf, 0]))


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
def test_starts_and_budgets_are_refused(solver, problem):
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
def test_dead_starts_of_gdnp_are_refused(problem):
    problem = PROBLEMS[problem]
    refuses("w0 is 0, expected a direction", gdnp, problem, 0 * W)
    orthogonal = np.array([-problem.u[1], problem.u[0]])
    refuses("rho(w0) is 0 because w0 is orthogonal to u", gdnp, problem, orthogonal)
    refuses("bisection_steps is -1, expected", gdnp, problem, W, bisection_steps=-1)
    refuses("length_search is 'newton', expected", gdnp, problem, W, length_search="newton")


def test_a_mean_of_zero_is_refused():
    for problem in (
        LeastSquares(0 * U, S),
        GaussianHalfspace(0 * U, S, "softplus"),
        EmpiricalHalfspace(np.r_[Z, -Z], "softplus"),  # 0 but for rounding
    ):
        refuses("u is 0, expected a mean of z that is not", gdnp, problem, W)
    assert gdnp(LeastSquares(1e-9 * U, S), W, steps=2).status == "budget"


def test_a_start_where_f_is_not_finite_is_refused():
    for solver in ("gd", "agd"):
        run = functools.partial(SOLVERS[solver], PROBLEMS["least squares"])
        refuses("f is inf at the start", run, 1e200 * W)


def test_a_start_along_which_the_data_do_not_move_is_refused():
    problem = EmpiricalHalfspace(np.c_[Z, np.zeros(40)], "softplus")
    refuses("w0 has length 0 in the norm of S", gdnp, problem, np.array([0.0, 0.0, 1.0]))


def test_a_loss_without_bounds_needs_a_learning_rate():
    triple = (np.sin, np.cos, lambda a: -np.sin(a))
    for problem in (GaussianHalfspace(U, S, triple), EmpiricalHalfspace(Z, triple)):
        for solver in ("gd", "agd"):
            refuses("learning_rate", SOLVERS[solver], problem, W)
            assert len(SOLVERS[solver](problem, W, steps=2, learning_rate=0.1).w) == 3


def test_reparametrizations_are_refused():
    refuses("0", rp.decouple, 0 * W, S)
    refuses("0", rp.couple, 0 * W, 1.0, S)
    refuses("shape (3,), expected (2,)", rp.decouple, np.ones(3), S)
    refuses("shape (3,), expected (2,)", rp.couple, np.ones(3), 1.0, S)
    refuses("is nan, expected", rp.couple, W, np.nan, S)
    refuses("S is not symmetric", rp.decouple, W, with_entry(S, (0, 1), 0.3))
    refuses("shape (3,), expected (2,)", rp.gradients, W, 1.0, S, np.ones(3))


def test_logistic_regression_is_for_samples_with_the_softplus():
    refuses("softplus", yardsticks.logistic_regression, EmpiricalHalfspace(Z, "tanh"))
    refuses(
        "EmpiricalHalfspace",
        yardsticks.logistic_regression,
        PROBLEMS["Gaussian"],
        kind=(TypeError, ValueError),
    )


def test_networks_are_refused():
    theta = np.array([1.0, -0.5, 0.3])
    network = GaussianNetwork(np.array([0.3, -0.2, 0.1]), np.eye(3), theta)
    refuses(
        "W spans 3 dimensions of scores, expected at most 2",
        network.value,
        np.eye(3),
        kind=ValueError,
    )
    refuses("W has shape (2, 3)", network.value, np.ones((2, 3)))
    refuses("nan", network.value, np.full((3, 3), np.nan))
    refuses("theta has shape (1, 3), expected 1 axis", GaussianNetwork, U, S, theta[None])
    refuses("theta[0] is nan", EmpiricalNetwork, Z, np.array([np.nan]))
    refuses("S is not symmetric", GaussianNetwork, U, with_entry(S, (0, 1), 0.3), theta)
    refuses("u'S^-1 u is", GaussianNetwork, 10 * U, S, theta)
    refuses("loss is 'hinge'", EmpiricalNetwork, Z, theta, "hinge")
    even = (np.cosh, np.sinh, np.cosh)
    refuses("odd", EmpiricalNetwork, Z, theta, "softplus", even)
    sample = EmpiricalNetwork(Z, theta)
    refuses("W has shape (3, 3)", sample.gradient, np.ones((3, 3)))
    refuses("3", sample.unit, 3, np.ones((3, 2)), kind=(ValueError, IndexError))
    refuses("steps is -1", gdnp_network, sample, np.ones((3, 2)), steps=-1, bisection_steps=5)
    refuses(
        "sweeps is -1",
        gdnp_network,
        sample,
        np.ones((3, 2)),
        steps=1,
        bisection_steps=5,
        sweeps=-1,
    )
