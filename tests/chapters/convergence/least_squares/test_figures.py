"""The figures of the chapter on least squares show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from bncore.chapters.convergence.least_squares import experiments, figures
from bncore.convergence import LeastSquares

EPS = np.finfo(np.float64).eps
FLOOR = 2e-12  # Below it the figure of a descent draws nothing.
HALF = 0.005  # Half a unit of the last digit that the triangle prints.


def drawn(fig, panel):
    lines = {line.get_label(): line for line in fig.axes[panel].get_lines()}
    plt.close(fig)
    return lines


@pytest.mark.parametrize("condition", [2, 5, 20])
@pytest.mark.parametrize("tilt", [0, 45, 90])
def test_no_descent_is_drawn_above_the_bound(condition, tilt):
    fig = figures.descent(condition, tilt)
    below = fig.axes[1].get_lines()
    plt.close(fig)
    bound = np.asarray(below[2].get_ydata())
    for line in below[:2]:
        rounding = 64 * condition * EPS
        assert (np.asarray(line.get_ydata()) <= np.maximum(bound * (1 + rounding), FLOOR)).all()


def test_the_normalised_descent_stays_on_the_curve_of_best_lengths():
    problem, w = figures.plane(5, 45)
    half = experiments.root(problem.S)
    points = experiments.normalised_path(problem, w, 12) @ half
    centre = half @ problem.closed_form / 2
    radii = np.linalg.norm(points - centre, axis=1)
    np.testing.assert_allclose(radii, np.linalg.norm(centre), rtol=16 * 5 * EPS)


@pytest.mark.parametrize("angle", [20, 65])
@pytest.mark.parametrize("ratio", [0.1, 1.0])
def test_the_triangle_says_what_it_measures(angle, ratio):
    fig = figures.triangle(angle, ratio)
    words = fig.axes[0].get_xlabel().split()
    plt.close(fig)
    before, after, bound = (float(words[i].strip(",;")) for i in (3, 5, 7))
    rounding = 16 * EPS
    assert before == pytest.approx(np.sin(np.radians(angle)), abs=HALF + rounding)
    assert bound == pytest.approx((1 - ratio) * before, abs=2 * HALF + rounding)
    assert after <= bound + rounding


def test_the_drawn_runs_keep_to_the_drawn_bound():
    lines = drawn(figures.bound_and_run(4, seeds=3), 0)
    measured, bound = lines["measured, 3 problems"], lines["bound"]
    assert len(measured.get_ydata()) == 25
    rounding = 4 * 10 * EPS  # sums of ten terms, at a condition number of 4
    bound = np.asarray(bound.get_ydata()) * (1 + rounding)
    assert (np.asarray(measured.get_ydata()) <= bound).all()


def test_late_factors_are_drawn_on_the_predicted_curve_and_below_the_bound():
    tilts = np.array([0.0, 90.0])
    found = experiments.late_factors(tilts, seeds=3)
    fig = figures.late(tilts, found)
    for column, name in enumerate(("normalised, best length", "gradient descent")):
        (bars,) = (each for each in fig.axes[0].containers if each.get_label() == name)
        middle = np.median(found[..., column], axis=1)
        np.testing.assert_array_equal(bars.lines[0].get_ydata(), middle)
    lines = drawn(fig, 0)
    predicted, bound = lines["predicted"], lines["bound of both"].get_ydata()[0]
    curve = np.asarray(predicted.get_ydata())
    assert (np.diff(curve) > 0).all()
    assert curve[-1] == pytest.approx(bound, rel=64 * 20 * EPS)
    assert bound == pytest.approx((1 - 1 / 20) ** 2)


@pytest.mark.parametrize("by", ["step", "second"])
def test_a_race_is_drawn_by_step_and_by_second(by):
    excess = np.array([1.0, 0.1, 0.01])
    runs = {"gradient descent": (excess, 0.002), "accelerated": (excess**2, 0.004)}
    lines = drawn(figures.race(runs, by), 0)
    for name, (values, seconds) in runs.items():
        np.testing.assert_array_equal(lines[name].get_ydata(), values)
        each = 1 if by == "step" else 1e3 * seconds
        np.testing.assert_allclose(lines[name].get_xdata(), each * np.arange(3))


def test_at_every_rate_the_median_is_drawn_and_what_is_infinite_lies_on_the_edge():
    reached = {"gradient descent": np.array([[0.1, np.inf], [0.2, np.inf], [0.4, 1e-20]])}
    lines = drawn(figures.every_rate(np.array([0.1, 1.0]), reached), 0)
    np.testing.assert_array_equal(lines["gradient descent"].get_ydata(), [0.2, 1e4])


def test_on_data_the_least_excess_so_far_is_drawn_from_1():
    problem, w0 = experiments.random_problem(10, 0, dimension=4)
    lines = drawn(figures.on_data(problem, [w0], steps=30), 0)
    for name, (excess, _) in experiments.compared(problem, w0, 30).items():
        values = np.asarray(lines[name].get_ydata())
        assert values[0] == 1
        assert (np.diff(values) <= 0).all()
        assert values[-1] == pytest.approx(max(excess.min() / excess[0], 1e-16), rel=8 * EPS)
    np.testing.assert_allclose(lines["bound"].get_ydata(), 0.9 ** (2 * np.arange(31)))


def test_runs_that_end_early_are_drawn_to_the_last_step():
    # curvature 1 everywhere: gradient descent ends, its gradient 0, when rounding lets it
    rng = np.random.default_rng(0)
    problem = LeastSquares(rng.normal(size=3), np.eye(3))
    lines = drawn(figures.on_data(problem, rng.normal(size=(4, 3)), steps=30), 0)
    assert {len(lines[name].get_ydata()) for name in lines} == {31}


def test_too_large_steps_never_settle_and_small_batches_stay_above_all_the_data():
    problem, w0 = experiments.random_problem(10, 0)
    fig = figures.broken(problem, w0, *experiments.diabetes())
    steps, batches = fig.axes[0].get_lines()[0], fig.axes[1].get_lines()
    plt.close(fig)
    sizes, ends = map(np.asarray, steps.get_data())
    assert ends[(sizes > 0.4) & (sizes < 1.9)].max() < 1e-9
    assert ends[sizes > 2.1].min() > 1e-3
    small, medium, whole = (np.asarray(line.get_ydata())[500:] for line in batches)
    assert min(small.min(), medium.min()) > 1e-3 > whole.max()
