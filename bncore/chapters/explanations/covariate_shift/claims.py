"""What the literature says about internal covariate shift."""

import numpy as np
import xarray as xr

from bncore.chapters.explanations.covariate_shift import measures, readings, small
from bncore.chapters.explanations.covariate_shift.readings import runs
from bncore.chapters.explanations.covariate_shift.runs import LEVELS
from bncore.lab.studies import difference
from bncore.page.claims import at_least, at_most, claim, otherwise, under, untestable


@claim("santurkar2018, Definition 2.1", "untestable")
def definition():
    """The difference between $G_{t,i}$ and $G'_{t,i}$ reflects the change in the landscape of
    $W_i$ that is caused by the layers before it: it captures the effect of dependencies
    across layers.
    """
    yield untestable(
        "it is a definition, and says what is to be called the shift; what it equals to first order, the "
        "chapter proves"
    )


@claim("encyclopaedia, Measure", "fails")
def correlation():
    """Where the updates of the earlier layers bring little shift, the correlation of a layer's
    gradients before and after them is close to 1. (Read: little shift of the means of the layers'
    inputs. Of the gradients' own shift it is true by what a cosine is.)
    """
    found = runs("vgg", "fresh").sel(kind="batch norm", compared="own rate")
    cosine = found.cosine.where(found.drift < 0.01).mean("record")
    yield at_least(
        0.9,
        difference(cosine, xr.zeros_like(cosine), looked_at=2),
        "VGG with batch norm at its best learning rate: cosine, median over layers, mean over those of "
        "six records at which a step moves the means by less than 0.01 standard deviations, median over "
        "nine layers; interval over 15 fresh seeds, for two networks (without batch norm no record is "
        "such)",
    )


NETWORKS = {"vgg": "VGG", "linear": "deep linear network"}


def _pair(network, part="fresh", names=("batch norm", "no batch norm")):
    """What was recorded of two models of a network, by default on the seeds that were run last."""
    found = runs(network, part)
    return tuple(found.sel(kind=name) for name in names)


@claim("encyclopaedia, Measure", "undecided")
def higher_correlations():
    """The standard VGG and the standard deep linear network both have higher correlations of
    gradients than their counterparts with batch norm, which says that batch norm does not reduce
    internal covariate shift.
    """
    for key, network in NETWORKS.items():
        batch, none = (found.cosine.sel(compared="own rate").mean("record") for found in _pair(key))
        yield at_most(
            0,
            difference(batch, none, looked_at=6),
            f"{network} at its best learning rates: cosine with batch norm less that without, "
            "median over layers, mean over six records; interval over 15 fresh seeds, for two "
            "networks and three lengths of the step",
        )


@claim("santurkar2018, Figure 3", "undecided")
def similar_or_worse():
    """Networks with batch norm have similar, or even worse, internal covariate shift, although
    they reach a better loss.
    """
    looked_at = 16  # Two networks, two lengths of the step, two losses, two measures.
    for key, network in NETWORKS.items():
        relative, cosine, ends = readings.at_half(key, ("batch norm", "no batch norm"))
        where = (
            f"at its best learning rates, at a training loss of 0.5; interval over {len(cosine[0])} "
            f"of 15 fresh seeds, those that come down to it, for {looked_at} comparisons"
        )
        yield at_least(
            np.log(0.8),
            difference(*relative, looked_at=looked_at),
            f"{network}: logarithm of the relative shift with batch norm over that without, {where}",
        )
        yield at_most(
            0.1,
            difference(*cosine, looked_at=looked_at),
            f"{network}: cosine with batch norm less that without, {where}",
        )
        yield at_most(
            0,
            difference(*ends, looked_at=looked_at),
            f"{network}: logarithm of the loss at the end with batch norm over that without",
        )


@claim("santurkar2018, Section 2.2", "fails")
def uncorrelated():
    """The standard deep linear network experiences almost no internal covariate shift for the
    entirety of training; with batch norm $G$ and $G'$ are almost uncorrelated.
    """
    batch, none = (found.cosine.sel(compared="own rate") for found in _pair("linear"))
    what = "cosine at its best learning rate, median over layers; interval over 15 fresh seeds"
    for step in none.record.values:
        one = none.sel(record=step)
        yield at_least(
            0.9,
            difference(one, xr.zeros_like(one), looked_at=8),
            f"without batch norm, after {step} steps: {what}, for six records and two means",
        )
    for sign in (1, -1):
        mean = sign * batch.mean("record")
        yield at_most(
            0.3,
            difference(mean, xr.zeros_like(mean), looked_at=8),
            f"with batch norm{'' if sign > 0 else ', with the sign turned'}: {what}, mean over six "
            "records, for six records and two means",
        )


@claim("ioffe2015, Section 3", "depends")
def reduced():
    """Batch normalization reduces internal covariate shift, the change of the distributions of
    layer inputs as the parameters change, by a step that fixes their means and variances.
    """
    batch, none = (np.log(found.distance) for found in _pair("vgg", "distances"))

    def less(step):
        return at_most(
            0,
            difference(batch.sel(record=step), none.sel(record=step), looked_at=6),
            f"VGG after {step} steps, logarithm of the distance with batch norm over that without: "
            "Kolmogorov's, of the distributions of a unit's inputs before and after the next step, median "
            "over nine layers, each network at its best learning rate; interval over ten fresh seeds, for "
            "six records",
        )

    first, *later = batch.record.values
    yield under("the network has taken its first steps")
    yield from map(less, later)
    yield otherwise("it takes its first step")
    yield less(first)


@claim("encyclopaedia, Internal covariate shift", "holds")
def amplified():
    """Small changes in shallower hidden layers are amplified as they propagate through a deep
    network, with a significant shift in deeper layers as the result.
    """
    for count in (1, 3, 6):
        moved = np.array([measures.drift_of_step(None, seed, 5, count) for seed in range(5)])
        last, first = (
            xr.DataArray(np.log(moved[:, i]), {"seed": range(5)}, ["seed"]) for i in (8, count - 1)
        )
        yield at_least(
            0,
            difference(last, first, looked_at=3),
            f"VGG of ten layers without batch norm after 5 steps, a step of its first {count} alone: "
            f"logarithm of the drift of the last activation's input over that of layer {count}; interval "
            "over five seeds, for three cases",
        )


def _affected(drawn, what):
    found = np.log(small.distances(drawn))
    for layer in found.layer.values:
        apart, chance = (found.sel(layer=layer, between=one) for one in ("networks", "images"))
        yield at_least(
            0,
            difference(apart, chance, looked_at=8),
            f"plain networks after 60 steps that differ in {what} alone: logarithm of the Kolmogorov "
            f"distance of what reaches layer {layer} for the same images, over that of what reaches it "
            "in one network for two halves of the images; interval over eight pairs, for eight comparisons",
        )


@claim("encyclopaedia, Internal covariate shift", "holds")
def initialisation():
    """While a network trains, how its initial parameters were drawn has an effect on the
    distribution of each layer's inputs.
    """
    yield from _affected("weights", "their initial weights")


@claim("encyclopaedia, Internal covariate shift", "holds")
def data_drawn():
    """While a network trains, the randomness of its data has an effect on the distribution of each
    layer's inputs.
    """
    yield from _affected("data", "the draw and the order of their training digits")


def _steps(name, level):
    """Logarithm of the steps to a training loss, over the seeds."""
    losses = runs("vgg").losses.sel(kind=name)
    found = readings.steps_to(losses.transpose("seed", "window").values, level)
    return xr.DataArray(np.log(found), {"seed": losses.seed}, ["seed"])


@claim("santurkar2018, Section 2.1", "fails")
def noisy_training():
    """With time-varying noise of non-zero mean and non-unit variance after every batch norm, the
    difference in performance to batch norm alone is almost non-existent, and both do much better than
    the network without. (The strength of the noise is the source's, as we reconstruct it.)
    """
    noisy, batch, none = (
        {level: _steps(name, level) for level in (0.5, 0.1)}
        for name in ("noisy batch norm", "batch norm", "no batch norm")
    )
    where = "each at its best learning rate; interval over five seeds, for three comparisons"
    yield at_most(
        np.log(1.1),
        difference(noisy[0.1], batch[0.1], looked_at=3),
        f"logarithm of the steps to a training loss of 0.1 with noise over those without noise, {where}",
    )
    for which, name in ((noisy, "with noise"), (batch, "with batch norm alone")):
        yield at_most(
            np.log(0.5),
            difference(which[0.5], none[0.5], looked_at=3),
            f"logarithm of the steps to a training loss of 0.5 {name} over those without batch norm, {where}",
        )


def _returned():
    """The recorded VGGs with batch norm whose means are moved as those without it move."""
    return readings.record()[1]["returned"]["fresh"].isel(times=0)


@claim("sharad, Advantages", "holds")
def faster():
    """Batch norm can speed training up by reducing internal covariate shift. (Read: as one cause among
    others, so that with the shift given back training is slower again.)
    """
    for place, level in enumerate(LEVELS):
        yield at_least(
            0,
            difference(
                np.log(_returned().steps.isel(level=place)),
                _steps("batch norm", level),
                looked_at=4,
            ),
            f"VGG with batch norm, logarithm of the steps to a training loss of {level} where at every step "
            "the mean of each unit is moved, by other amounts, as far as a step moves the means of its layer "
            "without batch norm, over those where it is not, each at its best learning rate; interval "
            "over five seeds, for four comparisons",
        )


@claim("encyclopaedia, Theoretical Understanding", "holds")
def not_the_reason():
    """Covariate shift is not the reason that batch norm improves performance. (Read: with the shift given
    back, most of the lead in accuracy remains.)
    """
    for kind, name in enumerate(("running", "the batch's")):
        batch, none = (
            runs("vgg").accuracies.sel(kind=one)[:, kind] for one in ("batch norm", "no batch norm")
        )
        moved = _returned().accuracies[:, kind]
        yield at_least(
            0,
            difference(moved, (batch + none) / 2, looked_at=4),
            "VGG with batch norm whose means are moved at every step as far as those without it: accuracy "
            f"on the test digits after 200 steps, with {name} statistics, less the mean of those with and "
            "without batch norm, each at its best learning rate; interval over five seeds, for four comparisons",
        )


@claim("encyclopaedia, Theoretical Understanding", "depends")
def noisy_accuracy():
    """The network with noise shows similar accuracy to the one with batch norm, and both perform
    better than the one without.
    """
    noisy, batch, none = (
        runs("vgg").accuracies.sel(kind=name)
        for name in ("noisy batch norm", "batch norm", "no batch norm")
    )

    def measured(kind):
        looks = "interval over five seeds, for six comparisons"
        return [
            at_most(
                0.05,
                difference(batch[:, kind], noisy[:, kind], looked_at=6),
                f"accuracy on the test digits lost to noise; {looks}",
            ),
            at_least(
                0,
                difference(noisy[:, kind], none[:, kind], looked_at=6),
                f"lead of noisy batch norm over no batch norm; {looks}",
            ),
            at_least(
                0,
                difference(batch[:, kind], none[:, kind], looked_at=6),
                f"lead of batch norm over no batch norm; {looks}",
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
    pair = [
        np.log(found.drift)
        for found in _pair("vgg", "drift", ("noisy batch norm", "no batch norm"))
    ]

    def lead(first):
        layers = slice(first - 1, first + 2)
        drifts = [drift.isel(activation=layers).mean(["activation", "record"]) for drift in pair]
        return at_least(
            0,
            difference(*drifts, looked_at=54),
            "logarithm of the drift with noisy batch norm over that without batch norm, mean over layers "
            f"{first} to {first + 2} and six records, 0 to 180 steps; interval over five seeds, for nine "
            "layers and six records",
        )

    yield under("in the first layers")
    yield lead(1)
    yield otherwise(
        "in those behind, and clearly in the last, where the standard network's means jump"
    )
    yield lead(4)
    yield lead(7)


@claim("sharad, Internal Covariate Shift", "holds")
def slows():
    """When the earlier layers change, the subsequent layers receive inputs with varying
    distributions, which can slow down training and make the network harder to optimise.
    """
    moved, still = (np.log(_moved("fresh", strength).loss.sel(gain=1)) for strength in (2, 0))
    yield at_least(
        0,
        difference(moved, still, looked_at=2),
        "perceptron with batch norm on the digits, logarithm of the training loss of steps 111 to 120 "
        "where the inputs of each unit are moved and stretched as a whole, by other amounts at every "
        "step, over that where they are not, each at its best learning rate; interval over ten fresh "
        "seeds, for two strengths",
    )


def _moved(part, strength):
    """The recorded perceptrons whose inputs are moved so strongly."""
    return readings.record()[1]["moved"][part].sel(strength=strength)


@claim("readingnotes, Problem of Training Deep Networks", "fails")
def lower_rates():
    """Changing distributions slow training down because they call for lower learning rates and for
    careful initialisation.
    """
    rates = readings.record()[0]["moved"]["rates"]
    moved, still = (readings.trained(_moved("tuning", strength), rates) for strength in (4, 0))
    what = (
        "perceptron with batch norm whose inputs are moved on purpose, less one whose inputs are not; "
        "trains: loss below half that of guessing after 120 steps; interval over five seeds, for "
        "six comparisons"
    )
    yield at_most(
        0,
        difference(moved["largest"], still["largest"], looked_at=6),
        "logarithm of the largest rate at which it trains, mean over three gains of the initial "
        f"weights: {what}",
    )
    yield at_most(
        0,
        difference(moved["share"], still["share"], looked_at=6),
        f"share of three gains, 0.1 to 10, and seven rates at which it trains: {what}",
    )
    own, same = readings.slowdown(4)
    yield at_most(
        0,
        difference(same, own / 2, looked_at=6),
        "the same perceptrons at gain 1: logarithm of the loss with moved inputs over that without, both "
        "at the best rate of the former, less half of that with each at its own best rate",
    )


@claim("readingnotes, Problem of Training Deep Networks", "fails")
def not_fitted():
    """Because the layers' updates are not coordinated, the target function is never really fitted."""
    yield at_most(
        0.99,
        min(small.share_right()),
        "share of the training digits that a plain network gets right, all of whose layers step at "
        "once, after 800 steps, smallest of three seeds",
    )


@claim("readingnotes, Introduction", "untestable")
def trained_anew():
    """Covariate shift means that the inputs have changed in distribution, and that the network has to
    be trained anew because of it.
    """
    yield untestable(
        "it says what a name means; the usual meaning leaves the need to train anew out, which a network "
        "that is right for the new inputs too does not have"
    )


@claim("whatisbn, Internal Covariate Shift", "holds")
def most_efficient():
    """Training a network is most efficient when the distribution of inputs to each layer is
    similar. (Read: similar from step to step, so that of one network, whose layers' inputs are moved
    on purpose, training gets the further in the same steps the less they are moved.)
    """
    losses = {strength: np.log(_moved("fresh", strength).loss) for strength in (0, 2, 4)}
    for gain in (0.1, 1, 10):
        for more, less in ((2, 0), (4, 0), (4, 2)):
            yield at_least(
                0,
                difference(losses[more].sel(gain=gain), losses[less].sel(gain=gain), looked_at=9),
                "perceptron with batch norm on the digits, initial weights at "
                f"{gain} times the gain of He et al.: logarithm of the training loss of steps 111 to 120 "
                f"where each unit's inputs are moved and stretched {more} times the usual, over that "
                f"where {less} times, each at its own best rate; interval over ten fresh seeds, for nine "
                "comparisons",
            )
