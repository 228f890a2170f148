"""The figures of the chapter on smoothness show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from bncore.chapters.explanations.smoothness import experiments, figures, records

EPS = float(np.finfo(np.float64).eps)
PARTS = ("walks", "common")


@pytest.mark.parametrize("units", ["learning rate", "share of weights"])
def test_along_draws_every_seed(kept, units):
    fig = figures.along(kept, 10, units)
    below = fig.axes[1]
    drawn = {line.get_label(): line.get_ydata() for line in below.lines}
    unit = "absolute" if units == "learning rate" else "relative"
    for kind, walks in kept.items():
        expected = walks.relative_change(unit)[:, 1].mean(axis=0)
        np.testing.assert_allclose(drawn[kind], expected, rtol=16 * EPS)


@pytest.mark.parametrize("shift", [0, 3])
def test_the_valley_is_that_of_the_shifted_inputs(shift):
    plain, centred = figures.valley(shift).axes
    numbers = [float(ax.get_title().rsplit(" ", 1)[1]) for ax in (plain, centred)]
    # A shift of both of two inputs by s adds twice s squared along the diagonal.
    assert numbers[0] == pytest.approx(numbers[1], abs=0.1) or numbers[0] >= 2 * shift**2
    assert centred.get_title() == figures.valley(1).axes[1].get_title()
    for ax in (plain, centred):
        path = ax.lines[0].get_xydata()
        assert np.linalg.norm(path[-1]) < np.linalg.norm(path[0])


def test_gains_are_the_ratios_of_the_record():
    ax = figures.gains(6, "mean only").axes[0]
    drawn = sorted(v for line in ax.lines for v in line.get_xdata() if line.get_marker() == "s")
    pair = ("no batch norm", "mean only")
    expected = [
        np.median(records.ratios(6, measure, kinds=pair).sel(record=records.LATE))
        for measure in figures.MEASURES
    ]
    np.testing.assert_allclose(drawn, sorted(expected), rtol=16 * EPS)


def test_leads_are_drawn_with_their_intervals():
    ax = figures.leads("variance only", 100).axes[0]
    found = records.tuned_ratio("mean only", "variance only", 10, 100)
    ends = [tuple(line.get_xdata()) for line in ax.lines]
    assert (found.low, found.high) in ends
    assert (found.mean,) in ends


def test_units_are_drawn_at_their_factor_and_cosine():
    rng = np.random.default_rng(0)
    parts = [rng.uniform(0.4, 0.9, size=(3, 5)) for _ in range(2)]
    for line, part in zip(figures.units(parts).axes[0].lines, parts, strict=False):
        np.testing.assert_array_equal(line.get_xydata().T, part[[2, 1]])


def test_removed_draws_the_terms_of_the_identity():
    bars = figures.removed(0.5, 1.0).axes[0].patches
    widths = [bar.get_width() for bar in bars]
    assert widths == pytest.approx([1.0, 0.25, 1.0, 1.0, 4.0], rel=16 * EPS, abs=0)


def test_both_networks_see_the_same_outputs_at_deviation_one():
    fig = figures.bowl_and_fan(1.0)
    assert all(ax.lines[0].get_xydata().shape == (1, 2) for ax in fig.axes)
    lengths = [float(ax.get_title().rsplit(" ", 1)[1]) for ax in fig.axes]
    assert lengths[1] <= lengths[0]
    near = float(figures.bowl_and_fan(0.4).axes[1].get_title().rsplit(" ", 1)[1])
    assert near == pytest.approx(lengths[1] / 0.4, abs=0.2)


def test_figures_of_the_record_are_drawn():
    for depth in (2, 6, 10):
        for units in experiments.UNITS:
            assert len(figures.over_training(depth, units).axes[0].lines) == 4
        for part in ("walks", "common"):
            lines = figures.loss_ranges(depth, part).axes[0].lines
            for line, (_, kept) in zip(lines, records.of(part, depth), strict=False):
                np.testing.assert_allclose(
                    line.get_ydata(), kept["range"].mean("seed"), rtol=16 * EPS
                )
        curves = records.record()["full"]["tuned"]["curves"].sel(depth=depth)
        for line, kind in zip(figures.tuned(depth).axes[0].lines, experiments.KINDS, strict=True):
            expected = np.median(curves.loss.sel(kind=kind).transpose("seed", "steps"), axis=0)
            np.testing.assert_allclose(line.get_ydata(), expected, rtol=4 * EPS)
    plt.close("all")


def inside(ax):
    """Whether every line and band of a panel is on the paper."""
    low, high = ax.get_ylim()
    drawn = [line.get_ydata() for line in ax.lines]
    drawn += [path.vertices[:, 1] for band in ax.collections for path in band.get_paths()]
    values = np.concatenate([np.asarray(some, dtype=float).ravel() for some in drawn])
    return ((low <= values) & (values <= high)).all()


@pytest.mark.parametrize("depth", [2, 6, 10])
def test_no_recorded_curve_leaves_the_paper(depth):
    for fig in (
        *(figures.over_training(depth, units) for units in experiments.UNITS),
        *(figures.loss_ranges(depth, part) for part in PARTS),
        figures.tuned(depth),
    ):
        assert all(map(inside, fig.axes))
        plt.close(fig)
