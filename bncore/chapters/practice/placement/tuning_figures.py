"""Figures of the page on tuning, drawn from its record."""

import numpy as np
from matplotlib.ticker import PercentFormatter

from bncore.chapters.practice.placement import tuning_results
from bncore.chapters.practice.placement import tuning_runs as runs
from bncore.page import style
from bncore.page.labels import value_text

TABLES = {"breast cancer": "cancer", "scaled digits": "pixels"}
NAMES = {"none": "no batch norm", "batch": "batch norm"}
CALLED = {
    "none": "none",
    "first": "first",
    "last": "last",
    "every other": "every other",
    "all": "all six",
    "all and the output": "all and the output",
}


def _rates(ax, values):
    ax.set_xscale("log")
    ax.set_xticks(values, [value_text(value) for value in values])
    ax.minorticks_off()


def _percent(ax, low=0.0):
    ax.set(ylabel="test accuracy", ylim=(low, 1.02))
    ax.yaxis.set_major_formatter(PercentFormatter(1))


def over_rates(start, gain):
    """Test accuracy over learning rates from weights of one gain, with batch norm and without."""
    fig, ax = style.axes(height=3.6)
    for kind, marker, line in (("none", "s", "--"), ("batch", "o", "-")):
        one = start.accuracy.sel(normalization=kind).sel(gain=gain, method="nearest")
        color = style.COLOR[NAMES[kind]]
        ax.fill_between(
            one.learning_rate, one.min("seed"), one.max("seed"), color=color, alpha=0.2, linewidth=0
        )
        ax.plot(
            one.learning_rate, one.median("seed"), color=color, marker=marker, linestyle=line,
            label=NAMES[kind],
        )  # fmt: skip
    ax.axhline(0.9, color=style.MUTED, linewidth=1, linestyle=":")
    ax.set_xlabel("learning rate")
    _rates(ax, [0.001, 0.01, 0.1, 1, 10])
    _percent(ax)
    style.legend_above(ax)
    return fig


def running_error(paths, layer, batch_size):
    """How far running means are off by momentum: measured, and predicted as noise and drift."""
    number = {"first": 1, "second": 2}[layer]
    one = paths.isel(learning_rate=0).sel(batch_size=batch_size, layer=number)
    fig, ax = style.axes(height=3.8)
    momentum = one.momentum.values
    noise, drift = one.noise.values, one.drift.mean("seed").values
    ax.plot(momentum, noise, color=style.GREEN, linestyle=":", label="noise")
    ax.plot(momentum, drift, color=style.OCHRE, linestyle="-.", label="drift")
    whole = np.sqrt(noise**2 + (one.drift**2).mean("seed").values)
    ax.plot(
        momentum, whole, color=style.COLOR["predicted"], linestyle="--", label="both, predicted"
    )
    spread = one.measured
    ax.plot(
        momentum, spread.mean("seed"), color=style.COLOR["measured"], marker="o", label="measured"
    )
    ax.fill_between(
        momentum, spread.min("seed"), spread.max("seed"), color=style.COLOR["measured"], alpha=0.2,
        linewidth=0,
    )  # fmt: skip
    ax.set(xlabel="momentum", ylabel="error (deviations)", yscale="log", ylim=(0.003, 5))
    ax.set_yticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
    _rates(ax, [0.001, 0.01, 0.1, 1])
    style.legend_above(ax)
    return fig


def accuracy_by_momentum(momentum, steps):
    """Test accuracy by momentum after so many steps, for three batch sizes, each at its best rates."""
    fig, ax = style.axes(height=3.6)
    found = momentum["fresh"].accuracy.sel(steps=steps)
    looks = (("o", "-", style.BLUE), ("s", "--", style.GREEN), ("D", "-.", style.PURPLE))
    for size, (marker, line, color) in zip(found.batch_size.values, looks, strict=False):
        one = found.sel(batch_size=size)
        ax.fill_between(
            one.momentum, one.min("seed"), one.max("seed"), color=color, alpha=0.15, linewidth=0
        )
        ax.plot(
            one.momentum, one.mean("seed"), color=color, marker=marker, linestyle=line,
            label=f"batches of {size}",
        )  # fmt: skip
    ax.set_xlabel("momentum")
    _rates(ax, [0.001, 0.01, 0.1, 1])
    _percent(ax)
    style.legend_above(ax, columns=3)
    return fig


def intervals(ax, found):
    """Draw intervals by name, from top to bottom, beside a line at 0."""
    ax.axvline(0, color=style.MUTED, linewidth=1)
    for place, one in enumerate(found.values()):
        color = style.COLOR["measured"] if one.separates else style.COLOR["data"]
        ax.errorbar(
            one.mean, place, xerr=[[one.mean - one.low], [one.high - one.mean]], color=color,
            marker="o", capsize=4, linewidth=2,
        )  # fmt: skip
    ax.set_yticks(range(len(found)), list(found))
    ax.set_ylim(len(found) - 0.5, -0.5)


def effects(full, decision, **chosen):
    """Points of test accuracy by which each arm of a decision leads its reference."""
    found = tuning_results.effects(full, decision, **chosen)
    found = {_name(decision, arm): one for arm, one in found.items()}
    fig, ax = style.axes(height=1.0 + 0.42 * len(found))
    intervals(ax, found)
    ax.set_xlabel("points of test accuracy")
    return fig


def _name(decision, arm):
    """What an arm is called; where it ends in a number, that is written last."""
    *words, last = arm
    if decision == "epsilon":
        return f"ε = {value_text(last)}"
    text = CALLED.get(last, last) if isinstance(last, str) else value_text(last)
    return ", ".join([*words, text]).replace("inputs and", "inputs\nand")


def dropped(full):
    """Variance at test time over the one that is kept, by the rate of dropout, in two places."""
    found = full["dropout"]["fresh"].sel(place=list(runs.PLACES[:2]))
    fig, ax = style.axes(height=3.6)
    looks = (("o", "-", style.BLUE), ("s", "-", style.GREEN))
    for place, (marker, _, color) in zip(found.place.values, looks, strict=False):
        one = found.sel(place=place)
        ax.plot(
            one["drop"], one.predicted.mean("seed"), color=style.COLOR["predicted"], linestyle="--",
            label=None if marker == "s" else "predicted",
        )  # fmt: skip
        ax.errorbar(
            one["drop"], one.measured.mean("seed"),
            yerr=[
                one.measured.mean("seed") - one.measured.min("seed"),
                one.measured.max("seed") - one.measured.mean("seed"),
            ],
            color=color, marker=marker, linestyle="none", capsize=4, label=str(place),
        )  # fmt: skip
    ax.set(xlabel="share of values dropped", ylabel="variance at test / kept", ylim=(0, 1.05))
    style.legend_above(ax)
    return fig


def scales(full):
    """What ε leaves of a normalised value's scale: predicted at the start, measured after training."""
    found = full["epsilon"]["fresh"].sel(inputs="yes")
    fig, ax = style.axes(height=3.6)
    eps = found.eps.values
    for kind, color, line, marker, name in (
        ("start", style.COLOR["predicted"], "--", "", "predicted, before training"),
        ("end", style.COLOR["measured"], "-", "o", "measured, after training"),
    ):
        scale = (found[kind] / (found[kind] + found.eps)) ** 0.5
        ax.plot(eps, scale.median("seed"), color=color, linestyle=line, marker=marker, label=name)
    ax.set(xlabel="ε", ylabel="deviation of a normalised value", ylim=(0, 1.05), xscale="log")
    ax.set_xticks(eps, [f"$10^{{{round(np.log10(value))}}}$" for value in eps])
    ax.minorticks_off()
    style.legend_above(ax, columns=1)
    return fig
