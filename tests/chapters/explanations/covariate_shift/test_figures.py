"""The figures of the chapter on covariate shift show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from bncore.chapters.explanations.covariate_shift import (
    exercises,
    figures,
    full_size,
    measures,
    readings,
)

EPS = np.finfo(np.float64).eps
DRAWN = 2e-3  # What a straight line between two points of a drawn curve misses.


def points(fig, panel, label):
    lines = {line.get_label(): line for line in fig.axes[panel].get_lines()}
    found = np.asarray(lines[label].get_xydata(), dtype=float)
    plt.close(fig)
    return found


@pytest.mark.parametrize("b", figures.SECOND)
@pytest.mark.parametrize("rate", figures.RATES)
def test_the_measured_dot_lies_on_the_closed_form(b, rate):
    ((x, y),) = points(figures.two_weights(rate, b), 1, "measured")
    assert x == rate
    expected = abs(exercises.two_weights(figures.START, b, figures.TARGET, rate))
    # Sums of a few products of powers of all three.
    rounding = 16 * EPS * np.prod(1 + np.abs([figures.START, b, figures.TARGET])) ** 2
    assert y == pytest.approx(expected, abs=rounding)
    curve = points(figures.two_weights(rate, b), 1, "closed form")
    assert np.interp(rate, *curve.T) == pytest.approx(expected, abs=DRAWN)


@pytest.mark.parametrize("normalization", [None, "batch"])
def test_small_steps_follow_the_first_order(normalization):
    measured, first = np.moveaxis(figures.small_steps(normalization), 1, 0)
    np.testing.assert_allclose(measured[:, 0, 1:], first[:, 0, 1:], rtol=0.05)
    assert (np.abs(measured / np.where(first, first, 1) - 1)[:, -1, 1:] > 0.1).any()


def test_the_recorded_figures_show_each_network():
    configuration, _ = readings.record()
    for network in ("vgg", "linear"):
        step = configuration[network]["drawn"][-1]
        fig = figures.across_layers(network, "one move", step)
        assert {line.get_label() for line in fig.axes[0].get_lines()} == {"none", "batch norm"}
        plt.close(fig)
    for fig in (
        figures.rates(configuration["vgg"]["rates"][0]),
        figures.disturbed(1),
        figures.percentiles(5),
        figures.straight("none"),
    ):
        assert all(ax.has_data() for ax in fig.axes)
        plt.close(fig)


def inside(fig):
    """Whether every line and band of a figure with logarithmic or fixed axes is on the paper."""
    for ax in fig.axes:
        low, high = ax.get_ylim()
        drawn = [line.get_ydata() for line in ax.lines]
        drawn += [path.vertices[:, 1] for band in ax.collections for path in band.get_paths()]
        values = np.concatenate([np.asarray(some, dtype=float).ravel() for some in drawn])
        if not ((low <= values) & (values <= high)).all():
            return False
    return True


@pytest.mark.parametrize("compared", measures.COMPARED)
@pytest.mark.parametrize("network", ["vgg", "linear"])
def test_no_recorded_curve_leaves_the_paper(network, compared):
    for step in full_size.CONFIGURATION[network]["drawn"]:
        assert inside(figures.across_layers(network, compared, step)), step
        plt.close()


def test_no_recorded_loss_or_percentile_leaves_the_paper():
    for strength in [1, *full_size.CONFIGURATION["noise"]["strengths"]]:
        assert inside(figures.disturbed(strength)), strength
        plt.close()
    for layer in (2, 5, 8):
        fig = figures.percentiles(layer)
        assert inside(fig)
        assert len({ax.get_ylim() for ax in fig.axes}) == 1
        plt.close()
