"""What the literature says about scale invariance, learning rates and weight decay."""

from functools import cache

import numpy as np
import torch
import xarray as xr

from bncore.chapters.explanations.scale_invariance import experiments, full_size, rates
from bncore.explanations import effective_rate
from bncore.lab import recorded, studies
from bncore.page.claims import at_least, at_most, claim, otherwise, under

HALF_STEP = 0.25
_grown = cache(rates.grown)
SEEDS = full_size.CONFIGURATION["fresh_seeds"]


@cache
def _record():
    return recorded.load(full_size.PATH)["full"]


def _trains(level):
    """Whether each arm of the recorded sweep is below a loss in the end, by rate and seed."""
    loss = _record()["one rate"].loss.isel(steps=-1)
    return loss < level


def _apart(values, looked_at):
    """With batch norm less without, over the seeds."""
    arms = (values.sel(arm=arm) for arm in ("batch norm", "no batch norm"))
    return studies.difference(*arms, looked_at=looked_at)


@claim("ioffe2015, Section 3.3", "holds")
def higher_rates():
    """Batch normalization enables higher learning rates."""
    for level in rates.LEVELS:
        good = _trains(level)
        highest = np.log10(good.learning_rate).where(good).max("learning_rate")
        yield at_least(
            HALF_STEP,
            _apart(highest, len(rates.LEVELS)),
            f"decades by which the largest learning rate that trains the digits to a loss of {level:g}, of two a "
            "decade, is higher with batch norm, one rate for all parameters, 2000 steps, 5 seeds "
            "(recorded run)",
        )


@claim("encyclopaedia, Internal covariate shift", "holds")
def robust_to_rates():
    """With batch norm the network becomes more robust to different learning rates."""
    for level in rates.LEVELS:
        yield at_least(
            HALF_STEP,
            _apart(_trains(level).sum("learning_rate") / 2, len(rates.LEVELS)),
            f"decades of learning rates that train the digits to a loss of {level:g}, with batch norm less "
            "without, one rate for all parameters, 2000 steps, 5 seeds (recorded run)",
        )


def _best(level):
    """Logs of steps to a loss on fresh seeds.

    With batch norm at its own best rate, with batch norm at the plain network's, and of the plain
    network at its own.
    """
    record = _record()
    fresh, other = (record[f"one rate, {how} to {level:g}"] for how in ("fresh", "exchanged"))
    return [
        np.log10(some[f"to {level:g}"].sel(arm=arm))
        for some, arm in ((fresh, "batch norm"), (other, "batch norm"), (fresh, "no batch norm"))
    ]


@claim("readingnotes, Tips for using batch normalization", "fails")
def needs_larger_rates():
    """Batch norm smooths training and so needs much larger learning rates. (Read: at the rate that
    is best for the plain network it takes no fewer steps than that.)
    """
    for level in rates.LEVELS:
        _, normalised, plain = _best(level)
        yield at_least(
            0,
            studies.difference(normalised, plain, looked_at=len(rates.LEVELS)),
            f"decades of steps that train the digits to a loss of {level:g}, with batch norm less without, "
            "both at the rate that is best without, 10 fresh seeds (recorded run)",
        )


@claim("sharad, Advantages", "holds")
def further_speed():
    """The higher learning rates that batch norm allows can speed training up further. (Allows: the
    plain network does not train at them from every seed.)
    """
    own, other, _ = _best(0.1)
    rate = _record()["one rate, fresh to 0.1"].learning_rate.sel(arm="batch norm").item()
    plain = _trains(0.1).sel(arm="no batch norm", learning_rate=rate)
    yield at_most(
        0.8,
        float(plain.mean()),
        "share of 5 seeds from which the network without batch norm trains the digits to a loss of 0.1 in "
        "2000 steps at the rate that is best with batch norm (recorded run)",
    )
    yield at_most(
        0,
        studies.difference(own, other, looked_at=2),
        "decades of steps to that loss, with batch norm, at that rate less those at the one that is best "
        "without, 10 fresh seeds (recorded run)",
    )


def _factor(arm, rate, what):
    """How much longer something is after one step at a rate, with an interval over seeds."""
    log = xr.DataArray(
        np.log10([_grown(arm, rate, seed)[what] for seed in SEEDS]),
        coords={"seed": SEEDS},
        dims="seed",
    )
    return tuple(10.0**end for end in studies.difference(log, 0 * log, looked_at=16))


def _over_frozen(arm, rate):
    """The loss after 500 steps at a rate, less that of hidden weights that never move."""
    found, kept = (_record()[name].loss.sel(steps=500) for name in ("one rate", "hidden rate"))
    run = (found if arm in found.arm else kept).sel(arm=arm, learning_rate=rate)
    still = kept.sel(arm=f"{arm.split(',')[0]}, hidden rate", learning_rate=0.0)
    return studies.difference(run, still, looked_at=16)


@claim("cs682slides, The BN transformation is scalar invariant", "depends")
def no_explosion():
    """Normally, large learning rates may increase the scale of the parameters, which amplifies the
    gradient and leads to the explosion of the model; with batch norm they do not. (Large: ten and a
    hundred times the largest rate at which any of the networks without batch norm trains.)
    """
    what = "after one step at the rate {:g} over that before, digits, 10 fresh seeds"
    end = (
        "training loss after 500 steps at the rate {:g} less that of the network whose hidden weights "
        "never move, 5 seeds (recorded run)"
    )
    yield under("the large rate is that of the weights before a batch norm only")
    for name, amplified in (("no batch norm", at_least), ("batch norm", at_most)):
        arm = f"{name}, hidden rate"
        dead = "; it ends at log 10, that of a guess" if name == "no batch norm" else ""
        for rate in (10.0, 100.0):
            longer, gradient = (_factor(arm, rate, one) for one in ("weights", "gradient"))
            yield at_least(1, longer, f"{name}: length of hidden weights {what.format(rate)}")
            yield amplified(1, gradient, f"{name}: length of their gradient {what.format(rate)}")
            yield amplified(0, _over_frozen(arm, rate), f"{name}: {end.format(rate)}{dead}")
    yield otherwise("it is that of all parameters, output layer, $\\gamma$ and $\\beta$ included")
    for rate in (10.0, 100.0):
        yield at_most(
            1,
            _factor("batch norm", rate, "gradient"),
            f"batch norm: length of the gradient {what.format(rate)}",
        )
        yield at_most(0, _over_frozen("batch norm", rate), f"batch norm: {end.format(rate)}")


def _steps(arm, level):
    """Decades of steps to a loss, at the arm's own best rate, on fresh seeds."""
    part = "one rate" if arm in _record()["one rate"].arm else "split"
    return np.log10(_record()[f"{part}, fresh to {level:g}"][f"to {level:g}"].sel(arm=arm))


@claim("kohler2019, Abstract", "fails")
def split():
    """Batch normalization accelerates training because it splits the optimization task into
    optimizing length and direction of the parameters separately. (Read: what splits them and does no
    more brings at least half of the acceleration: weight normalization, or division by the batch's
    deviation without centring, which splits in the norm of the paper.)
    """
    for level in rates.LEVELS:
        gained = _steps("no batch norm", level) - _steps("batch norm", level)
        what = f"decades of steps that training takes less to a loss of {level:g} on the digits"
        each = "each at its best rate, 10 fresh seeds (recorded run)"
        apart = studies.difference(gained, 0 * gained, looked_at=8)
        yield at_least(0, apart, f"{what}, batch norm against none, {each}")
        for name, start in (
            ("weight norm", ""),
            ("weight norm", ", normalised start"),
            ("deviation only", ""),
        ):
            by_split = _steps(f"no batch norm{start}", level) - _steps(f"{name}{start}", level)
            yield at_least(
                0,
                studies.difference(by_split, gained / 2, looked_at=8),
                f"{what}, {name} against none, {start[2:] or 'plain start'}, less half of that, "
                f"{each}",
            )


def _growth(at, steps):
    """Growth of a unit's weights in the second half of its steps, with batch norm less without."""
    seeds = range(10)

    def logs(kind):
        still = np.zeros(len(at))
        runs = [
            experiments.decayed(np.array(at), still, steps, seed=seed, kind=kind) for seed in seeds
        ]
        return np.log10([run.length[-1] / run.length[steps // 2] for run in runs])

    more = xr.DataArray(
        logs(experiments.Unit) - logs(experiments.Linear),
        coords={"seed": list(seeds)},
        dims=("seed", "rate"),
    )
    return [
        (rate, studies.difference(one, 0 * one, looked_at=4))
        for rate, one in zip(at, more.transpose(), strict=True)
    ]


@claim("ioffe2015, Section 3.3", "depends")
def stabilised_growth():
    """Larger weights lead to smaller gradients, and batch normalization will stabilize the parameter
    growth. (Read: a unit's weights grow less with batch norm than without.)
    """
    what = (
        "decades by which a unit's weights grow from step {} to step {} at the rate {:g}, fresh noisy batches "
        "of 32, with batch norm less without, 10 seeds"
    )
    yield under("the rate is one at which the unit without batch norm diverges")
    for rate, more in _growth([3.0, 10.0], 100):
        yield at_most(0, more, what.format(50, 100, rate))
    yield otherwise("it is one at which the unit without batch norm settles")
    for rate, more in _growth([0.1, 0.3], 1000):
        yield at_most(0, more, what.format(500, 1000, rate))


@claim("vanlaarhoven2017, Abstract", "depends")
def no_regularisation():
    """L2 regularization has no regularizing effect when combined with normalization. (Read: it does
    nothing that other learning rates do not do.)
    """

    def apart(what, **settings):
        return at_most(
            1e-9,
            experiments.equivalent_on_digits(0.3, 0.03, 0, 60, **settings)[0],
            "largest difference of two networks' class probabilities on the digits after 60 steps, "
            f"one with weight decay, one with learning rates that grow instead, in float64, {what}",
        )

    yield under(
        "the penalty is on weights before a batch norm only, and $\\varepsilon$ is negligible"
    )
    yield apart("$\\varepsilon=10^{-30}$")
    yield otherwise(
        "it acts on the output layer, $\\gamma$ and $\\beta$ too, as it does by default, or "
        "$\\varepsilon$ is seen"
    )
    yield apart("decay on all parameters", all_decay=True)
    yield apart("$\\varepsilon=10^{-5}$", eps=1e-5)


@claim("vanlaarhoven2017, Abstract", "holds")
def decay_sets_rate():
    """Instead, regularization has an influence on the scale of weights, and thereby on the
    effective learning rate.
    """
    rates, decays = np.repeat([0.1, 1.0], 3), np.tile([0.01, 0.03, 0.1], 2)
    run = experiments.decayed(rates, decays, 2000)
    square, slope = ((some[-1000:] ** 2).mean(axis=0) for some in (run.length, run.gradient))
    felt = rates / ((1 - rates * decays) * square)
    expected = [
        effective_rate.equilibrium(*map(float, one)).effective_rate
        for one in zip(rates, decays, np.sqrt(slope), strict=True)
    ]
    shrunk, grown = (one.reshape(2, 3)[:, 1:] / one.reshape(2, 3)[:, :-1] for one in (square, felt))
    what = "of a noisy unit when the decay grows threefold, 0.01 to 0.1, at two rates"
    yield at_most(1, shrunk.max(), f"largest factor of the squared length {what}")
    yield at_least(1, grown.min(), f"least factor of the effective rate {what}")
    yield at_most(
        0.05,
        np.abs(felt / expected - 1).max(),
        "largest relative distance of the effective rate of a noisy unit from the "
        "predicted equilibrium, 6 pairs of rate and decay, last 1000 of 2000 steps",
    )


@claim("vanlaarhoven2017, Abstract", "holds")
def adam():
    """Optimization methods such as ADAM only partially eliminate the influence of normalization on
    the learning rate. (The influence: the longer the weights, the less a step turns them.)
    """

    def exponents(optimizer, rate):
        seeds, found = range(5), []
        for seed in seeds:
            turns = [rates.turned(optimizer, rate, longer, seed, 20) for longer in (1.0, 10.0)]
            found.append(np.log10(turns[1] / turns[0]))
        return xr.DataArray(found, coords={"seed": list(seeds)}, dims="seed")

    by_adam, by_descent = exponents(torch.optim.Adam, 1e-3), exponents(torch.optim.SGD, 0.1)
    what = "exponent of the length of hidden weights in the angle by which 20 steps on the digits turn them"
    yield at_most(
        0, studies.difference(by_adam, 0 * by_adam, looked_at=2), f"{what}, Adam, 5 seeds"
    )
    yield at_least(
        0,
        studies.difference(by_adam, by_descent, looked_at=2),
        "the same less that of gradient descent",
    )


@claim("liarora2020, Abstract", "holds")
def exponential_rate():
    """With batch norm, descent with weight decay and momentum is equivalent to descent with
    momentum, without weight decay, at a learning rate that grows exponentially. (For the weights before a
    batch norm, $\\varepsilon$ negligible, with the rates and the start that the theorem behind it states.)
    """
    apart, growth = [], []
    for seed, (rate, decay, momentum) in enumerate(
        [(0.03, 0.03, 0.9), (0.1, 0.01, 0.5), (0.3, 0.03, 0.0)]
    ):
        found = experiments.equivalent_on_digits(rate, decay, seed, 60, momentum, rest_start=True)
        apart.append(found[0])
        growth.append(found[1])
    yield at_most(
        1e-9,
        max(apart),
        "largest difference of two networks' class probabilities on the digits after 60 steps, "
        "three rates, decays and momenta, $\\varepsilon=10^{-30}$, in float64",
    )
    yield at_least(1, min(growth), "last learning rate of the second network over its first, least")


@claim("liarora2020, Abstract", "holds")
def decay_added():
    """In a toy example, weight decay alone and batch norm alone reach the global minimum, but
    convergence fails when they are used together. (The minimum is that of the loss with its
    penalty, and the toy one unit on targets that it can meet; with both, the infimum is 0.)
    """
    decays = np.array([0.0, 0.03, 0.1])

    def late(kind):
        run = experiments.decayed(np.full(3, 0.1), decays, 3000, noise=0, batch=64, kind=kind)
        penalty = decays / 2 * run.length[:-1] ** 2
        angle = np.arccos(np.clip(run.cosine, -1, 1))
        return run.loss[-1000:], penalty[-1000:], angle[-1000:]

    loss, penalty, angle = late(experiments.Linear)
    least = [experiments.least_with_penalty(decay, batch=64) for decay in decays]
    what = "{} in the last 1000 of 3000 steps of full-batch descent, {}"
    excess, turn = "largest loss and penalty less their least", "angle of a step"
    alone = "weight decay alone, 0.03 and 0.1"
    yield at_most(1e-12, (loss + penalty - least)[:, 1:].max(), what.format(excess, alone))
    yield at_most(1e-7, angle[:, 1:].max(), what.format(f"largest {turn}", alone))
    loss, _, angle = late(experiments.Unit)
    yield at_most(1e-12, loss[:, 0].max(), what.format("largest loss", "batch norm alone"))
    yield at_most(1e-7, angle[:, 0].max(), what.format(f"largest {turn}", "batch norm alone"))
    yield at_least(1e-4, loss[:, 1:].min(), what.format("least loss without the penalty", "both"))
    yield at_least(0.01, angle[:, 1:].min(), what.format(f"least {turn}", "both"))


@claim("wan2021, Abstract", "holds")
def angle():
    r"""With normalization, weight decay $\lambda$, momentum $\nu$ and stochastic gradients, the angle
    by which one step turns a unit's weights has a theoretical value in equilibrium,
    $\sqrt{2\eta\lambda/(1+\nu)}$. (The abstract has no formula; this one is derived in the
    chapter.)
    """
    at, decays = np.array([0.03, 0.1, 0.03]), np.array([0.03, 0.03, 0.1])
    ratios = []
    for momentum in (0.0, 0.5, 0.9):
        run = experiments.decayed(at, decays, 3000, momentum, batch=32, noise=1.0)
        last = np.arccos(np.clip(run.cosine[-1000:], -1, 1))
        expected = np.sqrt(2 * at * decays / (1 + momentum))
        ratios.append(np.sqrt((last**2).mean(axis=0)) / expected)
    yield at_most(
        0.05,
        np.abs(np.array(ratios) - 1).max(),
        "largest relative distance of the root mean square angle from it, one unit with fresh, noisy "
        "batches, three pairs of rate and decay, "
        "$\\nu=0$, 0.5 and 0.9, last 1000 of 3000 steps",
    )
