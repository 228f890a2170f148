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
    called = {label: network for network, label in overfitting.LABELS.items()}
    for ax, loss in ((above, "training loss"), (below, "test loss")):
        assert len({line.get_label() for line in ax.lines}) == len(ax.lines) == 5
        for line in ax.lines:
            at = curves.sel(pixel_noise=level, network=called[line.get_label()])
            at = at.isel(steps=slice(1, None))
            np.testing.assert_array_equal(line.get_xdata(), at.steps)
            np.testing.assert_array_equal(line.get_ydata(), at[loss])
        assert max(line.get_ydata().max() for line in ax.lines) < ax.get_ylim()[1]


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_the_figure_of_gains_shows_intervals(full, level):
    fresh = full["overfitting"]["fresh"]
    (ax,) = figures.gained(fresh, level, {"ghost 8": [-2.0, -3.0]}).axes
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert len(names) == len(ax.containers) == 13
    called = {label: network for network, label in overfitting.LABELS.items()}
    seeds = [line.get_xdata() for line in ax.lines if line.get_marker() == "."]
    base = fresh["last"].sel(pixel_noise=level, network=overfitting.BASE)
    for row, (name, container) in enumerate(zip(names, ax.containers, strict=True)):
        median, low, high = overfitting.gained(fresh, level, called[name])
        (point, _, (bar,)) = container
        assert point.get_xydata().tolist() == [[median, row]]
        np.testing.assert_allclose(bar.get_segments()[0], [[low, row], [high, row]])
        apart = fresh["last"].sel(pixel_noise=level, network=called[name]) - base
        np.testing.assert_allclose(seeds[row], 100 * apart, rtol=0, atol=1e-9)
    again = [line.get_xdata().tolist() for line in ax.lines if line.get_marker() == "D"]
    assert [values for values in again if values] == [[-2.0, -3.0]]


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_the_figure_of_what_is_added_shows_intervals(full, level):
    fresh = full["overfitting"]["fresh"]
    (ax,) = figures.added(fresh, level).axes
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == list(overfitting.COMPARED)
    assert overfitting.COMPARED["dropout, without"] == ("no batch norm, dropout", "no batch norm")
    for row, (pair, container) in enumerate(
        zip(overfitting.COMPARED.values(), ax.containers, strict=True)
    ):
        found = overfitting.gained(fresh, level, *pair)
        (point, _, (bar,)) = container
        assert point.get_xydata().tolist() == [[found.median, row]]
        np.testing.assert_allclose(bar.get_segments()[0], [[found.low, row], [found.high, row]])


def test_the_names_of_values_leave_room_for_the_slider():
    assert set(scatter.populations()) == set(figures.POPULATIONS)
    assert max(map(len, scatter.populations())) <= 11


def test_the_figure_of_a_company_shows_the_exact_density():
    outputs = scatter.companies(1, 8)
    (ax,) = figures.company(1, 8, outputs).axes
    curve, *upright = ax.lines
    np.testing.assert_allclose(curve.get_ydata(), GaussianOutput(1, 8).pdf(curve.get_xdata()))
    assert [line.get_xdata()[0] for line in upright] == pytest.approx([1, -(7**0.5), 7**0.5])
    density, edges, _ = ax.patches[0].get_data()
    for first, last in ((0, 75), (0, 30), (30, 75)):
        share = ((edges[first] <= outputs) & (outputs < edges[last])).mean()
        assert density[first:last] @ np.diff(edges)[first:last] == pytest.approx(share, abs=1e-9)


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
    convolution = lines["digits, convolution"]
    assert (convolution < 3 / (2 * 64 * np.array(scatter.SIZES))).all()
    assert (np.diff(np.log(convolution)) < 0).all()


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
    for line, law in (
        (ax.lines[1], lambda p: variance_shift.direct(p, mean, 1.0)),
        (ax.lines[2], lambda p: scatter.alike(p, mean, pull)),
    ):
        p, drawn = (values[10] for values in line.get_data())
        assert drawn == pytest.approx(law(p))
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


def test_the_figure_of_reliability_leaves_out_rare_confidences():
    count = np.array([19.0, 20, 0, 100, 21])
    confidence, frequency = np.linspace(0.1, 0.9, 5), np.array([0.2, 0.1, 0.5, 0.6, 0.8])
    top, bottom = figures.reliability(np.array([confidence, frequency, count]), "running").axes
    points, _, (bars,) = top.containers[0]
    kept = [1, 3, 4]
    np.testing.assert_array_equal(points.get_data(), [confidence[kept], frequency[kept]])
    reach = [2 * (f * (1 - f) / n) ** 0.5 for f, n in ((0.1, 20), (0.6, 100), (0.8, 21))]
    np.testing.assert_allclose([np.ptp(bar[:, 1]) / 2 for bar in bars.get_segments()], reach)
    np.testing.assert_allclose(bottom.patches[0].get_data().values, count / 160)


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
    first, pixels = experiments.digits(0).x_test[:2]
    draws = np.random.default_rng(0).dirichlet(np.ones(10), size=7)
    with torch.no_grad():
        fixed = model.eval()(pixels[None]).softmax(1)[0].numpy()
    upright = np.eye(10)[6]
    digit = sampling.Turned(
        [0, 30],
        torch.stack([first, pixels]),
        np.stack([upright, fixed]),
        {8: np.stack([draws[::-1], draws], axis=1)},
    )
    above, ax = figures.turned(digit, 30, 8).axes
    assert above.get_title() == "a 6, turned by 30°"
    (mark,) = (line for line in ax.lines if line.get_label() == "right class")
    assert mark.get_xdata() == [6]
    (running,) = (line for line in ax.lines if line.get_label() == "running statistics")
    np.testing.assert_array_equal(running.get_ydata(), fixed)
    inks = np.unique(np.round(16 * pixels.double().numpy()) / 16)
    assert [part.get_alpha() for part in above.patches] == np.maximum(inks, 0.03).tolist()
    np.testing.assert_allclose(ax.lines[3].get_ydata(), draws[:, 3])
    np.testing.assert_allclose(ax.lines[11].get_ydata(), draws.mean(axis=0))
