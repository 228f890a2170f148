"""How far the steps of training shift gradients and distributions."""

import copy
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.chapters.explanations.covariate_shift.experiments import train, vgg
from bncore.explanations.covariate_shift import gradient_shift
from bncore.explanations.layering import layers_of
from bncore.explanations.noisy_batch_norm import NoisyBatchNorm
from bncore.lab import inference, probes

# How long the step is whose shift is measured.
COMPARED = ("own rate", "one rate", "one move")
PROBED = 256
QUANTILES = (15, 50, 85)


class Measured(NamedTuple):
    """What was measured in one run of training.

    Attributes
    ----------
    losses : ndarray of shape (steps,)
    steps : list of int
        Steps taken before each record.
    norm, relative, cosine : ndarray of shape (records, 3, layers)
        Of the shift, for the three steps ``COMPARED``; NaN once the run has diverged.
    other_batch : ndarray of shape (records, layers)
        Length of the difference to another batch's gradient at the same weights, relative to the
        gradient; NaN where the batch is the whole training set.
    drift : ndarray of shape (records, activations)
        How far one training step moves the mean of an activation's inputs, in standard deviations,
        averaged over units.
    accuracies : tuple of float
        On the test set, with running statistics and with the batch's.
    """

    losses: np.ndarray
    steps: list
    norm: np.ndarray
    relative: np.ndarray
    cosine: np.ndarray
    other_batch: np.ndarray
    drift: np.ndarray
    accuracies: tuple


def gradients(model, loss, x, y):
    """Gradient in every parameter for one batch, with the batch's statistics."""
    with probes.evaluation(model, "batch"), torch.enable_grad():
        return torch.autograd.grad(loss(model(x), y), list(model.parameters()))


def other_draw(task, seed=0):
    """Relative length of the change of the gradient from one draw of the usual noise to another.

    At the first weights, on one batch, with the batch's statistics; of all parameters together.
    """
    model, split = task.network(NoisyBatchNorm, seed), task.split(seed)
    batch = split.x_train[:64], split.y_train[:64]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        one, other = (
            nn.utils.parameters_to_vector(gradients(model, task.loss, *batch)) for _ in range(2)
        )
    return ((other - one).norm() / one.norm()).item()


def rate_for(model, loss, x, y, move):
    """The learning rate with which one step moves all parameters by `move`, relative to their length."""
    lengths = [
        sum((tensor.detach().double() ** 2).sum() for tensor in tensors) ** 0.5
        for tensors in (model.parameters(), gradients(model, loss, x, y))
    ]
    return move * (lengths[0] / lengths[1]).item()


def measure(task, name, rate, seed, records, one_rate, move, *, drift=True):
    """Train one network and measure the shift of its gradients, and of its distributions.

    Parameters
    ----------
    task : Task
    name : str or callable
        A key of ``NORMALIZATIONS``, or a normalisation.
    rate : float
        Learning rate of the training, and "own rate" of the measure.
    seed : int
    records : sequence of int
        After how many steps to measure; the last step's distributions do not move any more.
    one_rate, move : float
        The other two steps whose shift is measured: a learning rate, and a relative length.
    drift : bool
        Whether to measure the drift of the inputs of activations, for networks that have some.

    Returns
    -------
    Measured
    """
    shifts, others, statistics = {}, {}, {}
    taken = iter(range(task.steps + 1))

    def probe(model, split):
        step = next(taken)
        if step in records:
            shifts[step], others[step] = _shifts(task, model, split, step, (rate, one_rate, move))
        if drift and (step in records or step - 1 in records):
            statistics[step] = [_moments(values) for values in _activations(model, split)]
        return 0.0

    model, split, history = train(task, name, rate, seed, {"all": probe}, every=1)
    drifts = [
        [
            np.mean(np.abs(after[0] - before[0]) / before[1])
            for before, after in zip(statistics[step], statistics[step + 1], strict=True)
        ]
        for step in records
        if step + 1 in statistics
    ]
    columns = np.array([shifts[step] for step in records])
    return Measured(
        history.losses,
        list(records),
        *np.moveaxis(columns, 2, 0),
        np.array([others[step] for step in records]),
        np.array(drifts),
        accuracies(model, split) if task.loss is cross_entropy else (np.nan, np.nan),
    )


def percentiles(task, name, rate, seed, every):
    """``QUANTILES`` of the inputs of the first unit of each activation, every so many steps.

    Returns
    -------
    ndarray of shape (steps / every + 1, activations, 3)
    """

    def probe(model, split):
        seen = _activations(model, split)
        return np.array([np.percentile(values[:, 0], QUANTILES) for values in seen])

    history = train(task, name, rate, seed, {"all": probe}, every=every)[2]
    return history.records["all"][: task.steps // every + 1]


def _shifts(task, model, split, step, sizes):
    """Norm, relative norm and cosine for each of ``COMPARED``, and the difference of another batch."""
    size = task.batch_size or len(split.x_train)
    count = len(split.x_train) // size
    first, second = (slice(i % count * size, (i % count + 1) * size) for i in (step, step + 1))
    x, y = split.x_train[first], split.y_train[first]
    rates = (*sizes[:2], rate_for(model, task.loss, x, y, sizes[2]))
    if not np.isfinite(rates).all():
        lost = np.full(len(layers_of(model, x)), np.nan)
        return [(lost, lost, lost)] * len(COMPARED), lost
    found = [gradient_shift(model, task.loss, x, y, rate) for rate in rates]
    if task.batch_size is None:
        other = np.full(len(found[0].layers), np.nan)
    else:
        other = _difference(
            task.loss, model, (x, y), (split.x_train[second], split.y_train[second])
        )
    return [(shift.norm, shift.relative, shift.cosine) for shift in found], other


def _difference(loss, model, one, other):
    """Relative length of the difference of two batches' gradients, for each matrix or kernel."""
    weights = [parameter.ndim > 1 for parameter in model.parameters()]
    pairs = zip(weights, gradients(model, loss, *one), gradients(model, loss, *other), strict=True)
    return np.array([((b - a).norm() / a.norm()).item() for weight, a, b in pairs if weight])


def _activations(model, split):
    """Inputs of all activations for the first images, (images and pixels, units)."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.ReLU)]
    seen = probes.inputs_of(model, names, split.x_train[:PROBED], "batch")
    return [np.moveaxis(seen[name], 1, -1).reshape(-1, seen[name].shape[1]) for name in names]


def _moments(values):
    return values.mean(axis=0), values.std(axis=0) + 1e-12


def accuracies(model, split):
    """On the test set, with running statistics and with the batch's, noise included."""
    device = split.x_test.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)  # of the noise, which goes on with the batch's statistics
        return tuple(
            inference.accuracy(model, split.x_test, split.y_test, statistics)
            for statistics in ("running", "batch")
        )


def drift_of_step(name, seed, step, count, rate=0.1):
    """How far one training step of the first layers alone moves the inputs of each activation.

    Parameters
    ----------
    name : str or None
        Normalisation of the VGG of the recorded run.
    seed : int
    step : int
        Training steps before, at least one.
    count : int
        Number of layers that move, from the first.
    rate : float

    Returns
    -------
    ndarray of shape (activations,)
        As ``Measured.drift`` at one record.
    """
    around = (*_trained(name, seed, step, rate), count, rate)
    return np.array(
        [
            np.mean(np.abs(after[0] - before[0]) / before[1])
            for before, after in zip(
                *(map(_moments, seen) for seen in _around_step(*around)),
                strict=True,
            )
        ]
    )


def distance_of_step(model, split, rate=0.1, count=None, sample=256):
    """How far one training step moves the distributions of the inputs of each activation.

    Kolmogorov's distance of the values of a unit before and after it, for some images and places
    that are the same for both, averaged over units: between 0 and 1, and not fixed by mean and
    variance.

    Parameters
    ----------
    model : nn.Module
    split : Split
    rate, count
        As for ``drift_of_step``; all layers move by default.
    sample : int
        Values of each unit at most.

    Returns
    -------
    ndarray of shape (activations,)
    """
    found = []
    for seen in zip(*_around_step(model, split, count, rate), strict=True):
        units = zip(*(values[:: -(-len(values) // sample)].T for values in seen), strict=True)
        found.append(np.mean([_kolmogorov(*pair) for pair in units]))
    return np.array(found)


def _kolmogorov(*samples):
    """Largest difference of two empirical distribution functions."""
    at = np.concatenate(samples)
    below = [np.searchsorted(np.sort(one), at, side="right") / len(one) for one in samples]
    return np.abs(below[0] - below[1]).max()


def _around_step(model, split, count, rate):
    """Inputs of all activations before and after one step of the first layers."""
    moved, x, y = copy.deepcopy(model), split.x_train[:64], split.y_train[:64]
    chosen = list(layers_of(model, x).values())[:count]
    names = [name for layer in chosen for name in layer]
    with torch.no_grad():
        for (name, weight), gradient in zip(
            moved.named_parameters(), gradients(model, cross_entropy, x, y), strict=True
        ):
            if name in names:
                weight -= rate * gradient
    return _activations(model, split), _activations(moved, split)


@cache
def _trained(name, seed, steps, rate):
    return train(vgg(12, 16, steps), name, rate, seed)[:2]
