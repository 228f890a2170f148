"""The experiments of the chapter on decoupling, against formulas, other libraries and the record."""

import numpy as np
import pytest
from scipy import stats

from bncore.chapters.convergence.decoupling import experiments
from bncore.convergence import LeastSquares, batch_norm_gradient_descent, gradient_descent
from bncore.convergence.reparametrization import couple, gradients
from bncore.mechanics import transform

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


def unit(seed, n=200, d=4):
    """Centred inputs, a direction, a length, and gradients of a loss at the outputs."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    return X - X.mean(axis=0), rng.normal(size=d), rng.normal(), rng.normal(size=(n, 1)) / n


@pytest.mark.parametrize("seed", range(5))
def test_backpropagation_through_batch_norm_gives_the_gradients_of_length_and_direction(seed):
    X, w, g, dy = unit(seed)
    _, cache = transform.forward((X @ w)[:, None], np.array([g]), eps=1e-300)
    back = transform.backward(dy, cache)
    dw = X.T @ back.dx[:, 0]
    S = X.T @ X / len(X)
    expected, along = gradients(w, g, S, X.T @ dy[:, 0])
    # sums of 200 terms, each as large as a gradient before its part along Sw is removed
    size = abs(g) / np.sqrt(w @ S @ w) * (np.abs(X).T @ np.abs(dy[:, 0])).max()
    rounding = 200 * np.linalg.cond(S) * EPS
    np.testing.assert_allclose(dw, expected, rtol=0, atol=rounding * size)
    np.testing.assert_allclose(back.dgamma[0], along, rtol=0, atol=rounding)
    assert abs(w @ dw) <= rounding * size * np.abs(w).sum()


def in_the_plane(rate):
    problem = experiments.plane()
    start = experiments.at_angle(problem, 80)
    return problem, batch_norm_gradient_descent(
        problem, start, g0=3.0, steps=30, learning_rate=rate
    ).w


@pytest.mark.parametrize("rate", [0.05, 0.4, 0.9])
def test_every_step_lengthens_w_by_pythagoras(rate):
    _, w = in_the_plane(rate)
    stepped = 1 + np.cumsum((np.diff(w, axis=0) ** 2).sum(axis=1))
    np.testing.assert_allclose((w[1:] ** 2).sum(axis=1), stepped, rtol=30 * 16 * EPS)


def test_the_norm_of_s_may_shrink():
    problem, w = in_the_plane(0.4)
    squared = np.einsum("ti,ij,tj->t", w, problem.S, w)
    assert squared[-1] < 0.999 * squared.max()


@pytest.mark.parametrize("seed", range(5))
def test_one_step_at_one_half_finds_the_best_length_of_a_direction(seed):
    problem, w = nth(experiments.random_problems(1, seed=seed), 0)
    run = batch_norm_gradient_descent(problem, w, g0=3.0, steps=1, learning_rate=0.5)
    rounding = 100 * 10 * EPS  # sums of ten terms at condition number 100
    assert run.g[1] == pytest.approx(-problem.u @ w / problem.norm(w), rel=0, abs=3 * rounding)


@pytest.mark.parametrize("seed", range(5))
def test_what_the_data_cannot_see_changes_no_output(seed):
    X, w, g, _ = unit(seed)
    doubled, unseen = np.column_stack([X, X[:, 0]]), np.array([1.0, 0, 0, 0, -1.0])
    longer = np.append(w, 0.0)
    y = experiments.batch_norm(doubled, longer, g)
    same = experiments.batch_norm(doubled, longer + 3 * unseen, g)
    np.testing.assert_allclose(y, same, rtol=0, atol=100 * 200 * EPS * abs(g))
    assert not experiments.batch_norm(doubled, unseen, g).any()


@pytest.mark.parametrize("share", [1000.0, 10.0, 1.0, 0.1])
def test_epsilon_shortens_the_weights_and_takes_the_orthogonality(share):
    X, w, g, pull = unit(0)
    w, eps = share * np.sqrt(1e-5) * w / (X @ w).std(), 1e-5
    y, cache = transform.forward((X @ w)[:, None], np.array([g]), eps=eps)
    predicted = abs(g) * share / np.sqrt(share**2 + 1)
    assert y.std() == pytest.approx(predicted, rel=200 * EPS, abs=0)
    dw = X.T @ transform.backward(pull, cache).dx[:, 0]
    # of f(g h(w)), along w: what h gains where w is stretched, times the gradient along it
    along = (pull[:, 0] @ y[:, 0]) / (share**2 + 1)
    rounding = 200 * 100 * EPS * np.abs(pull[:, 0] * y[:, 0]).sum()
    assert w @ dw == pytest.approx(along, rel=0, abs=rounding)


@pytest.mark.parametrize("eps", [0.0, 0.3, 1.0])
def test_w_turns_against_the_gradient_at_a_fixed_length(eps):
    problem, w, g = experiments.plane(), np.array([-0.8, 0.6]), 3.0

    def loss(w):
        return problem.value(g * w / np.sqrt(w @ problem.S @ w + eps))

    h = EPS ** (1 / 3)
    slope = np.array([(loss(w + e) - loss(w - e)) / (2 * h) for e in h * np.eye(2)])
    path = experiments.turn(problem, w, g, 0.1, eps, steps=20)
    # central differences leave h squared times a third derivative, of some hundred
    np.testing.assert_allclose(w - path[1], 0.1 * slope, rtol=0, atol=0.1 * 1000 * h**2)
    lengths = (path**2).sum(axis=1)
    stepped = 1 + np.cumsum((np.diff(path, axis=0) ** 2).sum(axis=1))
    if eps == 0:
        np.testing.assert_allclose(lengths[1:], stepped, rtol=20 * 16 * EPS)
    else:
        assert (np.diff(lengths) < 0).any()


@pytest.mark.parametrize("method", ["plain", "one rate", "two rates"])
@pytest.mark.parametrize("rate", [0.06, 0.4])
def test_steps_to_target_are_those_of_the_solvers(method, rate):
    problems = experiments.random_problems(3, dimension=4, kappa=5.0, seed=1)
    found = experiments.steps_to_target(problems, [rate], method, limit=1500)[0]
    for k, steps in enumerate(found):
        problem, start = nth(problems, k)
        count = int(steps)
        if method == "plain":
            weights = couple(start, 1.0, problem.S)
            run = gradient_descent(problem, weights, steps=count, learning_rate=rate)
        else:
            scale = 1.0 if method == "one rate" else np.sqrt(0.5 / rate)
            rate_g = rate if method == "one rate" else 0.5
            run = batch_norm_gradient_descent(
                problem, scale * start, steps=count, learning_rate=rate_g
            )
        excess = run.value - problem.value(problem.closed_form)
        # Differences of values near 1: a billionth of the target.
        rounding = 8 * EPS
        reached, target = excess[[count - 1, count]], experiments.TARGET * excess[0]
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
    apart = logs[1] - logs[0]
    # Student's interval for the mean of four, of which two are looked at.
    reach = stats.t.isf(0.05 / 2 / 2, 3) * apart.std(ddof=1) / 2
    expected = apart.mean() + reach * np.array([0, -1, 1])
    np.testing.assert_allclose(ratio, expected, rtol=0, atol=64 * EPS * np.abs(logs).max())


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
    lost = 100 * rounding  # The gradient is a difference; the condition number is 100.
    for k in range(5):
        problem, w = nth(problems, k)
        first = problem.rayleigh_gradient(w)
        assert run.least_gradient[0, k] == pytest.approx(first @ first, rel=lost, abs=0)
        squared = 1 + rate**2 * first @ first
        assert run.squared_length[1, k] == pytest.approx(squared, rel=lost, abs=0)
        second = problem.rayleigh_gradient(w - rate * first)
        least = min(first @ first, squared * second @ second)  # at length 1, both
        assert run.least_gradient[1, k] == pytest.approx(least, rel=100 * lost, abs=0)


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


def test_after_a_jump_the_length_is_not_the_predicted_one():
    problems = experiments.random_problems(5, kappa=10.0, seed=4)
    run = experiments.minibatches(problems, 30.0, 2000)
    assert (run.length[1] > run.predicted[-1]).sum() == 4
