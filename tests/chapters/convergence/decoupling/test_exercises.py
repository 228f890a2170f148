"""The reference answers of the chapter on decoupling, against other libraries and the package."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from bncore.chapters.convergence.decoupling import exercises, experiments
from bncore.convergence import LeastSquares
from bncore.convergence.reparametrization import couple
from bncore.mechanics import transform

SEEDS = st.integers(0, 10**6)


def nth(problems, k):
    return LeastSquares(problems.u[k], problems.S[k]), problems.start[k]


def case(seed, d=3):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(d, d))
    return rng.normal(size=d), float(rng.normal()), A.T @ A + np.eye(d), rng.normal(size=d)


@given(SEEDS)
def test_the_answer_couples_as_the_package(seed):
    w, g, S, _ = case(seed)
    np.testing.assert_allclose(exercises.couple(w, g, S), couple(w, g, S))


@given(SEEDS)
def test_the_gradients_are_differences_of_the_coupled_loss(seed):
    w, g, S, a = case(seed)
    w /= np.linalg.norm(w)

    def loss(at, length):
        return np.sin(a @ exercises.couple(at, length, S))

    v = np.cos(a @ exercises.couple(w, g, S)) * a
    dw, dg = exercises.gradients(w, g, S, v)
    np.testing.assert_allclose(dw, approx_fprime(w, loss, 1e-7, g), atol=2e-5)
    np.testing.assert_allclose(dg, (loss(w, g + 1e-6) - loss(w, g - 1e-6)) / 2e-6, atol=1e-6)
    assert abs(w @ dw) < 1e-10 * (1 + np.linalg.norm(dw))


@given(SEEDS)
def test_weights_and_shift_reproduce_batch_norm_off_centre(seed):
    rng = np.random.default_rng(seed)
    X, w, g = rng.normal(3, 1, size=(9, 2)), rng.normal(size=2), rng.normal()
    v, b = exercises.off_centre(X, w, g)
    y = transform.forward((X @ w)[:, None], np.array([g]), eps=1e-300)[0][:, 0]
    np.testing.assert_allclose(X @ v + b, y, atol=1e-9)


@pytest.mark.parametrize("rate", [0.01, 1.0, 30.0])
def test_the_length_after_some_steps_is_that_of_a_descent(rate):
    problem, w = nth(experiments.random_problems(1), 0)
    w, unit_gradients, length = 1.5 * w, [], 1.5
    for _ in range(10):
        gradient = problem.rayleigh_gradient(w)
        unit_gradients.append(np.linalg.norm(gradient) * np.linalg.norm(w))
        w = w - rate * gradient
    found = exercises.growth(length, rate, np.array(unit_gradients))
    np.testing.assert_allclose(found, np.linalg.norm(w), rtol=1e-9)
