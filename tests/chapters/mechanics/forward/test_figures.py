"""The figures of the chapter on forward show what they are given."""

import numpy as np
import pytest
from scipy import stats

from bncore.chapters.mechanics.forward import experiments, figures, full_size
from bncore.chapters.mechanics.forward.benefits import EPOCH
from bncore.lab import data

EPS = np.finfo(np.float64).eps


def test_percentiles_are_ordered_and_taken_of_every_unit():
    history = experiments.percentile_run("batch", data.digits(), steps=20, every=10)
    percentiles = history.records["percentiles"]
    assert percentiles.shape == (3, 100, 3)
    assert (np.diff(percentiles, axis=-1) > 0).all()
    figure = figures.percentiles(history, history, unit=5)
    drawn = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    for i, name in enumerate(("15th", "50th", "85th")):
        np.testing.assert_array_equal(drawn[name], percentiles[:, 5, i])


@pytest.mark.parametrize("scale", [-2, 0, 0.5, 3])
@pytest.mark.parametrize("shift", [-4, 2])
def test_the_figure_of_invariance_shows_the_same_batch_below(scale, shift):
    z = np.random.default_rng(0).normal(size=20)
    before, after = figures.same_output(z, scale, shift).axes
    rounding = len(z) * EPS * (np.abs(scale * z).max() + abs(shift))
    np.testing.assert_allclose(
        before.lines[0].get_xdata(), scale * z + shift, rtol=0, atol=rounding
    )
    s = np.sqrt(scale**2 * z.var() + 1e-5)
    expected = scale * (z - z.mean()) / s
    found = after.lines[0].get_xdata()
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding / s)


def test_values_on_the_sigmoid_are_scaled_and_shifted():
    x_hat = np.linspace(-1, 1, 9)
    curve, counts = figures.on_the_sigmoid(x_hat, 2, -1).axes
    _, covered, dots = curve.lines
    np.testing.assert_allclose(dots.get_xdata(), 2 * x_hat - 1, rtol=4 * EPS)
    expected = 1 / (1 + np.exp(1 - 2 * x_hat))
    np.testing.assert_allclose(dots.get_ydata(), expected, rtol=8 * EPS)
    np.testing.assert_allclose(covered.get_xdata()[[0, -1]], (-3, 1), rtol=4 * EPS)
    first = counts.get_legend_handles_labels()[0][0]
    inputs = np.diff(np.searchsorted(x_hat, np.log(np.arange(1, 10) / np.arange(9, 0, -1))))
    assert first.get_data().values[1:-1].tolist() == inputs.tolist()


@pytest.mark.parametrize("eps", [1e-8, 1e-3, 1.0])
def test_normalised_pixels_lie_on_the_curve(eps):
    x = np.random.default_rng(0).normal(size=(50, 6)) * np.geomspace(1e-3, 1, 6)
    curve, dots, threshold = figures.soft_threshold(x, eps).axes[0].lines
    predicted = np.interp(dots.get_xdata(), curve.get_xdata(), curve.get_ydata())
    np.testing.assert_allclose(dots.get_ydata(), predicted, rtol=0, atol=0.01)
    assert threshold.get_xdata()[0] == pytest.approx(eps**0.5, rel=4 * EPS, abs=0)


def test_the_bound_falls_by_a_quarter_of_the_gain_per_layer():
    plain = np.geomspace(1, 1e-3, 4) * np.ones((2, 1))
    lines = figures.fading(plain, np.ones((2, 4)), gain=2).axes[0].lines
    bound = next(line.get_ydata() for line in lines if line.get_label().startswith("bound"))
    np.testing.assert_allclose(bound, [1, 0.5, 0.25, 0.125], rtol=4 * EPS)


def test_the_figure_of_learning_rates_shows_medians_over_seeds_at_the_rates_that_were_run(record):
    tuning = record["full"]["tuning"]
    sigmoid, relu = figures.learning_rates(tuning, 1000).axes
    assert (len(sigmoid.lines), len(relu.lines)) == (3, 2)
    for ax, (_, curves) in zip((sigmoid, relu), figures.PANELS.items(), strict=True):
        for line, network in zip(ax.lines, curves, strict=True):
            table = tuning.accuracy.sel(network=network, steps=1000)
            ran = ~np.isnan(table.values).any(axis=1)
            np.testing.assert_array_equal(line.get_xdata(), table.learning_rate.values[ran])
            np.testing.assert_array_equal(line.get_ydata(), np.median(table.values[ran], axis=1))


def test_a_good_start_passes_nine_tenths_at_fewer_rates_than_batch_norm_and_later(record):
    """What the caption of the figure of learning rates says."""
    tuning = record["full"]["tuning"].accuracy
    passed = (tuning.median("seed") > 0.9).sum("learning_rate")
    for plain, normalised in (
        ("sigmoid, gain 4", "sigmoid, batch norm"),
        ("ReLU, gain √2", "ReLU, gain √2, batch norm"),
    ):
        fewer, more = passed.sel(network=plain), passed.sel(network=normalised)
        assert (fewer < more).all()
        assert fewer[0] == 0 < more[0]
    assert tuning.sizes["learning_rate"] == 9


def test_the_figure_of_use_shows_the_loss_of_each_epoch_and_the_accuracies_of_all_seeds():
    rng = np.random.default_rng(0)
    runs = {
        name: [(rng.gamma(2, size=80).tolist(), accuracy) for accuracy in accuracies]
        for name, accuracies in (("none", (0.91, 0.93)), ("batch", (0.95, 0.97, 0.99)))
    }
    curves, dots = figures.in_use(runs, goal=0.3).axes
    *lines, goal = curves.lines
    assert set(goal.get_ydata()) == {0.3}
    every = [run for name in ("none", "batch") for run in runs[name]]
    assert len(lines) == len(dots.lines) == len(every)
    for line, dot, (losses, accuracy) in zip(lines, dots.lines, every, strict=True):
        steps = line.get_xdata()
        np.testing.assert_array_equal(steps, np.arange(EPOCH, 81))
        means = [np.mean(losses[step - EPOCH : step]) for step in steps]
        np.testing.assert_allclose(line.get_ydata(), means, rtol=EPOCH * EPS)
        assert dot.get_xdata()[0] == accuracy
    assert {line.get_color() for line in lines[2:]} == {figures.NORMALISED}


def test_the_figure_of_speedups_shows_means_in_their_intervals_from_the_best_gains(record):
    """Against the logarithms of the steps, seed by seed, and Student's quantile from scipy."""
    full, gains = record["full"], full_size.STEADINESS["gains"]
    lines = figures.speedups(full).axes[0].lines
    for place, kind in enumerate(gains):
        interval, mean = lines[2 * place], lines[2 * place + 1]
        part = "convolutional" if kind == "convolutional" else "starts"
        found, horizon = full[part]["by_loss"], full_size.CONFIGURATION[part]["horizon"]
        at = np.abs(found.gain.values - gains[kind]).argmin()
        steps = found.loss_score.sel(kind=kind).isel(gain=at)
        plain, normalised = (
            np.minimum(steps.sel(normalization=name), horizon) for name in ("none", "batch")
        )
        decades = np.log(plain.values / normalised.values)
        level = 1 - 0.05 / len(gains)
        low, high = stats.t.interval(level, 9, decades.mean(), stats.sem(decades))
        np.testing.assert_allclose(mean.get_xdata(), np.exp(decades.mean()), rtol=1e-12)
        np.testing.assert_allclose(interval.get_xdata(), np.exp([low, high]), rtol=1e-12)


def test_only_the_factor_corrects_the_variance():
    small, large = figures.corrections(eps=1e-3, sizes=(2, 8), draws=20_000).axes
    for ax, deviation in ((small, 0.01), (large, 1)):
        added, factor, biased = ax.lines[0:9:3]
        np.testing.assert_allclose(biased.get_ydata(), [1 / 2, 7 / 8])
        np.testing.assert_allclose(factor.get_ydata(), 1)
        np.testing.assert_allclose(added.get_ydata(), np.add([1 / 2, 7 / 8], 1e-3 / deviation**2))
        for line, marks in zip(ax.lines[0:9:3], ax.lines[1:9:3], strict=True):
            np.testing.assert_allclose(marks.get_ydata(), line.get_ydata(), rtol=0.05)


def test_the_figure_of_arrivals_shows_medians_by_gain_and_the_horizon_where_none_arrives(record):
    found = record["full"]["starts"]["by_loss"]
    for ax, kind in zip(figures.arrivals(found, 700).axes, figures.PANELS, strict=True):
        normalised, plain, horizon = ax.lines
        assert set(horizon.get_ydata()) == {700}
        for line, name in ((normalised, "batch"), (plain, "none")):
            table = found.loss_score.sel(kind=kind, normalization=name)
            np.testing.assert_array_equal(line.get_xdata(), found.gain)
            expected = np.median(np.minimum(table.values, 700), axis=1)
            np.testing.assert_array_equal(line.get_ydata(), expected)
