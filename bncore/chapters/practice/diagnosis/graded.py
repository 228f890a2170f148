"""Faults by degrees, each with its cost: what accuracy a cure wins back.

Each network is the patients' perceptron, on the digits.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from bncore.chapters.practice.diagnosis import sick
from bncore.lab import data
from bncore.lab.data import Split
from bncore.lab.inference import accuracy, refitted
from bncore.lab.layers import seeded


class Case(NamedTuple):
    """A network with a fault of some degree, batches to examine it on, and what the fault costs.

    Attributes
    ----------
    model : nn.Module
    batches : list of (Tensor, Tensor)
    cost : float
        Test accuracy of the cured network minus that of the sick one.
    """

    model: nn.Module
    batches: list[sick.Batch]
    cost: float


class Fault(NamedTuple):
    """A fault in words, what its degree means, its degrees, and how a case is made of one."""

    words: str
    degree: str
    degrees: tuple[float, ...]
    case: Callable[[float, int], Case]


def _taken(batches) -> list[sick.Batch]:
    return [next(batches) for _ in range(sick.EXAMINED)]


def _case(model, split: Split, seed: int, cured: nn.Module | None = None) -> Case:
    """Used on a split; cured by statistics estimated again on it, unless it is said how."""
    cured = refitted(model, split.x_train) if cured is None else cured
    accuracies = [accuracy(one, split.x_test, split.y_test) for one in (cured, model)]
    batches = sick.drawn(split.x_train, split.y_train, sick.SIZE, seed + 1)
    return Case(model, _taken(batches), accuracies[0] - accuracies[1])


def _averaged(rate, seed):
    """Weights averaged over the last half of training, and the statistics of the last step."""
    split, model = data.digits(seed), sick.perceptron(seed)
    average = AveragedModel(model)

    def after(step):
        if step > sick.STEPS // 2:
            average.update_parameters(model)

    sick.course(model, split, seed, rate=rate, after=after)
    return _case(average.module, split, seed)


def _pruned(share, seed):
    return _case(sick.pruned(sick.plain(seed).model, share), data.digits(seed), seed)


def _noisy(size, seed):
    """Each weight matrix plus noise of so many of its deviations, as from quantisation."""
    model = sick.plain(seed).model
    with seeded(seed), torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                weight = module.weight
                weight += size * weight.std() * torch.randn_like(weight)
    return _case(model, data.digits(seed), seed)


def _momentum(divisor, seed):
    split, model = data.digits(seed), sick.perceptron(seed, momentum=1 / divisor)
    sick.course(model, split, seed)
    return _case(model, split, seed)


def _contrast(lost, seed):
    split = sick.scaled(data.digits(seed), 1 - lost)
    return _case(sick.plain(seed).model, split, seed)


def _brightness(added, seed):
    split = data.digits(seed)
    split = split._replace(x_train=split.x_train + added, x_test=split.x_test + added)
    return _case(sick.plain(seed).model, split, seed)


def one_class(split: Split, share: float, size: int, seed: int) -> Iterator[sick.Batch]:
    """Batches of which a share is of one class, another one each time; the rest is drawn at random."""
    x, y = split.x_train, split.y_train
    rng = torch.Generator().manual_seed(seed)
    places, same = [(y == one).nonzero()[:, 0] for one in range(10)], round(share * size)
    while True:
        for one in torch.randperm(10, generator=rng).tolist():
            within = places[one][torch.randint(len(places[one]), (same,), generator=rng)]
            rest = torch.randint(len(x), (size - same,), generator=rng)
            batch = torch.cat([within, rest])
            yield x[batch], y[batch]


def _sorted(share, seed):
    split, model = data.digits(seed), sick.perceptron(seed)
    sick.descend(model, one_class(split, share, sick.SIZE, seed), lambda model: 0.0)
    found = _case(model, split, seed, sick.plain(seed).model)
    return found._replace(batches=_taken(one_class(split, share, sick.SIZE, seed + 1)))


FAULTS = {
    "averaged": Fault("weights averaged", "rate", (0.03, 0.1, 0.3, 1.0, 3.0), _averaged),
    "pruned": Fault("weights pruned", "share", (0.4, 0.5, 0.6, 0.7, 0.8), _pruned),
    "noisy": Fault("noise on weights", "deviations", (0.1, 0.2, 0.4, 0.6, 0.8), _noisy),
    "momentum": Fault("momentum 1 / n", "n", (30, 50, 100, 200, 400), _momentum),
    "contrast": Fault("contrast lost", "share", (0.1, 0.2, 0.4, 0.6, 0.8), _contrast),
    "brightness": Fault("brightness added", "pixel", (0.05, 0.1, 0.2, 0.4, 0.8), _brightness),
    "sorted": Fault("batches of one class", "share", (0.2, 0.4, 0.6, 0.8, 1.0), _sorted),
}
LEVELS = 5


def case(fault: str, level: int, seed: int) -> Case:
    """A network with a fault of the degree at that level, 0 for the mildest.

    Raises
    ------
    ValueError
        If there is no such fault.
    """
    if fault not in FAULTS:
        raise ValueError(f"fault is {fault!r}, expected one of {', '.join(map(repr, FAULTS))}")
    return FAULTS[fault].case(FAULTS[fault].degrees[level], seed)
