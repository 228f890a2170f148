"""The figures of the page on tuning show the record."""

import numpy as np
import pytest

from bncore.chapters.practice.placement import tuning_figures as figures
from bncore.chapters.practice.placement import tuning_results as results
from bncore.chapters.practice.placement import tuning_runs as runs
from bncore.page import style

EPS = np.finfo(float).eps


@pytest.fixture(scope="module")
def full(record):
    return record["full"]["tuning"]


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


@pytest.mark.parametrize("gain", [0.01, 0.577, 10])
def test_accuracies_over_rates_are_medians(full, gain):
    ax = figures.over_rates(full["start"], gain).axes[0]
    for kind, name in figures.NAMES.items():
        one = full["start"].accuracy.sel(normalization=kind).sel(gain=gain, method="nearest")
        drawn = lines(ax)[name]
        np.testing.assert_allclose(drawn[:, 0], one.learning_rate)
        np.testing.assert_allclose(drawn[:, 1], one.median("seed"), rtol=4 * EPS)


@pytest.mark.parametrize("layer", ["first", "second"])
def test_both_errors_add_up_to_the_prediction(full, layer):
    found = lines(figures.running_error(full["paths"], layer, 32).axes[0])
    one = full["paths"].isel(learning_rate=0).sel(batch_size=32, layer=1 + (layer == "second"))
    np.testing.assert_allclose(found["measured"][:, 1], one.measured.mean("seed"), rtol=4 * EPS)
    squares = found["noise"][:, 1] ** 2 + (one.drift.values**2).mean(0)
    np.testing.assert_allclose(found["both, predicted"][:, 1], np.sqrt(squares), rtol=16 * EPS)


@pytest.mark.parametrize("steps", [30, 1200])
def test_accuracies_by_momentum_are_means(full, steps):
    found = lines(figures.accuracy_by_momentum(full["momentum"], steps).axes[0])
    one = full["momentum"]["fresh"].accuracy.sel(steps=steps, batch_size=4).mean("seed")
    np.testing.assert_allclose(found["batches of 4"][:, 1], one, rtol=16 * EPS)


@pytest.mark.parametrize(
    ("decision", "chosen"),
    [
        ("layers", {}),
        ("decay", {}),
        ("dropout", {}),
        ("epsilon", {}),
        ("preparation", {"of": "pixels"}),
    ],
)
def test_intervals_are_those_of_the_record_and_blue_where_they_exclude_0(full, decision, chosen):
    ax = figures.effects(full, decision, **chosen).axes[0]
    effects = list(results.effects(full, decision, **chosen).values())
    bars = [one for one in ax.containers if hasattr(one, "lines")]
    assert len(bars) == len(effects) == len({label.get_text() for label in ax.get_yticklabels()})
    for place, (bar, effect) in enumerate(zip(bars, effects, strict=True)):
        mark, _, (reach,) = bar.lines
        assert mark.get_xydata().tolist() == [[effect.mean, place]]
        (ends,) = reach.get_segments()
        np.testing.assert_allclose(ends[:, 0], effect[1:], rtol=1e3 * EPS, atol=1e3 * EPS)
        color = style.COLOR["measured" if effect.separates else "data"]
        assert mark.get_color() == color


def test_ratios_behind_dropout_are_measured_beside_predicted(full):
    ax = figures.dropped(full).axes[0]
    found = full["dropout"]["fresh"].sel(place=list(runs.PLACES[:2]))
    dashed = [line.get_xydata()[:, 1] for line in ax.get_lines() if line.get_linestyle() == "--"]
    np.testing.assert_allclose(dashed, found.predicted.mean("seed"), rtol=16 * EPS)
    marks = [bar.lines[0].get_xydata()[:, 1] for bar in ax.containers]
    np.testing.assert_allclose(marks, found.measured.mean("seed"), rtol=16 * EPS)


def test_scales_are_those_that_epsilon_leaves(full):
    drawn = lines(figures.scales(full).axes[0])
    found = full["epsilon"]["fresh"].sel(inputs="yes")
    for name, kind in (
        ("predicted, before training", "start"),
        ("measured, after training", "end"),
    ):
        values = found[kind].median("seed").values
        expected = np.sqrt(values / (values + found.eps.values))
        np.testing.assert_allclose(drawn[name][:, 1], expected, rtol=0.05)
