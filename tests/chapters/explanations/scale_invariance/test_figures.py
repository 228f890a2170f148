"""The figures of the chapter on scale invariance show what they are given."""

import numpy as np
import pytest

from bncore.chapters.explanations.scale_invariance import (
    experiments,
    figures,
)

EPS = np.finfo(np.float64).eps


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


@pytest.mark.parametrize(
    ("which", "part", "end"),
    [("all parameters", "one rate", ""), ("hidden weights only", "hidden rate", ", hidden rate")],
)
def test_the_figure_of_learning_rates_shows_medians(which, part, end, record):
    for steps in record["full"][part].steps.values:
        above, below = figures.learning_rates(record["full"], which, steps).axes
        found = record["full"][part].sel(steps=steps, arm=f"batch norm{end}")
        found = found.where(found.learning_rate > 0, drop=True)
        loss = found.loss.clip(max=figures.HIGHEST).median("seed")
        np.testing.assert_allclose(above.lines[0].get_xdata(), found.learning_rate)
        np.testing.assert_allclose(above.lines[0].get_ydata(), loss, rtol=8 * EPS)
        np.testing.assert_allclose(
            below.lines[0].get_ydata(), found.accuracy.median("seed"), rtol=8 * EPS
        )


def test_the_figure_of_effective_rates_shows_medians(record):
    (ax,) = figures.felt_rates(record["full"]).axes
    felt = record["full"]["felt"].felt.median("seed")
    for line, values in zip(ax.lines, felt, strict=True):
        np.testing.assert_allclose(line.get_ydata(), values, rtol=8 * EPS)
