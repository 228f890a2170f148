"""Healthy networks of many kinds, drawn at random, on which a diagnosis should find nothing.

Whether one is healthy is decided without a diagnosis: it is made as torch's tutorials make networks, its
training loss, which knows no running statistics, has fallen, and running statistics cost it little on
test data, compared with statistics estimated again.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from bncore.lab import data, networks
from bncore.lab.batches import Batches
from bncore.lab.data import Split
from bncore.lab.inference import accuracy, refitted
from bncore.lab.layers import ACTIVATIONS, seeded
from bncore.lab.modes import evaluation

KINDS = ("perceptron", "residual perceptron", "convolutional", "residual", "sequence")
OPTIMIZERS = {
    "SGD": (torch.optim.SGD, {}, 0.1),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}, 0.02),
    "Adam": (torch.optim.Adam, {}, 0.003),
    "AdamW": (torch.optim.AdamW, {"weight_decay": 0.01}, 0.003),
}
EXAMINED = 24
FALLEN = 0.8
"""A network has learned when its loss is below this share of what it would be with no input."""
COSTLY = 0.02
"""Running statistics are at fault when they cost this share of the test answers, or of the variance."""


class Healthy(NamedTuple):
    """A network that was trained in earnest, and what it was trained with."""

    model: nn.Module
    batches: list[tuple[torch.Tensor, torch.Tensor]]
    optimizer: torch.optim.Optimizer
    steps: int
    batch_size: int
    loss: float
    """Mean over the last tenth of training, as a share of the loss of the best constant answer."""
    cost: float
    """What statistics estimated again win on test data: accuracy, or explained variance."""


def drawn(kind: str, seed: int) -> Healthy:
    """Draw architecture, data, batch size, optimiser, rate and steps, and train.

    The rate is a usual one times 1/3, 1 or 3. Half of the networks are examined on training data,
    half on one pass through data that they have not seen.
    """
    rng = np.random.default_rng([KINDS.index(kind), seed])
    split = _split(kind, rng, seed)
    real = split.y_train.is_floating_point()
    outputs = split.y_train.shape[1] if real else int(split.y_train.max()) + 1
    model = MAKERS[kind](split.x_train.shape[1:], outputs, rng, seed)
    if rng.random() < 0.5:
        _add_biases(model)
    make, options, usual = OPTIMIZERS[rng.choice(list(OPTIMIZERS))]
    rate = usual * rng.choice([1 / 3, 1.0, 3.0])
    optimizer = make(model.parameters(), lr=rate, **options)
    size = int(rng.choice([16, 32, 64, 128]))
    longest = 250 if kind in ("convolutional", "residual") else 800
    steps = int(np.exp(rng.uniform(np.log(150), np.log(longest))))
    loss = _train(model, split, optimizer, steps, size, seed) / _constant(split)
    unseen = rng.random() < 0.5
    batches = _unseen(split, size) if unseen else _seen(split, size, seed)
    return Healthy(model, batches, optimizer, steps, size, loss, _cost(model, split))


def _split(kind, rng, seed) -> Split:
    if kind in ("convolutional", "residual"):
        split = data.digit_images(8, seed)
    elif kind == "sequence":
        split = data.digits(seed)
        split = split._replace(
            x_train=split.x_train.unflatten(1, (8, 8)), x_test=split.x_test.unflatten(1, (8, 8))
        )
    else:
        source = rng.choice(["digits", "tumours", "regression"])
        if source == "tumours":
            return _tumours(seed)
        if source == "regression":
            return data.gaussian_regression(2000, 20, 3, seed=seed)
        split = data.digits(seed)
    return data.standardized(split) if rng.random() < 0.5 else split


def _tumours(seed):
    """Breast cancer, 30 standardised features of 569 tumours, benign or not."""
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)[order]
    y = torch.tensor(y, dtype=torch.int64)[order]
    return Split(x[142:], y[142:], x[:142], y[:142])


def _norms(rng):
    """Options of batch norms: torch's default, Keras's epsilon, or a slower average."""
    momentum, eps = ((0.1, 1e-5), (0.1, 1e-3), (0.05, 1e-5))[rng.integers(3)]
    return {"momentum": momentum, "eps": eps}


def _activation(rng):
    return str(rng.choice(["relu", "leaky_relu", "elu", "gelu", "tanh", "sigmoid"]))


def _perceptron(shape, outputs, rng, seed):
    widths = [int(rng.choice([16, 32, 64])) for _ in range(rng.integers(1, 5))]
    widths = *shape, *widths, outputs
    model = networks.mlp(widths, _activation(rng), "batch", seed=seed, **_norms(rng))
    if rng.random() < 0.3:
        model = nn.Sequential(*model[:-1], nn.Dropout(0.3), model[-1])
    return model


def _residual_perceptron(shape, outputs, rng, seed):
    size = int(rng.integers(1, 5)), int(rng.choice([16, 32, 64]))
    return networks.residual_mlp(*shape, outputs, *size, _activation(rng), seed=seed, **_norms(rng))


def _residual(shape, outputs, rng, seed, skip=True):
    blocks, width = int(rng.integers(1, 3)), int(rng.choice([4, 8]))
    stages = int(rng.integers(1, 3))
    return networks.residual(
        blocks,
        width,
        skip=skip,
        stages=stages,
        activation=_activation(rng),
        seed=seed,
        **_norms(rng),
    )


def _convolutional(shape, outputs, rng, seed):
    return _residual(shape, outputs, rng, seed, skip=False)


def _sequence(shape, outputs, rng, seed):
    widths = shape[0], *(int(rng.choice([8, 16, 32])) for _ in range(rng.integers(1, 4)))
    make, layers = ACTIVATIONS[_activation(rng)], []
    with seeded(seed):
        for inputs, units in pairwise(widths):
            convolution = nn.Conv1d(inputs, units, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm1d(units, **_norms(rng)), make()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(shape[1] * widths[-1], outputs))


MAKERS: dict[str, Callable[..., nn.Module]] = {
    "perceptron": _perceptron,
    "residual perceptron": _residual_perceptron,
    "convolutional": _convolutional,
    "residual": _residual,
    "sequence": _sequence,
}


def _add_biases(model):
    """Give linear layers and convolutions the bias that torch gives them by default."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and module.bias is None:
            module.bias = nn.Parameter(torch.zeros(len(module.weight)))


def _train(model, split, optimizer, steps, size, seed):
    loss_of = mse_loss if split.y_train.is_floating_point() else cross_entropy
    order, losses = Batches(len(split.x_train), size, seed), []
    with seeded(seed):
        for batch in (next(order) for _ in range(steps)):
            loss = loss_of(model(split.x_train[batch]), split.y_train[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return np.mean(losses[-steps // 10 :])


def _cost(model, split):
    again = refitted(model, split.x_train)
    if not split.y_test.is_floating_point():
        fresh, kept = (accuracy(one, split.x_test, split.y_test) for one in (again, model))
        return fresh - kept
    kept, fresh = (_error(one, split) for one in (model, again))
    return (kept - fresh) / _constant(split)


def _error(model, split):
    with evaluation(model, "running"):
        return mse_loss(model(split.x_test), split.y_test).item()


def _constant(split):
    """The training loss of the best answer that does not look at its input."""
    y = split.y_train
    if y.is_floating_point():
        return y.var(0, unbiased=False).mean().item()
    shares = y.bincount() / len(y)
    return -(shares * shares.log()).sum().item()


def _seen(split, size, seed):
    order = Batches(len(split.x_train), size, seed + 1)
    return [(split.x_train[b], split.y_train[b]) for b in (next(order) for _ in range(EXAMINED))]


def _unseen(split, size):
    pieces = zip(split.x_test.split(size), split.y_test.split(size), strict=True)
    return [(x, y) for x, y in pieces if len(x) == size]
