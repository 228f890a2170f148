"""What the literature says about internal covariate shift."""

import copy
from functools import cache

import numpy as np
import torch
import xarray as xr
from torch.nn.functional import mse_loss

from bncore.chapters.explanations.covariate_shift import experiments
from bncore.chapters.explanations.covariate_shift.full_size import (
    at_equal_loss,
    column,
    medians,
    record,
)
from bncore.explanations.covariate_shift import gradient_shift, linearized_shift
from bncore.lab import networks
from bncore.lab.studies import difference
from bncore.page.claims import at_least, at_most, claim, otherwise, under


def _case(seed, normalization):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(16, 3, generator=generator, dtype=torch.float64)
    model = networks.mlp([5, 6, 6, 6, 3], "tanh", normalization, gain=1.0, seed=seed).double()
    start = {name: value.detach() for name, value in model.named_parameters()}
    gradients = experiments.gradients(model, mse_loss, x, y)
    stepped = {
        name: value - 0.1 * gradient
        for (name, value), gradient in zip(start.items(), gradients, strict=True)
    }
    return model, x, y, stepped


@claim("santurkar2018, Definition 2.1", "holds")
def definition():
    """The difference between $G_{t,i}$ and $G'_{t,i}$ reflects the change in the landscape of
    $W_i$ that is caused by the layers before it: it captures the effect of dependencies
    across layers.
    """
    apart, errors = [], []
    for seed in range(10):
        for normalization in (None, "batch"):
            model, x, y, new = _case(seed, normalization)
            shift = gradient_shift(model, mse_loss, x, y, new).norm[1:]
            apart.append(np.abs(_by_copies(model, x, y, new)[1:] / shift - 1).max())
            small = [
                measure(model, mse_loss, x, y, 1e-5).norm[1:]
                for measure in (gradient_shift, linearized_shift)
            ]
            errors.append(np.abs(small[0] / small[1] - 1).max())
    yield at_most(
        1e-9,
        max(apart),
        "largest relative difference of the shift, layers 2 to 4 of 20 networks, to the change "
        "of the gradient in a copy of the network whose earlier layers alone have moved",
    )
    yield at_most(
        0.01,
        max(errors),
        "largest relative difference to $\\eta\\,\\|\\sum_{j<i}H_{ij}G_j\\|$ at $\\eta = 10^{-5}$",
    )


def _by_copies(model, x, y, new):
    """The change of each layer's gradient in copies of a model, as each earlier layer moves too."""
    names = [name for name, _ in model.named_parameters()]
    layers = list(dict.fromkeys(map(_layer_of, names)))
    before, moved, changes = experiments.gradients(model, mse_loss, x, y), copy.deepcopy(model), []
    for layer in layers:
        after = experiments.gradients(moved, mse_loss, x, y)
        own = [
            b - a
            for name, a, b in zip(names, before, after, strict=True)
            if _layer_of(name) == layer
        ]
        changes.append(float(torch.cat([part.flatten() for part in own]).norm()))
        with torch.no_grad():
            for name, value in moved.named_parameters():
                if _layer_of(name) == layer:
                    value.copy_(new[name])
    return np.array(changes)


def _layer_of(name):
    digits = "".join(filter(str.isdigit, name.split(".")[0]))
    return digits or "output"


@claim("encyclopaedia, Measure", "holds")
def correlation():
    """If the shift introduced by the changes in previous layers is small, then the correlation
    between the gradients is close to 1.
    """
    slack, cosines = [], []
    for seed in range(20):
        for normalization in (None, "batch"):
            model, x, y, _ = _case(seed, normalization)
            for rate in (0.003, 0.03, 0.3):
                shift = gradient_shift(model, mse_loss, x, y, rate)
                relative, cosine = shift.norm[1:] / shift.before[1:], shift.cosine[1:]
                slack.extend((np.sqrt((1 - relative**2).clip(0)) - cosine)[relative < 1])
                cosines.extend(cosine[relative < 0.1])
    what = "layers 2 to 4 of 40 networks at three rates"
    yield at_least(
        0.99,
        min(cosines),
        f"smallest cosine where the shift is below a tenth of the gradient, {what}",
    )
    yield at_most(
        1e-12,
        max(slack),
        "largest excess over the cosine of $\\sqrt{1-r^2}$, $r=\\|G'-G\\|/\\|G\\|<1$, " + what,
    )


def _at(network, step):
    return record()[0][network]["records"].index(step)


def _apart(first, second, looked_at):
    """Mean difference over the seeds with its interval, allowing for all that were looked at."""
    over_seeds = [
        xr.DataArray(values, [("seed", range(len(values)))]) for values in (first, second)
    ]
    return difference(*over_seeds, looked_at=looked_at)


@claim("encyclopaedia, Measure", "undecided")
def higher_correlations():
    """The standard VGG and the standard deep linear network both have higher correlations of
    gradients than their counterparts with batch norm, which says that batch norm does not reduce
    internal covariate shift.
    """
    for key, network in (("vgg", "VGG"), ("linear", "deep linear network")):
        batch, none = (
            medians(key, name, "cosine", "own rate").mean(axis=1)
            for name in ("batch norm", "no batch norm")
        )
        yield at_most(
            0,
            _apart(batch, none, 6),
            f"{network} at its best learning rates: cosine with batch norm less that without, "
            "median over layers, mean over six records; interval over five seeds, for two networks "
            "and three lengths of the step",
        )


@claim("santurkar2018, Figure 3", "undecided")
def similar_or_worse():
    """Networks with batch norm have similar, or even worse, internal covariate shift, although
    they reach a better loss.
    """
    looked_at = 16  # two networks, two lengths of the step, two losses, two measures

    def end(network, name):
        return column(network, name, "losses")[:, -4:].mean(axis=1)

    for key, network in (("vgg", "VGG"), ("linear", "deep linear network")):
        relative, cosine = (
            [at_equal_loss(key, name, kind, "own rate") for name in ("batch norm", "no batch norm")]
            for kind in ("relative", "cosine")
        )
        where = (
            "at its best learning rates, at a training loss of 0.5; interval over five seeds, for "
            f"{looked_at} comparisons"
        )
        yield at_least(
            np.log(0.8),
            _apart(*np.log(relative), looked_at),
            f"{network}: logarithm of the relative shift with batch norm over that without, {where}",
        )
        yield at_most(
            0.1,
            _apart(*cosine, looked_at),
            f"{network}: cosine with batch norm less that without, {where}",
        )
        yield at_most(
            np.log(0.5),
            _apart(np.log(end(key, "batch norm")), np.log(end(key, "no batch norm")), looked_at),
            f"{network}: logarithm of the loss at the end with batch norm over that without",
        )


@claim("santurkar2018, Section 2.2", "depends")
def uncorrelated():
    """The standard deep linear network experiences almost no internal covariate shift for the
    entirety of training; with batch norm $G$ and $G'$ are almost uncorrelated.
    """
    later = slice(_at("linear", 5), None)

    def median(name, compared):
        return float(np.median(medians("linear", name, "cosine", compared)[:, later]))

    yield under("each network takes steps at its own best rate, after the first few")
    yield at_least(
        0.95,
        median("no batch norm", "own rate"),
        "without batch norm: median cosine over layers, seeds and records from step 5",
    )
    yield at_most(
        0.4, abs(median("batch norm", "own rate")), "with batch norm: absolute value of the same"
    )
    yield otherwise("both take steps at the rate 0.003, or the plain network its first step")
    yield at_most(
        0.4, abs(median("batch norm", "one rate")), "with batch norm, steps of rate 0.003: the same"
    )
    yield at_least(
        0.95,
        np.median(medians("linear", "no batch norm", "cosine", "own rate")[:, 0]),
        "without batch norm, own rate, before the first step: median cosine",
    )


@claim("ioffe2015, Section 3", "holds")
def reduced():
    """Batch normalization reduces internal covariate shift, the change of the distributions of
    layer inputs as the parameters change, by a step that fixes their means and variances.
    """
    batch, none = (
        np.log(np.median(column("vgg", name, "drift"), axis=-1))
        for name in ("batch norm", "no batch norm")
    )
    steps = record()[0]["vgg"]["records"]
    yield from [
        at_most(
            0,
            _apart(batch[:, i], none[:, i], len(steps)),
            f"VGG after {step} steps: logarithm of the drift of the units' means with batch norm over "
            "that without, median over nine layers (in the first, which hardly drifts, it is mostly "
            "above 0); interval over five seeds, for six records",
        )
        for i, step in enumerate(steps)
    ]


@claim("encyclopaedia, Internal covariate shift", "holds")
def amplified():
    """Small changes in shallower hidden layers are amplified as they propagate through a deep
    network, with a significant shift in deeper layers as the result.
    """
    for step in (5, 20):
        few, many = (
            np.array([experiments.drift_of_step(None, seed, step, count) for seed in range(5)])
            for count in (3, 6)
        )
        for moved, last, count in ((few, 2, 3), (many, 5, 6)):
            yield at_least(
                0,
                _apart(np.log(moved[:, 8]), np.log(moved[:, last]), 4),
                f"VGG without batch norm after {step} steps, a step of layers 1 to {count} alone: "
                f"logarithm of the drift of the last activation's input over that of layer {count}; "
                "interval over five seeds, for four cases",
            )


def _steps(name, level):
    return experiments.steps_to(column("vgg", name, "losses"), level)


@claim("santurkar2018, Section 2.1", "holds")
def noisy_training():
    """With time-varying noise of non-zero mean and non-unit variance after every batch norm, a
    network still trains nearly as fast as with batch norm, and faster than without. (The
    strength of the noise is the source's, as we reconstruct it.)
    """
    noisy, batch, none = (
        {level: np.log(_steps(name, level)) for level in (0.5, 0.1)}
        for name in ("noisy batch norm", "batch norm", "no batch norm")
    )
    where = "each at its best learning rate; interval over five seeds, for three comparisons"
    yield from (
        at_most(
            np.log(2),
            _apart(noisy[level], batch[level], 3),
            f"logarithm of the steps to a training loss of {level} with noise over those without "
            f"noise, {where}",
        )
        for level in (0.5, 0.1)
    )
    yield at_most(
        np.log(0.5),
        _apart(noisy[0.5], none[0.5], 3),
        "logarithm of the steps to a training loss of 0.5 with noise over those without batch norm, "
        + where,
    )


@claim("encyclopaedia, Theoretical Understanding", "depends")
def noisy_accuracy():
    """The network with noise shows similar accuracy to the one with batch norm, and both perform
    better than the one without.
    """
    noisy, batch, none = (
        column("vgg", name, "accuracies")
        for name in ("noisy batch norm", "batch norm", "no batch norm")
    )

    def measured(kind):
        looks = "interval over five seeds, for four comparisons"
        return [
            at_most(
                0.05,
                _apart(batch[:, kind], noisy[:, kind], 4),
                f"accuracy on the test digits lost to noise; {looks}",
            ),
            at_least(
                0,
                _apart(noisy[:, kind], none[:, kind], 4),
                f"lead of noisy batch norm over no batch norm; {looks}",
            ),
        ]

    yield under("at the test, the batch's statistics are used and the noise goes on")
    yield from measured(1)
    yield otherwise("running statistics are used, which were collected under noise, and no noise")
    yield from measured(0)


@claim("santurkar2018, Section 2.1", "depends")
def noisy_distributions():
    """The distributions in the network with noisy batch norm are less stable than even those of
    the standard network.
    """
    noisy, none = (column("vgg", name, "drift") for name in ("noisy batch norm", "no batch norm"))
    what = (
        "logarithm of the drift with noisy batch norm over that without batch norm, median over "
        "{}; interval over five seeds, for {}"
    )

    def lead(step, layers, looked_at):
        at = _at("vgg", step)
        return _apart(
            *(np.log(np.median(drift[:, at, layers], axis=-1)) for drift in (noisy, none)),
            looked_at,
        )

    yield under("late in training")
    yield at_least(
        0,
        lead(180, slice(None), 6),
        what.format("all layers after 180 steps", "six records"),
    )
    yield otherwise("early, in the last layers, where the standard network's means jump")
    yield at_least(
        0,
        lead(20, slice(6, None), 54),
        what.format("layers 7 to 9 after 20 steps", "nine layers and six records"),
    )


@claim("sharad, Internal Covariate Shift", "holds")
def slows():
    """When the earlier layers change, the subsequent layers receive inputs with varying
    distributions, which can slow down training and make the network harder to optimise.
    """
    moved, still = (_at_best(strength) for strength in (2, 0))
    yield at_least(
        0,
        _apart(np.log(moved), np.log(still), 1),
        "perceptron with batch norm on the digits, logarithm of the training loss of steps 31 to 40 "
        "where the inputs of each unit are moved and stretched as a whole, by other amounts at every "
        "step, over that where they are not, each at the best of three learning rates; interval over "
        "four seeds",
    )


@cache
def _at_best(strength):
    """Losses of four seeds at the best of three learning rates, an inner one."""
    runs = np.array([experiments.moved(strength, rate=rate) for rate in (0.3, 1.0, 3.0)])
    return runs[runs.mean(axis=1).argmin()]


@claim("whatisbn, Internal Covariate Shift", "holds")
def most_efficient():
    """Training a network is most efficient when the distribution of inputs to each layer is
    similar. (Read: similar from step to step, so that of several networks the one with the least
    drift of its means needs the fewest steps.)
    """
    drift, steps = (
        {name: np.log(found(name)) for name in experiments.NORMALIZATIONS}
        for found in (
            lambda name: np.median(column("vgg", name, "drift"), axis=(1, 2)),
            lambda name: _steps(name, 0.5),
        )
    )
    steadiest = min(drift, key=lambda name: drift[name].mean())
    for values, what in (
        (drift, "median drift over layers and records"),
        (steps, "steps to a training loss of 0.5"),
    ):
        yield from [
            at_most(
                0,
                _apart(values[steadiest], values[name], 4),
                f"logarithm of the {what} of the steadiest of three VGGs, that with {steadiest}, over "
                f"that of the one with {name}, each at its best rate; interval over five seeds, for "
                "four comparisons",
            )
            for name in drift
            if name != steadiest
        ]
