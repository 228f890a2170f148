"""Estimates of a population's variance: from batches drawn in several ways, and averaged on the way."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import conv2d

from bncore.lab.data import Split
from bncore.mechanics.inference import RunningStatistics

PATCHES = {2: (1, 2), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8)}


def units(split: Split) -> tuple[Float[np.ndarray, "rows 32"], Float[np.ndarray, "rows 32"]]:
    """32 random features of the training digits, in random order and sorted by class."""
    rng = np.random.default_rng(0)
    x = split.x_train.double().numpy() @ rng.normal(size=(64, 32))
    return rng.permutation(x), x[split.y_train.numpy().argsort(kind="stable")]


def variance_ratios(split: Split) -> dict[str, list[float]]:
    """The mean variance of a batch (divisor m) over the variance of all values, for each way to draw a batch.

    Batch sizes are those of ``PATCHES``. Neighbours are the positions of one patch of an image, in 16
    random convolutions of the digits; the other ways are of 32 random linear features.
    """
    shuffled, by_class = units(split)
    rng = np.random.default_rng(0)
    kernels = torch.tensor(rng.normal(size=(16, 1, 3, 3)))
    maps = conv2d(split.x_train.double().reshape(-1, 1, 8, 8), kernels, padding=1).numpy()
    found = {"independent": [], "sorted by class": [], "neighbours in one image": []}
    for m, patch in PATCHES.items():
        drawn = shuffled[rng.integers(len(shuffled), size=(800, m))]
        in_order = by_class[: len(by_class) // m * m].reshape(-1, m, 32)
        found["independent"].append(_within(drawn, shuffled.var(axis=0)))
        found["sorted by class"].append(_within(in_order, shuffled.var(axis=0)))
        cut = _patches(maps, *patch)
        found["neighbours in one image"].append(_within(cut, maps.var(axis=(0, 2, 3))))
    return found


def _within(batches, whole):
    return float((batches.var(axis=1).mean(axis=0) / whole).mean())


def _patches(maps, height, width):
    """Every image cut into patches: (patches, positions, channels)."""
    images, channels, rows, columns = maps.shape
    cut = maps.reshape(images, channels, rows // height, height, columns // width, width)
    return cut.transpose(0, 2, 4, 3, 5, 1).reshape(-1, height * width, channels)


TRUTH, START = 4.0, 1.0


@dataclass(frozen=True)
class Running:
    """A running variance after 0, 1, 2, … batches: `paths` of three seeds, predicted `mean` and `deviation`."""

    paths: Float[np.ndarray, "seeds updates"]
    mean: Float[np.ndarray, "updates"]
    deviation: Float[np.ndarray, "updates"]


def running(momentum: float, updates: int = 100, batch_size: int = 16, seeds: int = 3) -> Running:
    """Average the variances of normal data of variance 4 on the way, from an initial 1."""
    rng = np.random.default_rng(0)
    statistics = RunningStatistics(seeds, momentum)
    paths = [statistics.var]
    for _ in range(updates):
        statistics.update(TRUTH**0.5 * rng.normal(size=(batch_size, seeds)))
        paths.append(statistics.var)
    left = (1 - momentum) ** np.arange(updates + 1)
    of_a_batch = TRUTH * np.sqrt(2 / (batch_size - 1))
    return Running(
        paths=np.transpose(paths),
        mean=TRUTH + left * (START - TRUTH),
        deviation=of_a_batch * np.sqrt(momentum / (2 - momentum) * (1 - left**2)),
    )
