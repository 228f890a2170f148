"""How much one layer's gradient depends on the layers below it, in a deep network on the digits."""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from bncore.lab import data, networks, studies, training

WIDTHS = [64] + [50] * 6 + [10]
LAYER = 4
OTHERS = (1, 2, 3, 5, 6)
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
MOVES = (0.001, 0.003, 0.01, 0.03, 0.1)
SEEDS = (0, 1, 2, 3, 4)
RATE = 0.3  # of the training; the best of those that were recorded, for either kind
STEPS = 200
EVERY = 40
BATCH = 256


class Dependence(NamedTuple):
    """What was measured in networks of one kind while they trained.

    Attributes
    ----------
    steps : ndarray of shape (records,)
        Training steps taken before each record.
    change, cosine : dict of str to ndarray of shape (seeds, records, sizes)
        Of the direction gradient of the layer, when the layers below take a step of
        ``LEARNING_RATES`` (key "same learning rate") or of ``MOVES``, relative to their weights
        (key "same relative move"): length of the difference over the length before; cosine.
    blocks, relative_blocks : ndarray of shape (seeds, records, others)
        Frobenius norms of the mixed second derivatives; the same times the other layer's weights
        and over the layer's gradient, which no rescaling of weights changes.
    reach : ndarray of shape (seeds, records)
        Length of the gradient in the layers below over that of their weights.
    losses : ndarray of shape (seeds, records)
        Of the batch on which all was measured.
    """

    steps: np.ndarray
    change: dict
    cosine: dict
    blocks: np.ndarray
    relative_blocks: np.ndarray
    reach: np.ndarray
    losses: np.ndarray


def direction_part(gradient, weight):
    """The part of a layer's gradient that turns its units: row by row orthogonal to the weights."""
    unit = weight / weight.norm(dim=1, keepdim=True)
    return gradient - (gradient * unit).sum(dim=1, keepdim=True) * unit


def measure(model, x, y, probes=2, seed=0):
    """Measure, on one batch, how the direction gradient of ``LAYER`` hangs on the other layers.

    Parameters
    ----------
    model : nn.Sequential
        From ``lab.networks.mlp``, in training mode; it stays as it is.
    x, y : Tensor
        The batch.
    probes : int
        Random vectors for the Frobenius norms.
    seed : int
        Of the probes.

    Returns
    -------
    changes : ndarray of shape (2, sizes, 2)
        For steps of equal learning rate and of equal relative length: change and cosine.
    blocks : ndarray of shape (2, others)
        Norms of mixed second derivatives, plain and relative.
    reach, loss : float
    """
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    key = f"linear{LAYER}.weight"
    below = [name for name in start if _depth(name) < LAYER]

    def gradients(values, create_graph=False):
        leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
        kept = {name: value.clone() for name, value in buffers.items()}
        loss = cross_entropy(functional_call(model, leaves | kept, (x,)), y)
        found = torch.autograd.grad(loss, list(leaves.values()), create_graph=create_graph)
        return loss, leaves, dict(zip(leaves, found, strict=True))

    loss, leaves, graph = gradients(start, create_graph=True)
    before = {name: value.detach() for name, value in graph.items()}
    turning = direction_part(before[key], start[key])
    pull, size = (
        torch.cat([values[name].flatten() for name in below]).norm() for values in (before, start)
    )

    def moved(rate):
        values = {
            name: value - rate * before[name] if name in below else value
            for name, value in start.items()
        }
        after = direction_part(gradients(values)[2][key], start[key])
        change = (after - turning).norm() / turning.norm()
        cosine = (after * turning).sum() / (after.norm() * turning.norm())
        return change.item(), cosine.item()

    rates = [LEARNING_RATES, [(move * size / pull).item() for move in MOVES]]
    changes = np.array([[moved(rate) for rate in row] for row in rates])
    names = [f"linear{i}.weight" for i in OTHERS]
    generator, squares = torch.Generator().manual_seed(seed), np.zeros(len(OTHERS))
    for _ in range(probes):
        vector = torch.randn(graph[key].shape, generator=generator)
        products = torch.autograd.grad(
            (graph[key] * vector).sum(), [leaves[name] for name in names], retain_graph=True
        )
        squares += [(product**2).sum().item() / probes for product in products]
    blocks = np.sqrt(squares)
    scales = np.array([start[name].norm().item() for name in names]) / before[key].norm().item()
    return changes, np.stack([blocks, blocks * scales]), (pull / size).item(), loss.item()


@cache
def dependence(normalization, seeds=SEEDS, steps=STEPS, every=EVERY, learning_rate=RATE):
    """Train on the digits and measure on the way, for one kind of network and several seeds.

    Parameters
    ----------
    normalization : {None, "batch"}
    seeds : sequence of int
        Each of a split, a network and an order of the batches.
    steps, every : int
        Training steps with batches of 64, and steps between two records.
    learning_rate : float
        Of the training.
    """
    changes, blocks, reach, losses = [], [], [], []
    for seed in seeds:
        met = []

        def probe(model, split, met=met, seed=seed):
            met.append(measure(model, split.x_train[:BATCH], split.y_train[:BATCH], seed=seed))
            return 0.0

        history = training.train(
            networks.mlp(WIDTHS, "tanh", normalization, gain=1.0, seed=seed),
            data.digits(seed),
            steps,
            learning_rate=learning_rate,
            seed=seed,
            record={"dependence": probe},
            every=every,
        )
        for kept, values in zip(
            (changes, blocks, reach, losses), zip(*met, strict=True), strict=True
        ):
            kept.append(values)
    changes, blocks = np.array(changes), np.array(blocks)
    names = ("same learning rate", "same relative move")
    return Dependence(
        history.steps,
        {name: changes[:, :, i, :, 0] for i, name in enumerate(names)},
        {name: changes[:, :, i, :, 1] for i, name in enumerate(names)},
        blocks[:, :, 0],
        blocks[:, :, 1],
        np.array(reach),
        np.array(losses),
    )


def summary(kind, learning_rate, seed):
    """What one network measures at the start and, in the geometric mean, later, for a study.

    Parameters
    ----------
    kind : {"batch norm", "none"}
    learning_rate : float
        Of the training.
    seed : int

    Returns
    -------
    dict
        "loss" at the end; "change", "moved", "blocks" and "relative_blocks" as in ``Dependence``,
        with the axes ``AXES``.
    """
    normalization = "batch" if kind == "batch norm" else None
    kept = dependence.__wrapped__(normalization, (seed,), learning_rate=learning_rate)

    def twice(values):
        logs = np.log(values[0])
        return np.exp([logs[0], logs[1:].mean(axis=0)])

    return {
        "loss": kept.losses[0, -1],
        "change": twice(kept.change["same learning rate"]),
        "moved": twice(kept.change["same relative move"]),
        "blocks": twice(kept.blocks),
        "relative_blocks": twice(kept.relative_blocks),
    }


LABELS = {
    "when": ["start", "later"],
    "size": list(LEARNING_RATES),
    "move": list(MOVES),
    "layer": list(OTHERS),
}
AXES = {
    name: {axis: LABELS[axis] for axis in axes}
    for name, axes in {
        "change": ("when", "size"),
        "moved": ("when", "move"),
        "blocks": ("when", "layer"),
        "relative_blocks": ("when", "layer"),
    }.items()
}
LOOKED_AT = 4 * 2 * (len(LEARNING_RATES) + len(MOVES) + 2 * len(OTHERS))
"""Learning rates of training, times start and later, times all that is measured."""


def _depth(name):
    """Number of the layer to which a parameter belongs; the output layer comes last."""
    digits = "".join(letter for letter in name.split(".")[0] if letter.isdigit())
    return int(digits) if digits else len(WIDTHS)


def recorded_ratio(found, name, when, at=None):
    """Logarithm of what is measured with batch norm over that without, and its interval.

    Parameters
    ----------
    found : xarray.Dataset
        By kind and seed, of ``summary``.
    name : str
        One of ``AXES``.
    when : {"start", "later"}
    at : float, optional
        The size, move or layer; by default the mean over all.

    Returns
    -------
    Interval
        Mean over the seeds; 95 % for ``LOOKED_AT`` ratios together.
    """
    logs = np.log(found[name].sel(when=when))
    _, along = AXES[name]
    logs = (logs.mean(along) if at is None else logs.sel({along: at})).reset_coords(drop=True)
    kinds = (logs.sel(kind=kind, drop=True) for kind in ("batch norm", "none"))
    return studies.difference(*kinds, looked_at=LOOKED_AT)


ROWS = (
    ("step at rate 0.3", "change", RATE),
    *((f"move of {100 * move:g} %", "moved", move) for move in MOVES),
    ("2nd derivative", "blocks", None),
    ("same, free of scale", "relative_blocks", None),
)
"""What the page shows of the record: words, and the arguments of ``recorded_ratio``."""
