"""What small batches break, cause by cause, and what each remedy is worth on the digits."""

import copy
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bncore.chapters.practice.small_batches.side_by_side import (
    Pool,
    SideBySide,
    errors,
    refitted,
    step,
)
from bncore.explanations.ghost_batches import GhostBatchNorm
from bncore.lab import data
from bncore.lab.running_norm import RunningNorm
from bncore.practice.renormalization import BatchRenorm, ramp

WIDTHS = (64, 32, 32, 10)
EPSILONS = {
    "epsilon 0.1": 0.1,
    "epsilon 1": 1.0,
    "epsilon 10": 10.0,
}  # batch norm with more than torch's 1e-5
ARMS = (
    "none",
    "batch norm",
    *EPSILONS,
    "renormalised",
    "running statistics",
    "accumulated",
    "layer norm",
)
OF_ONE = ("none", "running statistics", "layer norm")  # what trains on one example at a time
WHOLE = 64  # examples behind a step where gradients are accumulated


def _norm(arm, batch_size, steps, copies):
    """The normalisation of an arm, for so many networks side by side."""
    if arm == "renormalised":
        begin, end = steps // 10, max(steps // 3, steps // 10 + 1)
        limits = {"r_max": ramp(1, 3, begin, end), "d_max": ramp(0, 5, begin, end)}
        return partial(BatchRenorm, **limits)
    if arm in EPSILONS:
        return partial(nn.BatchNorm1d, eps=EPSILONS[arm])
    return {
        "none": None,
        "batch norm": nn.BatchNorm1d,
        "running statistics": RunningNorm,
        "accumulated": partial(GhostBatchNorm, size=batch_size),
        "layer norm": partial(nn.GroupNorm, copies),
    }[arm]


def trained(
    arm: str,
    batch_size: int,
    runs: Sequence[tuple[float, int]],
    *,
    examples: int,
    widths: Sequence[int] = WIDTHS,
) -> dict[str, np.ndarray]:
    """Train one network for each rate and seed on the digits, until all have seen so many examples.

    Two hidden layers of 32 ReLU units, He's weights, gradient descent on batches of ``batch_size``.
    "accumulated" adds up the gradients of as many batches as make ``WHOLE`` examples before it steps.

    Parameters
    ----------
    arm : str
        One of ``ARMS``.
    batch_size : int
    runs : sequence of (float, int)
        Learning rate and seed of each network; the seed is that of the split, weights and batches.
    examples : int

    Returns
    -------
    dict
        One number for each network: "half" and "error", the share of the test set that is got wrong
        after half of the examples and after all; "recalibrated", the same with the statistics of the
        whole training set; "company", with those of the batches of ``batch_size`` in which the
        test set comes. The last two are NaN where an arm has no statistics of batches.
    """
    rates, seeds = torch.tensor([rate for rate, _ in runs]), [seed for _, seed in runs]
    own = sorted(set(seeds))
    splits = [data.digits(seed) for seed in own]
    which = [own.index(seed) for seed in seeds]
    taken = WHOLE if arm == "accumulated" else batch_size
    steps = examples // taken
    pool = Pool(splits, which, own, taken)
    model = SideBySide(widths, _norm(arm, batch_size, steps, len(runs)), seeds)
    test = [torch.stack([split[part] for split in splits])[which] for part in (2, 3)]
    found = {}
    for count in range(1, steps + 1):
        step(model.train(), *pool.batch(), rates)
        if count == steps // 2:
            found["half"] = errors(model, *test)
    found["error"] = errors(model, *test)
    found["recalibrated"] = found["company"] = torch.full((len(runs),), torch.nan)
    if any(isinstance(norm, BatchNorm) for norm in model.norms):
        found["company"] = in_company(model, *test, batch_size)
        if arm != "accumulated":
            found["recalibrated"] = errors(refitted(model, pool.x[pool.which]), *test)
    return {name: values.numpy() for name, values in found.items()}


def in_company(
    model: SideBySide,
    x: Float[torch.Tensor, "copies examples inputs"],
    y: Int[torch.Tensor, "copies examples"],
    batch_size: int,
) -> Float[torch.Tensor, "copies"]:
    """The error in training mode, on batches cut from x in its order; what is left over is left out.

    The model stays as it is.
    """
    model = copy.deepcopy(model).train()
    for norm in model.norms:
        norm.momentum = 0.0
    wrong, whole = [], x.shape[1] // batch_size * batch_size
    with torch.no_grad():
        for first in range(0, whole, batch_size):
            part = slice(first, first + batch_size)
            scores = model(x[:, part].transpose(0, 1))
            wrong.append((scores.argmax(2) != y[:, part].T) | ~scores.isfinite().all(2))
    return torch.cat(wrong).double().mean(0)


def unlike(
    arm: str, runs: Sequence[tuple[float, int]], *, examples: int, batch_size: int = 32
) -> dict[str, np.ndarray]:
    """Train as ``trained`` does, on batches that hold two of the ten digits only.

    Parameters
    ----------
    arm : {"batch norm", "renormalised"}
    runs, examples
        As in ``trained``.

    Returns
    -------
    dict
        One number for each network: "company", the error on test batches of two digits, with their
        statistics as in training; "error", on the same examples at inference.
    """
    rates, seeds = torch.tensor([rate for rate, _ in runs]), [seed for _, seed in runs]
    splits = [data.digits(seed) for seed in seeds]
    steps = examples // batch_size
    model = SideBySide(WIDTHS, _norm(arm, batch_size, steps, len(runs)), seeds)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for _ in range(steps):
        parts = [
            _of_two(s.x_train, s.y_train, batch_size, g)
            for s, g in zip(splits, generators, strict=True)
        ]
        x, y = (torch.stack(part, 1) for part in zip(*parts, strict=True))
        step(model.train(), x, y, rates)
    parts = []
    for split, g in zip(splits, generators, strict=True):
        drawn = [_of_two(split.x_test, split.y_test, batch_size, g) for _ in range(40)]
        parts.append([torch.cat(part) for part in zip(*drawn, strict=True)])
    x, y = (torch.stack(part) for part in zip(*parts, strict=True))
    return {
        "company": in_company(model, x, y, batch_size).numpy(),
        "error": errors(model, x, y).numpy(),
    }


def _of_two(x, y, size, generator):
    """A batch of examples of two classes, drawn with replacement."""
    two = torch.randperm(10, generator=generator)[:2]
    among = torch.isin(y, two).nonzero()[:, 0]
    chosen = among[torch.randint(len(among), (size,), generator=generator)]
    return x[chosen], y[chosen]
