"""The figures of the chapter on decoupling show what they are given."""

import numpy as np
import pytest

from bncore.chapters.convergence.decoupling import experiments, figures
from bncore.convergence import gradient_descent
from bncore.convergence.reparametrization import couple
from bncore.page import style

EPS = np.finfo(np.float64).eps


def line(ax, label):
    (found,) = [line for line in ax.get_lines() if line.get_label() == label]
    return np.array(found.get_data(), dtype=float)


@pytest.mark.parametrize("mean", [0, 1, 2.5])
def test_data_off_centre_follow_the_predicted_line(mean):
    X, w = experiments.off_centre(mean)
    rounding = len(X) * EPS * (1 + mean)
    assert (X @ w).mean() == pytest.approx(mean, abs=rounding)
    assert (X @ w).std() == pytest.approx(1, rel=rounding, abs=0)
    (ax,) = figures.off_centre(mean).axes
    coupled, y = line(ax, "measured")
    ends, heights = line(ax, "predicted")
    slope = (heights[1] - heights[0]) / (ends[1] - ends[0])
    expected = heights[0] + slope * (coupled - ends[0])
    np.testing.assert_allclose(y, expected, rtol=0, atol=rounding * np.abs(y).max())


def test_both_planes_show_one_loss():
    problem = experiments.plane()
    best = problem.value(problem.closed_form)

    def rounding(*values):
        return 64 * EPS * np.abs(values).sum()

    (side, plain), (angles, lengths, polar) = figures._grids()
    for i, j in [(3, 70), (40, 12), (80, 55)]:
        value = problem.value(np.array([side[j], side[i]]))
        assert plain[i, j] ** 2 == pytest.approx(value - best, abs=rounding(value, best))
    for i, j in [(0, 0), (20, 100), (72, 60)]:
        weights = couple(experiments.at_angle(problem, angles[j]), lengths[i], problem.S)
        value = problem.value(weights)
        assert polar[i, j] ** 2 == pytest.approx(value - best, abs=rounding(value, best))


@pytest.mark.parametrize(("angle", "length"), [(80, 3), (-160, 1), (0, 0.2)])
def test_both_paths_start_where_the_reader_put_them(angle, length):
    above, below = figures.two_planes(angle, length).axes
    problem = experiments.plane()
    start = couple(experiments.at_angle(problem, angle), length, problem.S)
    for label in ("on the weights", "on direction and length"):
        np.testing.assert_allclose(line(above, label)[:, 0], start, rtol=0, atol=64 * EPS * length)
    for path in below.get_lines()[:2]:
        first = np.array(path.get_data())[:, 0].astype(float)
        np.testing.assert_allclose(first, [angle, length], rtol=0, atol=16 * 180 * EPS)
    end = line(above, "on direction and length")[:, -1]
    np.testing.assert_allclose(end, problem.closed_form, rtol=0, atol=0.1)


@pytest.mark.parametrize("length", [0.5, 1, 2])
@pytest.mark.parametrize("eps", [0, 0.3, 1])
def test_w_leaves_its_circle_where_level_lines_are_rays(length, eps):
    (ax,) = figures.rays(length, eps).axes
    path = np.array(ax.get_lines()[2].get_data(), dtype=float).T
    lengths = np.linalg.norm(path, axis=1)
    assert lengths[0] == pytest.approx(length, rel=8 * EPS, abs=0)
    assert (np.diff(lengths) >= -8 * EPS * lengths[1:]).all() == (eps == 0)
    best = line(ax, "best direction")[:, 1]
    assert best[0] * path[-1, 1] == pytest.approx(best[1] * path[-1, 0], abs=best[0] * lengths[-1])
    circle = np.hypot(*line(ax, "first length"))
    np.testing.assert_allclose(circle, length, rtol=8 * EPS)


@pytest.mark.parametrize("rate", [0.01, 0.1, 3.0])
def test_the_length_settles_below_the_stability_limit(rate):
    above, below = figures.growing(rate, steps=200).axes
    _, effective = line(above, "effective rate")
    assert effective[0] == pytest.approx(rate, rel=8 * EPS, abs=0)
    assert (np.diff(effective) <= 8 * EPS * rate).all()
    assert effective[-1] < line(above, "predicted limit")[1, 0]
    problem, start = figures._ten()
    weights = couple(start, 1.0, problem.S)
    with np.errstate(all="ignore"):
        run = gradient_descent(problem, weights, steps=5, learning_rate=rate)
    excess = run.value - problem.rayleigh_optimum
    _, drawn = line(below, "weights")
    count = min(len(drawn), len(excess), 4)
    # Four steps, of sums of ten terms, at a condition number of 100.
    expected, rounding = (excess / excess[0])[:count], 4 * 10 * 100 * EPS
    np.testing.assert_allclose(drawn[:count], expected, rtol=rounding)


def test_the_figure_of_rates_draws_what_it_returns():
    problems = experiments.random_problems(3, dimension=3, kappa=4.0)
    rates = np.array([0.03, 0.3, 3.0])
    fig, steps = figures.rates(problems, rates, limit=2000)
    above, below = fig.axes
    for method, label in (("plain", "weights"), ("two rates", "w; g at 1/2")):
        at, median = line(above, label)
        met = np.isfinite(steps[method]).all(axis=1)
        np.testing.assert_array_equal(at, rates[met])
        np.testing.assert_array_equal(median, np.median(steps[method][met], axis=1))
    small, _ = experiments.branches(problems)
    law = line(above, "predicted")[1]
    np.testing.assert_allclose(law * rates, np.median(small), rtol=8 * EPS)
    runs = [experiments.descend_direction(problems, rate, 1000) for rate in rates]
    measured, bound = line(below, "measured")[1], line(below, "bound")[1]
    lengths = [np.median(np.sqrt(run.squared_length[-1])) for run in runs]
    np.testing.assert_allclose(measured, lengths, rtol=8 * EPS)
    longest = [run.length_bound.max() for run in runs]
    np.testing.assert_allclose(bound**2, longest, rtol=8 * EPS)
    assert (measured <= bound * (1 + 3 * EPS)).all()  # sums of three squares


def test_the_figure_of_noise_draws_every_rate():
    problems = experiments.random_problems(2, dimension=3, kappa=4.0)
    runs = {rate: experiments.minibatches(problems, rate, 50) for rate in (0.1, 0.3, 1.0, 3.0)}
    above, _ = figures.forgetting(runs).axes
    for rate, run in runs.items():
        t, effective = line(above, f"rate {rate:g}")
        expected = np.median(rate / run.length**2, axis=1)[t.astype(int)]
        np.testing.assert_allclose(effective, expected, rtol=8 * EPS)
    assert above.get_lines()[-1].get_color() == style.COLOR["predicted"]
