"""Other libraries' solvers on our problems."""

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import OptimizeResult, minimize
from scipy.special import expit
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from bncore.convergence import (
    EmpiricalHalfspace,
    GaussianHalfspace,
    accelerated_gradient_descent,
    gdnp,
    yardsticks,
)

EPS = np.finfo(np.float64).eps
U, S = np.array([0.3, -0.2]), np.array([[1.0, 0.2], [0.2, 0.8]])
Z = np.random.default_rng(0).normal(-0.3, 1, size=(40, 2))
# What makes scikit-learn's L-BFGS stop: f falls by so many roundings, whatever the gradient.
SKLEARN_ROUNDINGS = 64


def least_curvature(problem, w):
    """The smallest eigenvalue of the Hessian of f at w."""
    H = np.array([problem.hessian_product(w, e) for e in np.eye(problem.dimension)])
    return np.linalg.eigvalsh((H + H.T) / 2)[0]


def test_the_weights_are_those_of_logistic_regression_on_real_data(near):
    data = load_breast_cancer()
    X = data.data[:, [1, 5, 8, 9]]
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    y = 2.0 * data.target - 1
    problem = EmpiricalHalfspace.from_data(X, y, "softplus")
    expected = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000)
    expected = expected.fit(X, y).coef_[0]
    start = problem.u * 0 + np.array([1.0, -0.3, 0.2, 0.5])
    for trace in (
        gdnp(problem, start, steps=3000, tolerance=1e-9),
        accelerated_gradient_descent(problem, start, steps=3000, tolerance=1e-9),
        yardsticks.lbfgs(problem, start, steps=200, tolerance=1e-9),
        yardsticks.logistic_regression(problem),
    ):
        # near a minimum the distance is the gradient over the least curvature, at most
        left = np.linalg.norm(problem.gradient(expected)) + trace.gradient_norm[-1]
        near(trace.weights[-1], expected, 2 * left / least_curvature(problem, expected))
    # the last step of a method that lowers f by ||grad f||^2 / (2 L) and more
    fall = SKLEARN_ROUNDINGS * EPS * problem.value(expected)
    assert np.linalg.norm(problem.gradient(expected)) < 10 * np.sqrt(2 * problem.smoothness * fall)


def test_logistic_regression_is_for_samples_with_the_softplus(refuses):
    refuses("softplus", yardsticks.logistic_regression, EmpiricalHalfspace(Z, "tanh"))
    refuses(
        "EmpiricalHalfspace",
        yardsticks.logistic_regression,
        GaussianHalfspace(U, S),
        kind=(TypeError, ValueError),
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_iterates_are_those_of_scipy(seed, cloud, near, rounding, error_of):
    """The same function, gradient and start handed to SciPy directly."""
    Z = cloud(seed)
    problem, w0 = EmpiricalHalfspace(Z), np.random.default_rng(seed).normal(size=4)

    def objective(w):
        scores = Z @ w
        return np.logaddexp(0, scores).mean(), Z.T @ expit(scores) / len(Z)

    iterates = [w0]
    minimize(
        objective, w0, jac=True, method="L-BFGS-B", callback=lambda w: iterates.append(w.copy()),
        options={"maxiter": 6, "ftol": 0.0, "gtol": 0.0},
    )  # fmt: skip
    trace = yardsticks.lbfgs(problem, w0, steps=6)
    # line searches and estimates of the Hessian carry roundings on: each step makes them ten times
    # as large at most
    growth = 10.0 ** np.arange(7)[:, np.newaxis] * np.abs(iterates).max()
    near(trace.weights, iterates, rounding(problem) * growth)
    np.testing.assert_array_equal(trace.w, trace.weights)  # times 1
    assert trace.status == "budget"
    assert trace.message == "all 6 steps were made"
    values, gradients = zip(*map(objective, trace.weights), strict=True)
    of_value, of_gradient, _ = np.transpose([error_of(problem, w) for w in trace.weights])
    near(trace.value, values, of_value)
    near(trace.gradient_norm, [np.linalg.norm(gradient) for gradient in gradients], of_gradient)
    lengths = np.sqrt([np.mean((Z @ w) ** 2) for w in trace.weights])
    near(trace.g, lengths, rounding(problem) * problem.condition_number * lengths)
    assert np.isnan(trace.bound).all()


def test_lbfgs_says_how_it_ended(cloud, rounding):
    problem, w0 = EmpiricalHalfspace(cloud(0)), np.ones(4)
    done = yardsticks.lbfgs(problem, w0, steps=200, tolerance=1e-5)
    assert done.status == "tolerance"
    assert done.gradient_norm[-1] <= 1e-5 < done.gradient_norm[-2]
    most = yardsticks.lbfgs(problem, w0, steps=2000)
    assert most.status in ("stalled", "tolerance")
    # SciPy's own tolerances, 1e-5 among them, are switched off: it goes on until rounding hides
    # what a step gains of f, ||grad f||^2 / (2 L)
    hidden = rounding(problem) * most.value[-1]
    assert most.gradient_norm[-1] < np.sqrt(2 * problem.smoothness * hidden)
    if most.status == "stalled":
        assert "L-BFGS ended: " in most.message
        assert most.gradient_norm[-1] > 0
    assert yardsticks.lbfgs(problem, w0, steps=0).steps == 0
    at_once = yardsticks.lbfgs(problem, w0, steps=5, tolerance=10)
    assert (at_once.status, at_once.steps) == ("tolerance", 0)


def test_lbfgs_out_of_evaluations_is_out_of_budget(monkeypatch, cloud):
    """What SciPy calls status 1: too many evaluations or iterations."""
    ended = OptimizeResult(status=1, message="TOTAL NO. OF F,G EVALUATIONS EXCEEDS LIMIT")
    monkeypatch.setattr(yardsticks, "minimize", lambda *a, **k: ended)
    trace = yardsticks.lbfgs(EmpiricalHalfspace(cloud(0)), np.ones(4), steps=5)
    assert trace.status == "budget"
    assert "EXCEEDS LIMIT" in trace.message
    ended.status = 2
    trace = yardsticks.lbfgs(EmpiricalHalfspace(cloud(0)), np.ones(4), steps=5)
    assert trace.status == "stalled"


@pytest.mark.parametrize("kind", [np.asarray, np.float32, sparse.csr_array, sparse.csr_matrix])
def test_logistic_regression_is_the_minimum_from_0_in_two_rows(kind, cloud, near):
    """Newton's method written out."""
    Z = cloud(1).astype(np.float32).astype(float)
    problem, tolerance = EmpiricalHalfspace(kind(Z)), 1e-10
    trace = yardsticks.logistic_regression(problem, tolerance=tolerance)
    w = np.zeros(4)
    for _ in range(50):
        p = expit(Z @ w)
        w = w - np.linalg.solve((Z * (p * (1 - p))[:, None]).T @ Z, Z.T @ p)
    assert trace.weights.shape == (2, 4)
    np.testing.assert_array_equal(trace.weights[0], 0)
    # of a gradient in the precision of the data: 200 terms of sizes at most |z|
    z = np.sqrt(np.trace(problem.S))
    error = 200 * np.finfo(problem.Z.dtype).eps * z
    mu = least_curvature(EmpiricalHalfspace(Z), w)
    near(trace.weights[1], w, (tolerance + error) / mu)
    near(trace.value[0], np.log(2), 200 * EPS * np.log(2))
    near(trace.gradient_norm[0], np.linalg.norm(Z.mean(axis=0)) / 2, error)
    assert np.isnan(trace.rayleigh_gap[0])
    assert trace.steps == 1
