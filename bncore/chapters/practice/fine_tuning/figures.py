"""Figures of the chapter on fine-tuning, drawn from its recorded runs."""

from functools import cache

import numpy as np
import torch
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import Affine2D

from bncore.chapters.practice.fine_tuning import experiments, full_size
from bncore.lab import recorded
from bncore.lab.data import digits
from bncore.page import style

UNITS = {
    "faded": "contrast lost",
    "noisy": "standard deviation of the noise",
    "moved": "pixels to the right",
    "inverted": "part of the way to its negative",
}
# Classes in a batch, from all ten to one: line, marker, colour.
CLASSES = {
    10: ("-", "o", style.BLUE),
    5: ("-", "s", style.GREEN),
    2: ("-", "^", style.OCHRE),
    1: ("-", "D", style.VERMILLION),
}
EXAMPLES = {20: (style.OCHRE, "o"), 200: (style.BLUE, "s")}

LEFT = {"faded": 0.2, "moved": 0.5}


@cache
def record():
    """The recorded run, at full size."""
    return recorded.load(full_size.PATH)["full"]


def untrained(kind, step):
    """Draw digits changed by so much; below, accuracy with the statistics kept, and with fresh ones."""
    found = record()["untrained"].sel(kind=kind)
    amounts = experiments.AMOUNTS[kind]
    fig, (above, below) = style.axes(2, height=4.8, height_ratios=[1, 2.6])
    _draw_changed(above, kind, amounts[step])
    looks = {
        "recalibrated": (style.COLOR["train"], "o", "recalibrated"),
        "kept": (style.COLOR["eval"], "s", "old statistics"),
    }
    for name, (color, marker, label) in looks.items():
        low, middle, high = (found[name].quantile(q, "seed") for q in (0, 0.5, 1))
        below.fill_between(amounts, low, high, color=color, alpha=0.15, linewidth=0)
        below.plot(amounts, middle, color=color, marker=marker, label=label)
        below.plot(amounts[step], middle[step], marker, color=color, markersize=12)
    expected = [k for k, amount in enumerate(amounts) if _undone(kind, amount)]
    below.plot(
        np.array(amounts)[expected],
        np.full(len(expected), found.kept.median("seed")[0]),
        "--",
        color=style.COLOR["predicted"],
        label="predicted",
    )
    below.axvline(amounts[step], color=style.MUTED, linewidth=1)
    below.set(xlabel=UNITS[kind], ylabel="test accuracy", ylim=(0, 1.05))
    below.yaxis.set_major_formatter(PercentFormatter(1))
    style.legend_above(below, columns=3)
    return fig


def _undone(kind, amount):
    """Whether fresh statistics undo the change: whether it multiplies by something above 0, and adds."""
    return amount == 0 or kind == "faded" or (kind == "inverted" and amount < 0.5)


def _draw_changed(ax, kind, amount):
    """Draw the first test example of each of five classes, changed by so much."""
    split = digits(0)
    chosen = [int((split.y_test == label).nonzero()[0, 0]) for label in (0, 2, 3, 5, 7)]
    x = experiments.CHANGES[kind](split.x_test, amount)[chosen].clamp(0, 1)
    levels = torch.round(8 * x) / 8
    for ink in levels.unique().tolist():
        squares = [
            Path.unit_rectangle().transformed(Affine2D().translate(9 * n + i % 8, 7 - i // 8))
            for n, i in (levels == ink).nonzero().tolist()
        ]
        whole = Path.make_compound_path(*squares)
        ax.add_patch(PathPatch(whole, facecolor=style.INK, linewidth=0, alpha=max(ink, 0.03)))
    ax.set(aspect="equal", xlim=(0, 44), ylim=(0, 8))
    ax.axis("off")


def fine_tuned(domain, batch_size):
    """The recorded runs on a domain with batches of that size, fresh seeds at the best rates."""
    part = "small" if (domain, batch_size) == ("moved", 4) else domain
    return record()[part]["fresh"].sel(domain=domain, batch_size=batch_size)


def ways(domain, batch_size):
    """Draw the accuracy on a new domain of each way to train on some of its examples."""
    found = fine_tuned(domain, batch_size)
    named = found.way.values.tolist()
    fig, ax = style.axes(height=4.6)
    for examples, shift in zip(found.examples.values.tolist(), (-0.15, 0.15), strict=False):
        color, marker = EXAMPLES[examples]
        one = found.accuracy.sel(examples=examples)
        places = np.arange(len(named))[::-1] + shift * (found.sizes["examples"] > 1)
        ax.hlines(places, one.min("seed"), one.max("seed"), color=color, alpha=0.4, linewidth=4)
        ax.plot(one.mean("seed"), places, marker, color=color, label=f"{examples} examples")
    ax.set_yticks(range(len(named)), named[::-1])
    ax.set(xlabel="test accuracy on the new domain", xlim=(LEFT[domain], 1.01))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    style.legend_above(ax)
    return fig


def at_test_time(domain):
    """Draw accuracy with the statistics of test batches against their size, by the classes in them."""
    found = record()["at_test_time"].sel(domain=domain)
    sizes = found.batch_size.values
    fig, ax = style.axes(height=4)
    for classes, (line, marker, color) in CLASSES.items():
        middle = found.batch.sel(classes=classes).median("seed")
        label = f"{classes} classes" if classes > 1 else "1 class"
        ax.plot(sizes, middle, line, marker=marker, color=color, label=label)
    ax.axhline(
        found.kept.median().item(), color=style.COLOR["eval"], linewidth=3, label="old statistics"
    )
    ax.set(xscale="log", xlabel="test batch size", ylabel="test accuracy", ylim=(0, 1.05))
    ax.set_xticks(sizes, [f"{size}" for size in sizes])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    style.legend_above(ax, columns=3)
    return fig
