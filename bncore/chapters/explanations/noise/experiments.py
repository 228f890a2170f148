"""Networks with more noise and less, with dropout, and with sampled statistics; on digits by default."""

from collections import OrderedDict
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import rotate
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bncore.explanations import ghost_batches, noise, uncertainty, variance_shift
from bncore.lab import data, networks, probes, recorded, training
from bncore.lab.inference import refitted

RECORD = Path(__file__).with_name("recorded.json")
WIDTHS = (64, 64, 64, 10)
DEEPER = (64, 64, 64, 64, 10)
MEASURES = ("test accuracy", "test loss", "training loss")
# A quarter of the digits to train on: so few that the network overfits them.
TEST_FRACTION = 0.75


def companies(z, m, draws=4000, seed=0):
    """Normalised outputs of one example, z deviations above the mean, in random normal companies."""
    batches = np.random.default_rng(seed).normal(size=(draws, m))
    batches[:, 0] = z
    return (z - batches.mean(axis=1)) / batches.std(axis=1)


def populations(count=256, seed=0):
    """Sets of values to draw batches from: normal, heavy-tailed, and what one unit sees."""
    rng = np.random.default_rng(seed)
    split = data.digits(seed)
    unit = networks.mlp(WIDTHS, "relu", "batch", seed=seed).linear1
    with torch.no_grad():
        values = unit(split.x_train[:count])[:, 0].double().numpy()
    return {
        "normal": rng.normal(size=count),
        "heavy tails": rng.standard_t(4, size=count),
        "digits": values,
    }


def batch_statistics(values, sizes, draws=4000, seed=0):
    """Measured and exact variances of batch means and variances, times the batch size.

    Returns
    -------
    measured, exact : dict of str to ndarray of shape (2, sizes)
        For batches drawn "independent" and "without replacement": of the mean over the variance V
        of the values, and of the batch variance over V². Exact ones for every size from the
        smallest to the largest.
    """
    rng, count = np.random.default_rng(seed), len(values)
    z = (values - values.mean()) / values.std()
    kurtosis = float((z**4).mean())
    drawn = {
        "independent": z[rng.integers(count, size=(draws, max(sizes)))],
        "without replacement": rng.permuted(np.tile(z, (draws, 1)), axis=1),
    }
    measured = {
        way: np.array(
            [[m * batches[:, :m].mean(axis=1).var() for m in sizes],
             [m * batches[:, :m].var(axis=1).var() for m in sizes]]
        )
        for way, batches in drawn.items()
    }  # fmt: skip
    every = range(sizes[0], sizes[-1] + 1)
    exact = {
        way: np.array(
            [[m * noise.mean_variance(m, 1.0, n) for m in every],
             [m * noise.variance_variance(m, 1.0, kurtosis, n) for m in every]]
        )
        for way, n in (("independent", None), ("without replacement", count))
    }  # fmt: skip
    return measured, exact


def alike(keep, mean, pull, inputs=17):
    """The variance shift behind equal weights, for inputs of one mean, variance 1 and correlation.

    ``pull`` is the correlation times the number of inputs less one, from 0 to 16.
    """
    covariance = np.eye(inputs) + pull / (inputs - 1) * (1 - np.eye(inputs))
    return variance_shift.behind_weights(
        keep, np.ones(inputs), np.full(inputs, float(mean)), covariance
    )


def measured_shift(keep, mean, pull, inputs=17, draws=20_000, seed=0):
    """The same ratio, and that of a single input, from normal inputs and drawn masks."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(draws, 1)) * np.sqrt(pull / (inputs - 1))
    x = mean + common + rng.normal(size=(draws, inputs)) * np.sqrt(1 - pull / (inputs - 1))
    dropped = x * (rng.uniform(size=x.shape) < keep) / keep
    return x[:, 0].var() / dropped[:, 0].var(), x.sum(axis=1).var() / dropped.sum(axis=1).var()


@cache
def record():
    """The recorded full run, with arrays for lists."""
    return _arrays(recorded.load(RECORD))


def _arrays(value):
    if isinstance(value, dict):
        return {key: _arrays(entry) for key, entry in value.items()}
    return np.array(value, dtype=float) if isinstance(value, list) and value else value


def paired(runs, name, measure, base="whole batch"):
    """Mean difference of two arms at the end of training over the seeds, and its standard error."""
    column = MEASURES.index(measure)
    apart = runs[name][:, -1, column] - runs[base][:, -1, column]
    return apart.mean(), apart.std(ddof=1) / np.sqrt(len(apart))


def kinds_of_noise(runs):
    """The arms of ``arms`` that differ from the whole batch in the noise of the statistics alone."""
    return [name for name in runs if name.split()[0] in ("ghost", "borrowed", "injected")]


def pooled(runs, measure, base="whole batch"):
    """As ``paired``, but of the mean over all kinds of noise, taken seed by seed.

    The kinds share seeds and base, so that their differences are not independent; their means over
    the seeds are.
    """
    column = MEASURES.index(measure)
    apart = np.mean([runs[name][:, -1, column] for name in kinds_of_noise(runs)], axis=0)
    apart = apart - runs[base][:, -1, column]
    return apart.mean(), apart.std(ddof=1) / np.sqrt(len(apart))


def reaches(runs, name, loss):
    """Whether an arm passes a training loss with every seed."""
    return bool((runs[name][:, :, 2].min(axis=1) <= loss).all())


def at_training_loss(runs, name, loss, base="whole batch"):
    """As ``paired`` for the test loss, but when both networks pass the same training loss.

    Between two records the test loss is interpolated in the logarithm of the training loss.
    """
    losses = {}
    for arm in (name, base):
        passed = np.log(np.minimum.accumulate(runs[arm][:, :, 2], axis=1))
        if not reaches(runs, arm, loss):
            raise ValueError(f"loss is {loss}, expected one that {arm} passes with every seed")
        losses[arm] = np.array(
            [
                np.interp(np.log(loss), log[::-1], run[::-1, 1])
                for log, run in zip(passed, runs[arm], strict=True)
            ]
        )
    apart = losses[name] - losses[base]
    return apart.mean(), apart.std(ddof=1) / np.sqrt(len(apart))


def first_examples(outputs, labels, count):
    """Cross-entropy of the first examples of a batch; the others only lend their statistics."""
    return cross_entropy(outputs[:count], labels[:count])


def arms(batch, small):
    """The networks to compare: normalisation, batch size and loss of each.

    ``batch`` is the batch size of most, ``small`` that of two.
    """
    plain = {"no batch norm": (None, batch, None), "whole batch": ("batch", batch, None)}
    sizes = [size for size in (8, 16, 32, 64) if size < batch]
    ghosts = {f"ghost {size}": (ghost_batches.ghost(size), batch, None) for size in sizes}
    borrowed = {
        f"borrowed {size}": (ghost_batches.borrowed(size), batch, None)
        for size in sizes
        if size > 8
    }
    injected = {f"injected {size}": (ghost_batches.injected(size), batch, None) for size in sizes}
    few = {
        f"batch of {small}": ("batch", small, None),
        f"batch of {small}, quiet": ("batch", batch, partial(first_examples, count=small)),
    }
    return plain | ghosts | borrowed | injected | few


def digits(seed, pixel_noise=0.0):
    """A quarter of the digits to train on, with noise as in ``noisy``."""
    return noisy(data.digits(seed, TEST_FRACTION), pixel_noise, seed)


def noisy(split, deviation, seed):
    """The same images with normal noise of a deviation on every pixel.

    The noise belongs to the data: it is drawn once, so that a network can learn it by heart.
    """
    if deviation == 0:
        return split
    generator = torch.Generator().manual_seed(seed)
    x_train, x_test = (
        x + deviation * torch.randn(x.shape, generator=generator)
        for x in (split.x_train, split.x_test)
    )
    return split._replace(x_train=x_train, x_test=x_test)


class Task(NamedTuple):
    """A network, its data, and where it is trained.

    Attributes
    ----------
    network : callable
        From a normalisation and a seed to a model.
    images : callable
        From a seed and the deviation of the pixels' noise to a split.
    device : str
        "cpu" or "cuda".
    """

    network: Callable
    images: Callable
    device: str = "cpu"

    def split(self, seed, pixel_noise=0.0):
        """The data on the device."""
        return data.Split(*(tensor.to(self.device) for tensor in self.images(seed, pixel_noise)))


def on_digits(widths):
    """A fully connected network on the digits."""
    return Task(
        lambda normalization, seed: networks.mlp(widths, "relu", normalization, seed=seed), digits
    )


DIGITS, DEEPER_DIGITS = on_digits(WIDTHS), on_digits(DEEPER)


def on_images(source, kind, cache=None, device="cpu", **shape):
    """A convolutional network on images that are downloaded, standardised.

    Parameters
    ----------
    source : {"mnist", "cifar10"}
    kind : {"vgg", "residual"}
        Of ``bncore.lab.networks``; the shape is what it is called with.
    cache : path, optional
        Folder of the images, as in ``data.openml``.
    device : str
    """
    if source not in data.OPENML:
        raise ValueError(f"source is {source!r}, expected 'mnist' or 'cifar10'")
    channels, size, _ = data.OPENML[source].shape
    kinds = {"vgg": partial(networks.vgg, size=size), "residual": networks.residual}
    if kind not in kinds:
        raise ValueError(f"kind is {kind!r}, expected 'vgg' or 'residual'")

    def network(normalization, seed):
        return kinds[kind](normalization=normalization, channels=channels, seed=seed, **shape)

    def split(seed, pixel_noise):
        return noisy(data.standard_images(source, cache), pixel_noise, seed)

    return Task(network, split, device)


def trained(
    normalization,
    batch,
    loss,
    *,
    steps,
    seed,
    every,
    pixel_noise=0.0,
    learning_rate=0.1,
    task=DIGITS,
):
    """Train one network and return what ``MEASURES`` says, at every record."""
    history = training.train(
        task.network(normalization, seed),
        task.split(seed, pixel_noise),
        steps,
        batch,
        learning_rate,
        seed,
        {
            "test accuracy": probes.test_accuracy,
            "test loss": probes.loss("test"),
            "training loss": probes.loss("train"),
        },
        every=every,
        loss=loss,
        device=task.device,
    )
    return np.stack([history.records[name] for name in MEASURES], axis=1)


def with_dropout(drop, where, *, steps, seed, batch, learning_rate=0.1, task=DEEPER_DIGITS):
    """Train with dropout "before batch norms" or "after the last one".

    Returns
    -------
    model : nn.Sequential
    split : Split
    """
    split = task.split(seed)
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


def rotated(x, degrees):
    """Digits, or other square images, turned about their centre, bilinear, with zeros around them."""
    digits = x.ndim == 2
    images = (x.reshape(-1, 8, 8) if digits else x).numpy(force=True)
    turned = torch.tensor(rotate(images, degrees, axes=(-2, -1), reshape=False, order=1))
    return (turned.reshape(-1, 64).clamp(0, 1) if digits else turned).to(x.device)


def sampled(
    seed, *, steps, batch, sizes, draws, pixel_noise=0.0, angles=(), learning_rate=0.1, task=DIGITS
):
    """Train one network and predict in several ways: fixed, with a temperature, and sampled.

    Half of the test set is kept for the temperature; the other half judges.

    Returns
    -------
    dict of str to ndarray of shape (conditions, 3)
        For each way of predicting, accuracy, negative log-likelihood and expected calibration
        error, of the images as they are and turned by each of the angles.
    dict of str to ndarray of shape (3, bins)
        For each way, of the images as they are: mean confidence, frequency and count by bin.
    float
        The temperature.
    """
    split = task.split(seed, pixel_noise)
    model = task.network("batch", seed)
    training.train(model, split, steps, batch, learning_rate, seed, device=task.device)
    half = len(split.x_test) // 2
    with probes.evaluation(model):
        temperature = uncertainty.fitted_temperature(
            probes.in_pieces(model, split.x_test[:half]), split.y_test[:half]
        )
    x, y = split.x_test[half:], split.y_test[half:]
    conditions = [x, *(rotated(x, angle) for angle in angles)]
    numbers, bins = {}, {}
    for condition in conditions:
        with probes.evaluation(model):
            scores = probes.in_pieces(model, condition)
        ways = {"running": scores.softmax(1), "temperature": (scores / temperature).softmax(1)}
        for size in sizes:
            drawn = uncertainty.sampled_scores(model, condition, split.x_train, size, draws, seed)
            ways[f"sampled {size}"] = drawn.softmax(2).mean(0)
        for way, probabilities in ways.items():
            found = uncertainty.calibration(probabilities, y)
            numbers.setdefault(way, []).append(found[:3])
            bins.setdefault(way, np.stack(found[3:]))
    return {way: np.array(values) for way, values in numbers.items()}, bins, temperature


def misleading(model, split, degrees, angles, sizes, draws=60):
    """A test digit that the network reads rightly, but when turned reads wrongly and surely.

    Of all those, the one on which batches of the smallest size disagree most.

    Returns
    -------
    views : Tensor of shape (angles, 64)
        The digit turned by each angle.
    fixed : ndarray of shape (angles, 10)
        Probabilities with running statistics.
    drawn : dict of int to ndarray of shape (draws, angles, 10)
        Probabilities with sampled batches of each size.
    """
    x, y = split.x_test[:200], split.y_test[:200]
    turned = rotated(x, degrees)
    with probes.evaluation(model):
        right = model(x).argmax(1) == y
        sure, answer = model(turned).softmax(1).max(1)
    chosen = right & (answer != y) & (sure > 0.9)
    scores = uncertainty.sampled_scores(model, turned, split.x_train, min(sizes), draws)
    spread = scores.softmax(2).std(0).sum(1)
    digit = x[int(torch.where(chosen, spread, -1.0).argmax())]
    views = torch.cat([rotated(digit[None], angle) for angle in angles])
    with probes.evaluation(model):
        fixed = model(views).softmax(1).numpy()
    drawn = {
        m: uncertainty.sampled_scores(model, views, split.x_train, m, draws).softmax(2).numpy()
        for m in sizes
    }
    return views, fixed, drawn
