"""Train a classifier and keep what was measured on the way.

Minibatch gradient descent on the cross-entropy; the same seed gives the same run.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn
from torch.nn.functional import cross_entropy

from bncore import progress
from bncore.lab.data import Split
from bncore.lab.probes import Probe
from bncore.mechanics import _arguments as check


class History(NamedTuple):
    """What was measured in one run of training.

    Attributes
    ----------
    losses : Float[ndarray, "steps"]
        Mean cross-entropy in nats of each step's batch, before the step. Not finite once training
        has diverged.
    steps : Int[ndarray, "records"]
        Number of steps taken when the probes were called: 0, every, 2 every, ..., and the last.
    records : dict of str to Float[ndarray, "records *_"]
        What each probe returned, by its name.
    """

    losses: Float[np.ndarray, "steps"]
    steps: Int[np.ndarray, "records"]
    records: dict[str, Float[np.ndarray, "records *_"]]


def train(
    model: nn.Module,
    split: Split,
    steps: int,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    seed: int = 0,
    record: Mapping[str, Probe] | None = None,
    *,
    every: int = 10,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
) -> History:
    """Train a classifier in place on batches drawn without replacement, epoch after epoch.

    Parameters
    ----------
    model : nn.Module
        From images to one score a class.
    split : Split
    steps : int
        Number of gradient steps.
    batch_size : int
        At least 2, because a batch norm needs two values, and at most the training set.
    learning_rate : float
        Positive.
    seed : int
        Of the order of the batches and of anything random in the model. Nothing outside the
        training is reseeded.
    record : mapping of str to probe, optional
        What to measure, see ``bncore.lab.probes``; each probe is a function of (model, split).
    every : int
        Steps between two records.
    optimizer : callable
        Called as ``optimizer(parameters, lr=learning_rate)``.

    Returns
    -------
    History

    Raises
    ------
    TypeError
        If a number is of the wrong type or a probe is not callable.
    ValueError
        If a number is outside its range.
    """
    record = dict(record or {})
    _check(split, steps, batch_size, learning_rate, every, record)
    losses, taken = np.empty(steps), []
    records = {name: [] for name in record}

    def measure(step):
        taken.append(step)
        for name, probe in record.items():
            records[name].append(probe(model, split))

    descent = optimizer(model.parameters(), lr=learning_rate)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        batches = _batches(len(split.x_train), batch_size, torch.Generator().manual_seed(seed))
        model.train()
        for step in progress.bar(range(steps), "Training", "step"):
            if step % every == 0:
                measure(step)
            batch = next(batches)
            loss = cross_entropy(model(split.x_train[batch]), split.y_train[batch])
            descent.zero_grad()
            loss.backward()
            descent.step()
            losses[step] = loss.item()
        measure(steps)
    return History(
        losses, np.array(taken), {name: np.array(values) for name, values in records.items()}
    )


def _batches(count, size, generator):
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count - count % size].split(size)


def _check(split, steps, batch_size, learning_rate, every, record):
    for name, value in (("steps", steps), ("batch_size", batch_size), ("every", every)):
        check.positive_integer(name, value)
    count = len(split.x_train)
    if not 2 <= batch_size <= count:
        raise ValueError(
            f"batch_size is {batch_size}, expected at least 2 (a batch norm needs two values) and "
            f"at most {count}, the size of the training set"
        )
    check.positive("learning_rate", learning_rate)
    for name, probe in record.items():
        if not callable(probe):
            raise TypeError(
                f"record[{name!r}] is a {type(probe).__name__}, expected a function of "
                "(model, split)"
            )
