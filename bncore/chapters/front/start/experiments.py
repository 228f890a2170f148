"""A small convolutional network on the digits: trained with and without batch norm, and misused.

``network``, ``train`` and ``accuracy`` are the page's own, which a test compares.
"""

import copy
import math
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from bncore.lab import data
from bncore.lab.layers import seeded

ARRIVED = 0.1
EPOCH = 21


def block(inputs: int, outputs: int, stride: int, norm: bool) -> list[nn.Module]:
    """A convolution with He's weights, batch norm if asked for, and a ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=not norm)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    layers = [conv, nn.BatchNorm2d(outputs)] if norm else [conv]
    return [*layers, nn.ReLU()]


def network(norm: bool) -> nn.Sequential:
    """Five convolutions on images of 8 by 8, an average over the positions, and ten scores."""
    return nn.Sequential(
        *block(1, 16, 1, norm),
        *block(16, 16, 1, norm),
        *block(16, 32, 2, norm),
        *block(32, 32, 1, norm),
        *block(32, 32, 1, norm),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def batches(split: data.Split, size: int = 64) -> DataLoader:
    """Whole batches of the training set, in an order of chance."""
    return DataLoader(
        TensorDataset(split.x_train, split.y_train), size, shuffle=True, drop_last=True
    )


def train(model: nn.Module, loader: DataLoader, rate: float, epochs: int) -> list[float]:
    """Plain stochastic gradient descent, and the loss of each batch."""
    descent = torch.optim.SGD(model.parameters(), lr=rate)
    losses = []
    for _ in range(epochs):
        for x, y in loader:
            loss = cross_entropy(model(x), y)
            descent.zero_grad()
            loss.backward()
            descent.step()
            losses.append(loss.item())
    return losses


@torch.no_grad()
def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of right answers, in whichever mode the model is."""
    return (model(x).argmax(1) == y).float().mean().item()


def arrival(norm: str, learning_rate: float, seed: int, *, epochs: int) -> dict[str, object]:
    """Train with ("batch") or without ("none") batch norm; the seed draws split, weights and order.

    Returns
    -------
    dict
        "loss": means over the last epoch's 21 batches, at the end of each. "steps": after how many
        the mean of the last 21 losses is at most 0.1; otherwise all of them, times one plus the
        last mean, and infinity if that is no number. "accuracy": on the test set, at the end.
    """
    split = data.digit_images(seed=seed)
    with seeded(seed):
        model = network(norm == "batch")
        losses = train(model, batches(split), learning_rate, epochs)
    running = np.convolve(losses, np.ones(EPOCH) / EPOCH, "valid")
    there = np.flatnonzero(running <= ARRIVED)
    last = running[-1] if math.isfinite(running[-1]) else math.inf
    return {
        "loss": running[::EPOCH],
        "steps": float(there[0] + EPOCH if there.size else len(losses) * (1 + last)),
        "accuracy": accuracy(model.eval(), split.x_test, split.y_test),
    }


def mistakes(learning_rate: float, seed: int, *, epochs: int, slow_epochs: int) -> dict[str, float]:
    """Test accuracy of a trained network under each of the usual mistakes, and mended.

    Returns
    -------
    dict
        "right": in evaluation mode. "not eval", "not eval, 8": in training mode, the test images
        one by one and in batches of eight. "slow", "slow, mended": after ``slow_epochs`` with
        Keras's default, which torch calls a momentum of 0.01, then with statistics fitted again;
        "usual": the same with torch's 0.1. "frozen": no weight may move, but in training mode the
        network is shown one epoch of inverted images; "frozen, mended": in evaluation mode.
        "batch of 2": trained on batches of two, at a 32nd of the rate.
    """
    split = data.digit_images(seed=seed)
    test = split.x_test, split.y_test
    with seeded(seed):
        loader = batches(split)
        model = network(True)
        train(model, loader, learning_rate, epochs)
        found = {"right": accuracy(model.eval(), *test)}
        for size, name in ((1, "not eval"), (8, "not eval, 8")):
            found[name] = in_training_mode(model, *test, size)
        for name, momentum in (("slow", 0.01), ("usual", 0.1)):
            young = network(True)
            set_momentum(young, momentum)
            train(young, loader, learning_rate, slow_epochs)
            found[name] = accuracy(young.eval(), *test)
            if name == "slow":
                found["slow, mended"] = accuracy(fitted_again(young, loader), *test)
        for name, mode in (("frozen", True), ("frozen, mended", False)):
            frozen = copy.deepcopy(model).train(mode)
            for x, _ in loader:
                frozen(1 - x)
            found[name] = accuracy(frozen.eval(), *test)
        tiny = network(True)
        train(tiny, batches(split, 2), learning_rate / 32, epochs)
        found["batch of 2"] = accuracy(tiny.eval(), *test)
    return found


def in_training_mode(model: nn.Module, x: torch.Tensor, y: torch.Tensor, size: int) -> float:
    """Accuracy when ``eval()`` was forgotten, and images come so many at a time."""
    asked = copy.deepcopy(model).train()
    edges = pairwise([*range(0, len(x), size), len(x)])
    right = [accuracy(asked, x[i:j], y[i:j]) * (j - i) for i, j in edges]
    return sum(right) / len(x)


def set_momentum(model: nn.Module, momentum: float | None) -> None:
    """Give every batch norm this weight of the newest batch; None averages all alike."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum


def fitted_again(model: nn.Module, loader: DataLoader) -> nn.Module:
    """A copy in evaluation mode whose statistics are means over the batches of the loader."""
    copied = copy.deepcopy(model).train()
    for layer in copied.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
    set_momentum(copied, None)
    with torch.no_grad():
        for x, _ in loader:
            copied(x)
    return copied.eval()
