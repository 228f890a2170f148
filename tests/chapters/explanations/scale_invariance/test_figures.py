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
    effective, stable = (line.get_ydata() for line in figures.decay_alone(0.1).axes[1].lines)
    np.testing.assert_allclose(effective[-100:], felt, rtol=8 * EPS)
    assert stable[0] == pytest.approx(2 / curvature, rel=8 * EPS, abs=0)


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
    for when, place in (("early", 0), ("in the end", -1)):
        above, below = figures.learning_rates(record["full"], which, when).axes
        found = record["full"][part].isel(steps=place).sel(arm=f"batch norm{end}")
        found = found.where(found.learning_rate > 0, drop=True)
        loss = found.loss.clip(max=figures.HIGHEST).median("seed")
        np.testing.assert_allclose(above.lines[0].get_xdata(), found.learning_rate)
        np.testing.assert_allclose(above.lines[0].get_ydata(), loss, rtol=8 * EPS)
        np.testing.assert_allclose(
            below.lines[0].get_ydata(), found.accuracy.median("seed"), rtol=8 * EPS
        )
        assert f"{found.steps.item()} steps" in [text.get_text() for text in below.texts]


def test_the_figure_of_effective_rates_shows_medians(record):
    (ax,) = figures.felt_rates(record["full"]).axes
    felt = record["full"]["felt"].felt.median("seed").sel(learning_rate=list(figures.FELT))
    for line, values in zip(ax.lines, felt, strict=True):
        np.testing.assert_allclose(line.get_ydata(), values, rtol=8 * EPS)
    texts = [text.get_text() for text in ax.texts]
    for rate, values in zip(figures.FELT, felt, strict=True):
        assert f"rate {rate:g}" in texts
        assert f"{values[-1]:.2g}" in texts


def test_the_figure_of_the_split_shows_medians_and_ranges(record):
    (ax,) = figures.split(record["full"]).axes
    spans, points = ax.lines[::2], ax.lines[1::2]
    for arm, span, point in zip(figures.ARMS, spans, points, strict=True):
        part = "one rate" if arm in ("batch norm", "no batch norm") else "split"
        steps = record["full"][f"{part}, fresh to 0.01"]["to 0.01"].sel(arm=arm)
        np.testing.assert_array_equal(span.get_xdata(), [steps.min(), steps.max()])
        np.testing.assert_array_equal(point.get_xdata(), [steps.median()])


@pytest.mark.parametrize("eps", figures.EPSILONS)
def test_the_first_figure_says_how_far_a_step_turns(eps):
    unit = experiments.plane()
    for length in figures.LENGTHS:
        above = figures.one_unit(length, eps).axes[0]
        w = above.lines[-1].get_xydata()[0]
        after = w - figures.STEP * unit.value_and_gradient(w[None], eps)[1][0]
        turned = np.diff(np.degrees(np.arctan2(*np.array([w, after]).T[::-1])))[0]
        turned = abs((turned + 180) % 360 - 180)
        assert above.texts[-1].get_text() == f"turned by {turned:.0f}°"


def test_units_settle_where_the_figure_of_the_balance_says():
    pairs, run = figures.balanced()
    for i, (rate, decay) in enumerate(pairs):
        if 4 * rate * decay * 2000 > 5:  # settled in the first 2000 steps
            one = experiments.Decayed(*(values[:, i : i + 1] for values in run))
            np.testing.assert_allclose(experiments.settled(one, rate, decay), 1, rtol=0, atol=0.03)


@pytest.mark.parametrize("decay", [0.03, 0.1])
def test_the_floor_under_decay_alone_is_as_estimated(decay):
    run, curvature = figures.alone()
    floor = figures.ALONE_RATE * decay * curvature / 4
    late = run.loss[-500:, figures.ALONE.index(decay)]
    np.testing.assert_allclose(late, floor, rtol=0.1)
    measured, estimated = (line.get_ydata() for line in figures.decay_alone(decay).axes[0].lines)
    np.testing.assert_array_equal(measured[-500:], late)
    assert estimated[0] == pytest.approx(floor, rel=8 * EPS, abs=0)
