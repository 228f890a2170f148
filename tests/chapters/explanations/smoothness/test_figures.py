"""The figures of the chapter on smoothness show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from bncore.chapters.explanations.smoothness import experiments, figures, records, spectra

EPS, SINGLE = (float(np.finfo(kind).eps) for kind in (np.float64, np.float32))
PARTS = ("walks", "common")
FLOOR = 1e-9  # What is added to counts that a logarithmic axis shows.


def test_small_spectra_agree_with_their_quadratures():
    for eigenvalues, runs in spectra.small_spectra(30, width=4, taught=10).values():
        found = figures.quadratures(runs, 30)
        np.testing.assert_allclose(
            found.nodes[:, [0, -1]], np.tile(eigenvalues[[0, -1]], (4, 1)), rtol=1000 * SINGLE
        )
        for power in (1, 2, 3):
            assert spectra.standard_errors(found, eigenvalues, power) < 4
        apart = wasserstein_distance(found.nodes.ravel(), eigenvalues, found.weights.ravel() / 4)
        assert apart < 0.02 * np.ptp(eigenvalues)


@pytest.mark.parametrize("units", ["learning rate", "share of weights"])
def test_along_draws_every_seed(kept, units):
    fig = figures.along(kept, 10, units)
    below = fig.axes[1]
    drawn = {line.get_label(): line.get_ydata() for line in below.lines}
    unit = "absolute" if units == "learning rate" else "relative"
    for kind, walks in kept.items():
        expected = walks.relative_change(unit)[:, 1].mean(axis=0)
        np.testing.assert_allclose(drawn[kind], expected, rtol=16 * EPS)


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
    assert len(figures.learning_rates().axes[0].lines) == 3
    plt.close("all")


def test_the_ends_of_every_spectrum_are_drawn():
    full = records.record()["full"]
    for ax, when in zip(figures.spectrum_ends().axes, ("start", "end"), strict=True):
        drawn = np.concatenate(
            [line.get_ydata() for line in ax.lines if line.get_linestyle() == "None"]
        )
        values = [full[when][name].values.ravel() for name in ("largest", "smallest", "along")]
        np.testing.assert_array_equal(np.sort(drawn), np.sort(np.concatenate(values)))


@pytest.mark.parametrize("when", ["start", "end"])
def test_recorded_densities_are_drawn_with_their_counts(when):
    above, below = figures.recorded_densities(2, when).axes
    for line, counted, kind in zip(above.lines, below.lines, experiments.KINDS[:2], strict=True):
        grid, density = line.get_data()
        assert np.trapezoid(density, grid) == pytest.approx(1, rel=0.02)
        found = records.recorded_density(kind, 2, when)
        at = len(grid) // 2
        shares = [(one.weights * (one.nodes > grid[at])).sum() for one in found]
        expected = 6200 * np.mean(shares) + FLOOR
        assert counted.get_ydata()[at] == pytest.approx(expected, abs=6200 * 64 * EPS)


def test_the_density_is_that_of_the_first_steps():
    found = spectra.small_spectra(10, probes=2, width=4, taught=2)
    fig = figures.density(found, 5, "batch norm")
    estimate = figures.quadratures(found["batch norm"][1], 5)
    assert estimate.nodes.shape == (2, 5)
    whole = figures.quadratures(found["batch norm"][1], 10)
    for power in range(10):
        np.testing.assert_allclose(estimate.moments(power), whole.moments(power), rtol=1000 * EPS)
    line = fig.axes[0].lines[0]
    width = 0.02 * np.ptp(found["batch norm"][0])
    np.testing.assert_allclose(
        line.get_ydata(), estimate.density(line.get_xdata(), width).mean(axis=0), rtol=16 * EPS
    )


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
        figures.learning_rates(),
    ):
        assert all(map(inside, fig.axes))
        plt.close(fig)
