"""The figures of "Batch norm in ten minutes"."""

from collections.abc import Sequence

import matplotlib.figure
import numpy as np
import xarray as xr
from matplotlib.ticker import PercentFormatter

from bncore.mechanics import transform
from bncore.page import explore, style

MISTAKES = [
    ("1 eval() forgotten,\none by one", "not eval", "right"),
    ("2 averages behind", "slow", "usual"),
    ("3 batches of two", "batch of 2", "right"),
    ("4 frozen, but moving", "frozen", "right"),
]
"""What each is called, and the names of ``experiments.mistakes`` with it and without it."""

LOOKS = {
    "batch": ("batch norm", style.COLOR["batch norm"], "o"),
    "none": ("no batch norm", style.COLOR["no batch norm"], "s"),
}


@explore(
    alt="Eight numbers, seven of them 2, 4, 4, 4, 5, 5, 7 and the eighth {eighth_number}, above; the same "
    "after batch norm, below, with mean 0 and standard deviation 1.",
    eighth_number=[5, 7, 9, 12, 15, 20, 25, 30],
)
def eight_numbers(eighth_number=9):
    """Move the eighth number, the diamond. The other seven stay where they are, above; below, they all
    give way: what batch norm makes of one number depends on the others."""
    x = np.array([2, 4, 4, 4, 5, 5, 7, eighth_number], float)
    x_hat = transform.forward(x[:, None])[0][:, 0]
    fig, (before, after) = style.axes(2, height=3.4)
    for ax, numbers, name in ((before, x, "no batch norm"), (after, x_hat, "batch norm")):
        heights = _stacked(numbers)
        ax.plot(numbers, heights, "o", color=style.COLOR[name], markersize=11)
        ax.plot(numbers[7], heights[7], "D", color=style.INK, markersize=10)
        ax.axvline(numbers.mean(), color=style.COLOR["mean"], linestyle="--")
        ax.set(ylim=(0, 4), yticks=[])
    before.set(xlim=(-1, 31), xlabel="before")
    before.set_title(f"mean {x.mean():.1f}, standard deviation {x.std():.1f}")
    after.set(xlim=(-2.9, 2.9), xlabel="after batch norm")
    after.set_title("mean 0, standard deviation 1")
    return fig


def _stacked(numbers):
    """A height for each number: equal ones stand above each other."""
    same = np.isclose(numbers[:, None], numbers[None, :])
    return np.tril(same).sum(axis=1).astype(float)


def losses(
    plain: Sequence[float], normalised: Sequence[float], every: int = 21
) -> matplotlib.figure.Figure:
    """Training losses step by step, and their means over epochs."""
    fig, ax = style.axes()
    for found, name in ((plain, "none"), (normalised, "batch")):
        label, color, marker = LOOKS[name]
        ax.plot(np.arange(1, len(found) + 1), found, color=color, alpha=0.25, linewidth=1)
        means = np.reshape(found[: len(found) // every * every], (-1, every)).mean(axis=1)
        middles = every * (np.arange(len(means)) + 0.5)
        ax.plot(middles, means, color=color, marker=marker, markersize=5, label=label)
    ax.set(xlabel="training steps", ylabel="training loss", ylim=(0, None))
    style.legend_above(ax)
    return fig


def answers(sure: Sequence[float], alone: float) -> matplotlib.figure.Figure:
    """How sure of the right class a network is, in one batch after the other and in evaluation mode."""
    fig, ax = style.axes()
    batches = np.arange(1, len(sure) + 1)
    ax.plot(batches, sure, "o", color=style.COLOR["train"], label="training mode")
    ax.axhline(alone, color=style.COLOR["eval"], label="evaluation mode")
    ax.set(xlabel="which other image", ylabel="probability of the class", ylim=(-0.04, 1.04))
    style.legend_above(ax)
    return fig


def mistakes(
    found: xr.Dataset, pairs: Sequence[tuple[str, str, str]] = MISTAKES
) -> matplotlib.figure.Figure:
    """Test accuracy with each mistake and without it: median and range over the seeds."""
    fig, ax = style.axes(height=0.8 * len(pairs) + 0.9)
    for row, (_, wrong, mended) in enumerate(pairs):
        for name, color, marker, shift, label in (
            (wrong, style.COLOR["highlight"], "s", 0.14, "with the mistake"),
            (mended, style.COLOR["batch norm"], "o", -0.14, "repaired"),
        ):
            seeds = found[name].values
            height = row + shift
            ax.plot([seeds.min(), seeds.max()], [height] * 2, color=color, linewidth=2)
            ax.plot(
                np.median(seeds),
                height,
                marker,
                color=color,
                markersize=8,
                label=label if row == 0 else None,
            )
    ax.set_yticks(range(len(pairs)), [title for title, _, _ in pairs])
    ax.invert_yaxis()
    ax.set(xlim=(0, 1.02), xlabel="test accuracy")
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    style.legend_above(ax)
    return fig
