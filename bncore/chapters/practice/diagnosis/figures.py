"""Figures of the chapter on diagnosis, drawn from its recorded run."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
import xarray as xr
from matplotlib.ticker import NullFormatter, PercentFormatter

from bncore.chapters.practice.diagnosis import experiments, sick
from bncore.page import style
from bncore.practice.diagnosis.agreement import TOLERANCE

LETTERS = dict(zip("ABCDEFGHIJ", sick.MISTAKES, strict=True))
"""What the reader calls the patients."""

LOOKS = {
    "sick": (style.COLOR["highlight"], "-", "patient"),
    "twin": (style.COLOR["data"], "-.", "healthy twin"),
}


def _course(ax, steps, values, course):
    """Median and range over the seeds."""
    color, linestyle, label = LOOKS[course]
    middle, low, high = (getattr(values, name)("seed") for name in ("median", "min", "max"))
    ax.plot(steps, middle, linestyle, color=color, label=label)
    ax.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)


def curves(recorded: xr.Dataset, letter: str):
    """What the owner of one patient saw: the loss in training, the accuracy in use."""
    rows = recorded.sel(patient=LETTERS[letter])
    fig, (above, below) = style.axes(2, height=4.8, sharex=True)
    pieces = rows.sizes["piece"]
    steps = (np.arange(pieces) + 0.5) * sick.STEPS / pieces
    for course in LOOKS:
        _course(above, steps, rows.loss.sel(course=course), course)
        _course(below, rows.steps, rows.accuracy.sel(course=course), course)
    above.set_yscale("log")
    above.set(ylabel="loss (nats)", ylim=(0.01, 4))
    above.set_yticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
    above.yaxis.set_minor_formatter(NullFormatter())
    style.legend_above(above)
    below.set(xlabel="steps", ylabel="test accuracy", ylim=(0, 1.02), xlim=(0, sick.STEPS))
    below.yaxis.set_major_formatter(PercentFormatter(1))
    return fig


MEAN, VARIANCE, UPDATES = 3.0, 4.0, 3000


def distance(mean, variance):
    """How far running statistics are from MEAN and VARIANCE, in deviations, with epsilon 0."""
    return np.hypot((MEAN - mean) / VARIANCE**0.5, np.log(VARIANCE / variance) / 2)


def beginning(momentum: float):
    """Running statistics on their way from 0 and 1: predicted, and torch's on batches of 32."""
    rng, norm = torch.Generator().manual_seed(0), torch.nn.BatchNorm1d(1, momentum=momentum)
    kept = []
    for _ in range(UPDATES):
        norm(MEAN + VARIANCE**0.5 * torch.randn(32, 1, generator=rng))
        kept.append((norm.running_mean.item(), norm.running_var.item()))
    updates = np.arange(1, UPDATES + 1)
    left = (1 - momentum) ** updates
    fig, ax = style.axes(height=3.2)
    ax.plot(updates, distance(*np.transpose(kept)), color=style.COLOR["measured"], label="measured")
    predicted = distance((1 - left) * MEAN, left + (1 - left) * VARIANCE)
    ax.plot(updates, predicted, "--", color=style.COLOR["predicted"], label="predicted")
    ax.axhline(TOLERANCE, color=style.COLOR["highlight"])
    # Where the curve is far: it comes down early at a large momentum, late at a small one.
    x, side = (1.1, "left") if momentum < 0.03 else (UPDATES, "right")
    ax.text(x, TOLERANCE + 0.04, "stale above", color=style.COLOR["highlight"], ha=side)
    ax.set(xscale="log", xlabel="updates", ylabel="distance (deviations)", ylim=(0, 1.8))
    ax.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    style.legend_above(ax)
    return fig


def graded(rows: xr.Dataset):
    """The share of faults that is found, over what they cost, with exact intervals."""
    fig, ax = style.axes(height=3.4)
    ends = [round(100 * cost) for cost in experiments.COSTS]
    names = [f"< {ends[0]}", *(f"{a}–{b}" for a, b in pairwise(ends)), f"> {ends[-1]}"]
    cost, places = rows.cost.values.ravel(), np.arange(len(names))
    for name, label, linestyle, shift in (
        ("found", "batches with labels", "-", -0.06),
        ("unlabelled", "without", "--", 0.06),
    ):
        rates = experiments.by_cost(rows[name].values.ravel() == 1, cost)
        shares = np.array([one.count / one.of for one in rates])
        ends = np.abs(np.transpose([(one.low, one.high) for one in rates]) - shares)
        ax.errorbar(
            places + shift,
            shares,
            ends,
            color=style.COLOR["measured"],
            linestyle=linestyle,
            marker="o",
            label=label,
        )
    counts = [f"{name}\n{one.of}" for name, one in zip(names, rates, strict=True)]
    ax.set_xticks(places, counts)
    ax.set(xlabel="accuracy lost (points), and networks", ylabel="found", ylim=(-0.02, 1.02))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    style.legend_above(ax)
    return fig


def found(shares: Mapping[str, Sequence[float]]):
    """For each patient a row and for each tool a column: a disc whose area is the share of seeds."""
    fig, ax = style.axes(height=4.4)
    for column, values in enumerate(shares.values()):
        for row, share in enumerate(values):
            ax.plot(column, row, "o", ms=15, mec=style.MUTED, mfc="none", mew=0.8)
            if share:
                color = style.COLOR["measured"]
                ax.plot(column, row, "o", ms=15 * share**0.5, mec=color, mfc=color)
    words = [f"{mistake.words}  {letter}" for letter, mistake in _lettered()]
    ax.set_yticks(range(len(words)), words, fontsize=11)
    tools = [name.replace("-", "-\n") for name in shares]
    ax.set_xticks(range(len(shares)), tools, fontsize=11)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.set(xlim=(-0.5, len(shares) - 0.5), ylim=(len(words) - 0.5, -0.5))
    ax.grid(False)
    ax.spines[["left", "bottom"]].set_visible(False)
    return fig


def _lettered():
    return [(letter, sick.MISTAKES[name]) for letter, name in LETTERS.items()]
