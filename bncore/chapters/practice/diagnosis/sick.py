"""Networks, each sick by one usual mistake, beside a twin that is the same without it.

Each is small, learns the digits, and has the curves that its owner sees::

    one = sick.patient("momentum", seed=0)
    examine(one.sick.model, one.sick.batches)
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.chapters.practice.diagnosis.bodies import Reused, Rows, TwoHeads
from bncore.lab import data, networks
from bncore.lab.batches import Batches
from bncore.lab.data import Split
from bncore.lab.inference import accuracy, refitted

WIDTHS = (64, 32, 32, 10)
STEPS, EVERY, RATE, SIZE = 200, 20, 0.1, 32
EXAMINED = 24

Batch = tuple[torch.Tensor, torch.Tensor]


class Curves(NamedTuple):
    """What the owner of a network sees while it trains.

    Attributes
    ----------
    loss : Float[ndarray, "steps"]
        Mean cross-entropy of each step's batch, in nats; NaN where it is not finite.
    steps : Int[ndarray, "records"]
        Number of steps taken when the accuracy was measured.
    accuracy : Float[ndarray, "records"]
        On the test set, as the network is used.
    """

    loss: Float[np.ndarray, "steps"]
    steps: Int[np.ndarray, "records"]
    accuracy: Float[np.ndarray, "records"]


class Course(NamedTuple):
    """A network that has been trained, the batches that its owner has at hand, and its curves."""

    model: nn.Module
    batches: list[Batch]
    curves: Curves


class Patient(NamedTuple):
    """A sick network and its twin, and what ``examine`` should find in the first."""

    name: str
    mistake: str
    code: str
    sick: Course
    twin: Course


class Mistake(NamedTuple):
    """What was done, in words; what should be found; how a network is trained with it and without."""

    words: str
    code: str
    course: Callable[[Split, int, bool], Course]


def perceptron(seed: int, **options) -> nn.Module:
    """The network of most patients, with two batch norms."""
    return networks.mlp(WIDTHS, "relu", "batch", seed=seed, **options)


def drawn(x: torch.Tensor, y: torch.Tensor, size: int, seed: int) -> Iterator[Batch]:
    """Batches of examples and labels, shuffled anew in each pass, without end."""
    for batch in Batches(len(x), size, seed):
        yield x[batch], y[batch]


def descend(
    model: nn.Module,
    batches: Iterator[Batch],
    test: Callable[[nn.Module], float],
    rate: float = RATE,
    after: Callable[[int], None] = lambda step: None,
) -> Curves:
    """Gradient descent as in mixed precision: a step whose gradient is not finite is left out.

    The model is in training mode, but for what its owner has put in evaluation mode. ``after`` is
    called with the number of each step.
    """
    descent = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    losses, seen = np.empty(STEPS), [test(model)]
    for step in range(1, STEPS + 1):
        x, y = next(batches)
        loss = cross_entropy(model(x), y)
        descent.zero_grad()
        loss.backward()
        if loss.isfinite():
            descent.step()
        losses[step - 1] = loss.item() if loss.isfinite() else np.nan
        after(step)
        if step % EVERY == 0:
            seen.append(test(model))
    return Curves(losses, np.arange(0, STEPS + 1, EVERY), np.array(seen))


def course(
    model: nn.Module,
    split: Split,
    seed: int,
    *,
    size: int = SIZE,
    used: Split | None = None,
    test: Callable[[nn.Module], float] | None = None,
    **options,
) -> Course:
    """Trained on the split, and used on one that may differ from it."""
    used = used or split
    test = test or (lambda model: accuracy(model, used.x_test, used.y_test))
    batches = drawn(split.x_train, split.y_train, size, seed)
    curves = descend(model, batches, test, **options)
    at_hand = drawn(used.x_train, used.y_train, size, seed + 1)
    return Course(model, [next(at_hand) for _ in range(EXAMINED)], curves)


def plain(seed: int) -> Course:
    """The healthy perceptron, twin of several patients: trained once, and handed out as copies."""
    found = _plain_once(seed)
    return found._replace(model=deepcopy(found.model))


@cache
def _plain_once(seed):
    return course(perceptron(seed), data.digits(seed), seed)


def scaled(split: Split, factor: float | int) -> Split:
    """The split with all inputs times a factor."""
    return split._replace(x_train=factor * split.x_train, x_test=factor * split.x_test)


def _pruned(split, seed, sick):
    def ready(model):
        model = pruned(model, 0.8)
        return model if sick else refitted(model, split.x_train)

    def test(model):
        return accuracy(ready(model), split.x_test, split.y_test)

    found = course(perceptron(seed), split, seed, test=test)
    return found._replace(model=ready(found.model))


def pruned(model: nn.Module, share: float) -> nn.Module:
    """A copy in which that share of each hidden layer's weights, the smallest, is 0."""
    model = deepcopy(model)
    hidden = [one.weight.data for one in model.modules() if isinstance(one, nn.Linear)][:-1]
    for weight in hidden:
        weight[weight.abs() < weight.abs().quantile(share)] = 0
    return model


def _small_momentum(split, seed, sick):
    if not sick:
        return plain(seed)
    return course(perceptron(seed, momentum=0.001), split, seed)


def _raw_pixels(split, seed, sick):
    if not sick:
        return plain(seed)
    return course(perceptron(seed), split, seed, used=scaled(split, 255))


def _pairs(split, seed, sick):
    return course(perceptron(seed), split, seed, size=2) if sick else plain(seed)


def _dropout(split, seed, sick):
    model = perceptron(seed, dropout=0.5)
    if not sick:
        model.dropout1 = nn.Identity()
    return course(model, split, seed)


def _wrong_axis(split, seed, sick):
    return course(Rows(not sick, seed), split, seed)


def _half_frozen(split, seed, sick):
    model = TwoHeads(plain(seed).model, 2, seed)
    model.body.requires_grad_(False)
    model.old.requires_grad_(False)
    if not sick:
        model.body.eval()
    pale = scaled(split, 0.3)
    parity = pale._replace(y_train=split.y_train % 2, y_test=split.y_test % 2)

    def test(model):
        return accuracy(model.as_before(), split.x_test, split.y_test)

    return course(model, parity, seed, used=split, test=test)


def _reused(split, seed, sick):
    return course(Reused(sick, seed), split, seed)


def _one_infinity(split, seed, sick):
    if not sick:
        return plain(seed)

    def with_one(batches):
        for step, (x, y) in enumerate(batches):
            if step == STEPS // 2:
                x[0, 20] = torch.inf
            yield x, y

    batches = with_one(drawn(split.x_train, split.y_train, SIZE, seed))
    model = perceptron(seed)
    curves = descend(model, batches, lambda model: accuracy(model, split.x_test, split.y_test))
    at_hand = drawn(split.x_train, split.y_train, SIZE, seed + 1)
    return Course(model, [next(at_hand) for _ in range(EXAMINED)], curves)


def _divided_twice(split, seed, sick):
    return course(perceptron(seed), scaled(split, 1 / 255), seed) if sick else plain(seed)


def _penalised(split, seed, sick):
    if not sick:
        return plain(seed)
    model = perceptron(seed)
    gammas = [model.norm1.weight.data, model.norm2.weight.data]

    def shrink(step):
        for gamma in gammas:
            gamma.copy_(gamma.sign() * (gamma.abs() - 0.1 * RATE).clamp_min(0))

    return course(model, split, seed, after=shrink)


def _halved(split, seed, sick):
    found = plain(seed)
    if not sick:
        return found
    batches = [(x.bfloat16(), y) for x, y in found.batches]
    return found._replace(model=found.model.bfloat16(), batches=batches)


MISTAKES = {
    "momentum": Mistake("momentum 0.001, for 200 steps", "stale-statistics", _small_momentum),
    "reused": Mistake("one batch norm for two layers", "reused-layer", _reused),
    "infinity": Mistake("one infinite pixel in one batch", "not-finite", _one_infinity),
    "raw pixels": Mistake("pixels up to 255 in use", "shifted-input", _raw_pixels),
    "dropout": Mistake("dropout before batch norm", "dropout-before", _dropout),
    "pruned": Mistake("pruned, statistics kept", "train-eval-gap", _pruned),
    "pairs": Mistake("batches of two", "few-values", _pairs),
    "frozen": Mistake("parameters frozen, statistics not", "half-frozen", _half_frozen),
    "axis": Mistake("rows taken for features", "wrong-axis", _wrong_axis),
    "divided twice": Mistake("divided by 255 twice", "epsilon-rules", _divided_twice),
}


BESIDES = {
    "penalty": Mistake("gamma penalised by 0.1 |gamma|", "dead-feature", _penalised),
    "half": Mistake("halved in precision for use", "low-precision", _halved),
}
"""Two more, which the calibration has and the chapter does not guess at."""


def patient(name: str, seed: int = 0) -> Patient:
    """Train a patient and its twin.

    Raises
    ------
    ValueError
        If there is no patient of that name.
    """
    every = MISTAKES | BESIDES
    if name not in every:
        raise ValueError(f"name is {name!r}, expected one of {', '.join(map(repr, every))}")
    mistake = every[name]
    split = data.digits(seed)
    sick, twin = (mistake.course(split, seed, ill) for ill in (True, False))
    return Patient(name, mistake.words, mistake.code, sick, twin)
