"""The look of the book's figures: size, type and one colour for one thing.

Every colour here is replaced on the published page by a CSS variable of the same name, so that a
figure follows the reader's light or dark theme (see `frames.themed`).
"""

import matplotlib.pyplot as plt
from cycler import cycler

INK = "#1b1b1f"
MUTED = "#6b6b76"
GRID = "#dcdce2"
PAPER = "#fefefd"

# Okabe and Ito's colour-blind safe hues, at lightness that reads on white; the page lightens them in the dark.
BLUE = "#0072b2"
VERMILLION = "#d55e00"
GREEN = "#007a5e"
PURPLE = "#a84d86"
OCHRE = "#8f6400"

# One colour for one thing, throughout the book.
COLOR = {
    "batch norm": BLUE,
    "no batch norm": VERMILLION,
    "measured": BLUE,
    "predicted": INK,
    "data": MUTED,
    "train": BLUE,
    "eval": PURPLE,
    "mean": GREEN,
    "variance": PURPLE,
    "highlight": OCHRE,
}

# The names under which the page's style sheet knows the colours.
CSS_NAMES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    PAPER: "paper",
    BLUE: "blue",
    VERMILLION: "vermillion",
    GREEN: "green",
    PURPLE: "purple",
    OCHRE: "ochre",
}

# A figure five inches wide with 12-point type is still legible on a phone 340 pixels wide.
WIDTH = 5.0

RC = {
    "figure.figsize": (WIDTH, 3.3),
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 13,
    "axes.labelsize": 13,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=[BLUE, VERMILLION, GREEN, PURPLE, OCHRE]),
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "font.size": 12,
    "font.family": "DejaVu Sans",
    "legend.frameon": False,
    "legend.fontsize": 12,
    "lines.linewidth": 2,
    "svg.fonttype": "path",
    "svg.hashsalt": "bncore",
}


def use():
    """Give every figure made from here on the look of the book."""
    plt.rcParams.update(RC)


def axes(rows=1, height=None, **kwargs):
    """A new figure of the book's width with `rows` panels, one above the other.

    Panels are stacked because two side by side are illegible on a phone.

    Parameters
    ----------
    rows : int
        Number of panels.
    height : float, optional
        Height of the figure in inches; by default 3.3 for one panel and 2.5 for each of several.
    **kwargs
        Passed on to `matplotlib.pyplot.subplots`.

    Returns
    -------
    fig, ax
        As `matplotlib.pyplot.subplots` returns them.
    """
    use()
    if height is None:
        height = 3.3 if rows == 1 else 2.5 * rows
    return plt.subplots(rows, 1, figsize=(WIDTH, height), **kwargs)


def legend_above(ax, columns=2):
    """Put the legend of `ax` above it, where no curve can run through it, and return it.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        The panel, which must have no title.
    columns : int
        Number of entries side by side.
    """
    return ax.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=columns,
        fontsize=11,
        columnspacing=1.2,
        handlelength=1.8,
    )
