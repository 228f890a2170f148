"""Experiments of a second or two: where distributions come from, fitting the target, scaled weights."""

from functools import cache

import torch
import xarray as xr
from scipy import stats
from torch.nn.functional import mse_loss

from bncore.explanations.covariate_shift import gradient_shift
from bncore.lab import data, networks, probes, training

WIDTHS = (64, 32, 32, 32, 32, 10)


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
    values that reach a layer. Between networks it is that for the same images: 0 if that thing does
    not matter. Between images it is that of the first network for the even and the odd ones.

    Parameters
    ----------
    drawn : {"weights", "data"}
        The initial weights; or which digits are the training set, and their order.
    pairs, steps : int

    Returns
    -------
    DataArray over between, seed, one for each pair, and layer
    """
    found = {"networks": [], "images": []}
    for pair in range(pairs):
        one, other = (
            _inputs(*((seed, 0) if drawn == "weights" else (0, seed)), steps)
            for seed in (2 * pair + 11, 2 * pair + 12)
        )
        found["networks"].append([_kolmogorov(*two) for two in zip(one, other, strict=True)])
        found["images"].append([_kolmogorov(values[::2], values[1::2]) for values in one])
    coords = {"between": list(found), "seed": range(pairs), "layer": range(2, 6)}
    return xr.DataArray(list(found.values()), coords, list(coords))


def _kolmogorov(one, other):
    return stats.ks_2samp(one.ravel(), other.ravel()).statistic


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


@cache
def rescaled(factors=(1, 4, 16), rate=1.0):
    """One network with batch norm, its weights multiplied, and a step of one learning rate.

    Only the weights before batch norms move, so that the scale of the others plays no part.

    Returns
    -------
    Dataset over weights, the factors
        "loss", and "relative", the shift of the third layer.
    """
    x, y = (
        torch.randn(64, n, generator=torch.Generator().manual_seed(n)).double() for n in (10, 3)
    )
    found = {"loss": [], "relative": []}
    for factor in factors:
        model = networks.mlp([10, 30, 30, 30, 3], "tanh", "batch", eps=1e-12, gain=1.0).double()
        with torch.no_grad():
            for i in (1, 2, 3):
                model.get_submodule(f"norm{i}").requires_grad_(False)
                model.get_submodule(f"linear{i}").weight *= factor
        found["loss"].append(mse_loss(model(x), y).item())
        found["relative"].append(gradient_shift(model, mse_loss, x, y, rate).relative[2])
    columns = {name: ("weights", values) for name, values in found.items()}
    return xr.Dataset(columns, {"weights": list(factors)})
