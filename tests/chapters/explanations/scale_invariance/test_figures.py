"""The figures of the chapter on scale invariance show what they are given."""

from pathlib import Path

import numpy as np
import pytest

from bncore.chapters.explanations.scale_invariance import (
    experiments,
    figures,
    full_size,
)
from bncore.lab import recorded

EPS = np.finfo(np.float64).eps

KEPT = recorded.load(Path(full_size.__file__).with_name("recorded.json"))


def test_full_batch_descent_with_decay_ends_at_the_stability_limit():
    run, curvature = figures.alone()
    i = figures.ALONE.index(0.1)
    felt = figures.ALONE_RATE / ((1 - figures.ALONE_RATE * 0.1) * run.length[-100:, i] ** 2)
    np.testing.assert_allclose(felt * curvature / 2, 1, rtol=0, atol=0.03)
    assert run.loss[-100:, figures.ALONE.index(0.0)].max() < EPS**1.5


def test_the_first_figure_marks_the_gradient():
    above, below = figures.one_unit(0.5, 0.1).axes
    marked = above.lines[-1].get_xydata()[0]
    assert np.linalg.norm(marked) == pytest.approx(0.5, rel=8 * EPS, abs=0)
    gradient = experiments.plane().value_and_gradient(marked[None], 0.1)[1]
    np.testing.assert_allclose(
        below.lines[2].get_xydata()[0], (0.5, np.linalg.norm(gradient)), rtol=8 * EPS
    )


def test_the_figure_of_the_balance_ends_at_the_equilibrium():
    above, below = figures.balance(1.0, 0.03).axes
    measured, predicted, dotted = above.lines
    assert predicted.get_ydata()[-1] == pytest.approx(dotted.get_ydata()[0], rel=0.01)
    assert np.median(measured.get_ydata()[-100:]) == pytest.approx(dotted.get_ydata()[0], rel=0.05)
    felt = 1.0 / (0.97 * measured.get_ydata() ** 2)
    np.testing.assert_allclose(below.lines[0].get_ydata(), felt, rtol=8 * EPS)


@pytest.mark.parametrize("which", ["all parameters", "hidden weights only"])
def test_the_figure_of_learning_rates_shows_medians(which):
    above, below = figures.learning_rates(KEPT["full"], which).axes
    arm = "batch norm" if which == "all parameters" else "batch norm, hidden rate"
    np.testing.assert_allclose(
        above.lines[0].get_ydata(), np.median(KEPT["full"]["loss"][arm], axis=1), rtol=8 * EPS
    )
    np.testing.assert_allclose(
        below.lines[0].get_ydata(), np.median(KEPT["full"]["accuracy"][arm], axis=1), rtol=8 * EPS
    )


def test_the_figure_of_effective_rates_shows_medians():
    (ax,) = figures.felt_rates(KEPT["full"]).axes
    for line, felt in zip(ax.lines, KEPT["full"]["felt"], strict=True):
        np.testing.assert_allclose(line.get_ydata(), np.median(felt, axis=0), rtol=8 * EPS)
