"""The figures of the covariate shift chapter."""

from functools import cache

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter
from torch.nn.functional import cross_entropy

from bncore.chapters.explanations.covariate_shift.readings import (
    at_equal_loss,
    record,
    runs,
    smoothed,
    steps_to,
)
from bncore.chapters.explanations.covariate_shift.runs import EVERY, FOLLOWED, LEVELS
from bncore.explanations.covariate_shift import gradient_shift, linearized_shift
from bncore.explanations.two_layers import two_linear_layers
from bncore.lab import data, networks
from bncore.page import labels, style

START, TARGET = 1.0, 2.0
RATES = (0, 0.05, 0.1, 0.2, 0.3)
SECOND = (0.5, 1, 1.5, 2, 2.5, 3)
SMALL_RATES = np.logspace(-3, 0.5, 8)
NETWORK = {"deep linear": "linear", "VGG": "vgg"}
EQUAL = np.geomspace(1, 0.1, 25)  # Losses at which two networks are compared.

COLOR = {
    "no batch norm": style.COLOR["no batch norm"],
    "batch norm": style.COLOR["batch norm"],
    "noisy batch norm": style.COLOR["highlight"],
    "means moved": style.COLOR["mean"],
}
PAIR = ("no batch norm", "batch norm")
TRIPLE = (*PAIR, "noisy batch norm")
GIVEN_BACK = ("no batch norm", "means moved", "batch norm")


def two_scalars(b, rate):
    """Before and after of the second weight of x -> b a x, in closed form, at a = ``START``."""
    a, b, target = (np.full((1, 1), value) for value in (START, b, TARGET))
    before, after = two_linear_layers(a, b, np.ones((1, 1)), target, rate)
    return before.item(), after.item()


def two_weights(rate, b):
    """Draw the loss (ab - 2)^2 / 2, the first weight's step, and which way the second is sent.

    Parameters
    ----------
    rate : float
        Learning rate of the first weight's step.
    b : float
        The second weight.
    """
    before, after = two_scalars(b, rate)
    moved = START - rate * b * (START * b - TARGET)
    fig, ax = style.axes(height=4.2)
    x, y = np.linspace(-0.5, 2.5, 401), np.linspace(0, 4.2, 401)
    loss = (np.outer(y, x) - TARGET) ** 2 / 2
    levels = [0.1, 0.4, 1, 2, 4, 8, 16, 32]
    ax.contour(x, y, loss, levels=levels, colors=style.MUTED, linewidths=0.6, alpha=0.6)
    line = np.linspace(0.4, 2.5, 200)
    ax.plot(line, TARGET / line, color=style.MUTED, linewidth=3)
    ax.text(2.48, 1.0, "loss 0", ha="right", color=style.INK)
    ax.plot([START, moved], [b, b], color=style.INK, linewidth=4)
    side = 1 if moved <= START else -1  # Away from the step.
    for place, gradient, colour, name, away in (
        (START, before, style.MUTED, "before", side),
        (moved, after, style.COLOR["highlight"], "after", -side),
    ):
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 4, "mutation_scale": 22}
        arrow |= {"shrinkA": 0, "shrinkB": 0}
        if abs(gradient) > 0.02:
            ax.annotate("", (place, b - gradient), (place, b), arrowprops=arrow)
        ax.plot(place, b, "o", color=colour, markersize=9)
        ends = {"ha": "left" if away > 0 else "right", "va": "center", "color": colour}
        ax.text(place + 0.08 * away, b, name, **ends)
    ax.set(xlim=(-0.5, 2.5), ylim=(0, 4.2), xlabel="first weight, $a$", ylabel="second weight, $b$")
    ax.set_title(f"$b$ is sent by {signed(-before)}, then by {signed(-after)}")
    return fig


def signed(value):
    """A number with two digits and its sign, as people write it; 0 has none."""
    text = f"{value:+.2f}".replace("-", "−")
    return text[1:] if float(f"{value:.2f}") == 0 else text


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


def straight(network):
    """Draw the relative shift of layers 2 to 4 over the learning rate, measured and to first order.

    Parameters
    ----------
    network : {"no batch norm", "batch norm"}
    """
    kept = small_steps({"no batch norm": None, "batch norm": "batch"}[network])
    fig, ax = style.axes(height=3.9)
    colours = [style.COLOR["mean"], style.COLOR["variance"], style.COLOR["highlight"]]
    # Marks lie on each other: each leaves the one below it in sight.
    looks = (("o", 12, "none"), ("s", 7, "none"), ("D", 3, "full"))
    for layer, colour, (mark, size, fill) in zip((1, 2, 3), colours, looks, strict=True):
        low, high = kept[:, 0, :, layer].min(axis=0), kept[:, 0, :, layer].max(axis=0)
        ax.fill_between(SMALL_RATES, low, high, color=colour, alpha=0.2, lw=0)
        measured, first = kept[:, :, :, layer].mean(axis=0)
        look = {"color": colour, "markersize": size, "fillstyle": fill}
        ax.loglog(SMALL_RATES, measured, mark, label=f"layer {layer + 1}", **look)
        label = "predicted" if layer == 3 else None
        ax.loglog(SMALL_RATES, first, color=style.INK, linestyle="--", linewidth=1, label=label)
    ax.set(xlabel="learning rate", ylabel="relative shift", ylim=(1e-4, 20))
    written(ax.xaxis)
    style.legend_above(ax)
    return fig


def written(axis):
    """Label a logarithmic axis as people write numbers."""
    axis.set_major_formatter(lambda value, _: labels.value_text(value))
    axis.set_minor_formatter(NullFormatter())


def _band(ax, x, values, name):
    values = np.asarray(values, dtype=float)
    ax.fill_between(x, values.min(axis=0), values.max(axis=0), color=COLOR[name], alpha=0.2, lw=0)
    ax.plot(x, np.median(values, axis=0), color=COLOR[name], label=name)


def percentiles(layer):
    """Draw the percentiles of one unit's inputs during training, without batch norm and with it.

    Parameters
    ----------
    layer : int
        Number of the layer, one of 2, 5 and 8.
    """
    kept = runs("vgg", "percentiles").percentiles.isel(seed=0, activation=FOLLOWED.index(layer - 1))
    fig, panels = style.axes(rows=2, height=4.4, sharex=True, sharey=True)
    for ax, name in zip(panels, PAIR, strict=True):
        low, middle, high = kept.sel(kind=name).transpose("quantile", "moment").values
        steps = 10 * np.arange(len(middle))
        ax.fill_between(steps, low, high, color=COLOR[name], alpha=0.25, lw=0)
        ax.plot(steps, middle, color=COLOR[name])
        ax.set_title(name, fontsize=12)
        ax.set_ylabel("input of the unit")
    panels[1].set_xlabel("training steps")
    return fig


def distances():
    """Draw how far one step moves whole distributions, over the recorded training of the VGG."""
    fig, ax = style.axes(height=3)
    found = runs("vgg", "distances").distance
    for name in PAIR:
        _band(ax, found.record, found.sel(kind=name).transpose("seed", "record"), name)
    ax.set(yscale="log", xlabel="training steps", ylabel="distance of one step", ylim=(0.005, 1))
    written(ax.yaxis)
    style.legend_above(ax)
    return fig


def given_back(losses):
    """Draw one run of each network, and the steps that five recorded ones take to two losses.

    Parameters
    ----------
    losses : dict of str to sequence of float
        Of every step, by the names ``GIVEN_BACK``.
    """
    fig, (above, below) = style.axes(rows=2, height=5.4, gridspec_kw={"height_ratios": [1.5, 1]})
    for name in GIVEN_BACK:
        curve = smoothed(losses[name])
        above.semilogy(5 * np.arange(len(curve)) + 2.5, curve, color=COLOR[name], label=name)
    above.axhline(LEVELS[0], color=style.INK, linestyle=":")
    above.set(ylabel="training loss", ylim=(0.005, 5), xlabel="training steps")
    written(above.yaxis)
    style.legend_above(above)
    _arrivals(below, {name: steps_of(name) for name in GIVEN_BACK})
    return fig


def steps_of(name):
    """Steps of the recorded runs to the losses ``LEVELS``, (seeds, levels); infinite if never."""
    if name == "means moved":
        return record()[1]["returned"]["fresh"].isel(times=0).steps.values
    losses = runs("vgg").losses.sel(kind=name).transpose("seed", "window").values
    return np.stack([steps_to(losses, level) for level in LEVELS], axis=1)


def _arrivals(ax, steps, last=200):
    """One row a network, one mark a seed: full at the first loss, open at the second; `last` is never."""
    ax.axvline(last, color=style.INK, linestyle=":")
    for row, (name, found) in enumerate(steps.items()):
        spread = row + np.linspace(-0.2, 0.2, len(found))
        colour = COLOR.get(name, COLOR["noisy batch norm"])
        for level, filled in enumerate((colour, "none")):
            reached = np.minimum(found[:, level], last)
            ax.plot(reached, spread, "o", color=colour, markerfacecolor=filled, markersize=7)
    ax.set(xscale="log", xlim=(8, last * 1.15), xlabel="steps to a loss of 0.5 (full), 0.1 (open)")
    ax.set_xticks([10, 20, 50, 100, last], ["10", "20", "50", "100", "never"])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(range(len(steps)), steps)
    ax.set_ylim(len(steps) - 0.5, -0.5)


def noise_arrivals():
    """Draw the steps to two losses without noise, and with the recorded strengths of it."""
    found = {"batch norm": steps_of("batch norm"), "usual noise": steps_of("noisy batch norm")}
    for strength in record()[0]["noise"]["strengths"]:
        losses = noisy(strength)[0]
        found[f"{strength} times"] = np.stack([steps_to(losses, one) for one in LEVELS], axis=1)
    fig, ax = style.axes(height=3)
    _arrivals(ax, found)
    return fig


def shifts(network, step):
    """Draw the relative shift and the loss over the recorded training of two networks.

    Parameters
    ----------
    network : {"deep linear", "VGG"}
    step : str
        The step that is judged, one of ``measures.COMPARED`` but the last.
    """
    kept = runs(NETWORK[network], "fresh")
    fig, (above, below) = style.axes(rows=2, height=5.2, sharex=True)
    for name in PAIR:
        one = kept.sel(kind=name)
        relative = one.relative.sel(compared=step).transpose("seed", "record")
        _band(above, one.record, relative, name)
        losses = one.losses.transpose("seed", "window")
        _band(below, 5 * np.arange(losses.shape[1]) + 2.5, losses, name)
    above.set(yscale="log", ylabel="relative shift", ylim=(0.005, 5))
    style.legend_above(above)
    below.set(yscale="log", ylabel="training loss", ylim=(0.003, 10), xlabel="training steps")
    for ax in (above, below):
        written(ax.yaxis)
    return fig


def across_layers(network, step, after):
    """Draw cosine and relative shift over the layers, at one time of the recorded run.

    Parameters
    ----------
    network : {"deep linear", "VGG"}
    step : str
        The step that is judged, one of ``measures.COMPARED``.
    after : int
        Training steps, some of the recorded ones.
    """
    key = NETWORK[network]
    kept = runs(key, "layers").sel(record=after, compared=step)
    kept = kept.transpose("kind", "seed", "layer")
    fig, (above, below) = style.axes(rows=2, height=5.2, sharex=True)
    layers = 1 + EVERY[key] * kept.layer
    for name in PAIR:
        _band(above, layers, kept.cosine.sel(kind=name), name)
        _band(below, layers, kept.relative.sel(kind=name).clip(1e-4, 1e4), name)
    above.set(ylim=(-1.08, 1.08), ylabel="cosine")
    style.legend_above(above)
    limits = {"vgg": (1e-2, 30), "linear": (1e-3, 1000)}[key]
    below.set(yscale="log", ylim=limits, ylabel="relative shift")
    below.yaxis.set_major_locator(LogLocator(numticks=6))
    written(below.yaxis)
    below.set_xlabel(f"layer, after {after} training steps")
    return fig


def equal_loss(network, step):
    """Draw the relative shift of two networks over the training loss that they pass.

    Where fewer than ten of the fifteen seeds come down to a loss, nothing is drawn.

    Parameters
    ----------
    network : {"deep linear", "VGG"}
    step : str
        The step that is judged, one of ``measures.COMPARED`` but the last.
    """
    fig, ax = style.axes(height=3.4)
    for name in PAIR:
        found = [
            at_equal_loss(NETWORK[network], name, "relative", step, level, "fresh").values
            for level in EQUAL
        ]
        values = np.array(found)
        known = np.isfinite(values).sum(axis=1) >= 10
        rows = [row[np.isfinite(row)] for row in values[known]]
        drawn = EQUAL[known]
        low, middle, high = zip(*(np.quantile(row, (0, 0.5, 1)) for row in rows), strict=True)
        ax.fill_between(drawn, low, high, color=COLOR[name], alpha=0.2, lw=0)
        ax.plot(drawn, middle, color=COLOR[name], label=name)
    ax.set(xscale="log", yscale="log", xlabel="training loss, falling", ylabel="relative shift")
    ax.set(xlim=(EQUAL.max(), EQUAL.min()), ylim={"VGG": (0.05, 5)}.get(network, (0.005, 5)))
    written(ax.yaxis)
    ax.set_xticks([1, 0.5, 0.2, 0.1], ["1", "0.5", "0.2", "0.1"])
    ax.xaxis.set_minor_formatter(NullFormatter())
    style.legend_above(ax)
    return fig


def another_batch():
    """Draw the shift beside the change of the gradient from one batch to another, in the VGG."""
    kept = runs("vgg").sel(compared="own rate")
    fig, panels = style.axes(rows=2, height=4.4, sharex=True, sharey=True)
    for ax, name in zip(panels, PAIR, strict=True):
        one = kept.sel(kind=name).median("seed")
        line = {"color": COLOR[name]}
        ax.plot(one.record, one.other, "s-", **line, markerfacecolor="none", label="another batch")
        ax.plot(one.record, one.relative, "o-", **line, label="shift")
        ax.set(yscale="log", ylim=(0.1, 12), ylabel=name)
        written(ax.yaxis)
    style.legend_above(panels[0])
    panels[1].set_xlabel("training steps")
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
    for name in TRIPLE:
        best = runs("vgg").learning_rate.sel(kind=name) == rate
        label = name + (" (its best)" if best else "")
        for i, curve in enumerate(tuning.sel(kind=name).transpose("seed", "window")):
            ax.semilogy(steps, curve, color=COLOR[name], label=None if i else label)
    ax.set(ylim=(2e-3, 5), ylabel="training loss", xlabel="training steps")
    written(ax.yaxis)
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
    fig, (above, below) = style.axes(rows=2, height=5.6)
    for name in TRIPLE:
        if name == "noisy batch norm":
            losses, drift = noisy(strength)
        else:
            losses = runs("vgg").losses.sel(kind=name).transpose("seed", "window")
            drift = runs("vgg", "drift").drift.sel(kind=name, record=step)
        _band(above, 5 * np.arange(losses.shape[1]) + 2.5, losses, name)
        _band(below, np.arange(1, drift.shape[1] + 1), np.maximum(drift, 1e-5), name)
    above.set(yscale="log", ylim=(5e-3, 10), ylabel="training loss", xlabel="training steps")
    style.legend_above(above)
    below.set(yscale="log", ylim=(1e-5, 30), ylabel="drift in one step")
    below.yaxis.set_major_locator(LogLocator(numticks=4))
    below.set_xlabel(f"layer, after {step} training steps")
    for ax in (above, below):
        written(ax.yaxis)
    return fig
