"""What the literature says batch norm does for training: its speed, its steadiness, where it starts."""

from functools import cache

import numpy as np

from bncore.chapters.mechanics.forward import benefits, full_size
from bncore.lab import data, probes, recorded, studies
from bncore.page.claims import at_least, at_most, claim, otherwise, under

TUNED = "each at its own best rate, ten fresh seeds"


@cache
def _record():
    return recorded.load(full_size.PATH)["full"]


def _name(kind):
    return "convolutional-2000" if kind == "convolutional" else "starts"


def _part(kind):
    return _record()[_name(kind)]


def _best_gain(kind, normalization, score="loss_score"):
    """The gain from which a network arrives in the fewest steps, at its best rate, as tuned."""
    chosen = studies.best(_part(kind)["tuning"], score, smaller=True)[score].median("seed")
    return chosen.sel(kind=kind, normalization=normalization).idxmin("gain").item()


def _steps(kind, normalization, gain=None, score="loss_score"):
    """Steps of the ten fresh seeds, those that do not arrive at the horizon; by default of the best gain."""
    gain = _best_gain(kind, normalization, score) if gain is None else gain
    found = _part(kind)["by_loss" if score == "loss_score" else "by_accuracy"][score]
    one = found.sel(kind=kind, normalization=normalization).sel(gain=gain, method="nearest")
    return one.clip(max=full_size.CONFIGURATION[_name(kind)]["horizon"])


def _times(kind, gain=None, *, looked_at, score="loss_score"):
    """Steps without batch norm over steps with it: the mean of the logarithm to base 2, its interval."""
    plain, normalised = (_steps(kind, one, gain, score) for one in ("none", "batch"))
    return studies.difference(np.log2(plain), np.log2(normalised), looked_at=looked_at)


def _cost(kind):
    """Seconds of a step with batch norm over those of one without, logarithm to base 2."""
    seconds = _record()["seconds"][kind]
    return np.log2(seconds["batch"] / seconds["none"])


def _sooner(what, kind, of_steps=""):
    horizon = full_size.CONFIGURATION[_name(kind)]["horizon"]
    return (
        f"{what} without batch norm over that with it, logarithm to base 2{of_steps}: {kind} network on "
        f"the digits, {TUNED}, from the best of the gains that were tried; a run that has not arrived "
        f"after {horizon} steps counts {horizon}"
    )


@claim("encyclopaedia, Lead", "holds")
def faster():
    """Batch normalization makes the training of neural networks faster."""
    for kind in benefits.KINDS:
        steps = _times(kind, looked_at=5)
        time = tuple(float(end - _cost(kind)) for end in steps)
        words = _sooner(
            f"time to a training loss of {benefits.LOSS}", kind, f" (steps: {steps.mean:.1f})"
        )
        yield at_least(0, time, words)
    for kind, gain, whose in (("sigmoid", 3**-0.5, "torch's"), ("ReLU", 2**0.5, "He's")):
        steps = _times(kind, gain, looked_at=5)
        time = tuple(float(end - _cost(kind)) for end in steps)
        yield at_least(0, time, f"the same, {kind}, both from weights of {whose} size")


@claim("readingnotes, Introduction", "holds")
def fewer_epochs():
    """Batch norm cuts the number of epochs that training needs dramatically. (Read: by half or more.)"""
    for kind in benefits.KINDS:
        words = _sooner(f"epochs to a training loss of {benefits.LOSS}", kind, " (1: half as many)")
        yield at_least(1, _times(kind, looked_at=3), words)


@claim("cs682slides, Better accuracy and faster", "holds")
def accuracy_faster():
    """Batch norm gets to its accuracy faster."""
    for kind in benefits.KINDS:
        steps = _times(kind, looked_at=3, score="accuracy_score")
        time = tuple(float(end - _cost(kind)) for end in steps)
        words = _sooner(
            f"time to a test accuracy of {benefits.ACCURACY}", kind, f" (steps: {steps.mean:.1f})"
        )
        yield at_least(0, time, words)


def _rises(kind):
    """Share of epochs in which the loss rises up to LOSS, of the seeds from which both networks arrive.

    Without batch norm and with it.
    """
    found = _record()["steadiness"]["at_best"][kind]
    arms = [found[one].isel(learning_rate=0) for one in ("none", "batch")]
    horizon = full_size.CONFIGURATION["steadiness"]["horizon"][kind]
    both = np.logical_and(*(arm.loss_score <= horizon for arm in arms))
    return [arm.rises[both.values] for arm in arms]


@claim("encyclopaedia, Lead", "holds")
def more_stable():
    """Batch normalization makes the training of neural networks more stable."""
    for kind in benefits.KINDS:
        rises, tried = _rises(kind), full_size.CONFIGURATION["steadiness"]["seeds"][kind]
        yield at_least(
            0,
            studies.difference(*rises, looked_at=5),
            "share of epochs in which the training loss rises, up to a loss of "
            f"{benefits.LOSS}: without batch norm less with it, {kind}, each at its own best gain "
            f"and rate, the {rises[0].size} of {len(tried)} fresh seeds from which both arrive",
        )
    for kind, found in _record()["steadiness"]["over_rates"].items():
        doubles = [(found[one].peak > 2).mean("learning_rate") for one in ("none", "batch")]
        rates = found["none"].learning_rate.values
        yield at_least(
            0,
            studies.difference(*doubles, looked_at=5),
            "share of rates at which the training loss doubles at any time: without batch norm less "
            f"with it, {kind}, best gain, {rates.size} rates from {rates[0]:g}, the lowest at which "
            f"both train, to {rates[-1]:g}, {doubles[0].size} fresh seeds",
        )


def _arrive(kind, normalization):
    """Of the six gains, at how many the fresh seeds arrive: at each gain's best rate, at one for all."""
    horizon = full_size.CONFIGURATION["starts"]["horizon"]
    found = {
        name: one.sel(kind=kind, normalization=normalization) for name, one in _part(kind).items()
    }
    at_best = (found["by_loss"].loss_score <= horizon).sum("gain")
    at_one = (found["tuning"].loss_score <= horizon).sum("gain")
    return at_best, at_one.isel(learning_rate=at_one.median("seed").argmax("learning_rate"))


@claim("cs682slides, Other benefits in practice", "holds")
def less_careful_start():
    """With batch norm, training depends less on a careful initialisation. (Judged by the scale of the
    initial weights, from which a network arrives in 1000 steps or does not. With more steps plain networks
    arrive from more of them: that of ReLU from gain 1/4 after some 8000.)
    """
    for kind in ("sigmoid", "ReLU"):
        plain, normalised = _arrive(kind, "none"), _arrive(kind, "batch")
        words = (f"{TUNED}", "one rate for all gains, the best for that, three seeds")
        for one, other, how in zip(normalised, plain, words, strict=True):
            yield at_least(
                0,
                studies.difference(one.astype(float), other.astype(float), looked_at=4),
                "of six initial gains from 1/16 to 16, those from which 1000 steps bring the "
                f"training loss to {benefits.LOSS}: with batch norm less without, {kind}, {how}",
            )


@cache
def _gradient(gain):
    """Length of the loss's gradient at the first weights of the ReLU network, median of five starts."""
    of_first = probes.gradient_norms(["linear1"])
    lengths = [
        of_first(benefits.network("ReLU", "none", gain, seed), data.digits(seed))[0]
        for seed in range(5)
    ]
    return float(np.median(lengths))


@claim("cs682slides, Other benefits in practice", "holds")
def less_vanishing():
    """That gradients explode and vanish less is a reason why training with batch norm is shorter."""
    he = 2**0.5

    def saved(gain):
        return np.log2(_steps("ReLU", "none", gain)) - np.log2(_steps("ReLU", "batch", gain))

    for gain, does in ((1 / 4, "vanish"), (4.0, "explode")):
        yield at_least(
            0,
            studies.difference(saved(gain), saved(he), looked_at=2),
            f"steps to a training loss of {benefits.LOSS} without batch norm over those with it, "
            f"logarithm to base 2: from gain {gain:g}, where gradients {does} (at the first weights "
            f"{_gradient(gain) / _gradient(he):.2g} times those of gain √2), less from gain √2, "
            f"where they do not ({saved(he).mean().item():.1f}); ReLU, {TUNED}",
        )
    yield at_most(0.1, _gradient(1 / 4) / _gradient(he), "gradients of gain 1/4 over those of √2")
    yield at_least(10, _gradient(4.0) / _gradient(he), "gradients of gain 4 over those of √2")


def _ahead(kind):
    """Points of test accuracy with batch norm less without, 10 000 steps, from a good gain for either."""
    with_it, without = {
        "sigmoid": ("sigmoid, batch norm", "sigmoid, gain 4"),
        "ReLU": ("ReLU, gain √2, batch norm", "ReLU, gain √2"),
    }[kind]
    fresh = 100 * _record()["fresh"]["last"]
    pair = (fresh.sel(network=one) for one in (with_it, without))
    return studies.difference(*pair, looked_at=2)


@claim("cs682slides, Better accuracy and faster", "holds")
def better_accuracy():
    """Batch norm gives a better accuracy."""
    for kind, start in (("sigmoid", "gain 4"), ("ReLU", "He's weights")):
        yield at_least(
            0,
            _ahead(kind),
            "points of test accuracy after 10 000 steps, with batch norm less without, five hidden "
            f"layers, {kind}, {TUNED}, the network without it from {start}",
        )


@claim("sharad, Advantages", "holds")
def generalises_better():
    """Batch norm can make a deep network generalise better."""
    yield at_least(
        0,
        _ahead("ReLU"),
        "points of test accuracy after 10 000 steps, with batch norm less without, five hidden "
        f"layers of ReLU from He's weights, {TUNED}",
    )


@claim("sharad, Advantages", "fails")
def generalises_by_its_start():
    """Batch norm improves generalisation because it makes the network less sensitive to its initial
    weights.
    """
    for kind, start in (("sigmoid", "gain 4"), ("ReLU", "He's")):
        yield at_most(
            0,
            _ahead(kind),
            "points of test accuracy that batch norm is ahead where the network without it starts "
            f"well, from {start}, the gain of six that trains fastest: 10 000 steps, {kind}, {TUNED}",
        )


@claim("readingnotes, Standardize Layer Inputs", "undecided")
def most_for_convolutions_and_sigmoids():
    """Batch norm speeds training up most for convolutional networks and for sigmoidal
    nonlinearities.
    """

    def saved(kind):
        plain, normalised = (np.log2(_steps(kind, one)) for one in ("none", "batch"))
        return (plain - normalised).drop_vars(["kind", "gain"], errors="ignore")

    for kind in ("convolutional", "sigmoid"):
        yield at_least(
            0,
            studies.difference(saved(kind), saved("ReLU"), looked_at=2),
            f"steps to a training loss of {benefits.LOSS} without batch norm over those with it, "
            f"logarithm to base 2: {kind} less fully connected with ReLU, {TUNED}, best gains",
        )


@claim("whatisbn, Normalizing output values", "holds")
def learned_scale_helps():
    r"""$\gamma$ and $\beta$ give the network more to adjust in training, which helps it learn the
    function that it should approximate.
    """
    found = _record()["learned"]["by_loss"].loss_score
    for kind in ("sigmoid", "ReLU"):
        steps = found.sel(kind=kind).isel(gain=0)
        pair = (np.log2(steps.sel(normalization=one)) for one in ("batch, γ and β fixed", "batch"))
        yield at_least(
            0,
            studies.difference(*pair, looked_at=2),
            f"steps to a training loss of {benefits.LOSS} with γ and β left at 1 and 0 over those "
            f"with both learned, logarithm to base 2, {kind}, {TUNED}",
        )


def _other_constants():
    """The best pair of constants other than torch's, as tuned, and its lead in points on fresh seeds."""
    found, torchs = _record()["constants"], benefits.DEFAULTS["torch"]
    tuned = studies.best(found["tuning"], "accuracy", smaller=False).accuracy.median("seed")
    others = tuned.where((tuned.momentum != torchs["momentum"]) | (tuned.eps != torchs["eps"]))
    at = others.argmax(...)
    pair = {name: others[name].values[at[name].item()].item() for name in torchs}
    accuracies = (100 * found["fresh"].accuracy.sel(one) for one in (pair, torchs))
    return pair, studies.difference(*accuracies, looked_at=3)


@claim("sharad, Practical Tips", "undecided")
def other_constants():
    r"""Trying other values of momentum and $\varepsilon$ can make a network perform better."""
    pair, ahead = _other_constants()
    yield at_least(
        0,
        ahead,
        f"points of test accuracy, momentum {pair['momentum']:g} and ε {pair['eps']:g}, the best on "
        "three other seeds of eight pairs with momentum of 0.01, 0.1 or 0.5 and ε of 0.00001, 0.001 or "
        "0.1, less torch's defaults, 0.1 and 0.00001: ReLU, batches of 8 of the digits, 500 steps, "
        f"{TUNED}",
    )


@claim("cs682slides, Other benefits in practice", "depends")
def saturating_nonlinearities():
    """Batch norm enables the training of deep networks with saturating non-linearities such as the
    sigmoid.
    """
    tuning, fresh = (_record()[name].accuracy.sel(steps=3000) for name in ("tuning", "fresh"))
    yield under("the weights start as torch draws them, and 3000 steps have to do")
    yield at_least(
        0.85,
        fresh.sel(network="sigmoid, batch norm").min().item(),
        "least test accuracy with batch norm after 3000 steps, five hidden layers of 50 sigmoids, "
        f"{TUNED}",
    )
    yield at_most(
        0.2,
        tuning.sel(network="sigmoid").max().item(),
        "largest without it, nine rates, five seeds (chance: 0.1)",
    )
    yield otherwise("they start larger, with gain 4, or there are 10 000 steps")
    yield at_most(
        0.2,
        fresh.sel(network="sigmoid, gain 4").min().item(),
        f"least test accuracy without batch norm after 3000 steps, gain 4, {TUNED}",
    )
    yield at_most(
        0.2,
        _record()["fresh"].accuracy.sel(steps=10_000, network="sigmoid").median().item(),
        f"median test accuracy without batch norm after 10 000 steps, torch's weights, {TUNED}",
    )


@claim("cs682slides, Other benefits in practice", "depends")
def stuck_in_saturation():
    """Batch norm enables deep sigmoid networks to train because normalisation prevents the units from
    getting stuck in the saturated ranges.
    """
    found = _record()["saturation"]
    share = (
        "share of the last layer's sigmoid inputs beyond ±4, where the slope is below 0.02, from torch's "
        "weights, five seeds"
    )
    for heading, rate in (
        (under("the learning rate is high"), 3.0),
        (otherwise("it is not: the signal fades in the middle of the sigmoid"), 0.3),
    ):
        plain, normalised = (
            found.sel(normalization=one, learning_rate=rate) for one in ("none", "batch")
        )
        yield heading
        yield at_least(
            0.5,
            plain.share.mean("steps").min().item(),
            f"{share}: mean over 100, 300, 1000 and 3000 steps, least without batch norm, rate {rate:g}",
        )
        yield at_most(0.5, plain.accuracy.max().item(), "largest test accuracy of these networks")
        yield at_most(0.5, normalised.share.max().item(), "largest share with batch norm, any step")
        yield at_least(0.5, normalised.accuracy.min().item(), "least test accuracy of these")
