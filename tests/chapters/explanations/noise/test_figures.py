"""The figures of the chapter on noise show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.chapters.explanations.noise import (
    dropout,
    experiments,
    figures,
    overfitting,
    sampling,
    scatter,
)
from bncore.explanations import variance_shift
from bncore.explanations.noise import GaussianOutput
from bncore.lab import networks


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_the_figure_of_losses_shows_the_means_over_the_seeds(full, level):
    curves = full["overfitting"]["curves"]
    above, below = figures.overfitted(curves, level).axes
    at = curves.sel(pixel_noise=level, network="whole batch").isel(steps=slice(1, None))
    for ax, loss in ((above, "training loss"), (below, "test loss")):
        assert len(ax.lines) == 5
        np.testing.assert_array_equal(ax.lines[1].get_xdata(), at.steps)
        np.testing.assert_array_equal(ax.lines[1].get_ydata(), at[loss])
        assert max(line.get_ydata().max() for line in ax.lines) < ax.get_ylim()[1]


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_the_figure_of_gains_shows_intervals(full, level):
    fresh = full["overfitting"]["fresh"]
    (ax,) = figures.gained(fresh, level, {"ghost 8": [-2.0, -3.0]}).axes
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert len(names) == len(ax.containers) == 13
    row = names.index(overfitting.LABELS["ghost 8"])
    median, low, high = overfitting.gained(fresh, level, "ghost 8")
    (point, _, (bar,)) = ax.containers[row]
    assert point.get_xydata().tolist() == [[median, row]]
    np.testing.assert_allclose(bar.get_segments()[0], [[low, row], [high, row]])
    again = [line.get_xdata().tolist() for line in ax.lines if line.get_marker() == "D"]
    assert [values for values in again if values] == [[-2.0, -3.0]]


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_the_figure_of_what_is_added_shows_intervals(full, level):
    fresh = full["overfitting"]["fresh"]
    (ax,) = figures.added(fresh, level).axes
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == list(overfitting.COMPARED)
    row = names.index("dropout, without")
    found = overfitting.gained(fresh, level, "no batch norm, dropout", "no batch norm")
    (point, _, (bar,)) = ax.containers[row]
    assert point.get_xydata().tolist() == [[found.median, row]]
    np.testing.assert_allclose(bar.get_segments()[0], [[found.low, row], [found.high, row]])


def test_the_names_of_values_leave_room_for_the_slider():
    assert set(scatter.populations()) == set(figures.POPULATIONS)
    assert max(map(len, scatter.populations())) <= 11


def test_the_figure_of_a_company_shows_the_exact_density():
    (ax,) = figures.company(1, 8, scatter.companies(1, 8)).axes
    curve = ax.lines[0]
    np.testing.assert_allclose(curve.get_ydata(), GaussianOutput(1, 8).pdf(curve.get_xdata()))


def test_the_figure_of_shares_shows_what_is_drawn_exact_and_of_digits():
    drawn = np.geomspace(0.3, 0.01, len(scatter.SIZES))
    (ax,) = figures.share(drawn).axes
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_array_equal(lines["drawn, normal"], drawn)
    exact = [scatter.exact_share(m) for m in scatter.SIZES]
    np.testing.assert_array_equal(lines["exact, normal"], exact)
    np.testing.assert_allclose(lines["digits, dense"], exact, rtol=0.2)
    first = [line for line in ax.lines if line.get_linestyle() == ":"]
    for line, values in zip(first, (1, 64), strict=True):
        np.testing.assert_allclose(line.get_ydata() * line.get_xdata(), 3 / (2 * values))
    assert (lines["digits, convolution"] < 3 / (2 * 64 * np.array(scatter.SIZES))).all()


def test_the_figure_of_statistics_shows_measured_and_exact():
    sizes, values = [2, 8, 256], scatter.populations()["normal"]
    measured, exact = scatter.batch_statistics(values, sizes)
    above, below = figures.statistics("normal", values, sizes).axes
    for row, ax in enumerate((above, below)):
        for i, way in enumerate(("independent", "without replacement")):
            np.testing.assert_allclose(ax.lines[2 * i].get_ydata(), exact[way][row])
            np.testing.assert_allclose(ax.lines[2 * i + 1].get_ydata(), measured[way][row])


@settings(max_examples=4)
@given(st.sampled_from([0, 1, 2]), st.sampled_from([0, 4]))
def test_the_figure_of_the_shift(mean, pull):
    keeps = (0.3, 0.7)
    measured = [scatter.measured_shift(p, mean, pull) for p in keeps]
    (ax,) = figures.shift(mean, pull, keeps).axes
    np.testing.assert_allclose(ax.lines[3].get_ydata(), [direct for direct, _ in measured])
    np.testing.assert_allclose(ax.lines[4].get_ydata(), [behind for _, behind in measured])
    p = ax.lines[1].get_xdata()[10]
    assert ax.lines[1].get_ydata()[10] == pytest.approx(variance_shift.direct(p, mean, 1.0))
    plt.close("all")


@pytest.mark.parametrize("place", dropout.PLACES)
def test_the_figure_of_dropout_shows_differences_from_none(full, place):
    found = full["dropout"].sel(place=place)
    above, below = figures.dropout(full["dropout"], place).axes
    for ax, container, measure, unit in (
        (above, 0, "accuracy", 100),
        (below, 1, "fitted loss", 1),
    ):
        apart = unit * (found[measure] - found[measure].sel(keep=1)).mean("seed")
        line = ax.containers[container].lines[0]
        np.testing.assert_allclose(line.get_ydata(), apart.isel(keep=slice(-1)))
        np.testing.assert_allclose(line.get_xdata(), apart.keep[:-1], atol=0.01)


def test_the_figure_of_reliability_leaves_out_rare_confidences(full):
    bins = full["sampling"]["0.0"]["bins"]["running"]
    above, _ = figures.reliability(bins, "running").axes
    np.testing.assert_allclose(above.containers[0].lines[0].get_xdata(), bins[0][bins[2] >= 20])


@pytest.mark.parametrize(
    ("images", "level", "condition"), [("turned by 30°", "0.0", 2), ("noisy", "0.3", 0)]
)
def test_the_figure_of_likelihoods_shows_differences_from_running_statistics(
    full, images, level, condition
):
    (ax,) = figures.likelihoods(full["sampling"], images).axes
    numbers = full["sampling"][level]["numbers"]
    running = numbers["running"][:, condition, 1]
    assert len(ax.containers) == 6
    for container in ax.containers:
        point, _, (bar,) = container
        ((m, mean),) = point.get_xydata()
        apart = numbers[f"sampled {m:.0f}"][:, condition, 1] - running
        assert mean == pytest.approx(apart.mean())
        np.testing.assert_allclose(bar.get_segments()[0][:, 1], sampling.interval(apart)[1:])
    (cooled,) = (line for line in ax.lines if line.get_label() == "a temperature")
    expected = (numbers["temperature"][:, condition, 1] - running).mean()
    assert cooled.get_ydata()[0] == pytest.approx(expected)


def test_the_figure_of_a_turned_digit():
    model = networks.mlp(experiments.WIDTHS, "relu", "batch")
    pixels = experiments.digits(0).x_test[0]
    draws = np.random.default_rng(0).dirichlet(np.ones(10), size=7)
    with torch.no_grad():
        fixed = model.eval()(pixels[None]).softmax(1)[0].numpy()
    upright = np.eye(10)[6]
    digit = sampling.Turned(
        [0, 30],
        torch.stack([pixels, pixels]),
        np.stack([upright, fixed]),
        {8: np.stack([draws[::-1], draws], axis=1)},
    )
    above, ax = figures.turned(digit, 30, 8).axes
    assert above.get_title() == "a 6, turned by 30°"
    (mark,) = (line for line in ax.lines if line.get_label() == "right class")
    assert mark.get_xdata() == [6]
    np.testing.assert_allclose(ax.lines[3].get_ydata(), draws[:, 3])
    np.testing.assert_allclose(ax.lines[11].get_ydata(), draws.mean(axis=0))
