"""What the literature says about batch normalization at inference."""

import copy
from functools import cache
from itertools import product

import numpy as np
import torch
from sklearn.datasets import load_digits

from bncore.lab import data, networks, training
from bncore.lab.inference import accuracy, refitted
from bncore.mechanics import transform
from bncore.mechanics.inference import (
    RunningStatistics,
    affine_map,
    exact_statistics,
    normalize,
    population_statistics,
)
from bncore.page.claims import at_least, at_most, claim, corrected, otherwise, under


@cache
def _digits():
    return data.digits()


@cache
def _trained(momentum, steps=200):
    model = networks.mlp((64, 64, 64, 10), "relu", "batch", momentum=momentum)
    training.train(model, _digits(), steps, batch_size=32, learning_rate=0.1)
    return model


@claim("encyclopaedia, Inference", "holds", lost=True)
def population_mean():
    r"""The population mean of a feature is the average of the means of its mini-batches, all of size
    $m$, $\mathrm{E}[x] = \mathrm{E}_B[\mu_B]$.
    """
    x = np.random.default_rng(0).normal(3, 2, size=(100, 50))
    errors = []
    for m in (2, 5, 25):
        batches = [x[i : i + m] for i in range(0, len(x), m)]
        errors.append(np.abs(population_statistics(batches)[0] - x.mean(axis=0)).max())
    yield at_most(1e-12, max(errors), "largest error, 100 examples in batches of 2, 5 and 25")


@claim("ioffe2015, Algorithm 2, line 10", "depends")
def unbiased_variance():
    r"""$\frac{m}{m-1}\,\mathrm{E}_B[\sigma_B^2]$, with $\sigma_B^2$ the variances of training
    mini-batches of size $m$, is an unbiased estimate of the variance.
    """
    x = np.array([-3.0, 0.5, 1.0, 2.0, 7.0])

    def error(batches):
        estimate = np.mean([np.var(batch, ddof=1) for batch in batches])
        return abs(estimate / x.var() - 1)

    pixels = load_digits().images.reshape(-1, 64) / 16
    per_image = np.mean([np.var(image, ddof=1) for image in pixels])
    yield under("the $m$ values are independent draws from the population")
    yield from [
        at_most(
            1e-3,
            error(product(x, repeat=m)),
            f"relative error over all {5**m} batches of {m} out of 5, with replacement",
        )
        for m in (2, 3, 4)
    ]
    yield otherwise("they are correlated, as the positions of one image in a convolution")
    yield at_most(
        1e-3,
        abs(per_image / pixels.var() - 1),
        "the same for the brightness of the digits, over all batches of one image, $m$ = 64",
    )


@claim("encyclopaedia, Inference", "holds", lost=True)
def lost_factor():
    r"""The population variance is $\frac{m}{m-1}$ times $\mathrm{E}_B[\sigma_B^2]$."""
    x = np.array([-3.0, 0.5, 1.0, 2.0, 7.0])
    errors = []
    for m in (2, 3, 4, 5):
        variances = np.var(np.array(list(product(x, repeat=m))), axis=1)
        errors.append(abs(x.var() / variances.mean() - m / (m - 1)))
    yield at_most(
        1e-12,
        max(errors),
        "largest difference between the constant and $m/(m-1)$, over all batches of "
        "2, 3, 4 and 5 draws from five values",
    )


@claim("encyclopaedia, Inference", "fails")
def complete_representation():
    """The population statistics are a complete representation of the mini-batches."""
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
def deterministic():
    """With population statistics the output depends on the input in a deterministic manner, and
    not on the mini-batch.
    """
    rng = np.random.default_rng(0)
    mean, var = rng.normal(size=8), np.exp(rng.normal(size=8))
    example = rng.normal(size=(1, 8))
    alone = normalize(example, mean, var)
    fixed, batch = [], []
    for _ in range(100):
        company = np.concatenate([example, rng.normal(size=(7, 8))])
        fixed.append(np.abs(normalize(company, mean, var)[0] - alone).max())
        batch.append(transform.forward(company)[0][0])
    yield at_most(
        1e-14,
        max(fixed),
        "largest change of one example's output over 100 batches, population statistics",
    )
    yield at_least(
        0.1,
        np.std(batch, axis=0).min(),
        "standard deviation of the same output with the batch's statistics",
    )


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
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(100):
        layer = torch.nn.BatchNorm1d(5, dtype=torch.float64).eval()
        with torch.no_grad():
            for tensor in (layer.weight, layer.bias, layer.running_mean):
                tensor.copy_(torch.tensor(rng.normal(size=5)))
            layer.running_var.copy_(torch.tensor(np.exp(rng.normal(size=5))))
            x = rng.normal(size=(20, 5))
            expected = layer(torch.tensor(x)).numpy()
        scale, shift = affine_map(
            *(
                tensor.detach().numpy()
                for tensor in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
            ),
            eps=layer.eps,
        )
        worst = max(worst, np.abs(scale * x + shift - expected).max())
    yield at_most(
        1e-12, worst, "largest difference from torch in evaluation mode, 100 random layers"
    )


@claim("sharad, slide 11", "misprinted")
def normalized_values():
    """Batch norm keeps track of the mean and variance of the *normalised* values during training."""
    torch.manual_seed(0)
    layer = torch.nn.BatchNorm1d(4, affine=False, momentum=None)
    x = 5 + 3 * torch.randn(50, 64, 4)
    x_hat = torch.stack([layer(batch) for batch in x])
    tracked = layer.running_mean, layer.running_var

    def error(values):
        batches = [batch.numpy() for batch in values]
        expected = population_statistics(batches)
        return max(
            np.abs(ours.numpy() - theirs).max()
            for ours, theirs in zip(tracked, expected, strict=True)
        )

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


@claim("sharad, slide 11", "fails")
def changed_input():
    """The saved mean and variance normalise the input at inference even if its distribution has
    changed since training.
    """
    split = data.digits()
    saved = exact_statistics([split.x_train.double().numpy()])

    def error(x):
        y = normalize(x.double().numpy(), *saved, eps=1e-3)
        spread = saved[1] > 0.1
        return max(abs(y.mean()), np.abs(y.var(axis=0) - 1)[spread].mean())

    what = (
        "how far the mean is from 0 or the variance of the brightest pixels from 1 after "
        "normalisation, whichever is more"
    )
    yield at_most(0.2, error(split.x_test), f"{what}, test digits as they were in training")
    yield at_most(
        0.2, error(0.3 * split.x_test + 0.35), f"{what}, test digits with 30 % of the contrast"
    )


@claim("sharad, slide 12", "depends")
def single_sample():
    """At inference there is a single sample and not a mini-batch, and the saved moving averages have
    to come in.
    """
    rng = np.random.default_rng(0)

    def response(shape):
        x = rng.normal(size=(200, *shape))
        axes = tuple(range(2, x.ndim))
        centred = x - x.mean(axis=axes, keepdims=True)
        y = centred / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + 1e-5)
        return np.abs(y).max()

    what = "largest normalised output of 200 samples, each normalised by itself"
    yield under("the layer is fully connected: a sample has one value of each feature")
    yield at_most(1e-12, response((4,)), what)
    yield otherwise("the layer is convolutional: a sample has one value at each position")
    yield at_most(1e-12, response((4, 8, 8)), f"{what}, 8 × 8 positions")


def _examples_read():
    """Examples that a network reads for a step of its moving averages, and for exact statistics."""
    split, model = _digits(), copy.deepcopy(_trained(0.1))
    read = []
    model.norm1.register_forward_pre_hook(lambda layer, x: read.append(len(x[0])))
    model.train()(split.x_train[:32])
    moving = sum(read)
    refitted(model, split.x_train)
    return moving, sum(read) - moving


@claim("sharad, slide 12", "depends")
def memory():
    """Calculating and saving the mean and variance of the full data is expensive; the moving average
    is cheaper because only its most recent value needs to be remembered.
    """
    moving, whole = _examples_read()
    features = 512
    totals = 1 + 2 * features
    x = np.random.default_rng(0).normal(size=(50, 20, features))
    mean, var = exact_statistics(iter(x))
    error = max(np.abs(mean - x.mean(axis=(0, 1))).max(), np.abs(var - x.var(axis=(0, 1))).max())
    yield under("the statistics have to be those of the current weights")
    yield at_least(
        2,
        whole / moving,
        "digits: examples that the network reads for the statistics of the full data, as a multiple "
        "of the batch of 32 that a moving average reads, and training reads anyway",
    )
    yield otherwise("totals over the batches as they come will do")
    yield at_least(
        2,
        totals / (2 * features),
        "numbers remembered between two batches for 512 features: a count, means and squared "
        "deviations of all data so far, as a multiple of moving means and variances",
    )
    yield at_most(1e-12, error, "error of the statistics of all the data computed that way")


@claim("sharad, slide 20", "holds")
def small_batches():
    """If the batch size is small, the moving averages of mean and variance may be inaccurate, which
    can lead to problems with training.
    """
    rng = np.random.default_rng(0)

    def errors(m):
        statistics = RunningStatistics(300, 0.1)
        for _ in range(50):
            statistics.update(rng.normal(size=(m, 300)))
        return np.sqrt([np.square(statistics.mean).mean(), np.square(statistics.var - 1).mean()])

    def trained(m, steps, learning_rate):
        model = networks.mlp((64, 64, 64, 10), "relu", "batch")
        training.train(model, _digits(), steps, m, learning_rate)
        return accuracy(model, _digits().x_test, _digits().y_test)

    what = "error of the moving {} with batches of 4 over that with batches of 128, momentum 0.1"
    for name, ratio in zip(("mean", "variance"), errors(4) / errors(128), strict=True):
        yield at_least(3, ratio, what.format(name))
    yield at_least(
        0.1,
        trained(64, 300, 0.3) - trained(2, 2000, 0.01),
        "digits: test accuracy after 300 steps with batches of 64, less that after 2000 steps with "
        "batches of 2, each at the best of five rates, 0.003 to 0.3",
    )


@claim("readingnotes, Tips for using batch normalization, 7", "depends")
def average_deviation():
    """At test time the exponentially weighted average across mini-batches serves as the final mean
    and standard deviation.
    """
    rng = np.random.default_rng(0)

    def shortfall(m):
        averaged = rng.normal(size=(20_000, m)).std(axis=1).mean()
        return 1 - averaged

    what = "how much too small the averaged standard deviation is, as a fraction"
    yield under("batches are large")
    yield at_most(0.03, shortfall(64), f"{what}, normal data, $m = 64$")
    yield otherwise("they are small: average unbiased variances, and take the root at the end")
    yield at_most(0.03, shortfall(8), f"{what}, $m = 8$")


@claim("readingnotes, Improvement", "depends")
def renormalization():
    """Batch renormalization's correction for each feature makes the activations of training and
    inference match.
    """
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=6), np.exp(rng.normal(size=6))

    def mismatch(x, r_max, d_max):
        batch_mean, batch_std = x.mean(axis=0), x.std(axis=0)
        r = np.clip(batch_std / std, 1 / r_max, r_max)
        d = np.clip((batch_mean - mean) / std, -d_max, d_max)
        trained = (x - batch_mean) / batch_std * r + d
        return np.abs(trained - (x - mean) / std).max()

    x = mean + std * rng.normal(size=(64, 6))
    what = "largest difference between the training and the inference activation, batch of 64"
    yield under("the corrections stay within their limits")
    yield at_most(1e-12, mismatch(x, 3, 5), f"{what}, 1/3 ≤ r ≤ 3, |d| ≤ 5")
    yield otherwise("they are cut off, as at the start of training: $r = 1$ and $d = 0$")
    yield at_most(1e-12, mismatch(x, 1, 0), what)


@claim("readingnotes, Tips for using batch normalization, 6", "holds")
def batch_noise():
    """Normalising with a batch's own statistics adds noise to its values."""
    batches = np.random.default_rng(0).normal(size=(4000, 32))
    batches[:, 0] = 1.0
    x_hat = (1 - batches.mean(axis=1)) / batches.std(axis=1)
    yield at_least(
        0.1,
        x_hat.std(),
        "standard deviation of one value, 1, over its normalised values in 4000 random batches of 32",
    )


@claim("encyclopaedia, Inference", "depends")
def dependence_useless():
    """At inference the dependence on the mini-batch is not useful any more."""
    split, model = _digits(), _trained(0.1)

    def advantage(x):
        fixed = accuracy(model, x, split.y_test)
        return accuracy(model, x, split.y_test, "batch") - fixed

    what = "accuracy with the statistics of the test batch, minus accuracy with the saved ones"
    yield under("the test data are distributed like the training data")
    yield at_most(0.05, advantage(split.x_test), f"{what}, digits")
    yield otherwise("they are not")
    yield at_most(
        0.05, advantage(0.3 * split.x_test + 0.35), f"{what}, digits with 30 % of the contrast"
    )


@claim("ioffe2015, Section 3.1", "holds")
def track_accuracy():
    """With moving averages one can track the accuracy of a model as it trains."""
    split = _digits()

    def error(steps):
        model = _trained(0.1, steps)
        fitted = refitted(model, split.x_train)
        return abs(
            accuracy(fitted, split.x_test, split.y_test)
            - accuracy(model, split.x_test, split.y_test)
        )

    yield at_most(
        0.03,
        max(error(steps) for steps in (50, 100, 200)),
        "digits: largest difference of the test accuracy with moving averages from that with exact "
        "statistics, after 50, 100 and 200 steps, momentum 0.1",
    )


@claim("ioffe2015, Section 3.1", "depends")
def same_moments():
    r"""Neglecting $\varepsilon$, activations normalised with population statistics have the same
    mean 0 and variance 1 as during training.
    """
    rng = np.random.default_rng(0)
    batches = rng.normal(1, 2, size=(2500, 8, 32))
    weight = rng.normal(size=(32, 32)) / np.sqrt(32)
    trained = batches - batches.mean(axis=1, keepdims=True)
    trained /= batches.std(axis=1, keepdims=True)
    hidden = np.maximum(trained, 0) @ weight

    def algorithm_2(batches):
        return batches.mean(axis=(0, 1)), batches.var(axis=1, ddof=1).mean(axis=0)

    x, first, second = batches.reshape(-1, 32), algorithm_2(batches), algorithm_2(hidden)
    normalised = normalize(x, *first, eps=1e-12)
    deeper = normalize(np.maximum(normalised, 0) @ weight, *second, eps=1e-12)
    what = "distance of the variance of the normalised activations from 1, mean over 32 features"
    yield under("the layer's inputs are as in training, which holds for the first layer")
    yield at_most(0.05, abs(normalised.var(axis=0) - 1).mean(), what)
    yield otherwise("layers before it normalise too, here with batches of 8")
    yield at_most(0.05, abs(deeper.var(axis=0) - 1).mean(), f"{what}, second layer")
