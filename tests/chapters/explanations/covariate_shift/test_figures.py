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


@pytest.mark.parametrize("b", figures.SECOND)
@pytest.mark.parametrize("rate", figures.RATES)
def test_the_arrows_are_the_gradients_before_and_after_the_step(rate, b):
    before, after = figures.two_scalars(b, rate)
    residual = figures.START * b - figures.TARGET
    expected = exercises.two_weights(figures.START, b, figures.TARGET, rate)
    # Sums of a few products of powers of all three.
    rounding = 16 * EPS * np.prod(1 + np.abs([figures.START, b, figures.TARGET])) ** 2
    assert after - before == pytest.approx(expected, abs=rounding)
    fig = figures.two_weights(rate, b)
    (ax,) = fig.axes
    drawn = [(note.xyann, note.xy) for note in ax.texts if getattr(note, "arrow_patch", None)]
    places = (figures.START, figures.START - rate * b * residual)
    wanted = [
        ((place, b), (place, b - gradient))
        for place, gradient in zip(places, (before, after), strict=True)
        if abs(gradient) > 0.02
    ]
    np.testing.assert_allclose(drawn, wanted, rtol=0, atol=rounding)
    title = f"$b$ is sent by {figures.signed(-before)}, then by {figures.signed(-after)}"
    assert ax.get_title() == title
    plt.close(fig)


@pytest.mark.parametrize(("value", "text"), [(0.321, "+0.32"), (-1, "−1.00"), (-0.001, "0.00")])
def test_a_sign_is_written_as_people_write_it(value, text):
    assert figures.signed(value) == text


@pytest.mark.parametrize("normalization", [None, "batch"])
def test_small_steps_follow_the_first_order(normalization):
    measured, first = np.moveaxis(figures.small_steps(normalization), 1, 0)
    np.testing.assert_allclose(measured[:, 0, 1:], first[:, 0, 1:], rtol=0.05)
    assert (np.abs(measured / np.where(first, first, 1) - 1)[:, -1, 1:] > 0.1).any()


def labels(ax):
    return {line.get_label() for line in ax.get_lines() if not line.get_label().startswith("_")}


@pytest.mark.parametrize("network", figures.NETWORK)
def test_two_networks_are_compared(network):
    after = full_size.CONFIGURATION[figures.NETWORK[network]]["drawn"][-1]
    for fig in (
        figures.across_layers(network, "one move", after),
        figures.shifts(network, "one rate"),
        figures.equal_loss(network, "one rate"),
    ):
        assert labels(fig.axes[0]) == set(figures.PAIR)
        plt.close(fig)


def test_the_recorded_figures_have_data_in_every_panel():
    for fig in (
        figures.rates(full_size.CONFIGURATION["vgg"]["rates"][0]),
        figures.disturbed(1),
        figures.percentiles(5),
        figures.straight("no batch norm"),
        figures.distances(),
        figures.another_batch(),
        figures.noise_arrivals(),
    ):
        assert all(ax.has_data() for ax in fig.axes)
        plt.close(fig)


@pytest.mark.parametrize("name", figures.GIVEN_BACK)
def test_one_mark_stands_for_each_recorded_run_that_arrives(name):
    losses = {one: np.full(10, 1.0) for one in figures.GIVEN_BACK}
    fig = figures.given_back(losses)
    row = figures.GIVEN_BACK.index(name)
    marks = [line.get_xdata() for line in fig.axes[1].lines if line.get_marker() == "o"]
    steps = figures.steps_of(name)
    np.testing.assert_array_equal(marks[2 * row], np.minimum(steps[:, 0], 200))
    np.testing.assert_array_equal(marks[2 * row + 1], np.minimum(steps[:, 1], 200))
    plt.close(fig)


def test_at_equal_loss_is_drawn_what_was_recorded_there():
    fig = figures.equal_loss("VGG", "own rate")
    for line in fig.axes[0].lines:
        at, drawn = line.get_data()
        for level, value in zip(at, drawn, strict=True):
            found = readings.at_equal_loss(
                "vgg", line.get_label(), "relative", "own rate", level, "fresh"
            )
            assert found.notnull().sum() >= 10
            assert value == pytest.approx(float(found.median()), rel=4 * EPS)
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


@pytest.mark.parametrize("step", measures.COMPARED)
@pytest.mark.parametrize("network", figures.NETWORK)
def test_no_recorded_curve_leaves_the_paper(network, step):
    for after in full_size.CONFIGURATION[figures.NETWORK[network]]["drawn"]:
        assert inside(figures.across_layers(network, step, after)), after
        plt.close()
    if step != "one move":
        assert inside(figures.shifts(network, step))
        assert inside(figures.equal_loss(network, step))
        plt.close("all")


def test_no_recorded_loss_distance_or_percentile_leaves_the_paper():
    for strength in [1, *full_size.CONFIGURATION["noise"]["strengths"]]:
        assert inside(figures.disturbed(strength)), strength
        plt.close()
    assert inside(figures.distances())
    assert inside(figures.another_batch())
    plt.close("all")
    for layer in (2, 5, 8):
        fig = figures.percentiles(layer)
        assert inside(fig)
        assert len({ax.get_ylim() for ax in fig.axes}) == 1
        plt.close()
