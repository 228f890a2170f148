"""Networks trained with other statistics than the batch's, and networks met by changed inputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import batch_norm, cross_entropy

from bncore.lab import data, networks, probes, training
from bncore.lab.batches import Batches
from bncore.lab.inference import accuracy, refitted

STATISTICS = ("batch", "whole training set", "running")
CHANGES = ("contrast", "brightness", "noise")
INPUTS = ("digits", "normal", "skewed")
WIDTHS = (64, 32, 32, 10)


class RunningNorm(nn.BatchNorm1d):
    """Normalises by its moving averages in training too, and takes them for constants.

    Each batch of training moves the averages before they are used.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training:
            with torch.no_grad():
                batch_norm(
                    input, self.running_mean, self.running_var, None, None, True, self.momentum
                )
        kept = self.running_mean.clone(), self.running_var.clone()
        return batch_norm(input, *kept, self.weight, self.bias, eps=self.eps)


def trained_with(
    statistics: str,
    batch_size: int,
    learning_rate: float,
    seed: int,
    *,
    moments: Sequence[int],
    widths: Sequence[int] = WIDTHS,
    source: str = "digits",
    cache: str | None = None,
) -> dict[str, Any]:
    """Train on the digits with the statistics of the batch, of the whole training set, or running.

    The loss is always that of a batch. With statistics of the whole training set, all its examples
    pass through the network at every step, and the gradient through their statistics.

    Returns
    -------
    dict
        Test accuracy after each number of steps in `moments`: "kept" with the moving averages of
        the network, "exact" with statistics of the whole training set; and "last", the last of "kept".
        A network that has diverged is at chance.
    """
    split = data.rows(source, seed, cache)
    norm = RunningNorm if statistics == "running" else "batch"
    model = networks.mlp(widths, "relu", norm, gain=2**0.5, seed=seed)
    descent = torch.optim.SGD(model.parameters(), lr=learning_rate)
    batches = Batches(len(split.x_train), batch_size, seed)
    found: dict[str, Any] = {"kept": [], "exact": []}
    for step in range(1, max(moments) + 1):
        batch = next(batches)
        model.train()
        whole = statistics == "whole training set"
        scores = model(split.x_train)[batch] if whole else model(split.x_train[batch])
        loss = cross_entropy(scores, split.y_train[batch])
        descent.zero_grad()
        loss.backward()
        descent.step()
        if step in moments:
            found["kept"].append(_accuracy(model, split))
            again = model if statistics == "running" else refitted(model, split.x_train)
            found["exact"].append(_accuracy(again, split))
    return {**{name: np.array(values) for name, values in found.items()}, "last": found["kept"][-1]}


def _accuracy(model, split):
    return accuracy(model, split.x_test, split.y_test)


def inputs(kind: str, seed: int) -> data.Split:
    """The digits, or 2500 rows of 20 independent features of mean 0 and variance 1, in three classes.

    The features are "normal", or "skewed": exponential less 1. The classes are those of the largest
    of three sums of ten rectified features, which the seed draws.
    """
    if kind == "digits":
        return data.digits(seed)
    rng = np.random.default_rng(seed)
    shape = 2500, 20
    x = rng.normal(size=shape) if kind == "normal" else rng.exponential(size=shape) - 1
    hidden = np.maximum(x @ rng.normal(size=(20, 10)) / 20**0.5, 0)
    scores = (hidden - hidden.mean(axis=0)) @ rng.normal(size=(10, 3))
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(scores.argmax(axis=1))
    return data.Split(x[:1500], y[:1500], x[1500:], y[1500:])


def changed(x: torch.Tensor, change: str, size: float, seed: int) -> torch.Tensor:
    """Inputs at 0.3 of their contrast, or `size` brighter, or with Gaussian noise of that deviation."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return {"contrast": 0.3 * x, "brightness": x + size, "noise": x + size * noise}[change]


def under_changes(
    kind: str, normalization: str, learning_rate: float, seed: int, *, steps: int
) -> dict[str, Any]:
    """Train on `inputs`, with batch norm or without ("none"), and change the test inputs.

    Two hidden layers of 64 ReLU units, He's weights, batches of 32. A change is as large as the
    standard deviation of the training inputs, see ``changed``.

    Returns
    -------
    dict
        "accuracy" on the test inputs as they are; for each of ``CHANGES`` "lost", the accuracy that
        the change costs, and "moved", the root mean square change of the scores over their standard
        deviation.
    """
    split = inputs(kind, seed)
    widths = split.x_train.shape[1], 64, 64, int(split.y_train.max()) + 1
    chosen = "batch" if normalization == "batch" else None
    model = networks.mlp(widths, "relu", chosen, gain=2**0.5, seed=seed)
    training.train(model, split, steps, 32, learning_rate, seed)
    clean, scores = _accuracy(model, split), probes.in_pieces(model.eval(), split.x_test)
    lost, moved = [], []
    for change in CHANGES:
        x = changed(split.x_test, change, split.x_train.std().item(), seed)
        lost.append(clean - accuracy(model, x, split.y_test))
        apart = probes.in_pieces(model, x) - scores
        moved.append((apart.square().mean().sqrt() / scores.std(0).square().mean().sqrt()).item())
    return {"accuracy": clean, "lost": np.array(lost), "moved": np.array(moved)}
