"""Experiments of the chapter on fine-tuning: one network, digits that look otherwise, few of them labelled."""

import copy
import functools

import numpy as np
import torch

from bncore.lab import networks, probes, together, training
from bncore.lab.data import Split, digits
from bncore.lab.inference import accuracy
from bncore.lab.modes import is_batch_norm
from bncore.practice.freezing import freeze, frozen
from bncore.practice.recalibration import recalibrated

SOURCE = 900
STEPS = 600


def faded(x, amount):
    """Less contrast: ink and paper move towards one grey, by the given part of the way."""
    return (1 - amount) * x + 0.5 * amount


def noisy(x, amount):
    """Normal noise on each pixel, of the given standard deviation, the same at each call."""
    noise = np.random.default_rng(0).normal(size=x.shape)
    return x + amount * torch.from_numpy(noise).float()


def moved(x, amount):
    """The image moves to the right by a number of pixels, a fraction by interpolation."""
    image = torch.nn.functional.pad(x.reshape(-1, 8, 8), (8, 0))
    whole = int(amount)
    low, high = (image[..., 8 - k : 16 - k] for k in (whole, whole + 1))
    return (low + (amount - whole) * (high - low)).reshape(x.shape)


def inverted(x, amount):
    """Paper and ink change places, by the given part of the way."""
    return (1 - 2 * amount) * x + amount


CHANGES = {"faded": faded, "noisy": noisy, "moved": moved, "inverted": inverted}
AMOUNTS = {
    "faded": [0.0, 0.2, 0.4, 0.6, 0.8, 0.9],
    "noisy": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
    "moved": [0.0, 0.4, 0.8, 1.2, 1.6, 2.0],
    "inverted": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
}
DOMAINS = {"unchanged": ("faded", 0.0), "faded": ("faded", 0.8), "moved": ("moved", 1.0)}


@functools.cache
def source(seed, steps=STEPS):
    """A network trained on some digits as they are."""
    split = digits(seed)
    model = networks.mlp((64, 64, 32, 10), "relu", "batch", seed=seed)
    old = split._replace(x_train=split.x_train[:SOURCE], y_train=split.y_train[:SOURCE])
    training.train(model, old, steps, 32, 0.3, seed)
    return model.eval()


def changed(seed, kind, amount):
    """Digits that the network has not seen, changed by so much."""
    change, split = functools.partial(CHANGES[kind], amount=amount), digits(seed)
    return Split(
        change(split.x_train[SOURCE:]), split.y_train[SOURCE:], change(split.x_test), split.y_test
    )


def untrained(kind, step, seed):
    """Accuracy on changed digits before and after recalibration, without any label."""
    model, split = source(seed), changed(seed, kind, AMOUNTS[kind][step])
    test = split.x_test, split.y_test
    return {
        "kept": accuracy(model, *test),
        "recalibrated": accuracy(recalibrated(model, [split.x_train]), *test),
    }


def at_test_time(domain, classes, batch_size, seed, predictions=512):
    """Accuracy with the statistics of test batches that hold examples of a few classes only."""
    model, split = source(seed), changed(seed, *DOMAINS[domain])
    rng = np.random.default_rng(seed)
    right = []
    for _ in range(predictions // batch_size):
        allowed = np.isin(split.y_test, rng.choice(10, classes, replace=False))
        batch = rng.choice(np.flatnonzero(allowed), batch_size, replace=True)
        right.append(accuracy(model, split.x_test[batch], split.y_test[batch], "batch"))
    return {"batch": float(np.mean(right)), "kept": accuracy(model, split.x_test, split.y_test)}


def steepest(x, weight, var=None):
    """Largest eigenvalue of a unit's Gauss-Newton matrix of weights, with c and gamma 1 and eps 0.

    ``var`` is the variance that is held fixed with a mean; None, where both are those of the batch x.
    """
    if var is not None:
        return np.linalg.eigvalsh(x.T @ x / len(x))[-1] / var
    covariance = np.cov(x.T, bias=True)
    along = covariance @ weight
    own = weight @ along
    return np.linalg.eigvalsh(covariance - np.outer(along, along) / own)[-1] / own


def times_as_steep(domain, seed=0, afresh=False):
    """How many times as steep frozen statistics make it, for each unit of the first layer.

    Frozen are the old statistics, or those of the new domain.
    """
    x = changed(seed, *DOMAINS[domain]).x_train.double().numpy()
    model = source(seed)
    weights = model.linear1.weight.detach().double().numpy()
    old = model.norm1.running_var.double().numpy()
    kept = (x @ weights.T).var(0) if afresh else old
    return np.array(
        [steepest(x, w, var) / steepest(x, w) for w, var in zip(weights, kept, strict=True)]
    )


def _all(model, x):
    return model


def _frozen_statistics(model, x):
    freeze(model, affine=False)
    return model


def _frozen_affine(model, x):
    freeze(model, statistics=False)
    return model


def _frozen(model, x):
    freeze(model)
    return model


def _norms_only(model, x):
    for module in model.modules():
        if not list(module.children()):
            module.requires_grad_(is_batch_norm(module))
    return model


def _recalibrated(model, x):
    return _frozen_statistics(recalibrated(model, [x]), x)


def _head(model, x):
    model.requires_grad_(False)
    model.output.requires_grad_(True)
    return model


def _frozen_head(model, x):
    freeze(_head(model, x))
    return model


WAYS = {
    "all": _all,
    "statistics frozen": _frozen_statistics,
    "affine frozen": _frozen_affine,
    "both frozen": _frozen,
    "batch norms only": _norms_only,
    "recalibrated first": _recalibrated,
    "last layer, frozen": _frozen_head,
    "last layer, moving": _head,
}


def fine_tuned(way, domain, examples, batch_size, rates, seeds, steps, source_steps=STEPS):
    """Train one network for each rate and seed on a few labelled examples of the new domain.

    Each was trained before, for ``source_steps`` on the old domain.
    Test accuracy there halfway and at the end; at the end with statistics estimated afresh, where they
    moved; and on the old domain. One number for each network.
    """
    splits = [changed(seed, *DOMAINS[domain]) for seed in seeds]
    few = [s._replace(x_train=s.x_train[:examples], y_train=s.y_train[:examples]) for s in splits]
    models = [
        WAYS[way](copy.deepcopy(source(seed, source_steps)).train(), split.x_train)
        for seed, split in zip(seeds, few, strict=True)
    ]
    history = together.train(
        models,
        few,
        steps,
        batch_size,
        learning_rate=rates,
        seeds=seeds,
        record={"accuracy": probes.test_accuracy},
        moments=[steps // 2, steps],
    )
    halfway, end = history["accuracy"].T
    moving = any(layer.statistics == "moving" for layer in frozen(models[0]))
    afresh, old = [], []
    for model, split, seed in zip(models, splits, seeds, strict=True):
        fitted = recalibrated(model, [split.x_train]) if moving else model
        afresh.append(accuracy(fitted, split.x_test, split.y_test))
        old.append(accuracy(model, digits(seed).x_test, digits(seed).y_test))
    return {
        "halfway": halfway,
        "accuracy": end,
        "afresh": np.array(afresh),
        "old": np.array(old),
    }
