"""How far the statistics of a batch scatter, measured on drawn batches, with nothing trained."""

from functools import cache

import numpy as np
import torch

from bncore.chapters.explanations.noise.experiments import WIDTHS
from bncore.explanations import noise, variance_shift
from bncore.lab import data, networks, probes

SIZES = (4, 8, 16, 32, 64, 128)


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
    measured, exact = {}, {}
    for way, batches in drawn.items():
        parts = [batches[:, :m] for m in sizes]
        moments = [(part.mean(axis=1), part.var(axis=1)) for part in parts]
        measured[way] = np.array([np.var(m, axis=1) for m in moments]).T * sizes
        n = None if way == "independent" else count
        every = np.arange(sizes[0], sizes[-1] + 1)
        of_means = [noise.mean_variance(int(m), 1.0, n) for m in every]
        of_variances = [noise.variance_variance(int(m), 1.0, kurtosis, n) for m in every]
        exact[way] = np.array([of_means, of_variances]) * every
    return measured, exact


@cache
def exact_share(m):
    """The share of noise in independent normal values, for batches of m: exact but for 1e-5.

    The variance of ``noise.GaussianOutput``, averaged over a normal example by the trapezoidal rule.
    """
    z, step = np.linspace(-6, 6, 25, retstep=True)
    variances = [noise.GaussianOutput(float(one), m).moments()[1] for one in z]
    return float(step * np.exp(-(z**2) / 2) @ variances / np.sqrt(2 * np.pi))


def share_of_noise(values, m, draws=500, examples=100, seed=0):
    """How much of what batch norm passes on is noise, if batches of m are drawn from these values.

    Parameters
    ----------
    values : ndarray of shape (count, channels, pixels)
        Statistics of a channel run over examples and pixels.

    Returns
    -------
    float
        The variance of a normalised value over the companies of its example, mean over the first
        examples, channels and pixels. The mean square of normalised values is 1.
    """
    rng, count = np.random.default_rng(seed), len(values)
    values = values.astype(float)
    one, two = values.mean(axis=2), (values**2).mean(axis=2)
    found = []
    for i in range(examples):
        others = np.delete(np.arange(count), i)
        rows = np.array([rng.choice(others, m - 1, replace=False) for _ in range(draws)])
        mean = (one[i] + one[rows].sum(axis=1)) / m
        scale = 1 / np.sqrt((two[i] + two[rows].sum(axis=1)) / m - mean**2)
        shift = mean * scale
        both = (scale * shift).mean(axis=0) - scale.mean(axis=0) * shift.mean(axis=0)
        # The variance of x · scale - shift, mean over the pixels x.
        found.append(two[i] * scale.var(axis=0) - 2 * one[i] * both + shift.var(axis=0))
    return float(np.mean(found))


def noise_of_masks(inputs, weight, keep, m, draws=200, examples=20, seed=0):
    """The same share if the company stays, and dropout of its inputs is drawn anew.

    The sums of the example itself are those without dropout: what changes is how they are normalised.

    Parameters
    ----------
    inputs : ndarray of shape (count, inputs)
        What dropout meets.
    weight : ndarray of shape (units, inputs)
        Of the layer between dropout and batch norm.
    keep : float
        Probability with which dropout keeps a value.
    """
    rng, found = np.random.default_rng(seed), []
    for i in range(examples):
        company = inputs[rng.choice(np.delete(np.arange(len(inputs)), i), m - 1, replace=False)]
        kept = company * (rng.uniform(size=(draws, *company.shape)) < keep) / keep
        own = np.broadcast_to(weight @ inputs[i], (draws, 1, len(weight)))
        batches = np.concatenate([own, kept @ weight.T], axis=1)
        normalised = (own[:, 0] - batches.mean(axis=1)) / batches.std(axis=1)
        found.append(normalised.var(axis=0).mean())
    return float(np.mean(found))


def first_layers(seed=0):
    """What first reaches a batch norm on the digits: behind a dense layer, and behind a convolution.

    Before training; of shape (examples, channels, pixels), with one pixel for the dense layer.
    """
    dense = networks.mlp(WIDTHS, "relu", "batch", seed=seed)
    convolution = networks.residual(1, 16, "batch", seed=seed)
    rows, images = data.digits(seed), data.digit_images(seed=seed)
    found = probes.inputs_of(dense, ["norm1"], rows.x_train)["norm1"]
    maps = probes.inputs_of(convolution, ["norm1"], images.x_train)["norm1"]
    return {"dense": found[:, :, None], "convolution": maps.reshape(*maps.shape[:2], -1)}


def between_images(values):
    """The share of a channel's variance that lies between the means of its examples, mean over channels."""
    return float((values.mean(axis=2).var(axis=0) / values.var(axis=(0, 2))).mean())


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
