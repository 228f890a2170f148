"""The figures of the chapter on covariate shift show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from torch.nn.functional import cross_entropy

from bncore.chapters.explanations.covariate_shift import (
    exercises,
    figures,
    full_size,
    measures,
    readings,
)
from bncore.explanations.covariate_shift import gradient_shift
from bncore.lab import data, networks

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
    for seed in (1, 2):
        split = data.digits(seed)
        widths = [64, 32, 32, 32, 10]
        model = networks.mlp(widths, "tanh", normalization, gain=1.0, seed=seed).double()
        x, y = split.x_train[:128].double(), split.y_train[:128]
        found = gradient_shift(model, cross_entropy, x, y, figures.SMALL_RATES[4]).relative
        # Sums over 128 examples, in four layers.
        np.testing.assert_allclose(measured[seed, 4], found, rtol=4 * 128 * EPS)


def labels(ax):
    return {line.get_label() for line in ax.get_lines() if not line.get_label().startswith("_")}


@pytest.mark.parametrize(("network", "key"), [("deep linear", "linear"), ("VGG", "vgg")])
def test_two_networks_are_compared(network, key):
    after = full_size.CONFIGURATION[key]["drawn"][-1]
    layers = readings.runs(key, "layers").sel(record=after, compared="one move")
    fresh = readings.runs(key, "fresh").relative.sel(compared="one rate")
    levels = [
        [
            readings.at_equal_loss(key, kind, "relative", "one rate", level, "fresh").median("seed")
            for level in figures.EQUAL[:3]
        ]
        for kind in figures.PAIR
    ]
    for fig, expected in (
        (figures.across_layers(network, "one move", after), layers.cosine.median("seed")),
        (figures.shifts(network, "one rate"), fresh.median("seed")),
        (
            figures.equal_loss(network, "one rate"),
            xr.DataArray(levels, {"kind": [*figures.PAIR]}, ["kind", "level"]),
        ),
    ):
        assert labels(fig.axes[0]) == set(figures.PAIR)
        for line in fig.axes[0].get_lines():
            drawn, medians = line.get_ydata(), expected.sel(kind=line.get_label())
            np.testing.assert_allclose(drawn[: len(medians)], medians, rtol=4 * EPS)
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
    marks = [line for line in fig.axes[1].lines if line.get_marker() == "o"][2 * row :][:2]
    assert [mark.get_markerfacecolor() == "none" for mark in marks] == [False, True]
    for place, (mark, level) in enumerate(zip(marks, (0.5, 0.1), strict=True)):
        if name == "means moved":
            found = readings.record()[1]["returned"]["fresh"].steps.isel(times=0, level=place)
        else:
            losses = readings.runs("vgg").losses.sel(kind=name).transpose("seed", "window")
            found = readings.steps_to(losses.values, level)
        np.testing.assert_array_equal(np.sort(mark.get_xdata()), np.sort(np.minimum(found, 200)))
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
