"""What is read off losses, and off the recorded run of ``full_size``."""

from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr

from bncore.lab import recorded

PATH = Path(__file__).with_name("recorded.json")


def smoothed(losses, window=5):
    """Means of the losses over windows of steps, along the last axis."""
    losses = np.asarray(losses, dtype=float)
    count = losses.shape[-1] // window
    return losses[..., : count * window].reshape(*losses.shape[:-1], count, window).mean(axis=-1)


def steps_to(losses, level, window=5):
    """Steps until the mean loss over a window is below a level, for each run; infinite if never.

    Parameters
    ----------
    losses : ndarray of shape (..., windows)
        From ``smoothed``.
    """
    below = np.asarray(losses) < level
    return np.where(below.any(axis=-1), (below.argmax(axis=-1) + 1) * window, np.inf)


def at_loss(level, losses, records, values, window=5):
    """Values that were measured at a few steps, interpolated to where a run passes a loss.

    Parameters
    ----------
    level : float
        The loss, at most that of the first record.
    losses : ndarray of shape (seeds, windows)
        From ``smoothed``; the smallest loss so far counts.
    records : sequence of int
        Steps at which was measured.
    values : ndarray of shape (seeds, records)

    Returns
    -------
    ndarray of shape (seeds,)
        Linear in the logarithm of the loss; NaN where a run does not come down to the level by the
        last record.
    """
    passed = np.minimum.accumulate(losses, axis=-1)
    windows = np.minimum(np.array(records) // window, passed.shape[-1] - 1)
    heights = np.log(passed[:, windows])
    return np.array(
        [
            np.interp(np.log(level), height[::-1], row[::-1], left=np.nan, right=np.nan)
            for height, row in zip(heights, values, strict=True)
        ]
    )


def between(records, values, steps):
    """Positive values at a few steps, log-linear between them and constant outside.

    Parameters
    ----------
    records : sequence of int
    values : array of shape (records, n)
        Below 1e-6, taken as that.
    steps : int

    Returns
    -------
    ndarray of shape (steps + 1, n)
    """
    logs = np.log(np.maximum(values, 1e-6))
    return np.exp([np.interp(range(steps + 1), records, column) for column in logs.T]).T


def typical(drift):
    """Geometric mean over the seeds of how far one step moves each mean, (records, activations)."""
    logs = np.log(np.maximum(drift, 1e-6)).mean("seed")
    return np.exp(logs).transpose("record", "activation").values


def moves(steps):
    """How far each step of training moves the means of each layer's inputs without batch norm.

    As recorded of the VGG, between the records log-linear.

    Returns
    -------
    ndarray of shape (steps, activations)
        In standard deviations.
    """
    drift = runs("vgg", "drift").drift.sel(kind="no batch norm")
    return between(drift.record.values, typical(drift), steps - 1)


@cache
def record():
    """The recorded run: configuration and results."""
    kept = recorded.load(PATH)
    return kept["configuration"], kept["full"]


def runs(network, part="runs"):
    """The recorded runs of one network, with the medians over its layers after the first.

    Parameters
    ----------
    network : {"vgg", "linear"}
    part : str
        "runs", all models on the seeds of the figures; "fresh", those with and without batch norm on
        seeds that were run afterwards; "layers", the first ones layer by layer; "tuning", the losses
        that chose the rates; "drift", that of each activation.
    """
    return record()[1][network][part]


def at_equal_loss(network, kind, key, compared, level=0.5, part="runs"):
    """Median over layers of what was recorded, where each seed's training passes one loss.

    Returns
    -------
    DataArray over seed
        NaN where a seed's training does not come down to that loss.
    """
    found = runs(network, part).sel(kind=kind)
    values = at_loss(
        level,
        found.losses.transpose("seed", "window").values,
        found.record.values,
        found[key].sel(compared=compared).transpose("seed", "record").values,
    )
    return xr.DataArray(values, {"seed": found.seed}, ["seed"])


def both(first, second):
    """Two arrays over seed, at the seeds at which both are known."""
    known = first.notnull() & second.notnull()
    return first[known], second[known]


def at_half(network, kinds):
    """Two models on the fresh seeds, where their training passes a loss of 0.5, at their best rates.

    Returns
    -------
    relative, cosine, ends : pair of DataArray over seed
        Logarithm of the relative shift; cosine; logarithm of the mean loss of the last 20 steps. The
        first two at the seeds at which both come down to that loss.
    """
    relative, cosine = (
        both(*(at_equal_loss(network, kind, key, "own rate", part="fresh") for kind in kinds))
        for key in ("relative", "cosine")
    )
    losses = runs(network, "fresh").losses.isel(window=slice(-4, None)).mean("window")
    ends = [np.log(losses.sel(kind=kind)) for kind in kinds]
    return tuple(map(np.log, relative)), cosine, tuple(ends)


def trained(found, rates):
    """Where perceptrons of the recorded "moved" ended below half the loss of guessing.

    Parameters
    ----------
    found : Dataset
        Losses of one strength over gain, learning rate and seed.
    rates : sequence of float
        At which all strengths were run, ascending.

    Returns
    -------
    dict of str to DataArray over seed
        "largest": logarithm of the largest such rate, mean over the gains; of a gain without any, of
        one step below the smallest. "share": how many of the gains and rates are such.
    """
    below = found.loss.sel(learning_rate=list(rates)) < np.log(10) / 2
    steps = np.log(xr.DataArray(rates, {"learning_rate": list(rates)}, ["learning_rate"]))
    largest = steps.where(below).max("learning_rate").fillna(2 * steps[0] - steps[1])
    return {"largest": largest.mean("gain"), "share": below.mean(["gain", "learning_rate"])}


def slowdown(strength, gain=1):
    """Loss of the recorded perceptrons whose inputs are moved, over that of those that are not.

    Returns
    -------
    own, same : DataArray over seed
        Logarithm of the ratio: each at its own best rate, and both at the best rate of the former.
    """
    moved = record()[1]["moved"]
    loss = np.log(moved["tuning"].loss.sel(gain=gain))
    best = moved["fresh"].learning_rate.sel(gain=gain)
    at = loss.sel(strength=strength, learning_rate=best.sel(strength=strength))
    still = loss.sel(strength=0)
    own = at - still.sel(learning_rate=best.sel(strength=0))
    return own, at - still.sel(learning_rate=best.sel(strength=strength))
