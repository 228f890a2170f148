"""Networks that learn a small training set by heart: which noise, which penalty lets them generalise?

A study of arms, each at its own best learning rate, and each regulariser at its best strength.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch.nn.functional import cross_entropy

from bncore.chapters.explanations.noise import stacked
from bncore.chapters.explanations.noise.dropout import add_dropout
from bncore.chapters.explanations.noise.experiments import WIDTHS, Task, on_digits
from bncore.explanations import ghost_batches
from bncore.lab import probes, studies, training
from bncore.lab.fingerprint import folder
from bncore.lab.sweep import sweep

NOISES = {
    "ghost": ghost_batches.ghost,
    "borrowed": ghost_batches.borrowed,
    "injected": ghost_batches.injected,
}

BASE = "whole batch"
LABELS = {
    "ghost 8": "ghost batches of 8",
    "ghost 16": "ghost batches of 16",
    "ghost 32": "ghost batches of 32",
    "ghost 64": "ghost batches of 64",
    "borrowed 16": "borrowed from 16",
    "injected 16": "injected as for 16",
    "batch of 16": "batches of 16",
    "gradients of 16": "gradients of 16",
    "whole batch": "batch norm, whole batch",
    "whole batch, dropout": "whole batch, dropout",
    "whole batch, L2": "whole batch, L2",
    "no batch norm": "no batch norm",
    "no batch norm, dropout": "the same, dropout",
    "no batch norm, L2": "the same, L2",
}
GHOSTS = ("ghost 8", "ghost 16", "ghost 32", "ghost 64")
KINDS = (*GHOSTS, "borrowed 16", "injected 16")
# What is added, and to what; see ``gained``.
COMPARED = {
    "batch norm": ("whole batch", "no batch norm"),
    "four ghosts, mean": (GHOSTS,),
    "six kinds, mean": (KINDS,),
    "statistics of 16": ("batch of 16", "gradients of 16"),
    "gradients of 16": ("gradients of 16",),
    "dropout, batch norm": ("whole batch, dropout",),
    "dropout, without": ("no batch norm, dropout", "no batch norm"),
    "L2, batch norm": ("whole batch, L2",),
    "L2, without": ("no batch norm, L2", "no batch norm"),
}
# On each of two data sets 13 networks beside the whole batch, and eleven differences of others.
LOOKED_AT = 48


class Arm(NamedTuple):
    """What differs from one network to the next.

    Attributes
    ----------
    normalization : None, "batch" or callable
        As ``networks.mlp`` takes it.
    batch : int
        Examples in a batch.
    counted : int or None
        How many of its examples enter the loss; None for all.
    drop : float
        Probability with which dropout behind the last activation drops a value.
    decay : float
        Strength λ of the L2 penalty: every step adds λ times each parameter to its gradient.
    """

    normalization: Any
    batch: int
    counted: int | None
    drop: float
    decay: float

    @property
    def loss(self) -> Callable | None:
        """Of a batch, as ``training.train`` takes it."""
        return None if self.counted is None else partial(first_examples, count=self.counted)


def arm(name: str, batch: int) -> Arm:
    """The arm of a name, in batches of so many examples where the name says nothing else.

    A name is "no batch norm", "whole batch", "ghost 8", "borrowed 8", "injected 8" (as in
    ``ghost_batches``), "batch of 16", or "gradients of 16" (the loss of 16 examples, normalised among
    all); "dropout 0.4" or "L2 0.01" may follow after a comma.
    """
    base, *more = name.split(", ")
    kind, _, size = base.rpartition(" ")
    strengths = {what: float(value) for what, value in map(str.split, more)}
    normalization, counted = "batch", None
    if base == "no batch norm":
        normalization = None
    elif kind == "batch of":
        batch = int(size)
    elif kind == "gradients of":
        counted = int(size)
    elif kind in NOISES:
        normalization = NOISES[kind](int(size))
    elif base != "whole batch":
        raise ValueError(f"name is {name!r}, expected one that starts with a known network")
    return Arm(
        normalization, batch, counted, strengths.pop("dropout", 0.0), strengths.pop("L2", 0.0)
    )


def first_examples(outputs, labels, count):
    """Cross-entropy of the first examples of a batch; the others only lend their statistics."""
    return cross_entropy(outputs[:count], labels[:count])


def outcome(
    pixel_noise: float,
    network: str,
    learning_rate: float,
    seed: int,
    *,
    moments: Sequence[int],
    batch: int,
    task: Task | None = None,
) -> dict[str, Any]:
    """Train one arm, and say how well it does on the test set after each number of steps in `moments`.

    Returns
    -------
    dict
        "accuracy", "test loss" and "training loss" at the moments; at the last of them "last", the
        test accuracy, and "by heart", the training accuracy.
    """
    task = task or HE_DIGITS
    of, split = arm(network, batch), task.split(seed, pixel_noise)
    model = task.network(of.normalization, seed)
    if of.drop:
        add_dropout(model, of.drop, "after the last one")
    history = training.train(
        model,
        split,
        max(moments),
        of.batch,
        learning_rate,
        seed,
        {
            "accuracy": probes.test_accuracy,
            "test loss": probes.loss("test"),
            "training loss": probes.loss("train"),
        },
        every=math.gcd(*moments),
        loss=of.loss,
        optimizer=partial(torch.optim.SGD, weight_decay=of.decay),
        device=task.device,
    )
    at = np.searchsorted(history.steps, moments)
    kept = {name: values[at] for name, values in history.records.items()}
    seen = split._replace(x_test=split.x_train, y_test=split.y_train)
    return {
        **kept,
        "last": kept["accuracy"][-1],
        "by heart": probes.test_accuracy(model, seen),
    }


def outcomes(
    pixel_noise: float,
    network: str,
    learning_rate: float,
    *,
    seeds: Sequence[int],
    moments: Sequence[int],
    batch: int,
) -> dict[str, Any]:
    """As ``outcome`` on the digits, of many seeds at once, which are the first axis."""
    of = arm(network, batch)
    splits = [HE_DIGITS.split(seed, pixel_noise) for seed in seeds]
    models = [HE_DIGITS.network(of.normalization, seed) for seed in seeds]
    for model in models if of.drop else ():
        add_dropout(model, of.drop, "after the last one")
    known = of.normalization if callable(of.normalization) else torch.nn.BatchNorm1d
    x, y, x_test, y_test = map(torch.stack, zip(*splits, strict=True))

    def measure(stack):
        return [*stacked.scored(stack, x_test, y_test), *stacked.scored(stack, x, y)]

    found = stacked.train(
        stacked.Stack(models, known),
        splits,
        of.batch,
        learning_rate,
        seeds,
        counted=of.counted,
        decay=of.decay,
        moments=moments,
        measure=measure,
    )
    accuracy, test_loss, by_heart, training_loss = np.moveaxis(np.array(found), 0, 2)
    return {
        "accuracy": accuracy,
        "test loss": test_loss,
        "training loss": training_loss,
        "last": accuracy[:, -1],
        "by heart": by_heart[:, -1],
    }


HE_DIGITS = on_digits(WIDTHS, gain=2**0.5)
CURVES = "accuracy", "test loss", "training loss"


def family(name: str) -> str:
    """The name of an arm without the strength of what regularises it."""
    base, *more = name.split(", ")
    return ", ".join([base, *(one.split()[0] for one in more)])


def compared(configuration, store=None, extensions=4, **options) -> dict[str, xr.Dataset]:
    """Tune the arms, choose the strength of each regulariser, and run what was chosen on fresh seeds.

    Parameters
    ----------
    configuration : dict
        "pixel_noise", "networks" (names of arms), "learning_rates", "seeds", "fresh_seeds", "moments"
        and "batch". Grids of rates go on beyond an end at which an arm is best.
    store : path, optional
        Folder in which finished runs are kept.
    extensions : int
        How often a grid of rates may go on.
    options
        The rest of what ``outcome`` takes. Without them the fresh seeds run at once (``outcomes``).

    Returns
    -------
    dict
        "tuning": outcomes by pixel noise, network, learning rate and seed; "fresh": the same by
        pixel noise, family and seed, each at the strength and the rate at which the median of the last
        test accuracy over the seeds of "tuning" is best, which are its "strength" and
        "learning_rate".
    """
    c = configuration
    one = partial(outcome, moments=c["moments"], batch=c["batch"], **options)
    arms = {"pixel_noise": c["pixel_noise"], "network": c["networks"]}
    axes = {key: {"steps": c["moments"]} for key in CURVES}
    tuning = studies.tuned(
        one,
        arms,
        c["learning_rates"],
        c["seeds"],
        "last",
        smaller=False,
        extensions=extensions,
        axes=axes,
        store=store,
    )
    best = studies.best(tuning, "last", smaller=False)

    def again(level, name):
        chosen = best.sel(pixel_noise=[level], network=[name])
        if options:
            found = studies.confirmed(one, chosen, c["fresh_seeds"], axes=axes, store=store)
        else:
            found = _at_once(chosen, c, store)
        how_strong = (("pixel_noise", "network"), [[strength(name)]])
        named = found.assign_coords(network=[family(name)])
        return named.assign(strength=how_strong)

    levels = [
        xr.concat(
            [again(level, name) for name in strongest(best.sel(pixel_noise=level))], "network"
        )
        for level in c["pixel_noise"]
    ]
    return {"tuning": tuning, "fresh": xr.concat(levels, "pixel_noise")}


def _at_once(chosen, c, store):
    """As ``studies.confirmed`` of one arm, with ``outcomes``."""
    one = partial(outcomes, seeds=c["fresh_seeds"], moments=c["moments"], batch=c["batch"])
    case = {name: chosen[name].values.tolist() for name in ("pixel_noise", "network")}
    rate = chosen.learning_rate.values.flatten().tolist()
    place = None if store is None else Path(store) / folder(one)
    (run,) = sweep(one, {**case, "learning_rate": rate}, store=place)
    arrays = {
        name: ((*case, "seed", *["steps"] * (name in CURVES)), values[None, None])
        for name, values in run.result.items()
    }
    found = xr.Dataset(arrays, coords={**case, "seed": c["fresh_seeds"], "steps": c["moments"]})
    return found.assign(learning_rate=chosen.learning_rate)


def strength(name: str) -> float:
    """How strong the regulariser of an arm is; 0 where there is none."""
    return sum((float(one.split()[1]) for one in name.split(", ")[1:]), 0.0)


def strongest(best: xr.Dataset) -> list[str]:
    """Of each family the arm with the best median accuracy, the weakest of those that are level."""
    medians = best["last"].median("seed").to_series()
    return [
        medians[[name for name in medians.index if family(name) == one]].idxmax()
        for one in dict.fromkeys(map(family, medians.index))
    ]


def gained(found, level, network, base=BASE, less=()) -> studies.MedianInterval:
    """Test accuracy, in percentage points, of one network over another, or of several on average.

    The median over the seeds: one of the networks diverges on one of them, and would decide a mean.

    Parameters
    ----------
    found : xarray.Dataset
        "fresh" of ``compared``.
    level : float
        Of the pixel noise.
    network, base : str or sequence of str
        Families; of several the mean is taken seed by seed.
    less : pair of str
        Two more families: their difference is taken off.
    """
    last = 100 * found["last"].sel(pixel_noise=level, drop=True)

    def of(names):
        return last.sel(network=[names] if isinstance(names, str) else list(names)).mean("network")

    apart = of(network) - of(base)
    other = of(less[0]) - of(less[1]) if less else xr.zeros_like(apart)
    return studies.median_difference(apart, other, looked_at=LOOKED_AT)
