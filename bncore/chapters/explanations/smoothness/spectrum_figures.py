"""The figures of the page on the whole spectrum."""

import itertools

import numpy as np
from matplotlib.ticker import NullFormatter

from bncore.chapters.explanations.smoothness import experiments, records
from bncore.chapters.explanations.smoothness.figures import COLOURS, band
from bncore.explanations import spectrum
from bncore.page import style

LANCZOS = [5, 10, 20, 40]


def quadratures(runs, steps):
    """The quadratures of the first steps of several Lanczos runs."""
    pairs = [spectrum.quadrature(d[:steps], o[: steps - 1]) for d, o in runs]
    return spectrum.Spectrum(*(np.array(part) for part in zip(*pairs, strict=True)))


def density(found, steps, kind):
    """Draw the density of a spectrum by Lanczos quadrature over the exact eigenvalues.

    Parameters
    ----------
    found : dict of str to (eigenvalues, list of (diagonal, off))
        By kind.
    steps : int
        Lanczos steps, one of ``LANCZOS``.
    kind : str
    """
    eigenvalues, runs = found[kind]
    estimate = quadratures(runs, steps)
    low, high = eigenvalues[0], eigenvalues[-1]
    margin = 0.12 * (high - low)
    grid = np.linspace(low - margin, high + margin, 300)
    width = 0.02 * (high - low)
    exact = spectrum.Spectrum(
        eigenvalues[np.newaxis], np.full((1, len(eigenvalues)), 1 / len(eigenvalues))
    )
    fig, (above, below) = style.axes(rows=2, height=5.4, sharex=True)
    densities = estimate.density(grid, width)
    band = {"color": COLOURS[kind], "alpha": 0.25, "linewidth": 0}
    above.fill_between(grid, densities.min(axis=0) + 1e-9, densities.max(axis=0) + 1e-9, **band)
    above.plot(grid, densities.mean(axis=0), color=COLOURS[kind], label=f"{steps} Lanczos steps")
    above.plot(grid, exact.density(grid, width)[0], color=style.INK, linestyle="--", label="exact")
    above.set(yscale="log", ylim=(1e-4, 30 / (high - low) * 3), ylabel="density")
    style.legend_above(above)
    n = len(eigenvalues)
    above_it = n * (1 - estimate.below(grid))
    below.fill_between(grid, above_it.min(axis=0), above_it.max(axis=0), **band)
    below.plot(grid, above_it.mean(axis=0), color=COLOURS[kind])
    below.plot(grid, n * (1 - exact.below(grid)[0]), color=style.INK, linestyle="--")
    below.set(yscale="log", ylim=(0.1, 2 * n), ylabel="eigenvalues above")
    below.set_xlabel("eigenvalue")
    return fig


def recorded_densities(depth, when):
    """Draw the recorded densities of the spectra of the networks on trial.

    Parameters
    ----------
    depth : int
        One of the depths with a recorded density.
    when : {"start", "end"}
    """
    found = {kind: records.recorded_density(kind, depth, when) for kind in experiments.KINDS[:2]}
    nodes = np.concatenate([one.nodes.ravel() for some in found.values() for one in some])
    span = np.ptp(nodes)
    grid = np.linspace(nodes.min() - 0.05 * span, nodes.max() + 0.05 * span, 400)
    n = records.parameters(depth)
    fig, (above, below) = style.axes(rows=2, height=5.6, sharex=True)
    for kind, some in found.items():
        # A logarithmic axis has no zero: the floor keeps empty stretches on the paper.
        densities = [one.density(grid, 0.01 * span).mean(axis=0) + 1e-9 for one in some]
        band(above, grid, np.array(densities), kind)
        counts = [n * (1 - one.below(grid).mean(axis=0)) + 1e-9 for one in some]
        band(below, grid, np.array(counts), kind)
    above.set(yscale="log", ylim=(1e-7, 300 / span), ylabel="density")
    style.legend_above(above)
    below.set(yscale="log", ylim=(0.1, 2 * n), ylabel="eigenvalues above")
    below.set_xlabel("eigenvalue")
    return fig


def spectrum_ends():
    """Draw the recorded ends of the spectra of four kinds of network, at the start and at the end."""
    depths = records.record()["configuration"]["depths"]
    fig, axes = style.axes(rows=2, height=6.6, sharex=True)
    cases = itertools.product(("start", "end"), enumerate(experiments.KINDS), enumerate(depths))
    for when, (k, kind), (i, depth) in cases:
        ((_, kept),) = records.of(when, depth, [kind])
        ax, at = axes[int(when == "end")], i + 0.19 * (k - 1.5)
        look = {"color": COLOURS[kind], "markeredgewidth": 1.5, "alpha": 0.8, "linestyle": ""}
        label = kind if i == 0 else None
        ax.plot([at] * kept.seed.size, kept.largest, marker="^", markersize=7, label=label, **look)
        ax.plot([at] * kept.seed.size, kept.smallest, marker="v", markersize=7, **look)
        ax.plot([at] * kept.seed.size, kept.along, marker="_", markersize=10, **look)
    for ax, when in zip(axes, ("start", "end"), strict=True):
        ax.axhline(0, color=style.MUTED, linewidth=1)
        ax.set_yscale("symlog", linthresh=0.1)
        ax.set_yticks([-1000, -10, -0.1, 0.1, 10, 1000])
        ax.set(ylim=(-5000, 2000), ylabel=f"eigenvalue, {when}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    style.legend_above(axes[0])
    axes[1].set_xticks(range(len(depths)), [f"{depth} layers" for depth in depths])
    axes[1].set_xlim(-0.5, len(depths) - 0.5)
    return fig


def learning_rates():
    """Draw, over the learning rate of the training, the recorded largest eigenvalue after it.

    Below, the share of the squared gradient in the span of the ten largest.
    """
    kept = records.record()["full"]["rates"]
    rates = kept.learning_rate.values
    fig, (above, below) = style.axes(rows=2, height=5.2, sharex=True)
    for kind in experiments.KINDS[:2]:
        found = kept.sel(kind=kind).transpose("seed", "learning_rate")
        band(above, rates, found.largest, kind, marker="o")
        band(below, rates, found.concentration, kind, marker="o")
    fine = np.geomspace(rates[0], rates[-1], 50)
    above.plot(fine, 2 / fine, color=style.INK, linestyle="--", label=r"$2/\eta$")
    above.set(xscale="log", yscale="log", ylim=(0.2, 60), ylabel="largest eigenvalue")
    below.set(ylim=(0, 1), ylabel="share of gradient")
    below.set_xlabel(r"learning rate $\eta$ of the training")
    below.set_xticks(rates, [f"{rate:g}" for rate in rates])
    below.xaxis.set_minor_formatter(NullFormatter())
    style.legend_above(above, columns=3)
    return fig
