"""What the literature says about the statistics of batches and populations, and their averages."""

from itertools import product

import numpy as np
import torch
from sklearn.datasets import load_digits

from bncore.mechanics.inference import (
    affine_map,
    exact_statistics,
    normalize,
    population_statistics,
)
from bncore.page.claims import at_least, at_most, claim, corrected, otherwise, under


@claim("ioffe2015, Algorithm 2, line 10", "depends", aliases=["inference-lost-factor"])
def unbiased_variance():
    r"""$\frac{m}{m-1}\,\mathrm{E}_B[\sigma_B^2]$, with $\sigma_B^2$ the variances of training
    mini-batches of size $m$, is an unbiased estimate of the variance.
    """
    rng = np.random.default_rng(0)

    def error(batches, variance):
        missing = variance - np.mean(batches.var(axis=1))
        return abs(missing / (variance / batches.shape[1]) - 1)

    x, images = np.array([-3.0, 0.5, 1.0, 2.0, 7.0]), load_digits().images[:1792]
    what = "distance from 1 of the variance that batches miss over the $V/m$ that the factor adds"
    yield under("the $m$ values are independent draws from the population")
    for m in (2, 3, 4):
        batches = np.array(list(product(x, repeat=m)))
        yield at_most(1e-3, error(batches, x.var()), f"{what}, all batches of {m} draws from 5")
    yield otherwise("they are correlated, as the positions of one image in a convolution")
    for count in (1, 4, 16):
        shuffled = np.concatenate([rng.permutation(images) for _ in range(20)])
        yield at_most(
            1e-3,
            error(shuffled.reshape(-1, count * 64), images.var()),
            f"the same for the brightness of the digits, images in a batch: {count}",
        )


@claim("whatisbn, Normalizing output values", "fails")
def peak():
    """The variance of small samples falls short of the population's because their values tend to
    come from around the peak of the distribution.
    """
    values, m = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), 3
    laws = {"a peak": (1, 4, 6, 4, 1), "no peak": (1, 1, 1, 1, 1), "two far ends": (6, 1, 0, 1, 6)}
    for name, weights in laws.items():
        law = np.array(weights) / sum(weights)
        samples = np.array(list(product(values, repeat=m)))
        chances = np.prod(list(product(law, repeat=m)), axis=1)
        variance = law @ values**2
        about_own = chances @ samples.var(axis=1)
        about_population = chances @ ((samples - law @ values) ** 2).mean(axis=1)
        yield at_least(
            0.5,
            (variance - about_population) / (variance - about_own),
            f"share of the gap that is left where deviations are from the population's mean and not "
            f"from the sample's own, all samples of {m} from a law with {name}",
        )


@claim("encyclopaedia, Inference", "fails")
def complete_representation():
    """What the population statistics say of the mini-batches is all that there is to say of them."""
    rng = np.random.default_rng(0)
    centred = rng.normal(size=(2, 16, 4))
    centred -= centred.mean(axis=1, keepdims=True)
    apart = centred + np.array([-1.0, 1.0])[:, None, None]
    one, other = population_statistics(centred), population_statistics(apart)
    difference = max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))
    spread = np.abs(exact_statistics(centred)[1] - exact_statistics(apart)[1]).max()
    yield at_most(
        1e-12,
        difference,
        "largest difference in the population statistics of two sets of mini-batches",
    )
    yield at_most(1e-12, spread, "difference in the variance of all their examples")


@claim("encyclopaedia, Inference", "holds")
def linear_transform():
    """With its parameters fixed, batch normalization is in essence a linear transform of the
    activation. (A constant is added: it is affine.)
    """
    rng = np.random.default_rng(0)
    mean, gamma, beta = rng.normal(size=(3, 6))
    var = np.exp(rng.normal(size=6))
    a, b = rng.normal(size=(2, 50, 6))
    constant = normalize(np.zeros((1, 6)), mean, var, gamma, beta)

    def f(x):
        return normalize(x, mean, var, gamma, beta) - constant

    yield at_most(
        1e-12,
        np.abs(f(3 * a - 2 * b) - 3 * f(a) + 2 * f(b)).max(),
        "largest $|f(3a-2b) - 3f(a) + 2f(b)|$ over random $a$, $b$, with $f$ the transform less its "
        "value at 0",
    )


@claim("ioffe2015, Algorithm 2, line 11", "holds")
def single_transform():
    r"""At inference $\mathrm{BN}(x)$ is $\frac{\gamma}{\sqrt{\mathrm{Var}[x]+\varepsilon}}\,x +
    \left(\beta - \frac{\gamma\,\mathrm{E}[x]}{\sqrt{\mathrm{Var}[x]+\varepsilon}}\right)$:
    one transform replaces normalisation, scale and shift.
    """
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(100):
        mean, gamma, beta = rng.normal(size=(3, 5))
        var, x = np.exp(rng.normal(size=5)), rng.normal(size=(20, 5))
        scale, shift = affine_map(mean, var, gamma, beta, eps=1e-5)
        expected = torch.nn.functional.batch_norm(
            *map(torch.tensor, (x, mean, var, gamma, beta)), training=False, eps=1e-5
        )
        worst = max(worst, np.abs(scale * x + shift - expected.numpy()).max())
    yield at_most(
        1e-12, worst, "largest difference from torch in evaluation mode, 100 random layers"
    )


@claim("sharad, Parameters and Working", "misprinted")
def normalized_values():
    """Batch norm keeps track of the mean and variance of the *normalised* values during training."""
    torch.manual_seed(0)
    layer = torch.nn.BatchNorm1d(4, affine=False, momentum=None)
    x = 5 + 3 * torch.randn(50, 64, 4)
    x_hat = torch.stack([layer(batch) for batch in x])

    def error(values):
        mean, var = population_statistics([batch.numpy() for batch in values])
        apart = layer.running_mean.numpy() - mean, layer.running_var.numpy() - var
        return np.abs(apart).max()

    yield at_most(
        1e-3,
        error(x_hat),
        "largest difference between torch's averages and the statistics of the normalised "
        "values, which are 0 and 1 in every batch",
    )
    yield corrected("it keeps track of the values *before* they are normalised.")
    yield at_most(
        1e-3, error(x), "the same for the statistics of the values before they are normalised"
    )


@claim("readingnotes, Tips for using batch normalization, 7", "depends")
def average_deviation():
    """At test time the exponentially weighted average across mini-batches serves as the final mean
    and standard deviation. (Serves: is right to a twentieth.)
    """
    rng = np.random.default_rng(0)
    weights = 0.1 * 0.9 ** np.arange(200)

    def shortfall(m):
        averaged = weights @ rng.normal(size=(200, 300, m)).std(axis=2)
        return 1 - averaged.mean()

    what = (
        "how much too small the standard deviation is, as a fraction, averaged with momentum 0.1 over "
        "200 batches, mean of 300 features, normal data"
    )
    yield under("batches have 32 values or more")
    yield from [at_most(0.05, shortfall(m), f"{what}, $m = {m}$") for m in (32, 64, 128)]
    yield otherwise(
        "they have 8 or fewer: average unbiased variances, and take the root at the end"
    )
    yield from [at_most(0.05, shortfall(m), f"{what}, $m = {m}$") for m in (4, 8)]


@claim("readingnotes, Tips for using batch normalization, 6", "holds")
def batch_noise():
    """Normalising with a batch's own statistics, which are not those of all data and differ from
    batch to batch, adds noise to its values.
    """
    for m in (8, 32, 128):
        where = f"in 4000 batches of {m} from a law of variance 1 (rounding: $10^{{-16}}$)"
        batches = np.random.default_rng(0).normal(size=(4000, m))
        for name, values in (("mean", batches.mean(axis=1)), ("variance", batches.var(axis=1))):
            yield at_least(0.01, values.std(), f"standard deviation of the {name} {where}")
        batches[:, 0] = 1.0
        x_hat = (1 - batches.mean(axis=1)) / batches.std(axis=1)
        yield at_least(
            0.01, x_hat.std(), f"standard deviation of what one value, 1, is normalised to {where}"
        )


def _moments_in_use(m):
    """How far mean and variance of what two layers normalise are from the population statistics.

    These are the averages over batches of the first part of the data, and the second part is used.
    Mean squares over the features, in standard errors.
    """
    rng = np.random.default_rng(0)
    batches, used = rng.normal(1, 2, size=(2, 1500, m, 32))
    weight = rng.normal(size=(32, 32)) / np.sqrt(32)
    trained = batches - batches.mean(axis=1, keepdims=True)
    trained /= batches.std(axis=1, keepdims=True)
    hidden = np.maximum(trained, 0) @ weight
    x_hat = normalize(used.reshape(-1, 32), *_algorithm_2(batches), eps=1e-12)
    met = np.maximum(x_hat, 0) @ weight
    return {
        "first": _errors(batches, used.reshape(-1, 32)),
        "second": _errors(hidden, met),
    }


def _algorithm_2(batches):
    return batches.mean(axis=(0, 1)), batches.var(axis=1, ddof=1).mean(axis=0)


def _errors(batches, values):
    squares = (values - values.mean(axis=0)) ** 2
    pairs = (
        (batches.mean(axis=1), values),
        (batches.var(axis=1, ddof=1), squares),
    )
    return [
        np.mean(
            (one.mean(axis=0) - other.mean(axis=0)) ** 2
            / (one.var(axis=0) / len(one) + other.var(axis=0) / len(other))
        )
        for one, other in pairs
    ]


@claim("ioffe2015, Section 3.1", "depends")
def same_moments():
    r"""Neglecting $\varepsilon$, activations normalised with population statistics have the same
    mean 0 and variance 1 as during training.
    """
    what = (
        "mean square distance of the {} of normalised activations in use from that in training, in "
        "standard errors, 1500 batches of {} and as many examples, 32 features (1 where it is the same)"
    )
    found = {m: _moments_in_use(m) for m in (4, 16)}
    for heading, layer in (
        (under("the layer's inputs are as in training, which holds for the first layer"), "first"),
        (otherwise("layers before it normalise too"), "second"),
    ):
        yield heading
        for m, layers in found.items():
            for name, value in zip(("mean", "variance"), layers[layer], strict=True):
                yield at_most(2, value, f"{what.format(name, m)}, {layer} layer")


@claim("sharad, Examples", "holds")
def variance_of_zero():
    """The variance of a batch can be zero at times, especially if the batch is small."""
    pixels, rng = load_digits().data, np.random.default_rng(0)
    pixels = pixels[:, pixels.std(axis=0) > 0]
    sizes = 2, 8, 32, 128
    shares = np.array(
        [
            np.mean([np.ptp(rng.permutation(pixels)[:m], axis=0) == 0 for _ in range(200)])
            for m in sizes
        ]
    )
    yield at_least(
        0.001,
        shares.min(),
        "digits, pixels that vary: smallest share of pixels that are constant over a batch, 200 "
        "random batches of 2, 8, 32 and 128",
    )
    yield at_most(
        1,
        (shares[1:] / shares[:-1]).max(),
        "largest ratio of that share to that of smaller batches",
    )


@claim("sharad, Practical Tips", "fails")
def momentum_and_epsilon():
    r"""Momentum and $\varepsilon$ both have an influence on the mean and the variance that batch
    norm averages. (Of one layer: the next layer meets other inputs under another $\varepsilon$.)
    """
    x = torch.randn(50, 32, 4, generator=torch.Generator().manual_seed(0))

    def averages(momentum, eps):
        layer = torch.nn.BatchNorm1d(4, eps=eps, momentum=momentum)
        for batch in 5 + 3 * x:
            layer(batch)
        return torch.cat([layer.running_mean, layer.running_var])

    usual = averages(0.1, 1e-5)
    what = "largest change of a layer's moving mean or variance after 50 batches"
    for words, other in (
        ("momentum 0.01 in place of 0.1", averages(0.01, 1e-5)),
        ("$\\varepsilon$ = 0.1 in place of 0.00001", averages(0.1, 0.1)),
    ):
        yield at_least(1e-3, (other - usual).abs().max().item(), f"{what}, {words}")


@claim("sharad, Examples", "fails")
def twenty_batches():
    r"""A tensor of the four dimensions $20 \times 120 \times 55 \times 65$ that a batch norm for
    images takes holds 20 batches.
    """
    x = torch.randn(20, 120, 55, 65, generator=torch.Generator().manual_seed(0))
    layer = torch.nn.BatchNorm2d(120, affine=False)
    alone = torch.cat([layer(one) for one in x.split(1)])
    yield at_most(
        1e-3,
        (layer(x) - alone).abs().max().item(),
        "largest difference of torch's output for the tensor from its outputs for 20 batches, each "
        "of one of its 20 parts (as one batch of 20 examples it is the output itself)",
    )
