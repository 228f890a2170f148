"""The figures of the page on the whole spectrum show what they are given."""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from bncore.chapters.explanations.smoothness import experiments, records, spectra
from bncore.chapters.explanations.smoothness import spectrum_figures as figures

EPS, SINGLE = (float(np.finfo(kind).eps) for kind in (np.float64, np.float32))
FLOOR = 1e-9  # What is added to counts that a logarithmic axis shows.


def standard_errors(found, eigenvalues, power):
    """How far a moment of ``Spectrum`` is from the exact one, in standard errors of its mean.

    For random signs v the variance of v'Av / n is at most 2 tr(A^2) / n^2.
    """
    n, probes = len(eigenvalues), len(found.nodes)
    error = np.sqrt(2 * (eigenvalues ** (2 * power)).sum() / probes) / n
    return abs(found.moments(power).mean() - (eigenvalues**power).mean()) / error


def test_small_spectra_agree_with_their_quadratures():
    for eigenvalues, runs in spectra.small_spectra(30, width=4, taught=10).values():
        found = figures.quadratures(runs, 30)
        np.testing.assert_allclose(
            found.nodes[:, [0, -1]], np.tile(eigenvalues[[0, -1]], (4, 1)), rtol=1000 * SINGLE
        )
        for power in (1, 2, 3):
            assert standard_errors(found, eigenvalues, power) < 4
        apart = wasserstein_distance(found.nodes.ravel(), eigenvalues, found.weights.ravel() / 4)
        assert apart < 0.02 * np.ptp(eigenvalues)


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


def test_the_curves_over_the_learning_rate_are_on_the_paper():
    kept = records.record()["full"]["rates"]
    above, below = figures.learning_rates().axes
    for ax, name in ((above, "largest"), (below, "concentration")):
        low, high = ax.get_ylim()
        assert low <= kept[name].min().item()
        assert kept[name].max().item() <= high
        for line, kind in zip(ax.lines, experiments.KINDS[:2], strict=False):
            expected = kept[name].sel(kind=kind).mean("seed")
            np.testing.assert_allclose(line.get_ydata(), expected, rtol=16 * EPS)
