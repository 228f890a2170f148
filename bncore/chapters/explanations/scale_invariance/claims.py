"""What the literature says about scale invariance, learning rates and weight decay."""

from functools import cache
from pathlib import Path

import numpy as np
import torch

from bncore.chapters.explanations.scale_invariance import experiments
from bncore.explanations import effective_rate
from bncore.lab import recorded
from bncore.page.claims import at_least, at_most, claim, otherwise, under

RECORDED = Path(__file__).with_name("recorded.json")
_weight_normalized = cache(experiments.weight_normalized)


@cache
def _sweep():
    """Rates, and the largest training loss of the seeds at each, by arm; recorded."""
    full = recorded.load(RECORDED)["full"]
    worst = {arm: np.max(values, axis=1) for arm, values in full["loss"].items()}
    return np.array(full["rates"]), worst


def _good(arm):
    """The rates that bring the loss below 0.1, which frozen hidden weights do not."""
    rates, worst = _sweep()
    return rates[worst[arm] < 0.1]


@claim("ioffe2015, Section 3.3", "holds")
def higher_rates():
    """Batch normalization enables higher learning rates."""
    yield at_least(
        2,
        _good("batch norm").max() / _good("no batch norm").max(),
        "largest of 11 learning rates with a training loss below 0.1 on the digits from each "
        "of 5 seeds, with batch norm over without, one rate for all parameters (recorded "
        "run)",
    )


@claim("encyclopaedia, Internal covariate shift", "holds")
def robust_to_rates():
    """With batch norm the network becomes more robust to different learning rates."""

    def decades(arm):
        return np.log10(_good(arm).max() / _good(arm).min())

    yield at_least(
        0.75,
        decades("batch norm") - decades("no batch norm"),
        "decades of learning rates with a training loss below 0.1 on the digits from each of 5 "
        "seeds, with batch norm less without, one rate for all parameters (recorded run)",
    )


@claim("cs682slides, The BN transformation is scalar invariant", "depends")
def no_explosion():
    """Normally, large learning rates may increase the scale of the parameters, which amplifies the
    gradient and leads to the explosion of the model; with batch norm they do not, because
    the scale of a layer's parameters does not affect backpropagation.
    """
    rates, loss = _sweep()
    growth = np.array([experiments.growth_at_once(None, 10.0, seed) for seed in range(5)])

    def worst(arm):
        return at_most(
            0.1,
            loss[arm][rates > 9].max(),
            "largest training loss at learning rates of 10 and more, digits, 5 seeds (recorded run); "
            "guessing has 2.3, hidden weights that never move have at least 0.16",
        )

    yield under("the large rate is that of the weights before a batch norm only")
    for values, what in zip(growth.T, ("weights", "gradient"), strict=True):
        yield at_least(
            5,
            values.min(),
            f"without batch norm, rate 10: largest length of the {what} within 10 steps over that "
            "before, smallest of 5 seeds",
        )
    yield worst("batch norm, hidden rate")
    yield otherwise("it is that of all parameters, output layer, $\\gamma$ and $\\beta$ included")
    yield worst("batch norm")


@claim("kohler2019, Abstract", "depends")
def split():
    """Batch normalization accelerates training because it splits the optimization task into
    optimizing length and direction of the parameters separately. (Read: weight
    normalization, which splits them and uses no batch after its start, accelerates it as
    much.)
    """
    full = recorded.load(RECORDED)["full"]
    batch = np.median(full["loss"]["batch norm, hidden rate"], axis=1).min()

    def ratio(rates, from_data):
        runs = [
            [_weight_normalized(rate, seed, 500, from_data) for seed in range(2)] for rate in rates
        ]
        return np.median(runs, axis=1).min() / batch

    what = (
        "training loss on the digits after 500 steps, weight normalization over batch norm, each at "
        "the best rate of the hidden directions, median of seeds"
    )
    yield under("weight normalization starts from normalised values, as batch norm does")
    yield at_most(2, ratio((0.03, 0.1, 0.3), True), what)
    yield otherwise("it starts as the plain network")
    yield at_most(2, ratio((0.3, 3.0, 10.0), False), what)


@claim("ioffe2015, Section 3.3", "depends")
def stabilised_growth():
    """Batch normalization will stabilize the parameter growth."""
    unit = experiments.plane()
    still = []
    for rate in 10.0 ** np.arange(-1, 4):
        path, _ = experiments.descend(unit, [-0.6, 0.8], rate, 2000)
        length = np.linalg.norm(path, axis=1)
        still.append(length[-1] / length[1000])
    noisy = experiments.decayed(np.array([0.1, 1.0, 10.0]), np.zeros(3), 2000)
    what = "length of a unit's weights after 2000 steps over that after 1000"
    yield under("gradients vanish in the end, as when every step uses all the data")
    yield at_most(1.01, max(still), f"{what}, largest of 5 rates from 0.1 to 1000")
    yield otherwise("they do not, as with a fresh batch in every step")
    yield at_most(
        1.01,
        (noisy.length[-1] / noisy.length[1000]).min(),
        f"{what}, smallest of 3 rates from 0.1 to 10; the growth law says $2^{{1/4}}$",
    )


@claim("vanlaarhoven2017, Abstract", "depends")
def no_regularisation():
    """L2 regularization has no regularizing effect when combined with normalization."""

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
    pairs = [(rate, decay) for rate in (0.1, 1.0) for decay in (0.01, 0.03, 0.1)]
    rates, decays = np.array(pairs).T
    run = experiments.decayed(rates, decays, 2000)
    ratios = []
    for i, (rate, decay) in enumerate(pairs):
        slope = np.sqrt((run.gradient[-1000:, i] ** 2).mean())
        felt = rate / ((1 - rate * decay) * (run.length[-1000:, i] ** 2).mean())
        ratios.append(felt / effective_rate.equilibrium(rate, decay, float(slope)).effective_rate)
    yield at_most(
        0.05,
        np.abs(np.array(ratios) - 1).max(),
        "largest relative distance of the effective rate of a noisy unit from the "
        "predicted equilibrium, 6 pairs of rate and decay, last 1000 of 2000 steps",
    )


@claim("vanlaarhoven2017, Abstract", "holds")
def adam():
    """Optimization methods such as ADAM only partially eliminate the influence of normalization on
    the learning rate.
    """
    generator = torch.Generator().manual_seed(0)
    u, target = (torch.randn(40, n, generator=generator, dtype=torch.float64) for n in (5, 1))
    start = torch.randn(5, generator=generator, dtype=torch.float64)

    def angle(length, optimizer):
        w = (start * length / start.norm()).requires_grad_()
        before, descent = w.detach().clone(), optimizer([w])
        for _ in range(5):
            x = u @ w
            loss = (((x - x.mean()) / x.std(correction=0) - target[:, 0]) ** 2).mean()
            descent.zero_grad()
            loss.backward()
            descent.step()
        turned = w.detach()
        cosine = before @ turned / before.norm() / turned.norm()
        return torch.arccos(cosine).item()

    def exponent(optimizer):
        return np.log10(angle(100.0, optimizer) / angle(10.0, optimizer))

    def by_adam(parameters):
        return torch.optim.Adam(parameters, lr=1e-3, eps=1e-30)

    def by_descent(parameters):
        return torch.optim.SGD(parameters, lr=1e-3)

    what = "exponent of the length of $w$ in the angle by which five steps turn it"
    yield at_most(-0.9, exponent(by_adam), f"{what}, Adam")
    yield at_least(
        0.9, exponent(by_adam) - exponent(by_descent), "the same less that of gradient descent"
    )


@claim("liarora2020, Abstract", "depends")
def exponential_rate():
    """With batch norm, descent with weight decay and momentum is equivalent to descent with
    momentum, without weight decay, at a learning rate that grows exponentially. (The rates
    are those of the chapter's theorem.)
    """

    def apart(rest_start):
        return at_most(
            1e-9,
            experiments.equivalent_on_digits(0.03, 0.03, 0, 60, 0.9, rest_start=rest_start)[0],
            "largest difference of two networks' class probabilities on the digits after 60 steps, "
            "$\\nu = 0.9$, $\\varepsilon=10^{-30}$, in float64",
        )

    yield under("the second run starts with the momentum $-(1-q)\\,w_0/(\\eta q)$")
    yield apart(True)
    yield otherwise("both start with momentum 0, as optimizers do")
    yield apart(False)


@claim("liarora2020, Abstract", "holds")
def decay_added():
    """In a toy example, batch norm alone reaches the global minimum, but convergence fails when it
    is used together with weight decay.
    """
    decays = np.array([0.0, 0.03, 0.1])
    loss = experiments.decayed(np.full(3, 0.1), decays, 3000, noise=0, batch=64).loss[-1000:]
    what = "loss in the last 1000 of 3000 steps of full-batch descent; the least possible is 0"
    yield at_most(1e-20, loss[:, 0].max(), f"largest {what}, batch norm alone")
    yield at_least(1e-4, loss[:, 1:].min(), f"smallest {what}, with weight decay 0.03 and 0.1")


@claim("wan2021, Abstract", "holds")
def angle():
    r"""With normalization, weight decay $\lambda$, momentum $\nu$ and stochastic gradients, the angle
    by which one step turns a unit's weights has a theoretical value in equilibrium,
    $\sqrt{2\eta\lambda/(1+\nu)}$. (The abstract has no formula; this one is derived in the
    chapter.)
    """
    ratios = []
    for momentum in (0.0, 0.5, 0.9):
        run = experiments.decayed(
            np.array([0.03]), np.array([0.03]), 3000, momentum, batch=32, noise=1.0
        )
        last = np.arccos(np.clip(run.cosine[-1000:], -1, 1))
        expected = np.sqrt(2 * 0.03 * 0.03 / (1 + momentum))
        ratios.append(np.sqrt((last**2).mean()) / expected)
    yield at_most(
        0.05,
        np.abs(np.array(ratios) - 1).max(),
        "largest relative distance of the root mean square angle from it, one unit with fresh, noisy "
        "batches, $\\nu=0$, 0.5 and 0.9, last 1000 of 3000 steps",
    )
