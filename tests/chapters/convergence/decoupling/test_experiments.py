"""The experiments of the chapter on decoupling, against formulas, other libraries and the record."""

import numpy as np
import pytest

from bncore.chapters.convergence.decoupling import experiments
from bncore.convergence import LeastSquares, batch_norm_gradient_descent, gradient_descent
from bncore.convergence.reparametrization import couple

EPS = np.finfo(np.float64).eps


def nth(problems, k):
    return LeastSquares(problems.u[k], problems.S[k]), problems.start[k]


def test_random_problems_are_as_promised():
    problems = experiments.random_problems(3, dimension=4, kappa=25.0)
    values = np.linalg.eigvalsh(problems.S)
    rounding = 16 * 4 * EPS  # sums of four terms
    np.testing.assert_allclose(values[:, 0], 0.2, rtol=25 * rounding)
    np.testing.assert_allclose(values[:, -1], 5, rtol=rounding)
    np.testing.assert_allclose(np.linalg.norm(problems.start, axis=-1), 1, rtol=rounding)
    for k in range(3):
        problem, _ = nth(problems, k)
        atol = 25 * rounding * np.abs(problems.solution[k]).max()
        np.testing.assert_allclose(problem.closed_form, problems.solution[k], rtol=0, atol=atol)
        assert problem.rayleigh_optimum == pytest.approx(-1, rel=25 * rounding, abs=0)


@pytest.mark.parametrize("method", ["plain", "one rate", "two rates"])
@pytest.mark.parametrize("rate", [0.06, 0.4])
def test_steps_to_target_are_those_of_the_solvers(method, rate):
    problems = experiments.random_problems(3, dimension=4, kappa=5.0, seed=1)
    found = experiments.steps_to_target(problems, [rate], method, limit=1500)[0]
    for k, steps in enumerate(found):
        problem, start = nth(problems, k)
        if method == "plain":
            weights = couple(start, 1.0, problem.S)
            run = gradient_descent(problem, weights, steps=1500, learning_rate=rate)
        else:
            scale = 1.0 if method == "one rate" else np.sqrt(0.5 / rate)
            rate_g = rate if method == "one rate" else 0.5
            run = batch_norm_gradient_descent(
                problem, scale * start, steps=1500, learning_rate=rate_g
            )
        excess = run.value - problem.value(problem.closed_form)
        # Differences of values near 1: a billionth of the target.
        rounding = 8 * EPS
        reached, target = excess[[int(steps) - 1, int(steps)]], experiments.TARGET * excess[0]
        assert reached[1] <= target + rounding
        assert reached[0] >= target - rounding


@pytest.mark.parametrize(("method", "rate"), [("plain", 0.5), ("one rate", 1.5)])
def test_steps_are_infinite_beyond_the_stability_limit(method, rate):
    problems = experiments.random_problems(2, dimension=4, kappa=25.0)
    assert np.isinf(experiments.steps_to_target(problems, [rate], method, limit=3000)).all()


def test_steps_are_compared_at_the_best_rates_on_fresh_problems():
    problems, fresh = experiments.random_problems(3), experiments.random_problems(4, seed=1)
    rates, ratio = experiments.steps_at_best_rates(problems, fresh)
    logs = []
    for method, grid in experiments.GRIDS.items():
        assert grid[0] < rates[method] < grid[-1]
        medians = np.median(experiments.steps_to_target(problems, grid, method), axis=1)
        assert medians[np.isclose(grid, rates[method])] == medians.min()
        logs.append(np.log(experiments.steps_to_target(fresh, [rates[method]], method)[0]))
    assert ratio.mean == pytest.approx((logs[1] - logs[0]).mean(), rel=8 * EPS)
    assert ratio.low < ratio.mean < ratio.high


def test_gradient_flow_predicts_both_branches():
    problems = experiments.random_problems(4, dimension=4, kappa=5.0, seed=3)
    small, large = experiments.branches(problems)
    rates = np.array([3e-3, 3e2])
    left, right = experiments.steps_to_target(problems, rates, "two rates", limit=20_000)
    np.testing.assert_allclose(left, small / rates[0], rtol=0.1)
    np.testing.assert_allclose(right, large * rates[1], rtol=0.1)


@pytest.mark.parametrize("rate", [1e-4, 0.01, 0.3, 2.0, 100.0, 1e5])
def test_descent_on_the_direction_keeps_its_bounds(rate):
    problems = experiments.random_problems(5, seed=3)
    run = experiments.descend_direction(problems, rate, 300)
    # A sum of ten squares is rounded by at most ten units in its last place; the bound on gradients
    # holds the difference of the longest square to 1.
    rounding = 10 * EPS
    assert (run.squared_length <= run.length_bound * (1 + rounding)).all()
    lost = rounding * run.length_bound / (run.length_bound - 1)
    assert (run.least_gradient <= run.gradient_bound * (1 + lost)).all()
    grown = np.diff(run.squared_length, axis=0)
    assert (grown >= -rounding * run.squared_length[1:]).all()
    problem, w = nth(problems, 0)
    first = problem.rayleigh_gradient(w)
    lost = 100 * rounding  # The gradient is a difference; the condition number is 100.
    assert run.least_gradient[0, 0] == pytest.approx(first @ first, rel=lost, abs=0)
    expected = 1 + rate**2 * first @ first
    assert run.squared_length[1, 0] == pytest.approx(expected, rel=lost, abs=0)


@pytest.mark.parametrize("rate", [0.03, 0.3, 3.0, 30.0])
def test_the_direction_converges_at_any_rate(rate):
    problems = experiments.random_problems(3, dimension=3, kappa=4.0, seed=11)
    (steps,) = experiments.steps_to_target(problems, [rate], "two rates", limit=20_000)
    assert np.isfinite(steps).all()
    run = experiments.descend_direction(problems, rate, 3000)
    assert (run.least_gradient[-1] < 1e-12).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_stiffness_is_the_largest_curvature_of_rho(seed):
    problem, _ = nth(experiments.random_problems(1, dimension=4, kappa=9.0, seed=seed), 0)
    w = problem.solution_direction / np.linalg.norm(problem.solution_direction)
    h = EPS ** (1 / 3)
    hessian = [
        (problem.rayleigh_gradient(w + h * e) - problem.rayleigh_gradient(w - h * e)) / (2 * h)
        for e in np.eye(4)
    ]
    largest = np.linalg.eigvalsh(np.array(hessian))[-1]
    # Central differences leave h squared times a third derivative, of some ten times the second.
    assert experiments.stiffness(problem) == pytest.approx(largest, rel=10 * 9 * h**2, abs=0)


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_noise_lengthens_the_direction_as_predicted(rate):
    problems = experiments.random_problems(4, kappa=10.0, seed=5)
    run = experiments.minibatches(problems, rate, 1500)
    rounding = 1500 * 10 * EPS  # 1500 steps, of ten squares
    np.testing.assert_allclose(run.length, run.by_pythagoras, rtol=rounding)
    np.testing.assert_allclose(run.length[-1], run.predicted[-1], rtol=0.15)
    effective = rate / run.predicted[-1] ** 2
    assert (effective < run.limit[-1]).all()
    np.testing.assert_allclose(effective, run.limit[-1], rtol=0.2)
    assert (run.gap[-1] < 0.1 * run.gap[0]).all()
