"""The figures of the chapter on smoothness show what they are given."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest

from bncore.chapters.explanations.smoothness import experiments, figures, records

EPS = float(np.finfo(np.float64).eps)
PARTS = ("walks", "common")


@pytest.mark.parametrize("units", ["learning rate", "share of weights"])
def test_along_draws_every_seed(kept, units):
    fig = figures.along(kept, 10, units)
    losses, changes = (
        {line.get_label(): line.get_ydata() for line in panel.lines} for panel in fig.axes
    )
    unit = "absolute" if units == "learning rate" else "relative"
    for kind, walks in kept.items():
        expected = walks.relative_change(unit)[:, 1].mean(axis=0)
        np.testing.assert_allclose(changes[kind], expected, rtol=16 * EPS)
        after = walks.row(unit, "loss")[:, 1] / walks.row(unit, "before")[:, 1]
        np.testing.assert_allclose(losses[kind], after.mean(axis=0), rtol=16 * EPS)


def shown(ax):
    """The two curvatures in the title of a valley, to a decimal, and the path."""
    soft, stiff = (float(word) for word in re.findall(r"\d+\.\d", ax.get_title()))
    return soft, stiff, ax.lines[0].get_xydata()


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_the_valley_is_that_of_the_shifted_inputs(shift):
    plain, centred = figures.valley(shift).axes
    assert centred.get_title() == figures.valley(1).axes[1].get_title()
    (soft, stiff, path), (own_soft, own_stiff, _) = shown(plain), shown(centred)
    # The shift s of both inputs adds s squared to each entry of their second moment. Inputs without
    # mean have variances near 1, and curvatures are written to a decimal.
    assert soft + stiff == pytest.approx(own_soft + own_stiff + 2 * shift**2, abs=0.2 + 1e-9)
    assert own_soft <= soft + 0.1 + 1e-9
    assert own_soft + own_stiff == pytest.approx(2, abs=4 * 2 / 40**0.5)
    # At the best rate soft and stiff parts shrink by one factor, the latter with its sign turned.
    lengths = np.linalg.norm(path, axis=1)
    factor = lengths[1] / lengths[0]
    # Ten steps, each a difference of which this factor is left, and ten powers of the first.
    rounding = 2 * 10 * 16 * EPS / factor
    np.testing.assert_allclose(lengths, lengths[0] * factor ** np.arange(11), rtol=rounding)
    assert factor == pytest.approx((stiff - soft) / (stiff + soft), abs=0.2 / (stiff + soft))


def marked(ax, mark):
    """The values that are marked so, by the number of their row."""
    lines = [line for line in ax.lines if line.get_marker() == mark and len(line.get_xdata())]
    return {round(line.get_ydata()[0]): line.get_xdata()[0] for line in lines}


@pytest.mark.parametrize(("depth", "kind"), [(6, "mean only"), (10, "batch norm")])
def test_gains_are_the_ratios_of_the_record(depth, kind):
    ax = figures.gains(depth, kind).axes[0]
    pair, late, begun = ("no batch norm", kind), records.LATE, slice(25, None)
    for mark, record, equal in (("o", 0, False), ("s", late, False), ("D", begun, True)):
        drawn = marked(ax, mark)
        for row, measure in enumerate(reversed(figures.MEASURES)):
            values = records.ratios(depth, measure, equal, kinds=pair).sel(record=record).values
            values = values[np.isfinite(values)]
            assert (row in drawn) == bool(values.size)
            if values.size:
                assert drawn[row] == pytest.approx(np.median(values), rel=16 * EPS, abs=0)


def test_leads_are_drawn_with_their_intervals():
    ax = figures.leads("variance only", 100).axes[0]
    depths = [int(label.get_text().split()[0]) for label in ax.get_yticklabels()]
    ends = [tuple(line.get_xdata()) for line in ax.lines]
    for mark, kind in (("o", "batch norm"), ("s", "mean only")):
        found = [records.tuned_ratio(kind, "variance only", depth, 100) for depth in depths]
        assert marked(ax, mark) == {row: one.mean for row, one in enumerate(found)}
        assert all((one.low, one.high) in ends for one in found)


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


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.0])
def test_the_arrows_of_both_networks_are_slopes_of_what_is_drawn(sigma):
    basis, H, target = figures._plane()

    def loss(at, normalised):
        at = at * 3**0.5 / np.linalg.norm(at) if normalised else at
        away = at @ basis - target
        return away @ H @ away / 2

    for ax, normalised in zip(figures.bowl_and_fan(sigma).axes, (False, True), strict=True):
        (here,), h = ax.lines[0].get_xydata(), EPS ** (1 / 3)
        assert np.linalg.norm(here) == pytest.approx(sigma * 3**0.5, rel=8 * EPS, abs=0)
        rises = [loss(here + e, normalised) - loss(here - e, normalised) for e in h * np.eye(2)]
        slope = np.array(rises) / (2 * h)
        # Written to a decimal; the arrow is cut to a part of the slope.
        shown = float(ax.get_title().rsplit(" ", 1)[1])
        assert shown == pytest.approx(np.linalg.norm(slope), abs=0.05 + 1e-6)
        (arrow,) = (np.subtract(note.xy, note.xyann) for note in ax.texts)
        np.testing.assert_allclose(arrow, -0.45 * slope, rtol=0, atol=1e-6)


def test_figures_of_the_record_are_drawn():
    for depth in (2, 6, 10):
        for units in experiments.UNITS:
            lines = figures.over_training(depth, units).axes[0].lines
            drawn = {line.get_label(): line.get_ydata() for line in lines}
            assert drawn.keys() == set(experiments.KINDS)
            walks = records.record()["full"]["walks"][units].sel(depth=depth).mean("seed")
            for kind, values in drawn.items():
                np.testing.assert_allclose(values, walks.sel(kind=kind), rtol=16 * EPS)
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
