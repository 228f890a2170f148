"""One example in the company of others: how often its answer changes, and how far its output spreads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from bncore.lab.inference import predictions, scores_in_company

EPS = 1e-5


def answers(
    model: nn.Module, x: torch.Tensor, batch_size: int, rounds: int = 20
) -> Int[torch.Tensor, "rounds examples"]:
    """The class of every example in rounds of shuffled batches, normalised by the batch's statistics."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(rounds):
        order = torch.randperm(len(x), generator=generator)
        given = predictions(model, x[order], "batch", batch_size)
        found.append(given[order.argsort()])
    return torch.stack(found)


def undecided(model: nn.Module, x: torch.Tensor, y: torch.Tensor, batch_size: int = 8) -> int:
    """Of the examples that are right with fixed statistics, the one right in nearest to half of its batches."""
    right = (answers(model, x, batch_size) == y).double().mean(0)
    right[predictions(model, x) != y] = 1
    return int((right - 0.5).abs().argmin())


def shares(
    model: nn.Module, x: torch.Tensor, index: int, batch_size: int, draws: int = 200
) -> Float[np.ndarray, "classes"]:
    """The share of random batches in which example `index` is given each class."""
    others = torch.cat([x[:index], x[index + 1 :]])
    scores = scores_in_company(model, x[index], others, batch_size, draws)
    return (scores.argmax(1).bincount(minlength=scores.shape[1]) / draws).numpy()


@dataclass(frozen=True)
class Spread:
    """One value's normalised outputs in random batches: all of them, their deviation, and the predicted one.

    By batch size. The prediction is to first order, from the skewness and kurtosis of the feature.
    """

    value: float
    outputs: dict[int, np.ndarray]
    measured: list[float]
    predicted: list[float]


def in_batches(
    values: Float[np.ndarray, "values"],
    distance: float | int,
    sizes: Sequence[int],
    draws: int = 1500,
) -> Spread:
    """Put the value nearest to so many standard deviations above the mean into random batches of the values."""
    standard = (values - values.mean()) / values.std()
    z = standard[np.abs(standard - distance).argmin()]
    rng, outputs = np.random.default_rng(0), {}
    for m in sizes:
        batch = standard[rng.integers(len(standard), size=(draws, m))]
        batch[:, 0] = z
        outputs[m] = (z - batch.mean(axis=1)) / np.sqrt(batch.var(axis=1) + EPS)
    skewness, kurtosis = (standard**3).mean(), (standard**4).mean()
    factor = np.sqrt(1 + skewness * z + (kurtosis - 1) / 4 * z**2)
    return Spread(
        value=float(z),
        outputs=outputs,
        measured=[float(outputs[m].std()) for m in sizes],
        predicted=[float(factor / np.sqrt(m)) for m in sizes],
    )
