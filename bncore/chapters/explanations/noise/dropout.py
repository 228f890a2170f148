"""Dropout before batch norms and behind the last one, and statistics fitted again without it."""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bncore.chapters.explanations.noise.experiments import DEEPER_DIGITS
from bncore.lab import probes, training
from bncore.lab.inference import refitted

PLACES = ("before batch norms", "after the last one")
JUDGED = ("accuracy", "loss", "fitted accuracy", "fitted loss", "ratio")


def with_dropout(
    drop, where, *, steps, seed, batch, pixel_noise=0.0, learning_rate=0.1, task=DEEPER_DIGITS
):
    """Train with dropout "before batch norms" or "after the last one".

    Returns
    -------
    model : nn.Sequential
    split : Split
    """
    split = task.split(seed, pixel_noise)
    model = task.network("batch", seed)
    if drop:
        add_dropout(model, drop, where)
    training.train(model, split, steps, batch, learning_rate, seed, device=task.device)
    return model, split


def add_dropout(model, drop, where):
    """Let a network drop values behind each activation that batch norms follow, or before its output.

    Parameters
    ----------
    model : nn.Sequential
        From ``bncore.lab.networks``; it gets modules dropout1, ..., also within residual blocks, or
        one dropout.
    drop : float
        Probability.
    where : {"before batch norms", "after the last one"}
    """
    for part in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        layers = OrderedDict(part.named_children())
        after = [*layers, "nothing"][1:]
        for name in layers:
            delattr(part, name)
        for (name, layer), following in zip(layers.items(), after, strict=True):
            if name == "output" and where == "after the last one":
                part.add_module("dropout", nn.Dropout(drop))
            part.add_module(name, layer)
            inside = name.startswith("activation") and following != "output"
            if inside and where == "before batch norms":
                part.add_module(name.replace("activation", "dropout"), nn.Dropout(drop))


def judged(model, split):
    """Test accuracy and loss with running statistics, and with statistics fitted again.

    The last number is the geometric mean, over the features of all batch norms but the first, of
    the variance of the training set without dropout over the running variance.
    """
    fitted = refit(model, split.x_train)
    values = []
    for network in (model, fitted):
        values += [probes.test_accuracy(network, split), probes.loss("test")(network, split)]
    norms = [
        [module for module in network.modules() if isinstance(module, BatchNorm)][1:]
        for network in (model, fitted)
    ]
    running, real = (torch.cat([norm.running_var for norm in layers]) for layers in norms)
    return [*values, (real / running).log().mean().exp().item()]


def refit(model, x):
    """``refitted`` to what batch norms meet at test time.

    Up to ``probes.PIECE`` examples are one batch. More are cut into batches, whose means and unbiased
    variances are averaged: what a later layer meets then depends a little on its batch.
    """
    return refitted(model, x, probes.PIECE)


def outcome(
    place,
    keep,
    seed,
    *,
    steps,
    batch,
    pixel_noise=0.0,
    learning_rate=0.1,
    task=DEEPER_DIGITS,
):
    """Train one network of ``with_dropout`` that keeps values with a probability, and judge it.

    Returns
    -------
    dict
        What ``judged`` returns, by the names of ``JUDGED``.
    """
    options = {"steps": steps, "batch": batch, "seed": seed}
    options |= {"pixel_noise": pixel_noise, "learning_rate": learning_rate, "task": task}
    return dict(zip(JUDGED, judged(*with_dropout(1 - keep, place, **options)), strict=True))
