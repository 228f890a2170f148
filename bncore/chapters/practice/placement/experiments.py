"""Networks on the digits, with batch norm before the activation, after it, or nowhere."""

import itertools
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import nn

from bncore.chapters.practice.placement import horizon
from bncore.lab import data, networks, studies, together, training
from bncore.lab.fingerprint import folder
from bncore.lab.layers import Layers, seeded
from bncore.lab.recurrent import Recurrent
from bncore.lab.sweep import sweep

ARCHITECTURES = ("two layers", "eight layers", "convolution")
PLACEMENTS = ("none", "before", "after")
RECURRENCES = ("none", "input", "shared", "before", "after")
GAINS = {"sigmoid": (1.0, 4.0), "relu": (2**0.5,)}
BATCH_SIZE = 32


def network(
    architecture: str, activation: str, placement: str, gain: float, seed: int
) -> nn.Module:
    """A network with weights of the seed, whatever the placement: "none", "before" or "after".

    Fully connected with "two layers" of 32 units or "eight layers" of 24; a "convolution", two of 8
    channels, the second on an image of half the size, and an average; or "recurrent", 24 units that
    read an image row by row, with statistics of each step, "shared" ones, or of the "input" only.
    """
    normalization = None if placement == "none" else "batch"
    place = "after" if placement == "after" else "before"
    if architecture == "recurrent":
        kind = {"none": None, "before": "per step", "after": "per step"}.get(placement, placement)
        return Recurrent(8, 24, 10, 8, activation, kind, placement=place, gain=gain, seed=seed)
    if architecture == "convolution":
        return _convolution(activation, normalization, gain, seed, place)
    widths = {"two layers": (64, 32, 32, 10), "eight layers": (64, *[24] * 8, 10)}[architecture]
    model = networks.mlp(widths, activation, normalization, gain=gain, placement=place, seed=seed)
    start = networks.mlp(widths, activation, gain=gain, seed=seed)
    model.load_state_dict(start.state_dict(), strict=False)
    return model


def _convolution(activation, normalization, gain, seed, placement):
    make = Layers(activation, normalization, gain, seed, placement=placement)
    with seeded(seed):
        layers = make.hidden(1, "conv", make.convolution(1, 8, bias=make.bias))
        layers["pool1"] = nn.MaxPool2d(2)
        layers |= make.hidden(2, "conv", make.convolution(8, 8, bias=make.bias))
        layers["pool2"], layers["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        layers["output"] = make.linear(8, 10)
    return nn.Sequential(layers)


def split(architecture: str, seed: int) -> data.Split:
    """Half of the digits to learn from, half to test on."""
    images = architecture == "convolution"
    make = data.digit_images if images else data.digits
    return make(seed=seed, test_fraction=0.5)


def trained(
    architecture: str,
    activation: str,
    placement: str,
    gains: Sequence[float],
    rates: Sequence[float],
    seeds: Sequence[int],
    *,
    steps: int,
) -> dict[str, np.ndarray]:
    """Train a network for each gain, rate and seed on half of the digits, in batches of 32.

    Gains, rates and seeds are of equal length.

    Returns
    -------
    dict
        Test "accuracy" at the end, and "half" of the way there, of each network, as from
        ``horizon.settled``. One that has diverged is at chance.
    """
    models = [
        network(architecture, activation, placement, gain, seed)
        for gain, seed in zip(gains, seeds, strict=True)
    ]
    splits = [split(architecture, seed) for seed in seeds]
    found = together.train(
        models, splits, steps, BATCH_SIZE, learning_rate=rates, seeds=seeds,
        record={"accuracy": accuracy}, moments=horizon.moments(steps),
    )  # fmt: skip
    return horizon.settled(found["accuracy"], steps)


def accuracy(model: nn.Module, split: data.Split) -> float:
    """Share of test digits named right; scores that are no numbers name the first class."""
    with torch.no_grad():
        scores = model.eval()(split.x_test)
    return (scores.argmax(1) == split.y_test).double().mean().item()


def study(c: Mapping, store: str | os.PathLike | None = None) -> dict[str, dict]:
    """Each placement at its best learning rate and initial gain, on fresh seeds.

    Parameters
    ----------
    c : mapping
        "architectures", by name the number of training steps, and "doublings", by name how often it
        may be doubled; "activations"; "placements" and "recurrences", the placements of a recurrent network;
        "learning_rates", "seeds", "fresh_seeds".
    store : path, optional
        Folder in which finished runs are kept.

    Returns
    -------
    dict
        By architecture "steps", "tuning" and "fresh": what ``trained`` returns, by activation,
        placement and seed, the first only accuracies, also by gain and learning rate, of the second
        those chosen.
    """
    found = {}
    for name, steps in c["architectures"].items():
        run = partial(_of_one, name, c, store)
        found |= horizon.until_done(run, steps, c["doublings"][name])
    return found


def _of_one(architecture, c, store, steps):
    """The study of one architecture, by its name."""
    places = c["recurrences" if architecture == "recurrent" else "placements"]
    pairs = {
        (name, place): _at_best(
            partial(trained, architecture, name, place, steps=steps), GAINS[name], c, store
        )
        for name in c["activations"]
        for place in places
    }
    found = {
        part: studies.rounded(
            xr.merge(
                [
                    pair[part].expand_dims(activation=[name], placement=[place])
                    for (name, place), pair in pairs.items()
                ],
                join="outer",
                compat="no_conflicts",
            )
        ).sel(activation=list(c["activations"]), placement=list(places))
        for part in ("tuning", "fresh")
    }
    return {architecture: found}


def _at_best(run, gains, c, store, extensions=4):
    """Tune gain and rate of one arm, its grid going on while its best rate is an end of it."""
    rates = list(c["learning_rates"])
    tuning = _stack(run, gains, rates, c["seeds"], store)
    for _ in range(extensions):
        at = _best(tuning)["learning_rate"]
        if at not in (rates[0], rates[-1]):
            break
        beyond = rates[0] ** 2 / rates[1] if at == rates[0] else rates[-1] ** 2 / rates[-2]
        rates = sorted([*rates, float(f"{beyond:.3g}")])
        more = _stack(run, gains, [float(f"{beyond:.3g}")], c["seeds"], store)
        tuning = xr.concat([tuning, more], "learning_rate").sortby("learning_rate")
    best = _best(tuning)
    fresh = _stack(run, [best["gain"]], [best["learning_rate"]], c["fresh_seeds"], store)
    fresh = fresh.isel(gain=0, learning_rate=0).reset_coords()
    return {"tuning": tuning[["accuracy"]], "fresh": fresh}


def _best(tuning):
    """The gain and the rate at which the mean accuracy is best: one seed that diverges counts."""
    mean = tuning.accuracy.mean("seed")
    at = mean.argmax(("gain", "learning_rate"))
    return {name: mean[name].values[index.item()].item() for name, index in at.items()}


def _stack(run, gains, rates, seeds, store):
    """All networks of some gains, rates and seeds, trained together."""
    axes = {"gain": list(gains), "learning_rate": list(rates), "seed": list(seeds)}
    each = zip(*itertools.product(*axes.values()), strict=True)
    grid = {name: [one] for name, one in zip(("gains", "rates", "seeds"), each, strict=True)}
    if store is not None:
        store = Path(store) / folder(run)
    result = sweep(run, grid, store=store)[0].result
    shape = [len(values) for values in axes.values()]
    return xr.Dataset({k: (tuple(axes), v.reshape(shape)) for k, v in result.items()}, coords=axes)


def early_loss(
    activation: str, placement: str, learning_rate: float, seed: int
) -> dict[str, float]:
    """ "loss": over the last epoch of 100 steps, with two hidden layers; of gain 1 for sigmoids.

    "identity" for an activation is a network without nonlinearities.
    """
    gain = GAINS.get(activation, (1.0,))[0]
    model = network("two layers", activation, placement, gain, seed)
    digits = split("two layers", seed)
    losses = training.train(model, digits, 100, BATCH_SIZE, learning_rate, seed).losses
    return {"loss": float(losses[-(len(digits.x_train) // BATCH_SIZE) :].mean())}


def early_losses(c: Mapping, store: str | os.PathLike | None = None) -> xr.Dataset:
    """``early_loss`` by activation, placement, learning rate and seed: "grid" and "seeds" of c."""
    return studies.rounded(studies.study(early_loss, c["grid"], c["seeds"], store=store), 3)
