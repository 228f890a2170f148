"""How often a diagnosis is right: on healthy networks, on sick ones and on their twins."""

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import nn

from bncore.chapters.practice.diagnosis import graded, healthy, sick
from bncore.lab.layers import seeded
from bncore.practice.diagnosis import CODES, examine

ALARMS = [name for name, code in CODES.items() if code.severity != "note"]
"""The codes that should not be found on a healthy network."""
PIECES = 10
COSTS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Ends of the classes of costs, in accuracy."""


class Rate(NamedTuple):
    """How often something happened, and the ends of the exact interval of its probability."""

    count: int
    of: int
    low: float
    high: float


def rate(happened: Sequence[bool] | Bool[np.ndarray, "cases"], confidence: float = 0.95) -> Rate:
    """Count, with the interval of Clopper and Pearson.

    The probability p lies between the q at which a count as large as this one, or larger, has the
    probability (1 - confidence) / 2, and the q at which one as small, or smaller, has it. Both are
    quantiles of a beta distribution.
    """
    count, of = int(np.sum(happened)), len(happened)
    outside = (1 - confidence) / 2
    low = stats.beta.ppf(outside, count, of - count + 1) if count else 0.0
    high = stats.beta.isf(outside, count + 1, of - count) if count < of else 1.0
    return Rate(count, of, float(low), float(high))


def by_cost(
    happened: Sequence[bool] | Bool[np.ndarray, "cases"], cost: Float[np.ndarray, "cases"]
) -> list[Rate]:
    """The rate among the cases of each class of costs: one more than there are ``COSTS``."""
    classes = np.searchsorted(COSTS, cost, side="right")
    happened = np.asarray(happened, bool)
    return [rate(happened[classes == i]) for i in range(len(COSTS) + 1)]


def _found(model, batches, optimizer=None) -> Int[np.ndarray, "codes"]:
    codes = examine(model, batches, optimizer).codes
    return np.array([int(code in codes) for code in ALARMS])


def on_healthy(kind: str, seed: int) -> dict[str, float | np.ndarray]:
    """Examine a network that is meant to be healthy.

    Returns
    -------
    dict
        Which alarms are "found", whether it has "learned", its "loss", and what accuracy its running
        statistics "cost".
    """
    one = healthy.drawn(kind, seed)
    return {
        "found": _found(one.model, one.batches, one.optimizer),
        "learned": float(one.loss < healthy.FALLEN),
        "loss": one.loss,
        "cost": one.cost,
    }


def on_graded(fault: str, level: int, seed: int) -> dict[str, float]:
    """Examine a network with a fault of some degree.

    Returns
    -------
    dict
        Whether anything is "found", also on batches without labels, "unlabelled"; whether the data are
        "blamed", by ``shifted-input``; and the "cost" of the fault in accuracy.
    """
    one = graded.case(fault, level, seed)
    codes = examine(one.model, one.batches).codes & set(ALARMS)
    unlabelled = examine(one.model, [x for x, _ in one.batches]).codes & set(ALARMS)
    return {
        "found": float(bool(codes)),
        "unlabelled": float(bool(unlabelled)),
        "blamed": float("shifted-input" in codes),
        "cost": one.cost,
    }


def on_patient(patient: str, seed: int) -> dict[str, np.ndarray]:
    """Examine a sick network and its twin.

    Returns
    -------
    dict
        Arrays whose first axis is sick, twin: "found" by code; "loss", the mean over each twentieth
        of training, of the batches whose loss was finite; and "accuracy".
    """
    one = sick.patient(patient, seed)
    courses = one.sick, one.twin
    return {
        "found": np.array([_found(course.model, course.batches) for course in courses]),
        "loss": np.array([_in_pieces(course.curves.loss) for course in courses]),
        "accuracy": np.array([course.curves.accuracy for course in courses]),
    }


def _in_pieces(losses):
    return np.nanmean(losses.reshape(PIECES, -1), axis=1)


def on_many_layers(layers: int, seed: int) -> dict[str, float]:
    """The "seconds" of one processor that it takes to examine so many batch norms on 32 batches."""
    with seeded(seed):
        pairs = [
            part
            for i in range(layers)
            for part in ((f"linear{i}", nn.Linear(16, 16)), (f"norm{i}", nn.BatchNorm1d(16)))
        ]
        model, batches = nn.Sequential(OrderedDict(pairs)), [*torch.randn(32, 32, 16)]
    started = time.process_time()
    examine(model, batches)
    return {"seconds": time.process_time() - started}
