"""Experiments of a second or less: on the definition, on where distributions come from, on refitting."""

import copy
from functools import cache

import numpy as np
import torch
import xarray as xr
from scipy import stats
from torch.nn.functional import mse_loss

from bncore.chapters.explanations.covariate_shift.measures import gradients
from bncore.lab import data, networks, probes, training

WIDTHS = (64, 32, 32, 32, 32, 10)


def case(seed, normalization):
    """A network of four layers in double precision, a batch, its targets, and weights after a step.

    Returns
    -------
    model : nn.Module
    x, y : Tensor
    stepped : dict of str to Tensor
        The parameters after a gradient step of rate 0.1, by name.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(16, 3, generator=generator, dtype=torch.float64)
    model = networks.mlp([5, 6, 6, 6, 3], "tanh", normalization, gain=1.0, seed=seed).double()
    slopes = gradients(model, mse_loss, x, y)
    stepped = {
        name: value.detach() - 0.1 * slope
        for (name, value), slope in zip(model.named_parameters(), slopes, strict=True)
    }
    return model, x, y, stepped


def by_copies(model, x, y, new):
    """The change of each layer's gradient in copies of a model, as each earlier layer moves too."""
    names = [name for name, _ in model.named_parameters()]
    layers = list(dict.fromkeys(map(_layer_of, names)))
    before, moved, changes = gradients(model, mse_loss, x, y), copy.deepcopy(model), []
    for layer in layers:
        after = gradients(moved, mse_loss, x, y)
        own = [
            b - a
            for name, a, b in zip(names, before, after, strict=True)
            if _layer_of(name) == layer
        ]
        changes.append(float(torch.cat([part.flatten() for part in own]).norm()))
        with torch.no_grad():
            for name, value in moved.named_parameters():
                if _layer_of(name) == layer:
                    value.copy_(new[name])
    return np.array(changes)


def _layer_of(name):
    digits = "".join(filter(str.isdigit, name.split(".")[0]))
    return digits or "output"


def _inputs(weights, sample, steps):
    """What reaches layers 2 to 5 of a plain network for images that are the same for all."""
    model = networks.mlp(WIDTHS, "relu", gain=2**0.5, seed=weights)
    training.train(model, data.digits(sample), steps, 64, 0.1, sample, every=steps)
    names = [f"linear{layer}" for layer in (2, 3, 4)] + ["output"]
    seen = probes.inputs_of(model, names, data.digits(0).x_test)
    return [seen[name] for name in names]


@cache
def distances(drawn, pairs=8, steps=60):
    """How far the distributions of a layer's inputs are apart in two networks that trained alike.

    Two networks differ in one thing that is drawn at random. The distance is Kolmogorov's, of all
    values that reach a layer, for the same images: 0 if that thing does not matter.

    Parameters
    ----------
    drawn : {"weights", "data"}
        The initial weights; or which digits are the training set, and their order.
    pairs, steps : int

    Returns
    -------
    DataArray over seed, one for each pair, and layer
    """
    found = []
    for pair in range(pairs):
        one, other = (
            _inputs(*((seed, 0) if drawn == "weights" else (0, seed)), steps)
            for seed in (2 * pair + 11, 2 * pair + 12)
        )
        found.append(
            [
                stats.ks_2samp(a.ravel(), b.ravel()).statistic
                for a, b in zip(one, other, strict=True)
            ]
        )
    return xr.DataArray(found, {"seed": range(pairs), "layer": range(2, 6)}, ["seed", "layer"])


def refitting_gain(curved, seeds=range(20), examples=200):
    """How much a linear model gains by being fitted again once its inputs have shifted.

    The inputs are drawn from N(0, 1), then from N(2, 1); the target is x + noise, or x^2 + noise
    if it is ``curved``, before and after.

    Returns
    -------
    DataArray over seed
        Logarithm of the error of the first fit over that of the second, on fresh inputs of the
        second kind.
    """
    found = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        first, second, fresh = (rng.normal(mean, 1, examples) for mean in (0, 2, 2))
        targets = [
            (x**2 if curved else x) + rng.normal(size=examples) for x in (first, second, fresh)
        ]
        errors = [
            np.mean((np.polyval(np.polyfit(x, y, 1), fresh) - targets[2]) ** 2)
            for x, y in zip((first, second), targets, strict=False)
        ]
        found.append(np.log(errors[0] / errors[1]))
    return xr.DataArray(found, {"seed": list(seeds)}, ["seed"])


def share_right(seeds=range(3), steps=800):
    """Share of the training digits that plain networks get right, all of whose layers move at once."""
    found = []
    for seed in seeds:
        split = data.digits(seed)
        model = networks.mlp((64, 50, 50, 10), "relu", gain=2**0.5, seed=seed)
        training.train(model, split, steps, 64, 0.2, seed, every=steps)
        right = model(split.x_train).argmax(1) == split.y_train
        found.append(right.double().mean().item())
    return found
