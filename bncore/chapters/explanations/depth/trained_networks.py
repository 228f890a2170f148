"""The figures of the networks that the chapter on depth trains: how well they do, and what they forget."""

from functools import cache

import numpy as np
from matplotlib.ticker import NullFormatter

from bncore.chapters.explanations.depth import experiments
from bncore.page import labels, style

COLORS = {
    "plain": style.COLOR["no batch norm"],
    "batch norm": style.COLOR["batch norm"],
    "residual": style.GREEN,
}
NAMES = {"plain": "no batch norm", "batch norm": "batch norm", "residual": "with skips"}


def trained(tuning, layers, steps):
    """Draw test accuracy over the learning rate for networks of `layers` layers.

    Parameters
    ----------
    tuning : xarray.Dataset
        Of ``full_size.training``.
    layers, steps : int
    """
    fig, ax = style.axes(height=3.6)
    for kind, marker in (("plain", "o"), ("batch norm", "s"), ("residual", "D")):
        seen = tuning.accuracy.sel(kind=kind, layers=layers, steps=steps).dropna("learning_rate")
        rates, color = seen.learning_rate.values, COLORS[kind]
        ax.fill_between(rates, seen.min("seed"), seen.max("seed"), color=color, alpha=0.2, lw=0)
        ax.plot(rates, seen.median("seed"), marker + "-", color=color, label=NAMES[kind])
    ax.axhline(0.1, color=style.MUTED, linestyle=":")
    left = ax.get_yaxis_transform()
    ax.text(0.02, 0.03, "chance", color=style.MUTED, fontsize=11, transform=left)
    ax.set(xscale="log", ylim=(-0.03, 1.03), xlabel=f"learning rate, {layers} layers")
    ax.set_ylabel(f"test accuracy after {steps} steps")
    ax.xaxis.set_major_formatter(lambda value, _: labels.value_text(value))
    ax.xaxis.set_minor_formatter(NullFormatter())
    style.legend_above(ax, columns=3)
    return fig


@cache
def geometry(kind, layers, seeds=3):
    """Mean cosine and memory of ``experiments.geometry``, mean over networks."""
    return np.mean([experiments.geometry(kind, layers, seed=seed) for seed in range(seeds)], axis=0)


def forgetting():
    """Draw how alike digits look in the last hidden layer, and how well their likeness is kept."""
    counts = [5, 10, 20, 30, 60]
    fig, panels = style.axes(rows=2, height=5.2, sharex=True)
    for kind, marker in (("plain", "o"), ("batch norm", "s"), ("residual", "D")):
        found = np.array([geometry(kind, count) for count in counts])
        for ax, values in zip(panels, found.T, strict=True):
            ax.plot(counts, values, marker + "-", color=COLORS[kind], label=NAMES[kind])
    panels[0].set(ylabel="mean cosine", ylim=(0, 1.05))
    panels[1].set(ylabel="memory", ylim=(-0.05, 1), xlabel="layers", xticks=[10, 30, 60])
    style.legend_above(panels[0], columns=3)
    return fig
