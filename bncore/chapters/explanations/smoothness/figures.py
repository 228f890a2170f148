"""The figures of the smoothness chapter."""

import itertools
from functools import cache

import numpy as np
from matplotlib.ticker import NullFormatter

from bncore.chapters.explanations.smoothness import experiments, records
from bncore.explanations import smoothness, spectrum
from bncore.page import style

COLOURS = {
    "no batch norm": style.COLOR["no batch norm"],
    "batch norm": style.COLOR["batch norm"],
    "mean only": style.COLOR["mean"],
    "variance only": style.COLOR["variance"],
}
DASHES = {
    "no batch norm": (0, (4, 1.5)),
    "batch norm": "-",
    "mean only": (0, (1, 1)),
    "variance only": (0, (4, 1, 1, 1)),
}
LANCZOS = [5, 10, 20, 40]


def _band(ax, x, values, kind, marker=None):
    """Mean and range over the seeds, the first axis of values."""
    values = np.asarray(values)
    ax.fill_between(
        x, values.min(axis=0), values.max(axis=0), color=COLOURS[kind], alpha=0.18, linewidth=0
    )
    line = {"color": COLOURS[kind], "linestyle": DASHES[kind]}
    ax.plot(x, values.mean(axis=0), **line, label=kind, marker=marker, markersize=5)


def along(kept, step, units):
    """Draw the loss and the gradient's change along the gradient, at one time of training.

    Parameters
    ----------
    kept : dict of str to Walks
        By kind.
    step : int
        One of the steps of the walks.
    units : {"learning rate", "share of weights"}
    """
    absolute = units == "learning rate"
    sizes = np.array(experiments.RATES if absolute else experiments.MOVES)
    unit = "absolute" if absolute else "relative"
    fig, (above, below) = style.axes(rows=2, height=5.6, sharex=True)
    for kind, walks in kept.items():
        at = list(walks.steps).index(step)
        loss = walks.row(unit, "loss")[:, at] / walks.row(unit, "before")[:, at]
        _band(above, sizes, loss, kind, marker="o")
        _band(below, sizes, walks.relative_change(unit)[:, at], kind, marker="o")
    above.axhline(1, color=style.MUTED, linewidth=1)
    above.set(xscale="log", yscale="log", ylim=(0.2, 60), ylabel="loss after / before")
    style.legend_above(above)
    below.set(yscale="log", ylim=(0.01, 60), ylabel="gradient's change / length")
    below.set_xlabel("learning rate of the step" if absolute else "length of step / of weights")
    below.set_xticks(sizes, [f"{size:g}" for size in sizes])
    below.xaxis.set_minor_formatter(NullFormatter())
    return fig


@cache
def _batch():
    rng = np.random.default_rng(3)
    y_hat = smoothness.normalise(rng.normal(size=(8, 1)))[0][:, 0]
    rest = rng.normal(size=8)
    rest = rest - rest.mean() - y_hat * (rest @ y_hat) / 8
    return y_hat, rest / np.linalg.norm(rest)


def removed(sigma, tilt):
    """Draw the squared gradient of a batch of eight before and after batch norm, part by part.

    Parameters
    ----------
    sigma : float
        Deviation of the batch; gamma is 1.
    tilt : float
        Length of the gradient's part along the normalised batch; the level has half of it and the
        rest has length 1.
    """
    y_hat, rest = _batch()
    g = rest + tilt * y_hat / 8**0.5 + tilt / 2 / 8**0.5
    terms = smoothness.squared_gradient((sigma * y_hat)[:, None], g[:, None], np.ones(1))
    whole, level, tilted = (t[0] for t in (terms.whole, terms.level, terms.tilt))
    fig, ax = style.axes(height=3.4)
    left = 0.0
    for size, colour, label in (
        (whole - level - tilted, style.COLOR["data"], "rest"),
        (level, style.COLOR["mean"], "level"),
        (tilted, style.COLOR["variance"], "tilt"),
    ):
        ax.barh(2, size, left=left, color=colour, label=label, height=0.55)
        left += size
    ax.barh(1, whole - level - tilted, color=style.COLOR["data"], height=0.55)
    ax.barh(0, terms.passed[0], color=style.COLOR["batch norm"], height=0.55)
    ax.axvline(whole, color=style.INK, linestyle="--", linewidth=1)
    ax.set(xlim=(0, 6), xlabel="squared length", ylim=(-0.5, 2.6))
    ax.set_yticks([2, 1, 0], [r"$\|g\|^2$", "rest alone", r"$\|d\|^2$"])
    ax.grid(axis="y", visible=False)
    if terms.passed[0] > 6:
        ax.text(5.9, 0, f"{terms.passed[0]:.0f} →", ha="right", va="center", color=style.PAPER)
    style.legend_above(ax, columns=3)
    return fig


@cache
def _plane():
    """Two directions of a batch of three values without mean, and a convex loss of it."""
    basis = np.array([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]])
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    H = basis.T @ np.array([[1.0, 0.3], [0.3, 0.5]]) @ basis
    target = np.array([1.6, 0.9]) @ basis
    return basis, H, target


def _through(y, g):
    """The gradient in front of a batch norm with scale 1."""
    return smoothness.gradient(y[:, None], g[:, None], np.ones(1))[:, 0]


def bowl_and_fan(sigma):
    """Draw a convex loss of a batch of three values, and the same loss behind a batch norm.

    Parameters
    ----------
    sigma : float
        Deviation of the batch at the marked point.
    """
    basis, H, target = _plane()
    grid = np.linspace(-3.4, 3.4, 241)
    points = np.stack(np.meshgrid(grid, grid), axis=-1) @ basis
    lengths = np.linalg.norm(points, axis=-1, keepdims=True)
    fanned = points / np.where(lengths > 0, lengths, 1) * 3**0.5
    angle = np.radians(115)
    here = sigma * 3**0.5 * np.array([np.cos(angle), np.sin(angle)])
    y = here @ basis
    y_hat = y / sigma
    slopes = {
        "no batch norm": H @ (y - target),
        "batch norm": _through(y, H @ (y_hat - target)),
    }
    fig, axes = style.axes(rows=2, height=8.2, sharex=True)
    for ax, z, kind in zip(axes, (points, fanned), slopes, strict=True):
        values = np.einsum("...i,ij,...j->...", z - target, H, z - target) / 2
        if kind == "batch norm":
            values[lengths[..., 0] < 0.12] = np.nan
        levels = np.arange(0.1, 8, 0.35)
        ax.contour(grid, grid, values, levels=levels, colors=COLOURS[kind], linewidths=0.9)
        slope = basis @ slopes[kind]
        arrow = {"arrowstyle": "-|>", "color": style.COLOR["highlight"], "linewidth": 3}
        ax.annotate("", here - 0.45 * slope, here, arrowprops=arrow)
        ax.plot(*here, "o", color=style.INK, markersize=8)
        ax.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), aspect="equal")
        ax.set_title(f"{kind}: gradient of length {np.linalg.norm(slope):.1f}")
        ax.set_ylabel("second direction")
        ax.grid(visible=False)
    axes[1].set_xlabel("first direction of the batch")
    return fig


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
        _band(above, grid, np.array(densities), kind)
        counts = [n * (1 - one.below(grid).mean(axis=0)) + 1e-9 for one in some]
        _band(below, grid, np.array(counts), kind)
    above.set(yscale="log", ylim=(1e-7, 300 / span), ylabel="density")
    style.legend_above(above)
    below.set(yscale="log", ylim=(0.1, 2 * n), ylabel="eigenvalues above")
    below.set_xlabel("eigenvalue")
    return fig


def over_training(depth, units):
    """Draw the recorded effective smoothness and loss of four kinds of network while they train.

    Parameters
    ----------
    depth : int
        One of the recorded depths.
    units : {"absolute", "relative"}
    """
    fig, (above, below) = style.axes(rows=2, height=6, sharex=True)
    for kind, kept in records.of("walks", depth):
        _band(above, kept.record, kept[units], kind)
        _band(below, kept.record, kept.loss, kind)
    above.set(yscale="log", ylim=(0.05, 3000), ylabel="effective smoothness")
    style.legend_above(above)
    below.set(yscale="log", ylim=(0.001, 10), ylabel="loss")
    below.set_xlabel("training steps")
    return fig


def loss_ranges(depth, part="walks"):
    """Draw the recorded range of the loss along the gradient, with and without batch norm.

    Parameters
    ----------
    depth : int
        One of the recorded depths.
    part : {"walks", "common"}
        Each at its own best rate, or both at one rate.
    """
    fig, ax = style.axes(height=3.6)
    for kind, kept in records.of(part, depth, experiments.KINDS[:2]):
        _band(ax, kept.record, kept["range"], kind, marker="o")
    ax.set(yscale="log", ylim=(1e-5, 100), ylabel="range of the loss")
    ax.set_xlabel("training steps")
    style.legend_above(ax)
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
    """Draw the recorded largest eigenvalue after training at several learning rates."""
    found = records.record()["full"]["rates"].largest
    rates = found.learning_rate.values
    fig, ax = style.axes(height=3.6)
    for kind in experiments.KINDS[:2]:
        values = found.sel(kind=kind).transpose("seed", "learning_rate")
        _band(ax, rates, values, kind, marker="o")
    fine = np.geomspace(rates[0], rates[-1], 50)
    ax.plot(fine, 2 / fine, color=style.INK, linestyle="--", label=r"$2/\eta$")
    ax.set(xscale="log", yscale="log", ylim=(0.2, 60), ylabel="largest eigenvalue")
    ax.set_xlabel(r"learning rate $\eta$ of the training")
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    ax.xaxis.set_minor_formatter(NullFormatter())
    style.legend_above(ax, columns=3)
    return fig


def tuned(depth):
    """Draw the recorded loss of each kind at its own best learning rate, on fresh seeds.

    Parameters
    ----------
    depth : int
        One of the recorded depths.
    """
    curves = records.record()["full"]["tuned"]["curves"].sel(depth=depth)
    fig, ax = style.axes(height=4)
    for kind in experiments.KINDS:
        found = curves.sel(kind=kind)
        low, middle, high = (found.loss.quantile(q, "seed") for q in (0, 0.5, 1))
        colour, steps = COLOURS[kind], curves.steps
        ax.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        label = f"{kind}, rate {found.learning_rate:g}"
        ax.plot(steps, middle, color=colour, linestyle=DASHES[kind], label=label)
    ax.set(yscale="log", ylim=(3e-5, 20), ylabel="training loss", xlabel="training steps")
    style.legend_above(ax)
    return fig
