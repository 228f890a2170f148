"""The figures of the chapter on inference show what they are given."""

import numpy as np
import pytest

from bncore.chapters.mechanics.inference import figures
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
    outputs = np.random.default_rng(0).normal(size=100)
    fig = figures.spread(outputs, 1, [2, 4, 8], [1, 0.7, 0.5], [0.9, 0.6, 0.4], 4)
    drawn = lines(fig.axes[1])
    np.testing.assert_array_equal(drawn["measured"], [[2, 1], [4, 0.7], [8, 0.5]])
    np.testing.assert_array_equal(
        drawn["predicted, to first order"], [[2, 0.9], [4, 0.6], [8, 0.4]]
    )


def test_variance_ratios_show_each_way_to_draw_a_batch():
    curves = {"a": [1, 1], "b": [0.5, 0.6], "c": [0.7, 0.8]}
    ax = figures.variance_ratios([2, 4], curves, [0.5, 0.75]).axes[0]
    drawn = lines(ax)
    for name, values in curves.items():
        np.testing.assert_array_equal(drawn[name][:, 1], values)
    np.testing.assert_allclose(drawn["(m − 1)/m"][:, 1], [0.5, 0.75], rtol=4 * EPS)


@pytest.mark.parametrize("updates", [1, 5])
def test_the_window_shows_the_weights_the_prediction_and_the_past_measured(updates):
    t = np.arange(11)
    weights = np.linspace(0.1, 0.5, updates + 1)
    paths = np.stack([t + 0.5, t + 1.0])
    top, bottom = figures.window(weights, paths, t, 0 * t, 4, 0.1, updates, 3.2).axes
    np.testing.assert_allclose(top.patches[0].get_data().values, weights[:0:-1], rtol=4 * EPS)
    assert top.get_lines()[0].get_ydata()[-1] == weights[0]
    population, predicted, *measured = bottom.get_lines()
    np.testing.assert_array_equal(population.get_ydata(), 4)
    np.testing.assert_array_equal(predicted.get_xydata(), np.stack([t, t], axis=1))
    for line, path in zip(measured, paths, strict=True):
        past = np.stack([t, path], axis=1)[: updates + 1]
        np.testing.assert_array_equal(line.get_xydata(), past)
    assert "3.2 batches" in top.get_title()


@pytest.mark.parametrize(("first", "says"), [(0.0, True), (1e-4, True), (0.002, False)])
def test_the_window_says_so_when_the_initial_value_weighs_too_little_to_draw(first, says):
    t = np.arange(11)
    top = figures.window(np.array([first, 0.5]), t[None], t, 0 * t, 4, 0.1, 1, 1).axes[0]
    assert ("< 0.001" in top.texts[0].get_text()) == says


def test_speed_up_shows_every_network():
    ax = figures.speed_up([1, 8], {"a": [2, 1.5], "b": [1.2, 1.1]}).axes[0]
    assert legend(ax) == ["a", "b"]


def test_means_over_seeds_are_drawn():
    values = np.array([[0.1, 0.3], [0.5, 0.9]])
    drawn = lines(figures.forgotten([2, 4], values, values / 2, [0.9, 1.0]).axes[0])
    np.testing.assert_allclose(
        drawn["training mode, shuffled batches"][:, 1], [0.2, 0.7], rtol=4 * EPS
    )
    np.testing.assert_allclose(
        drawn["training mode, sorted by class"][:, 1], [0.1, 0.35], rtol=4 * EPS
    )
    np.testing.assert_allclose(drawn["model.eval(), any batch"][:, 1], 0.95, rtol=4 * EPS)

    ways = dict.fromkeys("abcde", values)
    assert legend(figures.tiny([2, 4], ways).axes[0]) == list("abcde")

    fig = figures.momenta([0.01, 0.1], values, [0.8, 1.0], [0.5, 0.7], [0.3, 0.0])
    np.testing.assert_allclose(
        lines(fig.axes[0])["running statistics"][:, 1], [0.2, 0.7], rtol=4 * EPS
    )
    np.testing.assert_allclose(lines(fig.axes[0])["fitted again"][:, 1], 0.9, rtol=4 * EPS)
    np.testing.assert_allclose(fig.axes[1].get_lines()[0].get_ydata(), [0.3, 0.0], rtol=4 * EPS)

    images = np.zeros((3, 64))
    fig = figures.contrast(images, [0.5, 1.0], values, values, values, 0.5)
    assert len(fig.axes[0].patches) == 3
    np.testing.assert_allclose(
        lines(fig.axes[1])["saved statistics"][:, 1], [0.2, 0.7], rtol=4 * EPS
    )
