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

U, S = np.array([0.3, -0.2]), np.array([[1.0, 0.2], [0.2, 0.8]])
Z = np.random.default_rng(0).normal(-0.3, 1, size=(40, 2))


def test_the_weights_are_those_of_logistic_regression_on_real_data():
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
        np.testing.assert_allclose(trace.weights[-1], expected, atol=2e-5)
    assert np.linalg.norm(problem.gradient(expected)) < 1e-6


def test_logistic_regression_is_for_samples_with_the_softplus(refuses):
    refuses("softplus", yardsticks.logistic_regression, EmpiricalHalfspace(Z, "tanh"))
    refuses(
        "EmpiricalHalfspace",
        yardsticks.logistic_regression,
        GaussianHalfspace(U, S),
        kind=(TypeError, ValueError),
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_iterates_are_those_of_scipy(seed, cloud):
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
    # line searches carry roundings on; six steps at a small condition number
    np.testing.assert_allclose(trace.weights, iterates, rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(trace.w, trace.weights)
    assert trace.status == "budget"
    assert trace.message == "all 6 steps were made"
    values, gradients = zip(*map(objective, trace.weights), strict=True)
    np.testing.assert_allclose(trace.value, values, rtol=1e-12)
    norms = [np.linalg.norm(gradient) for gradient in gradients]
    np.testing.assert_allclose(trace.gradient_norm, norms, rtol=1e-9, atol=1e-14)
    lengths = np.sqrt([np.mean((Z @ w) ** 2) for w in trace.weights])
    np.testing.assert_allclose(trace.g, lengths, rtol=1e-12)
    assert np.isnan(trace.bound).all()


def test_lbfgs_says_how_it_ended(cloud):
    problem, w0 = EmpiricalHalfspace(cloud(0)), np.ones(4)
    done = yardsticks.lbfgs(problem, w0, steps=200, tolerance=1e-5)
    assert done.status == "tolerance"
    assert done.gradient_norm[-1] <= 1e-5 < done.gradient_norm[-2]
    most = yardsticks.lbfgs(problem, w0, steps=2000)
    assert most.status in ("stalled", "tolerance")
    assert (
        most.gradient_norm[-1] < 1e-7
    )  # SciPy's own tolerances, 1e-5 among them, are switched off
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
def test_logistic_regression_is_the_minimum_from_0_in_two_rows(kind, cloud):
    """Newton's method written out."""
    Z = cloud(1).astype(np.float32).astype(float)
    trace = yardsticks.logistic_regression(EmpiricalHalfspace(kind(Z)))
    w = np.zeros(4)
    for _ in range(50):
        p = expit(Z @ w)
        w = w - np.linalg.solve((Z * (p * (1 - p))[:, None]).T @ Z, Z.T @ p)
    assert trace.weights.shape == (2, 4)
    np.testing.assert_array_equal(trace.weights[0], 0)
    close = 1e-3 if kind is np.float32 else 1e-7
    np.testing.assert_allclose(trace.weights[1], w, rtol=0, atol=close)
    assert trace.value[0] == pytest.approx(np.log(2), rel=1e-12)
    assert trace.gradient_norm[0] == pytest.approx(np.linalg.norm(Z.mean(axis=0)) / 2, rel=1e-5)
    assert np.isnan(trace.rayleigh_gap[0])
    assert trace.steps == 1
