"""The decoupling chapter: its answers, experiments and figures against solvers and differences."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from bncore.chapters.convergence.decoupling import exercises, experiments, figures
from bncore.convergence import LeastSquares, batch_norm_gradient_descent, gradient_descent
from bncore.convergence.reparametrization import couple
from bncore.mechanics import transform
from bncore.page import style

SEEDS = st.integers(0, 10**6)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def line(ax, label):
    (found,) = [line for line in ax.get_lines() if line.get_label() == label]
    return np.array(found.get_data(), dtype=float)


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


def test_random_problems_are_as_promised():
    problems = experiments.random_problems(3, dimension=4, kappa=25.0)
    values = np.linalg.eigvalsh(problems.S)
    np.testing.assert_allclose(values[:, 0], 0.2)
    np.testing.assert_allclose(values[:, -1], 5)
    np.testing.assert_allclose(np.linalg.norm(problems.start, axis=-1), 1)
    for k in range(3):
        problem, _ = nth(problems, k)
        np.testing.assert_allclose(problem.closed_form, problems.solution[k])
        assert problem.rayleigh_optimum == pytest.approx(-1)


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
        assert steps == np.flatnonzero(excess <= experiments.TARGET * excess[0])[0]


@pytest.mark.parametrize(("method", "rate"), [("plain", 0.5), ("one rate", 1.5)])
def test_steps_are_infinite_beyond_the_stability_limit(method, rate):
    problems = experiments.random_problems(2, dimension=4, kappa=25.0)
    assert np.isinf(experiments.steps_to_target(problems, [rate], method, limit=3000)).all()


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
    assert (run.squared_length <= run.length_bound * (1 + 1e-12)).all()
    assert (run.least_gradient <= run.gradient_bound * (1 + 1e-9)).all()
    assert (np.diff(run.squared_length, axis=0) >= 0).all()
    problem, w = nth(problems, 0)
    first = problem.rayleigh_gradient(w)
    assert run.least_gradient[0, 0] == pytest.approx(first @ first)
    assert run.squared_length[1, 0] == pytest.approx(1 + rate**2 * first @ first)


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
    h = 1e-5
    hessian = [
        (problem.rayleigh_gradient(w + h * e) - problem.rayleigh_gradient(w - h * e)) / (2 * h)
        for e in np.eye(4)
    ]
    largest = np.linalg.eigvalsh(np.array(hessian))[-1]
    assert experiments.stiffness(problem) == pytest.approx(largest, rel=1e-6)


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_noise_lengthens_the_direction_as_predicted(rate):
    problems = experiments.random_problems(4, kappa=10.0, seed=5)
    run = experiments.minibatches(problems, rate, 1500)
    np.testing.assert_allclose(run.length, run.by_pythagoras, rtol=1e-9)
    np.testing.assert_allclose(run.length[-1], run.predicted[-1], rtol=0.15)
    effective = rate / run.predicted[-1] ** 2
    assert (effective < run.limit[-1]).all()
    np.testing.assert_allclose(effective, run.limit[-1], rtol=0.2)
    assert (run.gap[-1] < 0.1 * run.gap[0]).all()


@pytest.mark.parametrize("mean", [0, 1, 2.5])
def test_data_off_centre_follow_the_predicted_line(mean):
    X, w = experiments.off_centre(mean)
    assert (X @ w).mean() == pytest.approx(mean, abs=1e-9)
    assert (X @ w).std() == pytest.approx(1)
    (ax,) = figures.off_centre(mean).axes
    coupled, y = line(ax, "measured")
    ends, heights = line(ax, "predicted")
    slope = (heights[1] - heights[0]) / (ends[1] - ends[0])
    np.testing.assert_allclose(y, heights[0] + slope * (coupled - ends[0]), atol=1e-9)


def test_both_planes_show_one_loss():
    problem = experiments.plane()
    best = problem.value(problem.closed_form)
    (side, plain), (angles, lengths, polar) = figures._grids()
    for i, j in [(3, 70), (40, 12), (80, 55)]:
        weights = np.array([side[j], side[i]])
        assert plain[i, j] ** 2 == pytest.approx(problem.value(weights) - best)
    for i, j in [(0, 0), (20, 100), (72, 60)]:
        weights = couple(experiments.at_angle(problem, angles[j]), lengths[i], problem.S)
        assert polar[i, j] ** 2 == pytest.approx(problem.value(weights) - best)


@pytest.mark.parametrize(("angle", "length"), [(80, 3), (-160, 1), (0, 0.2)])
def test_both_paths_start_where_the_reader_put_them(angle, length):
    above, below = figures.two_planes(angle, length).axes
    problem = experiments.plane()
    start = couple(experiments.at_angle(problem, angle), length, problem.S)
    for label in ("on the weights", "on direction and length"):
        np.testing.assert_allclose(line(above, label)[:, 0], start)
    for path in below.get_lines()[:2]:
        first = np.array(path.get_data())[:, 0].astype(float)
        np.testing.assert_allclose(first, [angle, length], atol=1e-9)
    end = line(above, "on direction and length")[:, -1]
    np.testing.assert_allclose(end, problem.closed_form, atol=0.1)


@pytest.mark.parametrize("rate", [0.01, 0.1, 3.0])
def test_the_length_settles_below_the_stability_limit(rate):
    top, middle, bottom = figures.growing(rate, steps=200).axes
    _, length = top.get_lines()[0].get_data()
    _, effective = line(middle, "effective rate")
    np.testing.assert_allclose(effective, rate / length**2)
    assert length[0] == pytest.approx(1)
    assert effective[-1] < line(middle, "predicted limit")[1, 0]
    problem, start = figures._ten()
    weights = couple(start, 1.0, problem.S)
    with np.errstate(all="ignore"):
        run = gradient_descent(problem, weights, steps=5, learning_rate=rate)
    excess = run.value - problem.rayleigh_optimum
    _, drawn = line(bottom, "weights")
    count = min(len(drawn), len(excess), 4)
    np.testing.assert_allclose(drawn[:count], (excess / excess[0])[:count], rtol=1e-6)


def test_the_figure_of_rates_draws_what_it_returns():
    problems = experiments.random_problems(2, dimension=3, kappa=4.0)
    rates = np.array([0.03, 0.3, 3.0])
    fig, steps = figures.rates(problems, rates, limit=2000)
    above, below = fig.axes
    for method, label in (("plain", "weights"), ("two rates", "w; g at 1/2")):
        at, median = line(above, label)
        met = np.isfinite(steps[method]).all(axis=1)
        np.testing.assert_array_equal(at, rates[met])
        np.testing.assert_array_equal(median, np.median(steps[method][met], axis=1))
    assert (line(below, "measured")[1] <= line(below, "bound")[1]).all()


def test_the_figure_of_noise_draws_every_rate():
    problems = experiments.random_problems(2, dimension=3, kappa=4.0)
    runs = {rate: experiments.minibatches(problems, rate, 50) for rate in (0.1, 0.3, 1.0, 3.0)}
    above, _ = figures.forgetting(runs).axes
    for rate, run in runs.items():
        t, effective = line(above, f"rate {rate:g}")
        expected = np.median(rate / run.length**2, axis=1)[t.astype(int)]
        np.testing.assert_allclose(effective, expected)
    assert above.get_lines()[-1].get_color() == style.COLOR["predicted"]
