"""Networks trained with other statistics than the batch's, and networks met by changed inputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.lab import data, networks, probes, training
from bncore.lab.batches import Batches
from bncore.lab.inference import accuracy, refitted
from bncore.lab.layers import seeded
from bncore.lab.modes import is_batch_norm
from bncore.lab.running_norm import RunningNorm
from bncore.practice.renormalization import BatchRenorm, ramp

STATISTICS = ("batch", "whole training set", "running")
CHANGES = ("contrast", "brightness", "noise")
INPUTS = ("digits", "normal", "skewed")
WIDTHS = (64, 32, 32, 10)


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


def mismatch(
    normalization: str, batch_size: int, learning_rate: float, seed: int, *, steps: int
) -> dict[str, float]:
    """How far a network's scores in training are from those at inference, with the same weights.

    Of "batch" norm or batch "renorm", two hidden layers of 32 ReLU units, after training on the digits.

    Returns
    -------
    dict
        "mismatch": root mean square distance of the scores of 50 batches of training examples in
        training mode from the scores of the same examples in evaluation mode, over the standard
        deviation of the latter. "accuracy" on the test set.
    """
    norm = renorm if normalization == "renorm" else "batch"
    split = data.digits(seed)
    model = networks.mlp(WIDTHS, "relu", norm, gain=2**0.5, seed=seed)
    training.train(model, split, steps, batch_size, learning_rate, seed)
    batches = Batches(len(split.x_train), batch_size, seed + 1)
    x = [split.x_train[next(batches)] for _ in range(50)]
    found = {"accuracy": _accuracy(model, split)}
    with torch.no_grad():
        at_inference = torch.cat([model.eval()(batch) for batch in x])
        for layer in model:
            if is_batch_norm(layer):
                layer.momentum = 0.0
        in_training = torch.cat([model.train()(batch) for batch in x])
    apart = (in_training - at_inference).square().mean().sqrt()
    return {"mismatch": (apart / at_inference.std()).item(), **found}


def renorm(features: int) -> BatchRenorm:
    """Renormalization that is batch norm for 100 batches, and at its full limits from the 300th."""
    return BatchRenorm(features, r_max=ramp(1, 3, 100, 300), d_max=ramp(0, 5, 100, 300))


def alone(kind: str, learning_rate: float, seed: int, *, steps: int) -> dict[str, float]:
    """Test accuracy on single digits, with the moving averages and with statistics of their own.

    A network with batch norm, "fully connected" with two hidden layers of 32 ReLU units or
    "convolutional" with two of 8 channels, which ends in an average over the pixels; batches of 32.
    One digit has one value of each feature, or one at each pixel.

    Returns
    -------
    dict
        "kept" and "own".
    """
    if kind == "convolutional":
        split = data.digit_images(seed=seed)
        with seeded(seed):
            model = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
                nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
            )  # fmt: skip
    else:
        split, model = data.digits(seed), networks.mlp(WIDTHS, "relu", "batch", seed=seed)
    training.train(model, split, steps, 32, learning_rate, seed)
    x = split.x_test
    with torch.no_grad():
        for layer in model.eval():
            x = _by_itself(layer, x) if hasattr(layer, "running_mean") else layer(x)
    own = (x.argmax(1) == split.y_test).double().mean().item()
    return {"kept": _accuracy(model, split), "own": own}


def _by_itself(layer, x):
    """Normalise each example by the mean and variance of its own values of each feature."""
    values = x.flatten(2) if x.ndim > 2 else x[:, :, None]
    centred = values - values.mean(2, keepdim=True)
    x_hat = centred / (centred.square().mean(2, keepdim=True) + layer.eps).sqrt()
    return (layer.weight[:, None] * x_hat + layer.bias[:, None]).reshape(x.shape)


def in_company(
    kind: str, learning_rate: float, seed: int, *, steps: int, sizes: Sequence[int]
) -> dict[str, Any]:
    """What a network gains at its use from statistics of the batch in which it meets an example.

    The network with batch norm of ``under_changes``.

    Returns
    -------
    dict
        "gain": test accuracy with statistics of the test batch less that with moving averages, for
        test inputs as they are and at 0.3 of their contrast, and for batches of so many examples.
        "accuracy" on the test inputs as they are, with moving averages.
    """
    split, model = _trained_on(kind, "batch", learning_rate, seed, steps)
    gain = []
    for x in (split.x_test, changed(split.x_test, "contrast", 0.0, seed)):
        kept = accuracy(model, x, split.y_test)
        gain.append([accuracy(model, x, split.y_test, "batch", size) - kept for size in sizes])
    return {"gain": np.array(gain), "accuracy": _accuracy(model, split)}


def _trained_on(kind, normalization, learning_rate, seed, steps):
    split = inputs(kind, seed)
    widths = split.x_train.shape[1], 64, 64, int(split.y_train.max()) + 1
    chosen = "batch" if normalization == "batch" else None
    model = networks.mlp(widths, "relu", chosen, gain=2**0.5, seed=seed)
    training.train(model, split, steps, 32, learning_rate, seed)
    return split, model


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
    split, model = _trained_on(kind, normalization, learning_rate, seed, steps)
    clean, scores = _accuracy(model, split), probes.in_pieces(model.eval(), split.x_test)
    lost, moved = [], []
    for change in CHANGES:
        x = changed(split.x_test, change, split.x_train.std().item(), seed)
        lost.append(clean - accuracy(model, x, split.y_test))
        apart = probes.in_pieces(model, x) - scores
        moved.append((apart.square().mean().sqrt() / scores.std(0).square().mean().sqrt()).item())
    return {"accuracy": clean, "lost": np.array(lost), "moved": np.array(moved)}
