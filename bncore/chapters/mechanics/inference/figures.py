"""Figures of the inference chapter, drawn from what its cells computed."""

import numpy as np
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import NullFormatter, PercentFormatter
from matplotlib.transforms import Affine2D

from bncore.chapters.mechanics.inference import estimates, faults
from bncore.mechanics import averaging
from bncore.page import style


def draw_digit(ax, pixels, left=0.0):
    """Draw 64 pixels as squares of ink, the more opaque the darker, from x = left to left + 8.

    Squares of one darkness make one path, which keeps the file small.
    """
    for ink in np.unique(pixels):
        squares = [
            Path.unit_rectangle().transformed(Affine2D().translate(left + i % 8, 7 - i // 8))
            for i in np.flatnonzero(pixels == ink)
        ]
        whole = Path.make_compound_path(*squares)
        ax.add_patch(PathPatch(whole, facecolor=style.INK, linewidth=0, alpha=max(ink, 0.03)))
    ax.set(aspect="equal", xlim=(0, left + 8), ylim=(0, 8))
    ax.axis("off")


def log_sizes(ax, values, label):
    """A logarithmic x-axis with a tick at each of the values."""
    ax.set_xscale("log")
    ax.set_xticks(values, [f"{value:g}" for value in values])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
    ax.set_xlabel(label)


def spread_over_seeds(ax, x, values, color, label, marker="o", linestyle="-"):
    """Plot mean and range over the last axis, that of the seeds."""
    values = np.asarray(values)
    ax.plot(x, values.mean(axis=-1), color=color, marker=marker, linestyle=linestyle, label=label)
    ax.fill_between(
        x, values.min(axis=-1), values.max(axis=-1), color=color, alpha=0.2, linewidth=0
    )


def accuracy_axis(ax, low=0.0):
    """A y-axis for accuracies, in percent."""
    ax.set(ylabel="test accuracy", ylim=(low, 1.02), yticks=np.arange(low, 1.01, 0.2))
    ax.yaxis.set_major_formatter(PercentFormatter(1))


def votes(pixels, shares, answer, batch_size):
    """The classes that one digit is given in many batches, beside the digit."""
    fig, ax = style.axes()
    colors = [style.COLOR["eval"] if k == answer else style.COLOR["train"] for k in range(10)]
    bars = ax.bar(range(10), shares, color=colors, width=0.7)
    bars[answer].set_hatch("//")
    ax.set(
        xlabel="predicted class",
        ylabel="share of batches",
        ylim=(0, 1.05),
        xlim=(-0.6, 13.4),
        xticks=range(10),
        title=f"One digit in batches of {batch_size}",
    )
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    draw_digit(ax.inset_axes([0.74, 0.35, 0.25, 0.5]), pixels)
    return fig


def spread(one, sizes, batch_size):
    """One value's normalised outputs over many batches, and their spread against batch size."""
    fig, (top, bottom) = style.axes(rows=2, height=5.2)
    top.hist(
        np.clip(one.outputs[batch_size], -2, 6),
        bins=np.linspace(-2, 6, 65),
        color=style.COLOR["train"],
        density=True,
    )
    top.axvline(one.value, color=style.COLOR["eval"], linestyle="--", label="population statistics")
    top.set(
        xlabel="normalised output of the one example",
        ylabel="density",
        xlim=(-2, 6),
    )
    top.set_yticks([])
    style.legend_above(top)
    bottom.plot(
        sizes,
        one.predicted,
        color=style.COLOR["predicted"],
        linestyle="--",
        label="predicted, to first order",
    )
    bottom.plot(
        sizes, one.measured, "o", color=style.COLOR["measured"], markersize=5, label="measured"
    )
    here = sizes.index(batch_size)
    bottom.plot(
        batch_size, one.measured[here], "o", color=style.COLOR["highlight"], markersize=11, zorder=0
    )
    bottom.set_yscale("log")
    bottom.set(ylabel="standard deviation", ylim=(0.03, 2))
    bottom.set_yticks([0.1, 1], ["0.1", "1"])
    log_sizes(bottom, sizes, "batch size m")
    style.legend_above(bottom)
    return fig


def variance_ratios(ratios):
    """Estimates of the variance over the true one, for several ways to draw a batch.

    `ratios` has the variance of a batch (divisor m) over the true one, a list for each way.
    """
    fig, ax = style.axes(height=3.8)
    sizes = list(estimates.PATCHES)
    m = np.array(sizes)
    ax.axhline(1, color=style.MUTED, linewidth=1)
    ax.plot(
        sizes,
        ratios["independent"],
        "o",
        color=style.COLOR["measured"],
        markerfacecolor="none",
        label="independent, no correction",
    )
    ax.plot(m, (m - 1) / m, "--", color=style.COLOR["predicted"], linewidth=1, label="(m − 1)/m")
    looks = [(style.BLUE, "o", "-"), (style.OCHRE, "s", "-."), (style.GREEN, "^", "-")]
    for (way, values), (color, marker, linestyle) in zip(ratios.items(), looks, strict=True):
        corrected = m / (m - 1) * np.array(values)
        label = f"{way}, × m/(m − 1)"
        ax.plot(sizes, corrected, color=color, marker=marker, linestyle=linestyle, label=label)
    log_sizes(ax, sizes, "batch size m")
    ax.set(ylabel="estimate / true variance", ylim=(0, 1.1))
    style.legend_above(ax, columns=1)
    return fig


def window(found, momentum, updates):
    """What each batch weighs in the running average, and where the average stands."""
    weights = averaging.weights(momentum, updates)
    effective = averaging.effective_batches(momentum, updates)
    fig, (top, bottom) = style.axes(rows=2, height=5.0, height_ratios=[1, 1.3])
    edges = np.arange(updates + 1) - 0.5
    floor = 1e-3
    top.stairs(
        np.maximum(weights[:0:-1], floor / 10),
        edges,
        baseline=floor / 10,
        fill=True,
        color=style.COLOR["batch norm"],
    )
    top.plot([-7, -7], [floor / 10, weights[0]], "-D", color=style.COLOR["highlight"])
    worth = "1 batch" if f"{effective:.3g}" == "1" else f"{effective:.3g} batches"
    name = "initial\nvalue" if weights[0] > floor else "initial:\n< 0.001"
    top.text(-7, 1.7, name, ha="center", va="bottom", fontsize=10)
    top.set_yscale("log")
    top.minorticks_off()
    top.set(
        xlabel="age of the batch (updates ago)",
        ylabel="weight",
        xlim=(-17, 101),
        ylim=(floor, 40),
        xticks=range(0, 101, 20),
        yticks=(0.001, 0.01, 0.1, 1),
        yticklabels=("0.001", "0.01", "0.1", "1"),
        title=f"α = {momentum:g}: worth {worth} after {updates}",
    )
    t = np.arange(len(found.mean))
    bottom.axhline(estimates.TRUTH, color=style.MUTED, linestyle=":", label="population variance")
    bottom.fill_between(
        t,
        found.mean - 2 * found.deviation,
        found.mean + 2 * found.deviation,
        color=style.COLOR["predicted"],
        alpha=0.15,
        linewidth=0,
    )
    bottom.plot(
        t,
        found.mean,
        color=style.COLOR["predicted"],
        linestyle="--",
        label="predicted, ± 2 standard deviations",
    )
    for i, path in enumerate(found.paths):
        bottom.plot(
            t[: updates + 1],
            path[: updates + 1],
            "-o",
            markevery=[-1],
            markersize=4,
            color=style.COLOR["measured"],
            linewidth=1,
            label=None if i else "measured, 3 seeds",
        )
    bottom.set(
        xlabel="updates",
        ylabel="running variance",
        xlim=(0, 101),
        ylim=(0, 7.9),
        yticks=(0, 2, 4, 6),
    )
    style.legend_above(bottom, columns=1)
    return fig


def speed_up(sizes, ratios):
    """Time of a network over the time of its folded form."""
    fig, ax = style.axes()
    ax.axhline(1, color=style.MUTED, linewidth=1)
    looks = [(style.BLUE, "o", "-"), (style.GREEN, "s", "--")]
    for (label, values), (color, marker, linestyle) in zip(ratios.items(), looks, strict=True):
        ax.plot(sizes, values, color=color, marker=marker, linestyle=linestyle, label=label)
    log_sizes(ax, sizes, "examples at once")
    ax.set(ylabel="times faster when folded", ylim=(0, None))
    ax.legend()
    return fig


def forgotten(found):
    """Test accuracy of networks left in training mode, against the size of the test batches.

    `found` is what ``faults.forgotten`` returns.
    """
    fig, ax = style.axes(height=3.6)
    sizes = faults.TEST_SIZES
    ax.axhline(
        np.mean(found["evaluated"]),
        color=style.COLOR["eval"],
        linestyle="--",
        label="model.eval(), any batch",
    )
    for order, color, label, look in (
        ("shuffled", style.COLOR["train"], "training mode, shuffled batches", ("o", "-")),
        ("by class", style.OCHRE, "training mode, sorted by class", ("s", "-.")),
    ):
        spread_over_seeds(ax, sizes, found[order], color, label, *look)
    log_sizes(ax, sizes, "size of the test batches")
    accuracy_axis(ax)
    style.legend_above(ax, columns=1)
    return fig


def momenta(running, again, steps):
    """Test accuracy against momentum, above what the initial value still weighs after the steps."""
    fig, (top, bottom) = style.axes(rows=2, height=4.4, sharex=True, height_ratios=[1.5, 1])
    values = [momentum for momentum in running if momentum is not None]
    spread_over_seeds(
        top,
        values,
        [running[momentum] for momentum in values],
        style.COLOR["eval"],
        "running statistics",
    )
    top.axhline(np.mean(again), color=style.COLOR["train"], linestyle="--", label="fitted again")
    top.axhline(
        np.mean(running[None]), color=style.MUTED, linestyle=":", label="average of all batches"
    )
    accuracy_axis(top, 0.4)
    top.legend(loc="lower right")
    bottom.plot(values, (1 - np.array(values)) ** steps, "--", color=style.COLOR["predicted"])
    bottom.set(ylabel="weight of the\ninitial value", ylim=(0, 1.05))
    log_sizes(bottom, values, "momentum (torch's)")
    return fig


def tiny(sizes, curves):
    """Test accuracy against training batch size, for several ways to go on from there."""
    fig, ax = style.axes(height=3.8)
    looks = [
        (style.COLOR["train"], "o", "-"),
        (style.COLOR["eval"], "s", "--"),
        (style.OCHRE, "v", ":"),
        (style.MUTED, "x", "-."),
        (style.GREEN, "D", "-"),
    ]
    for (label, values), (color, marker, linestyle) in zip(curves.items(), looks, strict=True):
        spread_over_seeds(ax, sizes, values, color, label, marker, linestyle)
    log_sizes(ax, sizes, "training batch size m")
    accuracy_axis(ax)
    style.legend_above(ax)
    return fig


def contrast(images, grid, found, here):
    """Digits at one contrast, above the accuracy at every contrast."""
    fig, (top, bottom) = style.axes(rows=2, height=4.6, height_ratios=[1, 2.6])
    for i, image in enumerate(images):
        draw_digit(top, image, left=10 * i)
    spread_over_seeds(bottom, grid, found["saved"], style.COLOR["eval"], "saved statistics")
    spread_over_seeds(
        bottom, grid, found["fitted"], style.COLOR["train"], "fitted to the new images", "s", "--"
    )
    spread_over_seeds(
        bottom,
        grid,
        found["ones"],
        style.OCHRE,
        "fitted to ones only, tested on them",
        "^",
        ":",
    )
    bottom.vlines(here, 0, 1.02, color=style.MUTED, linewidth=7, alpha=0.25)
    bottom.set_xlabel("contrast, as a fraction of that in training")
    accuracy_axis(bottom)
    style.legend_above(bottom, columns=1)
    return fig
