"""The figures of the page on unlike examples, under the chapter on depth."""

from functools import cache

import numpy as np
from matplotlib.ticker import NullFormatter, ScalarFormatter

from bncore.chapters.explanations.depth import experiments, full_size
from bncore.chapters.explanations.depth.figures import CALLED, KEYS, SEEDS
from bncore.explanations import depth
from bncore.page import style

SEEN = full_size.CONFIGURATION["activations"]["seeds"]
BATCHES = full_size.CONFIGURATION["activations"]["batch_size"]

TENDENCIES = ["tanh", "identity", "ReLU", "softplus", "SiLU", "absolute value"]
WIDTHS = [100, 400]


@cache
def asymmetries(activation, width, layers=40, batch_size=64, seeds=SEEDS):
    """Spread over the examples, growth by layer and expected growth: ``experiments.asymmetry``."""
    runs = [
        experiments.asymmetry(activation, layers, width, batch_size, seed) for seed in range(seeds)
    ]
    return [np.array(values) for values in zip(*runs, strict=True)]


def alike(activation, width):
    """Draw, by layer, how unlike the examples of a batch are, and the growth of squared gradients."""
    activation = KEYS[activation]
    spread, growth, expected = asymmetries(activation, width)
    rate = depth.growth_rate(activation, 64)
    fig, (above, below) = style.axes(rows=2, height=5.6, sharex=True)
    layers = np.arange(1, spread.shape[1] + 1)
    for run in spread:
        above.semilogy(layers, run, color=style.COLOR["measured"], alpha=0.7)
    above.set(ylim=(0.03, 12), ylabel="spread over examples")
    for runs, kind, line, label in (
        (growth, "measured", "-", "measured"),
        (expected, "predicted", ":", "given the forward pass"),
    ):
        smooth = np.exp([np.convolve(np.log(run), np.ones(5) / 5, "valid") for run in runs])
        for i, run in enumerate(smooth):
            below.plot(
                layers[3:-3],
                run[1:] / rate,
                line,
                color=style.COLOR[kind],
                alpha=0.8,
                label=None if i else label,
            )
    below.axhline(1, linestyle="--", color=style.COLOR["predicted"], label="for a symmetric batch")
    below.set(ylim=(0.72, 1.3), ylabel="growth over λ", xlabel="layer, from the input")
    style.legend_above(below)
    return fig


def _by_activation(ax):
    """Give `ax` a line for each activation, from the top, and return where they are."""
    places = np.arange(len(full_size.NAMES))
    ax.set_yticks(places, [CALLED[name] for name in full_size.NAMES])
    ax.invert_yaxis()
    return places


def _legend(ax):
    """A legend above `ax` that ends where the panel does: its long names leave no room beyond."""
    legend = style.legend_above(ax)
    legend.set_loc("lower right")
    legend.set_bbox_to_anchor((1, 1), ax.transAxes)


def missed(rows, batch_size):
    """Draw the errors of both predictions in percent of the rate, with two standard errors."""
    fig, ax = style.axes(height=5.0)
    places = _by_activation(ax)
    ax.axvspan(-2, 2, color=style.GRID, alpha=0.6, lw=0, zorder=0)
    for given, marker, shift, label in (
        (False, "o", -0.15, "a symmetric batch"),
        (True, "D", 0.15, "given the forward pass"),
    ):
        found = {
            row.activation: row
            for row in full_size.departures(rows, SEEN, given_forward=given)
            if row.batch_size == batch_size
        }
        some = [found[name] for name in full_size.NAMES]
        ax.errorbar(
            [row.error for row in some],
            places + shift,
            xerr=[2 * row.standard_error for row in some],
            fmt=marker,
            color=style.OCHRE if given else style.COLOR["measured"],
            fillstyle="none" if given else "full",
            markersize=6,
            elinewidth=1.5,
            label=label,
        )
    ax.set(xlim=(-11.5, 6.5), xlabel=f"error, % of the rate, batches of {batch_size}")
    _legend(ax)
    return fig


def by_width(rows):
    """Draw the errors of both predictions over the width, for batches of 256."""
    fig, panels = style.axes(rows=2, height=5.6, sharex=True)
    hues = (style.BLUE, style.VERMILLION, style.GREEN, style.PURPLE, style.OCHRE)
    for ax, given in zip(panels, (False, True), strict=True):
        found = full_size.departures(rows, SEEN, given_forward=given)
        names = dict.fromkeys(row.activation for row in found)
        for name, hue, marker in zip(names, hues, "osD^v", strict=True):
            some = [row for row in found if row.activation == name]
            widths, errors = zip(*((row.width, row.error) for row in some), strict=True)
            ax.plot(widths, errors, marker + "-", color=hue, label=CALLED[name])
        ax.axhline(0, color=style.MUTED, linewidth=1)
    panels[0].set_ylabel("error, %, symmetric")
    panels[1].set(ylabel="error, %, given pass", xlabel="units in a layer", xscale="log")
    panels[1].set_xticks(widths)
    panels[1].xaxis.set_major_formatter(ScalarFormatter())
    panels[1].xaxis.set_minor_formatter(NullFormatter())
    style.legend_above(panels[0], columns=3)
    return fig


def differences(units=20_000):
    """Draw by what a layer multiplies differences between examples, small ones and a large one."""
    fig, ax = style.axes(height=5.0)
    places = _by_activation(ax)
    for batch_size, marker in zip(BATCHES, "os^", strict=True):
        factors = [depth.symmetry_multiplier(name, batch_size) for name in full_size.NAMES]
        ax.plot(
            factors,
            places,
            marker,
            color=style.COLOR["predicted"],
            fillstyle="none",
            label=f"small, batches of {batch_size}",
        )
    large = [experiments.deviation_multiplier(name, 4, units=units) for name in full_size.NAMES]
    ax.plot(large, places, "D", color=style.COLOR["measured"], label="large, batches of 64")
    ax.axvline(1, color=style.MUTED, linewidth=1)
    ax.set(xlim=(0, 1.5), xlabel="factor on differences, a layer")
    _legend(ax)
    return fig
