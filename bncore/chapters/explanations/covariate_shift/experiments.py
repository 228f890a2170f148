"""Train with and without batch norm, and with disturbed batch norm, and measure the shift on the way."""

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from bncore.explanations.covariate_shift import gradient_shift
from bncore.explanations.layering import layers_of
from bncore.explanations.noisy_batch_norm import NoisyBatchNorm
from bncore.lab import data, inference, networks, probes, training

NORMALIZATIONS = {
    "no batch norm": None,
    "batch norm": "batch",
    "noisy batch norm": NoisyBatchNorm,
}


def noisier(strength):
    """Batch norm with noise whose mean, stretch and jitter are so many times the usual ones."""
    return partial(
        NoisyBatchNorm, shift=0.5 * strength, stretch=1 + 0.25 * strength, jitter=0.1 * strength
    )


def moved(strength, seeds=(0, 1, 2, 3), steps=40, rate=0.3):
    """Train a perceptron on the digits while whole distributions move, without noise of single values.

    Parameters
    ----------
    strength : float
        How many times the usual shift and stretch follow each batch norm; 0 for none.
    seeds : sequence of int
    steps : int
    rate : float
        Learning rate.

    Returns
    -------
    ndarray of shape (seeds,)
        Mean training loss of the last ten steps.
    """
    found = []
    for seed in seeds:
        model = networks.mlp(
            [64, 32, 32, 32, 32, 10],
            "relu",
            partial(NoisyBatchNorm, shift=0.5 * strength, stretch=1 + 0.25 * strength, jitter=0.0),
            gain=2**0.5,
            seed=seed,
        )
        history = training.train(model, data.digits(seed), steps, 64, rate, seed)
        found.append(history.losses[-10:].mean())
    return np.array(found)


# How long the step is whose shift is measured.
COMPARED = ("own rate", "one rate", "one move")
PROBED = 256
QUANTILES = (15, 50, 85)


class Task(NamedTuple):
    """A network, its data and how it is trained.

    Attributes
    ----------
    network : callable
        From a normalisation and a seed to a model.
    split : callable
        From a seed to data.
    loss : callable
        From outputs and targets to a scalar.
    batch_size : int or None
        None for the whole training set.
    steps : int
    device : str
        "cpu" or "cuda".
    """

    network: Callable
    split: Callable
    loss: Callable
    batch_size: int | None
    steps: int
    device: str = "cpu"


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
    percentiles : ndarray of shape (steps / follow + 1, activations, 3)
        ``QUANTILES`` of the inputs of the first unit of each activation, every so many steps;
        empty where they were not asked for.
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
    percentiles: np.ndarray
    accuracies: tuple


def vgg(width, size, steps, batch_size=64, *, source="digits", depth=11, cache=None, device="cpu"):
    """A VGG on images, standardised.

    Otherwise the plain network would have to undo at its inputs what batch norm undoes for free.

    Parameters
    ----------
    width, size, steps, batch_size : int
        Channels of the first stage, pixels a side, and how long and on how much to train.
    source : {"digits", "mnist", "cifar10"}
        The digits are resized to `size`; the other two have one size only, 28 and 32.
    depth : {11, 13, 16, 19}
    cache : path, optional
        Folder of the sets that are downloaded, as in ``data.openml``.
    device : str

    Raises
    ------
    ValueError
        If the images of the set do not have that size, or the set is unknown.
    """
    channels = 1
    if source != "digits":
        if source not in data.OPENML:
            raise ValueError(f"source is {source!r}, expected 'digits', 'mnist' or 'cifar10'")
        channels, pixels, _ = data.OPENML[source].shape
        if size != pixels:
            raise ValueError(f"size is {size}, expected {pixels}, that of the images of {source}")

    def network(normalization, seed):
        return networks.vgg(
            depth,
            normalization,
            width=width,
            channels=channels,
            size=size,
            hidden=(8 * width,),
            seed=seed,
        )

    def split(seed):
        if source == "digits":
            return data.standardized(data.digit_images(size, seed))
        return data.standard_images(source, cache)

    return Task(network, split, cross_entropy, batch_size, steps, device)


def linear(width, steps, depth=25, inputs=10, outputs=10, examples=256, device="cpu"):
    """A deep linear network on a Gaussian regression, trained on all examples at once."""

    def network(normalization, seed):
        return networks.deep_linear(inputs, outputs, depth, width, normalization, seed=seed)

    def split(seed):
        return data.gaussian_regression(2 * examples, inputs, outputs, seed=seed, test_fraction=0.5)

    return Task(network, split, mse_loss, None, steps, device)


def train(task, name, rate, seed, record=None, every=10**9):
    """Train one network of a task.

    Parameters
    ----------
    task : Task
    name : str or callable
        A key of ``NORMALIZATIONS``, or a normalisation.
    rate, seed, record, every
        As in ``training.train``.

    Returns
    -------
    model : nn.Module
    split : Split
    history : History
    """
    split = data.Split(*(tensor.to(task.device) for tensor in task.split(seed)))
    model = task.network(NORMALIZATIONS[name] if isinstance(name, str) else name, seed)
    history = training.train(
        model,
        split,
        task.steps,
        task.batch_size or len(split.x_train),
        rate,
        seed,
        record,
        every=every,
        loss=task.loss,
        device=task.device,
    )
    return model, split, history


def choose(task, name, rates, seeds):
    """The learning rate with the smallest loss at the end, averaged over seeds, and all losses.

    The loss at the end is the mean over the last tenth of the steps; a run that diverges counts as
    infinite.

    Returns
    -------
    float
    ndarray of shape (rates, seeds, steps)
    """
    losses = np.array(
        [[train(task, name, rate, seed)[2].losses for seed in seeds] for rate in rates]
    )
    last = max(task.steps // 10, 1)
    ends = np.nan_to_num(losses[:, :, -last:].mean(axis=(1, 2)), nan=np.inf, posinf=np.inf)
    return rates[int(ends.argmin())], losses


def gradients(model, loss, x, y):
    """Gradient in every parameter for one batch, with the batch's statistics."""
    with probes.evaluation(model, "batch"), torch.enable_grad():
        return torch.autograd.grad(loss(model(x), y), list(model.parameters()))


def rate_for(model, loss, x, y, move):
    """The learning rate with which one step moves all parameters by `move`, relative to their length."""
    lengths = [
        sum((tensor.detach().double() ** 2).sum() for tensor in tensors) ** 0.5
        for tensors in (model.parameters(), gradients(model, loss, x, y))
    ]
    return move * (lengths[0] / lengths[1]).item()


def measure(task, name, rate, seed, records, one_rate, move, *, drift=True, follow=0):
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
    follow : int
        After every how many steps to measure their percentiles; 0 for never.

    Returns
    -------
    Measured
    """
    shifts, others, statistics, quantiles = {}, {}, {}, []
    taken = iter(range(task.steps + 1))

    def probe(model, split):
        step = next(taken)
        if step in records:
            shifts[step], others[step] = _shifts(task, model, split, step, (rate, one_rate, move))
        if drift and (step in records or step - 1 in records):
            statistics[step] = [_moments(values) for values in _activations(model, split)]
        if follow and step % follow == 0:
            seen = _activations(model, split)
            quantiles.append([np.percentile(values[:, 0], QUANTILES) for values in seen])
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
        np.array(quantiles),
        _accuracies(model, split) if task.loss is cross_entropy else (np.nan, np.nan),
    )


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


def _accuracies(model, split):
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
    model, split = _trained(name, seed, step, rate)
    moved, x, y = copy.deepcopy(model), split.x_train[:64], split.y_train[:64]
    chosen = list(layers_of(model, x).values())[:count]
    names = [name for layer in chosen for name in layer]
    with torch.no_grad():
        for (name, weight), gradient in zip(
            moved.named_parameters(), gradients(model, cross_entropy, x, y), strict=True
        ):
            if name in names:
                weight -= rate * gradient
    return np.array(
        [
            np.mean(np.abs(after[0] - before[0]) / before[1])
            for before, after in zip(
                *(map(_moments, _activations(one, split)) for one in (model, moved)), strict=True
            )
        ]
    )


@cache
def _trained(name, seed, steps, rate):
    return train(vgg(12, 16, steps), name, rate, seed)[:2]


def smoothed(losses, window=5):
    """Means of the losses over windows of steps, along the last axis."""
    losses = np.asarray(losses, dtype=float)
    count = losses.shape[-1] // window
    return losses[..., : count * window].reshape(*losses.shape[:-1], count, window).mean(axis=-1)


def steps_to(losses, level, window=5):
    """Steps until the mean loss over a window is below a level, for each run; infinite if never.

    Parameters
    ----------
    losses : ndarray of shape (..., windows)
        From ``smoothed``.
    """
    below = np.asarray(losses) < level
    return np.where(below.any(axis=-1), (below.argmax(axis=-1) + 1) * window, np.inf)


def rounded(values, digits=3):
    """An array as nested lists of numbers with so many significant digits."""
    return np.vectorize(partial(_round, digits=digits), otypes=[float])(values).tolist()


def _round(value, digits):
    return float(f"{value:.{digits}g}")


def quick(rates, seeds=(0, 1, 2)):
    """A small version of the recorded run: both networks, three seeds, at given learning rates.

    Parameters
    ----------
    rates : dict of str to dict of str to float
        For "vgg" and "linear" the learning rate of each model.
    seeds : sequence of int

    Returns
    -------
    dict of str to dict of str to list of Measured
    """
    found = {}
    for network, task in (("vgg", vgg(8, 8, 30)), ("linear", linear(16, 24))):
        found[network] = {
            name: [
                measure(
                    task, name, rate, seed, [task.steps - 1], rate, 0.01, drift=network == "vgg"
                )
                for seed in seeds
            ]
            for name, rate in rates[network].items()
        }
    return found


def at_loss(level, losses, records, values, window=5):
    """Values that were measured at a few steps, interpolated to where a run passes a loss.

    Parameters
    ----------
    level : float
        The loss, within what the run passes between the first and the last record.
    losses : ndarray of shape (seeds, windows)
        From ``smoothed``; the smallest loss so far counts.
    records : sequence of int
        Steps at which was measured.
    values : ndarray of shape (seeds, records)

    Returns
    -------
    ndarray of shape (seeds,)
        Linear in the logarithm of the loss.
    """
    passed = np.minimum.accumulate(losses, axis=-1)
    windows = np.minimum(np.array(records) // window, passed.shape[-1] - 1)
    heights = np.log(passed[:, windows])
    return np.array(
        [
            np.interp(np.log(level), height[::-1], row[::-1])
            for height, row in zip(heights, values, strict=True)
        ]
    )
