"""The picture of the page "Why does it work?"."""

from pathlib import Path

import matplotlib.figure
import xarray as xr

from bncore import chapters
from bncore.lab import recorded
from bncore.page import style

LOOKS = {
    "no batch norm": (style.COLOR["no batch norm"], "s"),
    "variance only": (style.COLOR["variance"], "^"),
    "mean only": (style.COLOR["mean"], "D"),
    "batch norm": (style.COLOR["batch norm"], "o"),
}


def curves() -> xr.Dataset:
    """The loss by kind, depth, seed and steps, at tuned rates, as the smoothness chapter recorded it."""
    folder = Path(chapters.__path__[0], "explanations", "smoothness")
    return recorded.load(folder / "recorded.json")["full"]["tuned"]["curves"]


def losses(depth: int) -> matplotlib.figure.Figure:
    """Median training loss over the steps of each kind, and the range over the seeds."""
    found = curves().sel(depth=depth)
    fig, ax = style.axes(height=4)
    for kind, (color, marker) in LOOKS.items():
        low, middle, high = (found.loss.sel(kind=kind).quantile(q, "seed") for q in (0, 0.5, 1))
        ax.fill_between(found.steps, low, high, color=color, alpha=0.12, linewidth=0)
        ax.plot(found.steps, middle, color=color, marker=marker, markersize=6, label=kind)
    ax.set(yscale="log", ylim=(3e-5, 20), ylabel="training loss", xlabel="training steps")
    style.legend_above(ax)
    return fig
