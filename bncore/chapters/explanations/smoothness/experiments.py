"""The networks of the smoothness chapter: how they train, and how far their gradients hold on the way."""

import math
from collections.abc import Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from bncore.explanations import landscape, smoothness, textbook
from bncore.lab import data, modes, networks, probes, training

KINDS = ("no batch norm", "batch norm", "mean only", "variance only")
UNITS = landscape.UNITS
WIDTH, GAIN, BATCH = 50, 2**0.5, 256
RATES = (0.025, 0.05, 0.1, 0.2, 0.4)
MOVES = (0.001, 0.003, 0.01, 0.03, 0.1)


class Partial(nn.Module):
    """Batch norm with the batch's mean, its variance, both or neither; then a scale and a shift.

    Without the variance there is no scale to learn. With neither it is a bias.

    Parameters
    ----------
    features : int
    centre, scale : bool
    eps : float
    """

    def __init__(self, features, centre, scale, eps=1e-5):
        super().__init__()
        self.centre, self.eps = centre, eps
        self.weight = nn.Parameter(torch.ones(features)) if scale else None
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x):
        axes = (0, *range(2, x.ndim))
        shape = (1, -1, *[1] * (x.ndim - 2))
        mean = x.mean(axes, keepdim=True)
        y = x - mean if self.centre else x
        if self.weight is not None:
            variance = ((x - mean) ** 2).mean(axes, keepdim=True)
            y = self.weight.reshape(shape) * y / torch.sqrt(variance + self.eps)
        return y + self.bias.reshape(shape)


NORMALISATIONS = {
    "no batch norm": partial(Partial, centre=False, scale=False),
    "batch norm": partial(Partial, centre=True, scale=True),
    "mean only": partial(Partial, centre=True, scale=False),
    "variance only": partial(Partial, centre=False, scale=True),
}


@cache
def digits(images=False):
    """The digits, and the batch of the training set on which everything is measured."""
    split = data.digit_images(8) if images else data.digits()
    return split, split.x_train[:BATCH], split.y_train[:BATCH]


def network(kind, depth, seed, gain=GAIN):
    """A ReLU network of ``depth`` hidden layers; its initial weights are the same for every kind."""
    return networks.mlp(
        [64] + [WIDTH] * depth + [10], "relu", NORMALISATIONS[kind], gain=gain, seed=seed
    )


def vgg(kind, depth, seed, **shape):
    """A VGG; its initial weights are the same for every kind."""
    return networks.vgg(depth, NORMALISATIONS[kind], seed=seed, **shape)


def small_vgg(kind, depth, seed):
    """A VGG of width 8 for the digits."""
    return vgg(kind, depth, seed, width=8, channels=1, size=8, hidden=(64,))


class Walks(NamedTuple):
    """Walks along the gradient, from several points of the training of several networks.

    Attributes
    ----------
    steps : ndarray of shape (records,)
        Training steps before each walk.
    table : ndarray of shape (seeds, records, units, 5, sizes)
        For absolute and relative units, and for each size of step: distance, loss after it,
        change of the gradient, length of the gradient before, loss before.
    """

    steps: np.ndarray
    table: np.ndarray

    def row(self, units, name):
        """One of the five rows, as an array of shape (seeds, records, sizes)."""
        names = ("distance", "loss", "change", "slope", "before")
        return self.table[:, :, UNITS.index(units), names.index(name)]

    def smoothness(self, units):
        """Effective beta-smoothness, of shape (seeds, records)."""
        return (self.row(units, "change") / self.row(units, "distance")).max(axis=-1)

    def relative_change(self, units):
        """Change of the gradient over its length, of shape (seeds, records, sizes)."""
        return self.row(units, "change") / self.row(units, "slope")

    def loss_range(self):
        """Range of the loss along the gradient at the rates, of shape (seeds, records)."""
        losses = np.concatenate(
            [self.row("absolute", "before")[..., :1], self.row("absolute", "loss")], axis=-1
        )
        return np.ptp(losses, axis=-1)


def walk(model, x, y, sizes=(RATES, MOVES)):
    """One walk in each unit, as an entry of ``Walks.table``; NaN where nothing slopes."""
    tables = []
    for units, steps in zip(UNITS, sizes, strict=True):
        if not gradient_of(model, x, y, units).any():
            tables.append(np.full((5, len(steps)), np.nan))
            continue
        found = landscape.along_gradient(model, x, y, steps, units)
        ones = np.ones(len(steps))
        tables.append(
            [found.distances, found.losses, found.changes, found.slope * ones, found.loss * ones]
        )
    return np.array(tables)


def walks(
    kind,
    depth,
    seeds=(0, 1, 2),
    steps=150,
    every=25,
    rate=0.1,
    make=network,
    on=None,
    batch_size=64,
    device="cpu",
    **options,
):
    """Train networks of one kind, and walk along the gradient of one batch on the way.

    Parameters
    ----------
    kind : str
    depth, seeds, steps, every, rate, batch_size, device
        Of the networks and their training.
    make : callable
        From kind, depth, seed and the other options to a network.
    on : (Split, x, y), optional
        What to train on, and the batch on which to walk; by default ``digits``.

    Returns
    -------
    Walks
    models : list of nn.Module
        The trained networks.
    """
    split, x, y = on or digits(images=make is small_vgg)
    x, y, tables, models = x.to(device), y.to(device), [], []
    for seed in seeds:
        model = make(kind, depth, seed, **options)
        record = {"walk": lambda model, split: walk(model, x, y)}
        history = training.train(
            model, split, steps, batch_size, rate, seed, record, every=every, device=device
        )
        tables.append(history.records["walk"])
        models.append(model)
    return Walks(history.steps, np.array(tables)), models


def loss_curve(kind, depth, learning_rate, seed, *, moments):
    """Loss over the training set after each number of steps in ``moments``, and the last one.

    Batches of 64. The seed draws the split of the digits, the weights and the order of the batches.
    """
    split, model = data.digits(seed), network(kind, depth, seed)
    record, every = {"loss": probes.loss("train", "batch")}, math.gcd(*moments)
    history = training.train(
        model, split, max(moments), 64, learning_rate, seed, record, every=every
    )
    found = dict(zip(history.steps.tolist(), history.records["loss"], strict=True))
    return {"loss": np.array([found[step] for step in moments]), "last": found[max(moments)]}


@cache
def trained(count, depth=2, rate=0.1, steps=100):
    """Networks with batch norm after so many steps, of the first seeds."""
    models = [network("batch norm", depth, seed) for seed in range(count)]
    for seed, model in enumerate(models):
        training.train(model, digits()[0], steps, 64, rate, seed)
    return models


def gradient_of(model, x, y, units="absolute"):
    """The gradient of the cross-entropy by the weight matrices, in one vector."""
    chosen = list(landscape.weights(model).values())
    with modes.evaluation(model, "batch"), torch.enable_grad():
        slopes = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), chosen)
    scales = landscape.unit_scales(model, units)
    parts = [(s * g).reshape(-1).double() for s, g in zip(scales, slopes, strict=True)]
    return torch.cat(parts).numpy(force=True)


def stiffest(kind, depth, seed):
    """The largest curvature of a fresh network, and the share of its direction along the mean inputs.

    Returns
    -------
    value : float
        The eigenvalue of the largest size, by 30 steps of power iteration.
    share : float
        As ``mean_share``.
    """
    _, x, y = digits()
    model = network(kind, depth, seed)
    draws = torch.Generator().manual_seed(seed)
    weights = landscape.weights(model).values()
    start = [torch.randn(w.shape, generator=draws) for w in weights]
    value, direction = textbook.stiffest(partial(textbook.curvature_product, model, x, y), start)
    return value, mean_share(model, x, direction)


def mean_share(model, x, direction):
    """Share of the squared length of a direction of the weights that lies along the layers' mean inputs.

    Parameters
    ----------
    model : Sequential
    x : Tensor
    direction : list of Tensor
        A matrix for each linear layer.
    """
    linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    along, seen = 0.0, probes.inputs_of(model, linear, x)
    for name, part in zip(linear, direction, strict=True):
        mean = seen[name].mean(axis=0)
        along += ((part.numpy(force=True) @ mean) ** 2).sum() / (mean @ mean)
    return float(along / sum((part**2).sum() for part in direction))


def level_share(model, x, y):
    """Share of the squared gradient behind each normalisation that is level, over all its units."""
    return [
        (g.double().sum(dim=0) ** 2 / len(g)).sum().item() / (g.double() ** 2).sum().item()
        for *_, g in _gradients_behind(model, x, y)
    ]


def _gradients_behind(model, x, y):
    """Each normalisation with its input and the gradient of the cross-entropy at its output."""
    seen = []
    norms = [layer for layer in model.modules() if isinstance(layer, Partial)]
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, out: seen.append((layer, inputs[0], out)))
        for layer in norms
    ]
    try:
        with modes.evaluation(model, "batch"), torch.enable_grad():
            loss = nn.functional.cross_entropy(model(x), y)
    finally:
        for hook in hooks:
            hook.remove()
    slopes = torch.autograd.grad(loss, [out for *_, out in seen])
    return [(layer, inputs, g) for (layer, inputs, _), g in zip(seen, slopes, strict=True)]


def removed_share(model, x, y) -> Sequence[np.ndarray]:
    """For each normalisation: share of g^2 that is level or tilt, cosine of g and y_hat, gamma^2/sigma^2.

    Returns
    -------
    list of ndarray of shape (3, features)
    """
    found = []
    for layer, inputs, g in _gradients_behind(model, x, y):
        batch, g = inputs.detach().double().numpy(), g.double().numpy()
        gamma = layer.weight.detach().double().numpy()
        # Float64 sums of float32 values: a dead unit has g = 0, and nothing to share.
        alive = (g**2).sum(axis=0) > 0
        batch, g, gamma = batch[:, alive], g[:, alive], gamma[alive]
        terms = smoothness.squared_gradient(batch, g, gamma)
        y_hat, _ = smoothness.normalise(batch)
        cosine = (g * y_hat).sum(axis=0) / np.sqrt(len(g) * terms.whole)
        found.append(np.array([(terms.level + terms.tilt) / terms.whole, cosine, terms.factor]))
    return found
