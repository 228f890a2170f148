"""What the literature says about internal covariate shift."""

import copy

import numpy as np
import torch
from torch.nn.functional import mse_loss

from bncore.chapters.explanations.covariate_shift import experiments
from bncore.chapters.explanations.covariate_shift.full_size import (
    at_equal_loss,
    column,
    medians,
    record,
)
from bncore.explanations.covariate_shift import gradient_shift, linearized_shift
from bncore.explanations.two_layers import two_linear_layers
from bncore.lab import networks
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


@claim("encyclopaedia, Measure", "depends")
def correlation():
    """If the shift introduced by the changes in previous layers is small, then the correlation
    between the gradients is close to 1.
    """
    slack = []
    for seed in range(20):
        for normalization in (None, "batch"):
            model, x, y, _ = _case(seed, normalization)
            for rate in (0.03, 0.3):
                shift = gradient_shift(model, mse_loss, x, y, rate)
                small = shift.relative < 1
                slack.extend(
                    (np.sqrt(1 - shift.relative**2, where=small, out=np.ones(4)) - shift.cosine)[
                        small
                    ]
                )
    a, b, rate = (1e-3 + 1) * np.eye(1), np.eye(1), 1.5
    before, after = two_linear_layers(a, b, np.eye(1), np.eye(1), rate)
    yield under(
        "small means small beside the gradient, $\\|G'-G\\| = r\\,\\|G\\|$ with $r<1$: then "
        "the cosine is at least $\\sqrt{1-r^2}$"
    )
    yield at_most(
        1e-12, max(slack), "largest excess of $\\sqrt{1-r^2}$ over the cosine, 40 networks"
    )
    yield otherwise(
        "only the norm is small: two scalar layers near their minimum, learning rate 1.5, "
        f"where the shift is {np.linalg.norm(after - before):.4f}"
    )
    yield at_least(0.9, np.sign(before * after).item(), "cosine")


def _at(network, step):
    return record()[0][network]["records"].index(step)


def _lead(network, compared, steps, key="cosine"):
    """Largest excess, over seeds and steps, of the median with batch norm over that without."""
    records = [_at(network, step) for step in steps]
    batch, none = (
        medians(network, name, key, compared)[:, records]
        for name in ("batch norm", "no batch norm")
    )
    return (batch - none).max()


def _leading(network, compared, step):
    """Number of seeds whose median cosine at one record is higher with batch norm."""
    batch, none = (
        medians(network, name, "cosine", compared)[:, _at(network, step)]
        for name in ("batch norm", "no batch norm")
    )
    return int((batch > none).sum())


@claim("encyclopaedia, Measure", "depends")
def higher_correlations():
    """The standard VGG and the standard deep linear network both have higher correlations of
    gradients than their counterparts with batch norm: batch norm does not reduce internal
    covariate shift.
    """
    what = "largest lead of batch norm in the median cosine over layers, five seeds"
    yield under(
        "after 5 training steps, for steps at each network's best learning rate and at a "
        "smaller one for both"
    )
    yield from [
        at_most(0, _lead(key, compared, [5]), f"{network}, {compared}: {what}")
        for key, network in (("vgg", "VGG"), ("linear", "deep linear network"))
        for compared in ("own rate", "one rate")
    ]
    yield otherwise(
        "the VGG after 20 steps and more, for steps at 0.1, the best rate with batch norm and "
        "without"
    )
    yield from [
        at_most(
            2,
            _leading("vgg", "own rate", step),
            f"VGG after {step} steps, own rate: how many of five seeds have the higher "
            "median cosine with batch norm",
        )
        for step in (20, 50, 100, 180)
    ]


@claim("santurkar2018, Figure 3", "depends")
def similar_or_worse():
    """Networks with batch norm have similar, or even worse, internal covariate shift, although
    they reach a better loss.
    """

    def ratio(network, compared):
        logs = [
            np.log(at_equal_loss(network, name, "relative", compared))
            for name in ("batch norm", "no batch norm")
        ]
        return float(np.exp((logs[0] - logs[1]).mean()))

    def lead(network, compared, level):
        batch, none = (
            np.median(at_equal_loss(network, name, "cosine", compared, level))
            for name in ("batch norm", "no batch norm")
        )
        return batch - none

    def end(network, name):
        return column(network, name, "losses")[:, -4:].mean()

    names = {"vgg": "VGG", "linear": "deep linear network"}
    leads = "median cosine of five seeds with batch norm minus that without, at a training loss of"
    pairs = (("linear", "own rate"), ("linear", "one rate"), ("vgg", "one rate"))
    yield under(
        "at equal loss: the deep linear network, or the VGG for steps at 0.03, a third of the "
        "rate at which both train"
    )
    yield from (
        at_least(
            0.8,
            ratio(network, compared),
            f"{names[network]}, {compared}: relative shift with batch norm over that "
            "without, at a training loss of 0.5, geometric mean of five seeds",
        )
        for network, compared in pairs
    )
    yield from (
        at_most(
            0.1, lead(network, compared, level), f"{names[network]}, {compared}: {leads} {level}"
        )
        for network, compared in pairs
        for level in (0.5, 0.4)
    )
    yield from (
        at_most(
            0.5,
            end(network, "batch norm") / end(network, "no batch norm"),
            f"{name}: loss at the end with batch norm over that without",
        )
        for network, name in names.items()
    )
    yield otherwise(
        "the VGG for steps at 0.1, the best rate with batch norm and without, where relative "
        f"shifts are alike at a loss of 0.5 (ratio {ratio('vgg', 'own rate'):.1f}) and cosines "
        "are not"
    )
    yield from [
        at_most(0.1, lead("vgg", "own rate", level), f"VGG, own rate: {leads} {level}")
        for level in (0.5, 0.4)
    ]


@claim("santurkar2018, Section 2.2", "depends")
def uncorrelated():
    """The standard deep linear network experiences almost no internal covariate shift for the
    entirety of training; with batch norm $G$ and $G'$ are almost uncorrelated.
    """
    later = slice(_at("linear", 5), None)

    def median(name, compared):
        return float(np.median(medians("linear", name, "cosine", compared)[:, later]))

    yield under("each network at its best learning rate, after the first steps")
    yield at_least(
        0.95,
        median("no batch norm", "own rate"),
        "without batch norm: median cosine over layers, seeds and records from step 5",
    )
    yield at_most(
        0.4, abs(median("batch norm", "own rate")), "with batch norm: absolute value of the same"
    )
    yield otherwise("both at a smaller learning rate, 0.003, or the plain network at the start")
    yield at_most(
        0.4, abs(median("batch norm", "one rate")), "with batch norm, steps of rate 0.003: the same"
    )
    yield at_least(
        0.95,
        np.median(medians("linear", "no batch norm", "cosine", "own rate")[:, 0]),
        "without batch norm, own rate, before the first step: median cosine",
    )


def _drift_ratio(layers):
    """Largest drift with batch norm over that without, over seeds and the first four records."""
    batch, none = (column("vgg", name, "drift") for name in ("batch norm", "no batch norm"))
    return (batch / none)[:, :4, layers].max()


@claim("ioffe2015, Section 3", "depends")
def reduced():
    """Batch normalization reduces internal covariate shift by a step that fixes the means and
    variances of layer inputs.
    """
    yield under(
        "the shift is the drift of the means of a VGG's units, taken behind batch norm, where "
        "the batch's mean is $\\beta$ and its variance $\\gamma^2$ by construction"
    )
    yield at_most(
        0.2,
        _drift_ratio(slice(4, None)),
        "largest drift with batch norm over that without, layers 5 to 9, first 50 "
        "steps, five seeds",
    )
    yield otherwise("the shift is that of the gradients, before the first and after 5 steps")
    yield at_most(
        0,
        _lead("vgg", "own rate", [0, 5], "relative"),
        "largest difference, with batch norm minus without, of the VGG's median "
        "relative shift at the best learning rates",
    )


@claim("encyclopaedia, Internal covariate shift", "depends")
def amplified():
    """Small changes in shallower hidden layers are amplified as they propagate through a deep
    network, with a significant shift in deeper layers as the result.
    """

    def growth(name):
        drift = column("vgg", name, "drift")[:, :3]
        return at_least(
            5,
            (drift[..., 8] / drift[..., 1]).min(),
            "smallest drift of layer 9 over that of layer 2, first 20 steps, five seeds",
        )

    yield under("a VGG without batch norm")
    yield growth("no batch norm")
    yield otherwise("a VGG with batch norm")
    yield growth("batch norm")


def _steps(name, level):
    return experiments.steps_to(column("vgg", name, "losses"), level)


@claim("santurkar2018, Section 2.1", "depends")
def noisy_training():
    """With time-varying noise of non-zero mean and non-unit variance after every batch norm, a
    network still trains nearly as fast as with batch norm, and faster than without.
    """
    noisy, batch, none = (
        {level: _steps(name, level) for level in (0.5, 0.1)}
        for name in ("noisy batch norm", "batch norm", "no batch norm")
    )
    strengths = record()[0]["noise"]["strengths"]
    stronger = np.array(record()[1]["noise"]["losses"][strengths.index(4)], dtype=float)
    against_none = "steps to a training loss of 0.5 with noise over those without batch norm"
    yield under(
        "the noise moves means by up to half a standard deviation and stretches by up to a "
        "quarter, as we reconstruct the source"
    )
    yield from (
        at_most(
            2,
            (noisy[level] / batch[level]).max(),
            f"steps to a training loss of {level} with noise over those without "
            "noise, largest of five seeds",
        )
        for level in (0.5, 0.1)
    )
    yield at_most(0.5, (noisy[0.5] / none[0.5]).max(), f"{against_none}, largest of five seeds")
    yield otherwise("the noise is four times as strong")
    yield at_most(
        0.5,
        (experiments.steps_to(stronger, 0.5) / none[0.5][: len(stronger)]).min(),
        f"{against_none}, smallest of three seeds",
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
        return [
            at_most(
                0.05,
                (batch - noisy)[:, kind].max(),
                "largest loss of accuracy on the test digits to noise, five seeds",
            ),
            at_least(
                0,
                (noisy - none)[:, kind].min(),
                "smallest lead of noisy batch norm over no batch norm",
            ),
        ]

    yield under("at the test, batch norms use the batch's statistics, and the noise goes on")
    yield from measured(1)
    yield otherwise(
        "at the test there is no noise, and batch norms use the running statistics, which "
        "were collected under noise"
    )
    yield from measured(0)


@claim("santurkar2018, Section 2.1", "depends")
def noisy_distributions():
    """The distributions in the network with noisy batch norm are less stable than even those of
    the standard network.
    """
    ratio = column("vgg", "noisy batch norm", "drift") / column("vgg", "no batch norm", "drift")
    what = "drift with noisy batch norm over that without batch norm, median over layers"
    yield under("late in training")
    yield at_least(1, ratio[:, -1].min(), f"{what}, all layers after 180 steps, five seeds")
    yield otherwise(
        "early, in the last convolutions, where the means of the standard network jump by "
        "more than a standard deviation a step"
    )
    yield at_least(
        1,
        np.median(ratio[:, :3, 6:], axis=(1, 2)).max(),
        f"{what} 7 to 9 and the first 20 steps, largest of five seeds",
    )


@claim("sharad, Internal Covariate Shift", "depends")
def slows():
    """When the earlier layers change, the subsequent layers receive inputs with varying
    distributions, which can slow down training.
    """
    losses = {strength: experiments.moved(strength) for strength in (0, 0.25, 2)}

    def measured(strength):
        return [
            at_least(
                1.2,
                (losses[strength] / losses[0]).min(),
                "perceptron with batch norm on the digits, mean training loss of steps 31 to 40, "
                f"inputs moved {strength} times the usual, over that without, smallest of four seeds",
            )
        ]

    yield under(
        "the inputs of each unit are moved and stretched as a whole, by other amounts at "
        "every step, each mean by up to one standard deviation"
    )
    yield from measured(2)
    yield otherwise("each mean is moved by up to an eighth of a standard deviation")
    yield from measured(0.25)


@claim("whatisbn, Internal Covariate Shift", "depends")
def most_efficient():
    """Training a network is most efficient when the distribution of inputs to each layer is
    similar. (Read: similar from step to step, so that of two networks the one with less
    drift of its means needs fewer steps.)
    """
    drift, steps = (
        {name: found(name) for name in experiments.NORMALIZATIONS}
        for found in (
            lambda name: np.median(column("vgg", name, "drift"), axis=(1, 2)),
            lambda name: _steps(name, 0.5),
        )
    )

    def over_none(values, name):
        return values[name] / values["no batch norm"]

    less = "median drift over layers and records over that of the network without batch norm"
    fewer = "steps to a training loss of 0.5 over those of the network without"
    yield under("the steadier network has batch norm, a VGG on the digits")
    yield from [
        at_most(1, over_none(values, "batch norm").max(), f"{label}, largest of five seeds")
        for label, values in ((less, drift), (fewer, steps))
    ]
    yield otherwise(
        "it is the one without, by the median over layers and records, beside one with noise behind "
        "its batch norms (by the mean over layers, which its last layers dominate early, the one "
        "without is the less steady)"
    )
    yield from [
        at_least(1, over_none(values, "noisy batch norm").min(), f"{label}, smallest of five seeds")
        for label, values in ((less, drift), (fewer, steps))
    ]
