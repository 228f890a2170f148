"""The figures of the depth chapter."""

from functools import cache

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from torch.nn.functional import leaky_relu

from bncore.chapters.explanations.depth import experiments
from bncore.chapters.explanations.depth.trained_networks import COLORS
from bncore.explanations import depth, propagation
from bncore.page import labels, style

WIDTH, LAYERS, SEEDS = 200, 24, 3
SLOPES = [-1, -0.5, 0, 0.25, 0.5, 1]
BATCHES = [6, 8, 16, 64]
VARIANCES = [0.8, 1, 2, 4]
CALLED = {
    "identity": "identity",
    "relu": "ReLU",
    "leaky_relu": "leaky ReLU",
    "tanh": "tanh",
    "erf": "erf",
    "sigmoid": "sigmoid",
    "gelu": "GELU",
    "elu": "ELU",
    "softplus": "softplus",
    "silu": "SiLU",
    "abs": "absolute value",
}
KEYS = {called: name for name, called in CALLED.items()}


def leaky(slope):
    """The leaky ReLU with this slope to the left of zero, as a function of a tensor."""
    return lambda z: leaky_relu(z, slope)


@cache
def leaky_runs(slope, layers=LAYERS, width=WIDTH, batch_size=64, seeds=SEEDS):
    """Squared gradients by layer, one row a seed."""
    return np.array(
        [
            experiments.gradients(leaky(slope), layers, width, batch_size, seed).signals
            for seed in range(seeds)
        ]
    )


@cache
def leaky_rates(batch_size=64):
    """Predicted growth rates on a fine grid of slopes."""
    slopes = np.linspace(-1, 1, 41)
    return slopes, np.array([depth.growth_rate(leaky(slope), batch_size) for slope in slopes])


def explosion(slope):
    """Draw squared gradients by layer of a leaky-ReLU network, and the growth rate over the slope."""
    runs, (slopes, predicted) = leaky_runs(slope), leaky_rates()
    rate = depth.growth_rate(leaky(slope), 64)
    fig, (above, below) = style.axes(rows=2, height=5.0, height_ratios=[3, 2])
    _layers(above, runs, rate)
    above.set(ylim=(0.3, 1e11))
    below.plot(slopes, predicted, "--", color=style.COLOR["predicted"], label="predicted")
    for other in SLOPES:
        rates = [experiments.rate(run) for run in leaky_runs(other)]
        below.plot(
            [other] * len(rates),
            rates,
            "o",
            markersize=5,
            alpha=0.5,
            color=style.COLOR["measured"],
            label="measured, 3 networks" if other == 0 else None,
        )
    below.plot(
        slope,
        rate,
        "o",
        markersize=13,
        color=style.COLOR["highlight"],
        fillstyle="none",
        markeredgewidth=2.5,
    )
    below.set(xlabel="slope to the left of zero", ylabel="growth per layer", ylim=(0.85, 3.05))
    style.legend_above(below)
    return fig


def _layers(ax, runs, rate):
    """Squared gradients by layer over those of the last, with the predicted line."""
    layers = np.arange(1, runs.shape[1] + 1)
    for i, run in enumerate(runs):
        ax.semilogy(
            layers,
            run / run[-1],
            color=style.COLOR["measured"],
            alpha=0.7,
            label=None if i else "measured",
        )
    ax.semilogy(
        layers,
        rate ** (layers[-1] - layers.astype(float)),
        "--",
        color=style.COLOR["predicted"],
        label=f"predicted, {rate:.3f} a layer",
    )
    ax.set(xlabel="layer, from the input", ylabel="squared gradient")
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    style.legend_above(ax)


@cache
def batch_runs(activation, batch_size):
    """Squared gradients by layer, one row a seed."""
    return np.array(
        [
            experiments.gradients(activation, LAYERS, WIDTH, batch_size, seed).signals
            for seed in range(3)
        ]
    )


@cache
def batch_rates(activation):
    """Predicted growth rates for batches of 5 to 512, and for large ones."""
    sizes = np.unique(np.geomspace(5, 512, 22).round().astype(int))
    rates = [depth.growth_rate(activation, int(size)) for size in sizes]
    return sizes, np.array(rates), depth.growth_rate(activation)


def batches(activation, batch_size):
    """Draw squared gradients by layer, and the growth rate over the batch size."""
    activation = KEYS[activation]
    runs = batch_runs(activation, batch_size)
    sizes, predicted, limit = batch_rates(activation)
    rate = depth.growth_rate(activation, batch_size)
    fig, (above, below) = style.axes(rows=2, height=5.0)
    _layers(above, runs, rate)
    above.set(ylim=(0.3, 1e8))
    below.plot(sizes, predicted, "--", color=style.COLOR["predicted"], label="predicted")
    below.plot(
        sizes, (sizes - 2) / (sizes - 3), ":", color=style.MUTED, label="the bound (B−2)/(B−3)"
    )
    for other in BATCHES:
        rates = [experiments.rate(run) for run in batch_runs(activation, other)]
        below.plot(
            [other] * len(rates), rates, "o", markersize=5, alpha=0.5, color=style.COLOR["measured"]
        )
    below.plot(
        batch_size,
        rate,
        "o",
        markersize=13,
        color=style.COLOR["highlight"],
        fillstyle="none",
        markeredgewidth=2.5,
    )
    below.axhline(limit, color=style.MUTED, linewidth=1, zorder=0, label="large batches")
    below.set_xscale("log", base=2)
    below.xaxis.set_major_formatter(ScalarFormatter())
    below.set(xticks=[8, 32, 128, 512], ylim=(0.95, 2.4))
    below.set(xlabel="batch size", ylabel="growth per layer")
    style.legend_above(below)
    return fig


DEGREES = 9


def degrees(activation):
    """Draw the variance of an activation by degree in the Hermite polynomials, and the mean degree."""
    activation = KEYS[activation]
    rate = depth.growth_rate(activation)
    fig, ax = style.axes(height=3.2)
    k = np.arange(1, DEGREES + 1)
    shares = experiments.variance_by_degree(activation, DEGREES)
    ax.bar(k, shares, 0.6, color=style.COLOR["variance"], label="share of the variance")
    ax.axvline(
        rate, linestyle="--", color=style.COLOR["predicted"], label=f"mean degree, {rate:.3f}"
    )
    ax.set(xlabel="degree", ylabel="share", ylim=(0, 1.05), xticks=k)
    style.legend_above(ax)
    return fig


def agreement(rows):
    """Draw measured over predicted growth, less 1, of ``full_size.rates``; what is beyond 2 % stands out."""
    fig, ax = style.axes(height=3.9)
    span = np.array([0.003, 3])
    ax.loglog(span, span, "--", color=style.COLOR["predicted"], label="measured = predicted")
    for batch_size, marker in ((8, "o"), (64, "s"), (256, "^")):
        some = [row for row in rows if row["batch_size"] == batch_size]
        predicted, measured = (
            np.array([row[name] for row in some]) for name in ("predicted", "measured")
        )
        beyond = np.abs(measured / predicted - 1) >= 0.02
        for chosen, kind in ((~beyond, "measured"), (beyond, "highlight")):
            ax.plot(
                predicted[chosen] - 1,
                measured[chosen] - 1,
                marker,
                color=style.COLOR[kind],
                fillstyle="none" if kind == "measured" else "full",
                label=f"batches of {batch_size}" if kind == "measured" else None,
            )
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: labels.value_text(value))
        axis.set_minor_formatter(NullFormatter())
    ax.set(
        xlabel="predicted growth a layer, less 1", ylabel="measured, less 1", xlim=span, ylim=span
    )
    style.legend_above(ax)
    return fig


@cache
def unnormalized(activation, weight_variance, layers=LAYERS, seeds=2):
    """Squared gradients by layer without batch norm, one row a seed, and the prediction."""
    gain = weight_variance**0.5
    runs = [
        experiments.gradients(
            activation, layers, WIDTH, 64, seed, normalization=None, gain=gain
        ).signals
        for seed in range(seeds)
    ]
    # Inputs have mean square 1, and pass a linear map before the first layer.
    theory = propagation.propagate(activation, weight_variance, layers, weight_variance**2)
    return np.array(runs), np.append(np.cumprod(theory.growth[-2::-1])[::-1], 1.0), theory


def without(activation, weight_variance):
    """Draw squared gradients by layer without batch norm, measured and predicted."""
    activation = KEYS[activation]
    runs, predicted, theory = unnormalized(activation, weight_variance)
    layers = np.arange(1, runs.shape[1] + 1)
    fig, ax = style.axes(height=3.5)
    for i, run in enumerate(runs):
        ax.semilogy(
            layers,
            run / run[-1],
            color=style.COLOR["no batch norm"],
            alpha=0.7,
            label=None if i else "measured",
        )
    ax.semilogy(
        layers,
        predicted,
        "--",
        color=style.COLOR["predicted"],
        label=f"predicted, χ = {theory.growth[-1]:.2f} at the end",
    )
    ax.set(ylim=(1e-10, 1e10), xlabel="layer, from the input", ylabel="squared gradient")
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    style.legend_above(ax)
    return fig


BLOCKS = 60


@cache
def skip_runs(activation, skip, width=WIDTH, batch_size=64, seeds=2):
    """Squared weight gradients by block, with or without skip connections, one row a seed."""
    return np.array(
        [
            experiments.gradients(activation, BLOCKS, width, batch_size, seed, skip=skip).weights
            for seed in range(seeds)
        ]
    )


def skips(activation):
    """Draw squared weight gradients by block, with and without skip connections."""
    activation = KEYS[activation]
    blocks = np.arange(1, BLOCKS + 1)
    rate = depth.growth_rate(activation, 64)
    offset = 1 / depth.batch_variance(activation, 64)
    predicted = {
        False: rate ** (BLOCKS - blocks.astype(float)),
        True: depth.residual_growth(rate, BLOCKS, offset)[1:],
    }
    fig, ax = style.axes(height=3.8)
    for skip, kind in ((False, "batch norm"), (True, "residual")):
        name = "with skips" if skip else "without skips"
        for i, run in enumerate(skip_runs(activation, skip)):
            ax.semilogy(
                blocks,
                run / run[-1],
                color=COLORS[kind],
                alpha=0.7,
                label=None if i else name,
            )
        ax.semilogy(
            blocks,
            predicted[skip],
            "--",
            color=style.COLOR["predicted"],
            label="predicted" if skip else None,
        )
    ax.set(ylim=(0.1, 1e11), xlabel="block, from the input", ylabel="squared weight gradient")
    ax.yaxis.set_major_locator(LogLocator(numticks=7))
    style.legend_above(ax, columns=3)
    return fig


COUNTS = [0, 1, 5, 10, 20]
DEVIATIONS = [0.5, 1, 2]


@cache
def stacked_runs(count, deviation, layers=20, seeds=SEEDS):
    """Squared gradients by layer of He-initialised ReLU networks, batch norm in the first layers."""
    return np.array(
        [experiments.stacked(count, layers, 128, 64, seed, deviation) for seed in range(seeds)]
    )


def stacking(deviation):
    """Draw the squared gradient at the first layer over the number of batch norms.

    Parameters
    ----------
    deviation : float
        Standard deviation over the batch of what the first batch norm sees.
    """
    fig, ax = style.axes(height=4.0)
    rate = depth.growth_rate("relu", 64)
    base = np.exp(np.log(stacked_runs(0, deviation)[:, 0]).mean())
    for count in COUNTS:
        values = stacked_runs(count, deviation)[:, 0] / base
        ax.semilogy(
            [count] * len(values),
            values,
            "o",
            color=style.COLOR["measured"],
            alpha=0.6,
            label="measured, 3 networks" if count == 1 else None,
        )
    counts = np.array([1.0, 20.0])
    ax.semilogy(
        counts,
        rate ** (counts - 1) / deviation**2,
        "--",
        color=style.COLOR["predicted"],
        label="predicted",
    )
    ax.axhline(1, color=style.MUTED, linewidth=1)
    ax.set(xlabel="batch norms, in the first layers of 20", ylabel="squared gradient, layer 1")
    ax.set(ylim=(1e-2, 1e5), xticks=[0, 5, 10, 15, 20])
    style.legend_above(ax)
    return fig
