"""Other libraries' solvers on our problems."""

import numpy as np
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
