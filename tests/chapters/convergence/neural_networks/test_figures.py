"""The figures of the chapter on neural networks show what they are given."""

import numpy as np
import pytest

from bncore.chapters.convergence.neural_networks import deep, experiments, figures

EPS = np.finfo(np.float64).eps
GTOL = 1e-9  # The gradient at which the search for a best unit stops.


@pytest.fixture(scope="module")
def measured():
    return {kind: deep.dependence(kind, seeds=(0, 1), steps=4, every=2) for kind in ("batch", None)}


def test_the_figures_show_what_was_measured(measured):
    kind = "same learning rate"
    above, below = figures.moved_below(measured, kind, 1).axes
    for line, kept in zip(above.lines, measured.values(), strict=True):
        np.testing.assert_allclose(
            line.get_ydata(), kept.change[kind][:, :, 1].mean(axis=0), rtol=16 * EPS
        )
    for line, kept in zip(below.lines, measured.values(), strict=True):
        np.testing.assert_allclose(
            line.get_ydata(), kept.cosine[kind][:, :, 1].mean(axis=0), rtol=16 * EPS
        )
    for name, field in (("as it is", "blocks"), ("free of scale", "relative_blocks")):
        (ax,) = figures.second_derivatives(measured, name, 5).axes
        expected = getattr(measured["batch"], field)[:, :, 3].mean(axis=0)
        np.testing.assert_allclose(ax.lines[0].get_ydata(), expected, rtol=16 * EPS)


def test_the_figure_of_the_held_unit_marks_the_best_weights():
    above, below = figures.held_elsewhere(90).axes
    plane, held, answers = figures.best_answers()
    chosen = list(figures.TURNED).index(90)
    np.testing.assert_allclose(above.lines[-1].get_xydata()[0], answers[chosen], rtol=16 * EPS)
    assert below.lines[1].get_ydata()[0] == pytest.approx(
        experiments.off_line(answers[[chosen]])[0], rel=16 * EPS, abs=0
    )
    gradient = plane.gradient(np.vstack([answers[chosen], held[chosen]]))[0]
    np.testing.assert_allclose(gradient, 0, atol=100 * GTOL)


@pytest.mark.parametrize(("theta", "strength"), [(1.5, 0.49), (3.0, 0.25)])
def test_the_figure_of_the_pair_has_its_minimum_where_b_is_singular(theta, strength):
    above, below = figures.splay(theta, strength).axes
    splays, values = above.lines[1].get_xydata().T
    zero = np.interp(0, below.lines[1].get_ydata(), splays)
    assert abs(splays[values.argmin()] - zero) < 1
    assert above.lines[2].get_xdata()[0] == pytest.approx(zero, abs=0.2)


def test_the_figure_of_the_search_has_each_point_on_the_line_or_with_a_singular_matrix():
    (ax,) = figures.searched().axes
    for points, theta in zip(ax.lines, ((3, 2), (5, 2)), strict=True):
        angles, sizes = points.get_data()
        np.testing.assert_array_equal(angles, experiments.critical_points(theta, 0.25)[0])
        singular = sizes == figures.FLOOR
        np.testing.assert_array_equal(singular, angles > 0.01)
        assert 0 < singular.sum() < len(singular)


def test_the_figure_of_ratios_shows_the_intervals_of_the_record(record):
    fresh = record["full"]["fresh"]
    (ax,) = figures.ratios(fresh).axes
    assert [each.get_text() for each in ax.get_yticklabels()] == [row[0] for row in deep.ROWS]
    for drawn, when in zip(ax.containers, ("start", "later"), strict=True):
        points, _, (bars,) = drawn
        heights, (low, high) = points.get_ydata(), ax.get_ylim()
        np.testing.assert_allclose(heights, ax.get_yticks(), atol=0.2)
        assert low < heights.min() < heights.max() < high
        for mean, ends, (_, name, at) in zip(
            points.get_xdata(), bars.get_segments(), deep.ROWS, strict=True
        ):
            expected = np.exp(deep.recorded_ratio(fresh, name, when, at))
            found = [mean, *ends[:, 0]]
            np.testing.assert_allclose(found, expected, rtol=16 * EPS)


def test_a_row_of_the_figure_of_ratios_says_how_far_the_layers_below_moved():
    said = {at: words for words, name, at in deep.ROWS if name == "moved"}
    assert list(said) == list(deep.MOVES)
    for at, words in said.items():
        assert float(words.removeprefix("move of ").removesuffix(" %")) == pytest.approx(100 * at)


def test_the_figure_of_turns_shows_bounds_and_gradients():
    _, judged, after, _ = experiments.unit_by_unit(3.0, steps=5, halvings=20, sweeps=3)
    above, below = figures.turns(3.0, judged, after, 0.7).axes
    np.testing.assert_allclose(above.lines[0].get_ydata(), judged[0].measured, rtol=16 * EPS)
    np.testing.assert_allclose(above.lines[1].get_ydata(), judged[0].bound, rtol=16 * EPS)
    np.testing.assert_allclose(
        below.lines[1].get_ydata(), np.maximum(after[:, 1], 1e-20), rtol=16 * EPS
    )
    ends, law = below.lines[2].get_xydata().T
    np.testing.assert_array_equal(ends, [2, 4, 6])
    np.testing.assert_allclose(law[1:] / law[:-1], 0.7, rtol=16 * EPS)
    assert law[-1] == pytest.approx(after[-1].sum(), rel=16 * EPS, abs=0)
