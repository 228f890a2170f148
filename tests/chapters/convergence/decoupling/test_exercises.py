"""The reference answers of the chapter on decoupling, against other libraries and the package."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncore.chapters.convergence.decoupling import exercises, experiments
from bncore.convergence import LeastSquares
from bncore.convergence.reparametrization import couple
from bncore.mechanics import transform

EPS = np.finfo(np.float64).eps
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
    rounding = 16 * np.linalg.cond(S) * EPS
    np.testing.assert_allclose(exercises.couple(w, g, S), couple(w, g, S), rtol=rounding)


@given(SEEDS)
def test_the_gradients_are_differences_of_the_coupled_loss(seed):
    w, g, S, a = case(seed)
    w /= np.linalg.norm(w)

    def loss(at, length):
        return np.sin(a @ exercises.couple(at, length, S))

    v = np.cos(a @ exercises.couple(w, g, S)) * a
    dw, dg = exercises.gradients(w, g, S, v)
    # Central differences leave the third derivative, of the cube of this size, and the rounding of
    # the sine over the step, which is as large.
    step, size = EPS ** (1 / 3), 1 + np.linalg.norm(a) * (1 + abs(g))
    left = step**2 * size**3
    by_w = [(loss(w + e, g) - loss(w - e, g)) / (2 * step) for e in step * np.eye(3)]
    np.testing.assert_allclose(dw, by_w, rtol=0, atol=left)
    by_g = (loss(w, g + step) - loss(w, g - step)) / (2 * step)
    np.testing.assert_allclose(dg, by_g, rtol=0, atol=left)
    assert abs(w @ dw) < 16 * EPS * np.linalg.cond(S) * np.linalg.norm(v) * abs(g)


@given(SEEDS)
def test_weights_and_shift_reproduce_batch_norm_off_centre(seed):
    rng = np.random.default_rng(seed)
    X, w, g = rng.normal(3, 1, size=(9, 2)), rng.normal(size=2), rng.normal()
    v, b = exercises.off_centre(X, w, g)
    y = transform.forward((X @ w)[:, None], np.array([g]), eps=1e-300)[0][:, 0]
    u = X @ w
    rounding = len(X) * EPS * abs(g) * (np.abs(X) @ np.abs(w)).max() / u.std()
    np.testing.assert_allclose(X @ v + b, y, rtol=0, atol=rounding)


@pytest.mark.parametrize("rate", [0.01, 1.0, 30.0])
def test_the_length_after_some_steps_is_that_of_a_descent(rate):
    problem, w = nth(experiments.random_problems(1), 0)
    w, unit_gradients, length = 1.5 * w, [], 1.5
    for _ in range(10):
        gradient = problem.rayleigh_gradient(w)
        unit_gradients.append(np.linalg.norm(gradient) * np.linalg.norm(w))
        w = w - rate * gradient
    found = exercises.growth(length, rate, np.array(unit_gradients))
    np.testing.assert_allclose(found, np.linalg.norm(w), rtol=10 * 16 * EPS)  # ten steps
