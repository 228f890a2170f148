"""Four ways in which training and evaluation disagree, each measured on small networks and the digits.

A list has the test accuracy of one network a seed.
"""

from collections.abc import Sequence

import torch
from torch import nn

from bncore.lab import networks, training
from bncore.lab.data import Split
from bncore.lab.inference import accuracy, folded, refitted

SEEDS = range(3)
MOMENTA = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
TEST_SIZES = (2, 4, 8, 16, 32, 64, 128)
BATCHES = (2, 4, 8, 32)
CONTRASTS = tuple(k / 10 for k in range(1, 11))
WAYS = (
    "training mode",
    "running statistics",
    "fitted again",
    "200 more steps",
    "folded, 200 more steps",
)


def trained(
    split: Split,
    seed: int,
    steps: int = 300,
    batch_size: int = 32,
    momentum: float | None = 0.1,
) -> nn.Module:
    """A network with two batch norms, trained on the digits at the rate 0.1."""
    widths = 64, 64, 64, 10
    model = networks.mlp(widths, "relu", "batch", momentum=momentum, seed=seed)
    training.train(model, split, steps, batch_size, seed=seed)
    return model


def forgotten(
    family: Sequence[nn.Module], split: Split, sizes: Sequence[int] = TEST_SIZES
) -> dict[str, list]:
    """In training mode, a list for each size of the test batches: "shuffled" and sorted "by class".

    "evaluated" is the one list of evaluation mode.
    """
    x, y = split.x_test, split.y_test
    order = y.argsort(stable=True)
    return {
        "shuffled": [[accuracy(net, x, y, "batch", m) for net in family] for m in sizes],
        "by class": [
            [accuracy(net, x[order], y[order], "batch", m) for net in family] for m in sizes
        ],
        "evaluated": [accuracy(net, x, y) for net in family],
    }


def momenta(split: Split, steps: int = 200) -> dict[float | None, list[float]]:
    """With the running statistics of each momentum; None is the average of all batches."""
    test = split.x_test, split.y_test
    return {
        momentum: [
            accuracy(trained(split, seed, steps, momentum=momentum), *test) for seed in SEEDS
        ]
        for momentum in (*MOMENTA, None)
    }


def tiny(split: Split, sizes: Sequence[int] = BATCHES) -> dict[str, list[list[float]]]:
    """After training in tiny batches: each of ``WAYS`` to go on, for each batch size and seed."""
    found = {way: [] for way in WAYS}
    for m in sizes:
        rows = [_ways(split, m, seed) for seed in SEEDS]
        for way, values in zip(WAYS, zip(*rows, strict=True), strict=True):
            found[way].append(list(values))
    return found


def _ways(split, m, seed):
    x, test = split.x_train, (split.x_test, split.y_test)
    net = trained(split, seed, 300, m)
    again = refitted(net, x)
    before = accuracy(net, *test, "batch", m), accuracy(net, *test), accuracy(again, *test)
    flat = folded(again, x)
    for more in (net, flat):
        training.train(more, split, 200, m, learning_rate=0.02, seed=seed + 100)
    return *before, accuracy(refitted(net, x), *test), accuracy(flat, *test)


def washed_out(x: torch.Tensor, contrast: float) -> torch.Tensor:
    """Images at a fraction of their contrast around grey, 0.5."""
    return contrast * x + (1 - contrast) / 2


def contrasts(
    family: Sequence[nn.Module], split: Split, grid: Sequence[float] = CONTRASTS
) -> dict[str, list[list[float]]]:
    """On washed-out test images: with "saved" statistics, "fitted" to them, and fitted to and tested on the "ones"."""
    y, found = split.y_test, {"saved": [], "fitted": [], "ones": []}
    only = y == 1
    for contrast in grid:
        x = washed_out(split.x_test, contrast)
        found["saved"].append([accuracy(net, x, y) for net in family])
        found["fitted"].append([accuracy(refitted(net, x), x, y) for net in family])
        found["ones"].append([accuracy(refitted(net, x[only]), x[only], y[only]) for net in family])
    return found
