"""The figures of the chapter on least squares show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from bncore.chapters.convergence.least_squares import experiments, figures

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
