"""The figures of the chapter on inference show what they are given."""

import numpy as np
import pytest

from bncore.chapters.mechanics.inference import company, estimates, faults, figures
from bncore.mechanics import averaging
from bncore.page import style

EPS = np.finfo(np.float64).eps


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_drawn_digit_covers_its_square_and_keeps_its_ink():
    pixels = np.repeat([0.0, 0.25, 0.5, 1.0], 16)
    _, ax = style.axes()
    figures.draw_digit(ax, pixels, left=10)
    assert [patch.get_alpha() for patch in ax.patches] == [0.03, 0.25, 0.5, 1.0]
    boxes = [patch.get_path().get_extents() for patch in ax.patches]
    assert (min(box.x0 for box in boxes), max(box.x1 for box in boxes)) == (10, 18)
    assert (boxes[0].y1, boxes[-1].y0) == (8, 0)


def test_votes_mark_the_answer():
    shares = np.linspace(0, 0.2, 10)
    ax = figures.votes(np.zeros(64), shares, 3, 8).axes[0]
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], shares, rtol=4 * EPS)
    assert [bool(bar.get_hatch()) for bar in ax.patches] == [k == 3 for k in range(10)]
    assert "8" in ax.get_title()


def test_spread_shows_measured_beside_predicted():
    rng, edges = np.random.default_rng(0), np.linspace(-2, 6, 65)
    outputs = {m: 3 * rng.normal(size=100) for m in (2, 4, 8)}
    one = company.Spread(1.0, outputs, [1.0, 0.7, 0.5], [0.9, 0.6, 0.4])
    fig = figures.spread(one, [2, 4, 8], 4)
    drawn = lines(fig.axes[1])
    np.testing.assert_array_equal(drawn["measured"], [[2, 1], [4, 0.7], [8, 0.5]])
    np.testing.assert_array_equal(
        drawn["predicted, to first order"], [[2, 0.9], [4, 0.6], [8, 0.4]]
    )
    bars = [bar.get_height() for bar in fig.axes[0].patches]
    # What lies beyond the edges stands in the first and in the last bar.
    counts, _ = np.histogram(np.clip(outputs[4], -2, 6), edges)
    np.testing.assert_allclose(bars, counts / (100 * np.diff(edges)), rtol=64 * EPS)


def test_variance_ratios_are_corrected_for_each_way_to_draw_a_batch():
    m = np.array(list(estimates.PATCHES))
    ratios = {"independent": (m - 1) / m, "b": np.full(len(m), 0.25), "c": np.full(len(m), 0.75)}
    ax = figures.variance_ratios(ratios).axes[0]
    drawn = lines(ax)
    for name, values in ratios.items():
        expected = m / (m - 1) * values
        np.testing.assert_allclose(drawn[f"{name}, × m/(m − 1)"][:, 1], expected, rtol=4 * EPS)
    np.testing.assert_allclose(drawn["(m − 1)/m"][:, 1], (m - 1) / m, rtol=4 * EPS)
    np.testing.assert_array_equal(drawn["independent, no correction"][:, 1], ratios["independent"])


@pytest.mark.parametrize("updates", [1, 5])
def test_the_window_shows_the_weights_the_prediction_and_the_past_measured(updates):
    t = np.arange(11.0)
    found = estimates.Running(np.stack([t + 0.5, t + 1.0]), t, t / 8)
    top, bottom = figures.window(found, 0.1, updates).axes
    weights = averaging.weights(0.1, updates)
    np.testing.assert_allclose(top.patches[0].get_data().values, weights[:0:-1], rtol=4 * EPS)
    assert top.get_lines()[0].get_ydata()[-1] == weights[0]
    population, predicted, *measured = bottom.get_lines()
    np.testing.assert_array_equal(population.get_ydata(), 4)
    np.testing.assert_array_equal(predicted.get_xydata(), np.stack([t, t], axis=1))
    band = {tuple(point) for point in bottom.collections[0].get_paths()[0].vertices}
    assert band >= {(at, at + side * at / 4) for at in t for side in (-1, 1)}
    for line, path in zip(measured, found.paths, strict=True):
        past = np.stack([t, path], axis=1)[: updates + 1]
        np.testing.assert_array_equal(line.get_xydata(), past)
    worth = averaging.effective_batches(0.1, updates)
    assert f"{worth:.3g} batch" in top.get_title()


@pytest.mark.parametrize(("momentum", "says"), [(1.0, True), (0.5, True), (0.1, False)])
def test_the_window_says_so_when_the_initial_value_weighs_too_little_to_draw(momentum, says):
    t = np.arange(11.0)
    top = figures.window(estimates.Running(t[None], t, 0 * t), momentum, 10).axes[0]
    assert ("< 0.001" in top.texts[0].get_text()) == says


def test_speed_up_shows_every_network():
    ax = figures.speed_up([1, 8], {"a": [2, 1.5], "b": [1.2, 1.1]}).axes[0]
    assert legend(ax) == ["a", "b"]
    drawn = lines(ax)
    np.testing.assert_array_equal(drawn["a"], [[1, 2], [8, 1.5]])
    np.testing.assert_array_equal(drawn["b"], [[1, 1.2], [8, 1.1]])


def test_means_over_seeds_are_drawn():
    values = np.array([[0.1, 0.3], [0.5, 0.9]])
    rows = [values[i % 2] for i in range(len(faults.TEST_SIZES))]
    found = {"shuffled": rows, "by class": np.array(rows) / 2, "evaluated": [0.9, 1.0]}
    drawn = lines(figures.forgotten(found).axes[0])
    np.testing.assert_allclose(
        drawn["training mode, shuffled batches"][:2, 1], [0.2, 0.7], rtol=4 * EPS
    )
    np.testing.assert_allclose(
        drawn["training mode, sorted by class"][:2, 1], [0.1, 0.35], rtol=4 * EPS
    )
    np.testing.assert_allclose(drawn["model.eval(), any batch"][:, 1], 0.95, rtol=4 * EPS)

    ways = {name: values / (1 + place) for place, name in enumerate("abcde")}
    ax = figures.tiny([2, 4], ways).axes[0]
    assert legend(ax) == list("abcde")
    for place, name in enumerate("abcde"):
        wanted = np.array([[2, 0.2], [4, 0.7]]) / [1, 1 + place]
        np.testing.assert_allclose(lines(ax)[name], wanted, rtol=4 * EPS)

    running = {0.01: values[0], 0.1: values[1], None: [0.5, 0.7]}
    fig = figures.momenta(running, [0.8, 1.0], 3)
    top = lines(fig.axes[0])
    np.testing.assert_allclose(top["running statistics"][:, 1], [0.2, 0.7], rtol=4 * EPS)
    np.testing.assert_allclose(top["fitted again"][:, 1], 0.9, rtol=4 * EPS)
    np.testing.assert_allclose(top["average of all batches"][:, 1], 0.6, rtol=4 * EPS)
    left = fig.axes[1].get_lines()[0].get_ydata()
    np.testing.assert_allclose(left, [0.99**3, 0.9**3], rtol=8 * EPS)

    images = np.zeros((3, 64))
    found = {"saved": values, "fitted": values / 4, "ones": values / 2}
    fig = figures.contrast(images, [0.5, 1.0], found, 0.5)
    assert len(fig.axes[0].patches) == 3
    np.testing.assert_allclose(
        lines(fig.axes[1])["saved statistics"][:, 1], [0.2, 0.7], rtol=4 * EPS
    )
    fitted = lines(fig.axes[1])["fitted to the new images"]
    np.testing.assert_allclose(fitted[:, 1], [0.05, 0.175], rtol=4 * EPS)
    ones = lines(fig.axes[1])["fitted to ones only, tested on them"]
    np.testing.assert_allclose(ones[:, 1], [0.1, 0.35], rtol=4 * EPS)
