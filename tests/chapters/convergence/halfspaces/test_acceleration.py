"""GDNP beside its yardsticks: the tasks, the steps of each method, and when a run is over."""

import numpy as np
import pytest

from bncore.chapters.convergence.halfspaces import acceleration, experiments
from bncore.convergence import gdnp, gradient_descent

EPS = np.finfo(np.float64).eps


@pytest.mark.parametrize("data", [*acceleration.REAL, "skewed"])
def test_no_examples_are_separable_and_all_are_standardised(data):
    Z = acceleration.examples(data, 3)
    assert experiments.separating(Z) is None
    np.testing.assert_allclose((Z**2).mean(axis=0), 1, rtol=len(Z) * EPS)


@pytest.mark.parametrize("data", ["iris", "skewed", "Gaussian"])
@pytest.mark.parametrize("loss", acceleration.LOSSES)
def test_a_task_starts_at_a_best_length_above_the_least_value(data, loss):
    problem, start, least, first = acceleration.task(data, loss, 1)
    value = problem.value(start)
    assert least < value < least + first
    # Twenty halvings leave the length a millionth off, and the slope along it as much.
    assert abs(start @ problem.gradient(start)) < 1e-5 * first
    best = gdnp(problem, start, steps=200, relaxation=1.5).value.min()
    assert best >= least - 64 * EPS * abs(least)
    assert best - least < 1e-3 * first


def test_the_skewed_examples_change_with_the_seed_and_the_others_do_not():
    assert (acceleration.examples("skewed", 0) != acceleration.examples("skewed", 1)).any()
    np.testing.assert_array_equal(
        acceleration.examples("iris", 0), acceleration.examples("iris", 1)
    )


def test_a_run_counts_the_iterations_of_the_solvers():
    problem, start, least, first = acceleration.task("iris", "huber", 2)
    for method, solver, step in (
        ("gradient descent", gradient_descent, {"learning_rate": 2 / problem.smoothness}),
        ("GDNP", gdnp, {"relaxation": 2.0}),
    ):
        found = acceleration.run(method, "iris", "huber", 1e-2, 2.0, 2)
        count = int(found["iterations"])
        excess = (solver(problem, start, steps=count, **step).value - least) / first
        assert excess[-1] <= 1e-2 < excess[-2]
        assert found["seconds"] > 0


@pytest.mark.parametrize("method", acceleration.METHODS)
def test_a_step_too_long_reaches_nothing(method):
    assert np.isnan(acceleration.run(method, "iris", "huber", 1e-4, 300.0, 0)["iterations"])
