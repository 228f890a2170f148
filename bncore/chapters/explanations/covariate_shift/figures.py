"""The figures of the covariate shift chapter."""

from functools import cache

import numpy as np
import torch
from matplotlib.ticker import LogLocator, NullFormatter
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.chapters.explanations.covariate_shift.readings import record, runs
from bncore.chapters.explanations.covariate_shift.runs import EVERY, FOLLOWED
from bncore.explanations.covariate_shift import gradient_shift, linearized_shift
from bncore.explanations.two_layers import two_linear_layers
from bncore.lab import data, networks
from bncore.page import style

START, TARGET = 1.0, 2.0
RATES = (0.0, 0.1, 0.2, 0.4)
SECOND = (0.5, 1.5, 3.0)
SMALL_RATES = np.logspace(-3, 0.5, 8)

COLOR = {
    "no batch norm": style.COLOR["no batch norm"],
    "batch norm": style.COLOR["batch norm"],
    "noisy batch norm": style.COLOR["highlight"],
}
LINES = {"no batch norm": (0, (4, 1.5)), "batch norm": "-", "noisy batch norm": (0, (1, 1))}
SHORT = {"no batch norm": "none", "batch norm": "batch norm", "noisy batch norm": "noisy"}


def two_scalars(b, rate):
    """Before and after of the second weight of x -> b a x, in closed form, at a = ``START``."""
    a, b, target = (np.full((1, 1), value) for value in (START, b, TARGET))
    before, after = two_linear_layers(a, b, np.ones((1, 1)), target, rate)
    return before.item(), after.item()


def measured_scalars(b, rate):
    """The shift of the second weight of the same network, measured on a model in torch."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    nn.init.constant_(model[0].weight, START)
    nn.init.constant_(model[1].weight, b)
    one = torch.ones(1, 1, dtype=torch.float64)
    shift = gradient_shift(model, lambda o, t: ((o - t) ** 2).sum() / 2, one, TARGET * one, rate)
    return shift.norm[1]


def two_weights(rate, b):
    """Draw the loss (ab - 2)^2 / 2, the first weight's step, and what it does to the second's.

    The arrows are twice as long as the gradients: the second is short.

    Parameters
    ----------
    rate : float
        Learning rate of the first weight's step.
    b : float
        The second weight.
    """
    before, after = two_scalars(b, rate)
    moved = START - rate * b * (START * b - TARGET)
    fig, (above, below) = style.axes(rows=2, height=6.4, gridspec_kw={"height_ratios": [1.7, 1]})
    x, y = np.linspace(-0.5, 2.5, 181), np.linspace(-0.5, 4, 181)
    loss = (np.outer(y, x) - TARGET) ** 2 / 2
    levels = [0.1, 0.4, 1, 3, 6, 12, 24]
    above.contour(x, y, loss, levels=levels, colors=style.MUTED, linewidths=0.8)
    line = np.linspace(0.4, 2.5, 50)
    above.plot(line, TARGET / line, color=style.INK, linestyle="--", label="$ab=2$, loss 0")
    above.plot([START, moved], [b, b], color=style.COLOR["mean"], linewidth=3, label="step of $a$")
    for place, gradient, colour, name in (
        (START, before, style.MUTED, "$-2G$, before"),
        (moved, after, style.COLOR["measured"], "$-2G'$, after"),
    ):
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 3, "shrinkA": 0, "shrinkB": 0}
        above.annotate("", (place, b - 2 * gradient), (place, b), arrowprops=arrow)
        above.plot(place, b, "o", color=colour, label=name, markersize=7)
    above.set(xlim=(-0.5, 2.5), ylim=(-0.5, 4), ylabel="second weight, $b$")
    above.set_xlabel("first weight, $a$")
    style.legend_above(above)
    grid = np.linspace(0, RATES[-1], 61)
    curve = [abs(np.subtract(*two_scalars(b, h))) for h in grid]
    below.plot(grid, curve, color=style.COLOR["predicted"], linestyle="--", label="closed form")
    dot = {"markersize": 10, "color": style.COLOR["measured"], "label": "measured"}
    below.plot(rate, measured_scalars(b, rate), "o", **dot)
    below.set(xlim=(-0.02, RATES[-1] + 0.02), ylim=(-0.06, 1.5), ylabel="shift $|G'-G|$")
    below.set_xlabel("learning rate of the step of $a$")
    style.legend_above(below)
    return fig


@cache
def small_steps(normalization, seeds=(0, 1, 2)):
    """Measured and linearised shifts of a fresh network on the digits, for ``SMALL_RATES``."""
    found = []
    for seed in seeds:
        split = data.digits(seed)
        model = networks.mlp([64, 32, 32, 32, 10], "tanh", normalization, gain=1.0, seed=seed)
        model = model.double()
        x, y = split.x_train[:128].double(), split.y_train[:128]
        first = linearized_shift(model, cross_entropy, x, y, 1.0).relative
        measured = [
            gradient_shift(model, cross_entropy, x, y, rate).relative for rate in SMALL_RATES
        ]
        found.append((np.array(measured), np.outer(SMALL_RATES, first)))
    return np.array(found)


def straight(normalization):
    """Draw the relative shift of layers 2 to 4 over the learning rate, measured and to first order.

    Parameters
    ----------
    normalization : {"none", "batch"}
    """
    kept = small_steps(None if normalization == "none" else normalization)
    fig, ax = style.axes(height=3.9)
    colours = [style.COLOR["mean"], style.COLOR["variance"], style.COLOR["highlight"]]
    for layer, colour in zip((1, 2, 3), colours, strict=True):
        low, high = kept[:, 0, :, layer].min(axis=0), kept[:, 0, :, layer].max(axis=0)
        ax.fill_between(SMALL_RATES, low, high, color=colour, alpha=0.25, lw=0)
        measured, first = kept[:, :, :, layer].mean(axis=0)
        ax.loglog(SMALL_RATES, measured, "o", color=colour, label=f"layer {layer + 1}")
        label = "first order" if layer == 3 else None
        ax.loglog(SMALL_RATES, first, color=style.INK, linestyle="--", label=label)
    ax.set(ylim=(1e-4, 20), ylabel="relative shift")
    ax.set_xlabel("learning rate")
    style.legend_above(ax)
    return fig


def _band(ax, x, values, name):
    values = np.asarray(values, dtype=float)
    ax.fill_between(x, values.min(axis=0), values.max(axis=0), color=COLOR[name], alpha=0.2, lw=0)
    line = {"color": COLOR[name], "linestyle": LINES[name], "label": SHORT[name]}
    ax.plot(x, np.median(values, axis=0), **line)


def across_layers(network, compared, step):
    """Draw cosine and relative shift over the layers, at one time of the recorded run.

    Parameters
    ----------
    network : {"vgg", "linear"}
    compared : str
        One of ``measures.COMPARED``.
    step : int
        One of the recorded steps.
    """
    kept = runs(network, "layers").sel(record=step, compared=compared)
    kept = kept.transpose("kind", "seed", "layer")
    fig, (above, below) = style.axes(rows=2, height=5.6, sharex=True)
    layers = 1 + EVERY[network] * kept.layer
    for name in ("no batch norm", "batch norm"):
        _band(above, layers, kept.cosine.sel(kind=name), name)
        _band(below, layers, kept.relative.sel(kind=name).clip(1e-4, 1e4), name)
    above.set(ylim=(-1.08, 1.08), ylabel="cosine")
    style.legend_above(above)
    limits = {"vgg": (1e-2, 30), "linear": (1e-3, 1000)}[network]
    below.set(yscale="log", ylim=limits, ylabel="relative shift")
    below.yaxis.set_major_locator(LogLocator(numticks=6))
    below.yaxis.set_minor_formatter(NullFormatter())
    below.set_xlabel(f"layer, after {step} training steps")
    return fig


def rates(rate):
    """Draw the losses of the tuning seeds at one learning rate, for the three networks.

    Parameters
    ----------
    rate : float
        One of the recorded learning rates of the VGG.
    """
    fig, ax = style.axes(height=3.6)
    tuning = runs("vgg", "tuning").losses.sel(learning_rate=rate)
    steps = 10 * np.arange(tuning.sizes["window"]) + 5
    for name in COLOR:
        best = runs("vgg").learning_rate.sel(kind=name) == rate
        label = SHORT[name] + (" (its best)" if best else "")
        for i, curve in enumerate(tuning.sel(kind=name).transpose("seed", "window")):
            line = {"color": COLOR[name], "linestyle": LINES[name]}
            ax.semilogy(steps, curve, **line, label=None if i else label)
    ax.set(ylim=(2e-3, 5), ylabel="training loss")
    ax.set_xlabel("training steps")
    style.legend_above(ax, columns=1)
    return fig


def noisy(strength):
    """Losses and drift, (seeds, ...), with so many times the usual noise; 1 is the usual one."""
    configuration, full = record()
    if strength == 1:
        kept = full["vgg"]["runs"].losses, full["vgg"]["drift"].drift
        kept = [part.sel(kind="noisy batch norm") for part in kept]
        kept[1] = kept[1].sel(record=configuration["noise"]["record"])
    else:
        noise = full["vgg"]["noise"].sel(strength=strength)
        kept = noise.losses, noise.drift
    return tuple(part.transpose("seed", ...).values for part in kept)


def disturbed(strength):
    """Draw the losses of the three networks, and how far one step moves their distributions.

    Parameters
    ----------
    strength : int
        How many times the usual noise: 1, or one of the recorded strengths.
    """
    step = record()[0]["noise"]["record"]
    fig, (above, below) = style.axes(rows=2, height=6.0)
    for name in COLOR:
        if name == "noisy batch norm":
            losses, drift = noisy(strength)
        else:
            losses = runs("vgg").losses.sel(kind=name).transpose("seed", "window")
            drift = runs("vgg", "drift").drift.sel(kind=name, record=step)
        _band(above, 5 * np.arange(losses.shape[1]) + 2.5, losses, name)
        _band(below, np.arange(1, drift.shape[1] + 1), np.maximum(drift, 1e-5), name)
    above.set(yscale="log", ylim=(5e-3, 10), ylabel="training loss")
    above.set_xlabel("training steps")
    style.legend_above(above, columns=3)
    below.set(yscale="log", ylim=(1e-5, 30), ylabel="drift in one step")
    below.yaxis.set_major_locator(LogLocator(numticks=4))
    below.set_xlabel(f"layer, after {step} training steps")
    return fig


def percentiles(layer):
    """Draw the percentiles of one unit's inputs during training, for the three networks.

    Parameters
    ----------
    layer : int
        Number of the layer, one of 2, 5 and 8.
    """
    kept = runs("vgg", "percentiles").percentiles.isel(seed=0, activation=FOLLOWED.index(layer - 1))
    fig, panels = style.axes(rows=3, height=6.6, sharex=True, sharey=True)
    for ax, name in zip(panels, COLOR, strict=True):
        low, middle, high = kept.sel(kind=name).transpose("quantile", "moment").values
        steps = 10 * np.arange(len(middle))
        ax.fill_between(steps, low, high, color=COLOR[name], alpha=0.25, lw=0)
        ax.plot(steps, middle, color=COLOR[name])
        ax.set_title(name, fontsize=12)
    panels[1].set_ylabel("input of the unit")
    panels[2].set_xlabel("training steps")
    return fig
