"""What batch norm buys: how soon networks arrive, from which weights, at which rates, how steadily."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.chapters.mechanics.forward.experiments import WIDTHS
from bncore.lab import data, networks, probes, timing, training
from bncore.lab.batches import Batches

LOSS, ACCURACY, EPOCH = 0.1, 0.95, 21
SATURATED = 4.0
NORMALIZATIONS = {
    "none": None,
    "batch": "batch",
    "batch, γ and β fixed": partial(nn.BatchNorm1d, affine=False),
}
KINDS = {"sigmoid": "sigmoid", "ReLU": "relu", "convolutional": "relu"}
DEFAULTS = {"torch": {"momentum": 0.1, "eps": 1e-5}, "Keras": {"momentum": 0.01, "eps": 1e-3}}


def network(kind: str, normalization: str, gain: float, seed: int) -> nn.Sequential:
    """Five hidden layers of 50 units, or five convolutions of 8 channels, with one of NORMALIZATIONS.

    Weights are N(0, gain² / fan_in). The convolutional one ends in an average over the pixels.
    """
    norm = NORMALIZATIONS[normalization]
    if kind == "convolutional":
        return networks.residual(2, 8, norm, skip=False, gain=gain, seed=seed)
    return networks.mlp(WIDTHS, KINDS[kind], norm, gain=gain, seed=seed)


def digits(kind: str, seed: int) -> data.Split:
    """The digits, split by the seed, as rows or as the images that convolutions take."""
    return data.digit_images(seed=seed) if kind == "convolutional" else data.digits(seed)


def arrival(
    kind: str,
    normalization: str,
    gain: float,
    learning_rate: float,
    seed: int,
    *,
    horizon: int,
    every: int = 10,
) -> dict[str, float]:
    """Train a network until it arrives, diverges, or the horizon ends: batches of 64 digits.

    The seed draws split, weights and order of the batches.

    Returns
    -------
    dict
        "loss_score": steps until the mean loss of the last epoch, 21 batches, is at most LOSS.
        "accuracy_score": steps until the test accuracy, measured every so many steps, is ACCURACY.
        A run that does not arrive scores the horizon times one plus what it lacks at the end: its
        loss, its share of errors; one that diverges infinity. "rises": share of epochs, up to the
        arrival of the loss, in which the mean loss rises, the first batch's loss before them.
        "peak": the largest mean loss of an epoch over that of the first batch.
    """
    split = digits(kind, seed)
    model = network(kind, normalization, gain, seed)
    descent = torch.optim.SGD(model.parameters(), lr=learning_rate)
    batches, losses = Batches(len(split.x_train), 64, seed), []
    by_loss = by_accuracy = math.inf
    for step in range(1, horizon + 1):
        batch = next(batches)
        loss = cross_entropy(model(split.x_train[batch]), split.y_train[batch])
        descent.zero_grad()
        loss.backward()
        descent.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
        if step >= EPOCH and by_loss > step and np.mean(losses[-EPOCH:]) <= LOSS:
            by_loss = step
        if step % every == 0 and by_accuracy > step:
            accuracy = probes.test_accuracy(model, split)
            by_accuracy = step if accuracy >= ACCURACY else math.inf
        if max(by_loss, by_accuracy) <= step:
            break
    else:
        by_loss = min(by_loss, horizon * (1 + np.mean(losses[-EPOCH:])))
        by_accuracy = min(by_accuracy, horizon * (2 - accuracy))
    return {
        "loss_score": float(by_loss),
        "accuracy_score": float(by_accuracy),
        **_steadiness(losses, min(by_loss, len(losses))),
    }


def _steadiness(losses, until):
    """How the means of whole epochs went, up to a step; a loss that is no number has risen."""
    epochs = [np.mean(losses[i : i + EPOCH]) for i in range(0, len(losses) - EPOCH + 1, EPOCH)]
    seen = np.array([losses[0], *epochs[: max(int(until) // EPOCH, 1)]])
    if not math.isfinite(losses[-1]):
        seen, epochs = np.append(seen, math.inf), [math.inf]
    peak = max(epochs, default=losses[0]) / losses[0]
    return {"rises": float((seen[1:] > seen[:-1]).mean()), "peak": float(peak)}


def saturation(
    normalization: str, learning_rate: float, seed: int, *, moments: Sequence[int]
) -> dict[str, Any]:
    """Share of the last layer's sigmoid inputs beyond ±4, and test accuracy, after so many steps.

    Torch's own initial weights.
    """
    norm = NORMALIZATIONS[normalization]
    split, model = data.digits(seed), networks.mlp(WIDTHS, "sigmoid", norm, seed=seed)

    def share(model, split):
        inputs = probes.inputs_of(model, ["activation5"], split.x_train)["activation5"]
        return float((np.abs(inputs) > SATURATED).mean())

    record, every = {"share": share, "accuracy": probes.test_accuracy}, math.gcd(*moments)
    history = training.train(
        model, split, max(moments), 64, learning_rate, seed, record, every=every
    )
    at = np.searchsorted(history.steps, moments)
    return {name: history.records[name][at] for name in record}


def gradient_range(
    kind: str,
    normalization: str,
    gain: float,
    learning_rate: float,
    seed: int,
    *,
    steps: int,
    depth: int = 5,
    every: int = 10,
) -> dict[str, float]:
    """How gradients of a fully connected network of this depth grow and shrink in training, in decades.

    Measured is the length of the training loss's gradient with respect to the weights of each hidden
    layer, every so many steps; what is not finite counts as infinite.

    Returns
    -------
    dict
        "grown": the largest length of any layer over that layer's at the start. "least" and "most":
        the smallest and the largest length at the first hidden layer over that at the last. "loss" of
        the last batch.
    """
    layers, split = [f"linear{i}" for i in range(1, depth + 1)], data.digits(seed)
    widths = 64, *[50] * depth, 10
    model = networks.mlp(widths, KINDS[kind], NORMALIZATIONS[normalization], gain=gain, seed=seed)
    record = {"lengths": probes.gradient_norms(layers)}
    history = training.train(model, split, steps, 64, learning_rate, seed, record, every=every)
    with np.errstate(divide="ignore", invalid="ignore"):
        lengths = np.log10(history.records["lengths"])
        grown, across = (lengths - lengths[0]).max(), lengths[:, 0] - lengths[:, -1]
    lost = not np.isfinite(lengths).all()
    return {
        "grown": math.inf if lost else float(grown),
        "least": -math.inf if lost else float(across.min()),
        "most": math.inf if lost else float(across.max()),
        "loss": float(history.losses[-1]),
    }


def with_constants(
    momentum: float, eps: float, learning_rate: float, seed: int, *, steps: int, batch_size: int
) -> dict[str, float]:
    """Test accuracy of the ReLU network with batch norm of this momentum and eps, gain √2."""
    split = data.digits(seed)
    model = networks.mlp(
        WIDTHS, "relu", "batch", momentum=momentum, eps=eps, gain=2**0.5, seed=seed
    )
    training.train(model, split, steps, batch_size, learning_rate, seed, every=steps)
    return {"accuracy": probes.test_accuracy(model, split)}


def step_seconds(kind: str, repeats: int) -> dict[str, float]:
    """Median seconds of a training step on 64 digits, without batch norm and with it, in turns."""
    split = digits(kind, 0)
    x, y = split.x_train[:64], split.y_train[:64]

    def step(normalization):
        model = network(kind, normalization, 1.0, 0)
        descent = torch.optim.SGD(model.parameters(), lr=1e-3)

        def one():
            descent.zero_grad()
            cross_entropy(model(x), y).backward()
            descent.step()

        return one

    names = ("none", "batch")
    found = timing.median_seconds([step(name) for name in names], repeats)
    return dict(zip(names, found.tolist(), strict=True))
