"""One run of each of the chapter's studies, from a case to numbers by name."""

from functools import cache

import numpy as np
import xarray as xr

from bncore.chapters.explanations.smoothness import experiments, spectra
from bncore.explanations import landscape
from bncore.lab import data, training

# Axes of what the runs return, as in ``studies.study``.
AXES = {
    "loss": ("record",),
    "range": ("record",),
    "absolute": ("record",),
    "relative": ("record",),
    "change": ("record",),
    "nodes": ("probe", "node"),
    "weights": ("probe", "node"),
}


def walk_run(
    kind, depth, learning_rate, seed, *, steps, every, make=experiments.network, **options
):
    """Walk along the gradient of one batch while a network trains.

    The seed draws the split of the digits, the weights and the order of the batches, as in
    ``experiments.loss_curve``.

    Returns
    -------
    dict
        As ``summary``.
    """
    split = data.digit_images(8, seed) if make is experiments.small_vgg else data.digits(seed)
    on = split, *_batch(split)
    found, _ = experiments.walks(
        kind, depth, (seed,), steps, every, learning_rate, make, on, **options
    )
    return summary(found)


def paper_run(kind, learning_rate, seed, *, configuration, cache):
    """Walk along the gradient of a VGG on images while it trains; see ``full_size.PAPER``."""
    c = configuration
    channels, size, _ = data.OPENML[c["data"]].shape
    split = data.openml(c["data"], cache)
    found, _ = experiments.walks(
        kind,
        c["depth"],
        (seed,),
        c["steps"],
        c["every"],
        learning_rate,
        experiments.vgg,
        (split, split.x_train[: c["walk_on"]], split.y_train[: c["walk_on"]]),
        c["batch_size"],
        c["device"],
        width=c["width"],
        channels=channels,
        size=size,
        hidden=c["hidden"],
    )
    return summary(found)


def summary(found):
    """What is kept of the walks of one network, at each record.

    The loss; the range of the loss at the learning rates of the walk; the effective smoothness in
    absolute and in relative units; and the gradient's relative change after a step of 0.3 % of the
    weights. NaN where nothing slopes.
    """
    return {
        "loss": found.row("absolute", "before")[0, :, 0],
        "range": found.loss_range()[0],
        "absolute": found.smoothness("absolute")[0],
        "relative": found.smoothness("relative")[0],
        "change": found.relative_change("relative")[0, :, 1],
    }


@cache
def starts(depth, seeds, kinds=experiments.KINDS[:2]):
    """Logarithm of the effective smoothness in absolute units before training, of one kind over another.

    Parameters
    ----------
    depth : int
    seeds : range
        As in ``walk_run``, which measures the same at its first record.
    kinds : pair of str

    Returns
    -------
    DataArray over seed
    """
    found = []
    for seed in seeds:
        x, y = _batch(data.digits(seed))
        first, second = (
            landscape.along_gradient(
                experiments.network(kind, depth, seed), x, y, experiments.RATES
            ).smoothness
            for kind in kinds
        )
        found.append(np.log(first / second))
    return xr.DataArray(found, {"seed": list(seeds)}, ["seed"])


def ends_run(kind, depth, learning_rate, seed, *, steps):
    """The ends of the spectrum after so many steps, as ``spectra.Ends`` has them."""
    model, x, y = _trained(kind, depth, learning_rate, seed, steps)
    return spectra.ends(model, x, y)._asdict()


def density_run(kind, depth, learning_rate, seed, *, steps, lanczos):
    """The Lanczos quadrature of the spectrum after so many steps: nodes, and their weights."""
    model, x, y = _trained(kind, depth, learning_rate, seed, steps)
    found = spectra.density_of(model, x, y, *lanczos, seed)
    return {"nodes": found.nodes, "weights": found.weights}


def _trained(kind, depth, learning_rate, seed, steps):
    split, model = data.digits(seed), experiments.network(kind, depth, seed)
    if steps:
        training.train(model, split, steps, 64, learning_rate, seed)
    return model, *_batch(split)


def _batch(split):
    return split.x_train[: experiments.BATCH], split.y_train[: experiments.BATCH]
