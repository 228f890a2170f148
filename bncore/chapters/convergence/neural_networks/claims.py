"""What the literature says about batch normalization in networks with hidden layers."""

import itertools

import numpy as np

from bncore.chapters.convergence.neural_networks import deep, experiments, full_size
from bncore.convergence import GaussianNetwork, bounds
from bncore.lab import recorded
from bncore.page.claims import at_least, at_most, claim, otherwise, under


def _units(held):
    """Angles to the line, in degrees, of critical points of a unit that descents from random starts find.

    The other unit is held at angles to the line and lengths.
    """
    rng, angles = np.random.default_rng(0), []
    for (condition, theta), (angle, length) in itertools.product(
        ((2.0, (3.0, 3.0)), (20.0, (2.0, -1.5))), held
    ):
        u, S = experiments.stretched(condition)
        plane, other = experiments.Plane(u, S, theta), experiments.turned(angle, length, u, S)
        for start in rng.normal(size=(2, 2)):
            best = plane.best_first(start, other)
            if np.abs(plane.gradient(np.vstack([best, other]))[0]).max() < 1e-6:
                angles.append(experiments.off_line(best[np.newaxis], u, S)[0])
    return angles


@claim("encyclopaedia, Neural networks", "depends", lost=True)
def unit_on_the_line():
    r"""With the output weights $\Theta$ held, a hidden unit whose gradient is zero has the weights
    $\hat w_i = \hat k_i\,S^{-1}u$: one line serves all its critical points.
    """
    on, off = _units([(0, 0.0), (0, 0.5), (180, 1.0)]), _units([(30, 1.5), (60, 1.5), (120, 1.5)])
    what = "largest angle to the line in degrees, {} points where the unit's gradient is zero, two networks"
    yield under("the other units are 0 or on the line")
    yield at_most(0.01, max(on), what.format(len(on)))
    yield otherwise("they are off the line, by 30, 60 and 120 degrees")
    yield at_most(0.01, max(off), what.format(len(off)))


def _critical_points():
    found = [experiments.critical_points(theta, 0.25) for theta in ((3, 2), (5, 2))]
    return tuple(np.concatenate(values) for values in zip(*found, strict=True))


@claim("kohler2019, Section 5", "depends")
def all_on_the_line():
    """Where the gradient in all hidden units is zero, all units lie on the line $S^{-1}u$, for
    Gaussian inputs, tanh units and fixed output weights.
    """
    angles, conditions = _critical_points()
    invertible = conditions > 1e-7
    plane, _, pair = experiments.splayed(1.5, 0.49)
    critical = np.abs(plane.gradient(pair)).max() < 1e-10
    turned = experiments.off_line(pair, plane.u, plane.S).max() if critical else np.nan
    ended = "searches that end at a point with invertible $B$, two networks of two units"
    largest = "largest angle to the line among the critical points found with {} $B$, in degrees"
    yield under("the matrix $B$ of second-order coefficients is invertible there")
    yield at_least(2, invertible.sum(), ended)
    yield at_most(0.01, angles[invertible].max(), largest.format("invertible"))
    yield otherwise("$B$ is singular")
    yield at_most(0.01, turned, "angle to the line of the best pair of two equal units, in degrees")
    yield at_most(0.01, angles[~invertible].max(), largest.format("singular"))


def _worst_ratio(others):
    """Largest squared gradient of a unit in its turn over its bound, with one C for the turn."""
    ratios = []
    for condition, seed in itertools.product((2.0, 20.0), (0, 1)):
        plane, judged, _, _ = experiments.unit_by_unit(
            condition, steps=10, halvings=50, others=others, seed=seed
        )
        for turn in judged:
            steps = np.arange(len(turn.bound))
            constant = np.max(turn.bound / bounds.rate(plane.halfspace) ** steps)  # C, gap
            shrunk = (1 - 1 / condition) ** (2 * steps)
            ratios.append(np.max(turn.measured / (shrunk * constant)))
    return max(ratios)


@claim("encyclopaedia, Neural networks", "depends", lost=True)
def rate():
    r"""GDNP on one hidden unit after the other makes the parameters of each converge linearly:
    $\|\nabla_{\tilde w_i} f\|^2_{S^{-1}} \le (1-\mu/L)^{2t}\,C\,(\rho(w_0)-\rho^*)$ plus a term for
    the length. (That term is lost; fifty halvings make any such term small.)
    """
    what = (
        "largest squared gradient over the bound, $C$ from the chapter's theorem at the longest "
        "weights, two units, two condition numbers, two starts"
    )
    yield under("units wait for their turn at 0 or on the line")
    yield at_most(1, _worst_ratio("zero"), what)
    yield otherwise("they wait at their random starts")
    yield at_most(1, _worst_ratio("start"), what)


@claim("encyclopaedia, Neural networks", "depends")
def whole():
    """Run on one hidden unit after the other, GDNP solves the layer at a linear rate, because it
    solves each unit at one.
    """

    def late(condition, steps, seed):
        """What pass 10 leaves of the squared gradient, over what the coupling predicts."""
        plane, _, after, _ = experiments.unit_by_unit(
            condition, steps=steps, halvings=14, sweeps=10, seed=seed
        )
        totals = experiments.totals(after)
        return totals[-1] / totals[-2] / experiments.on_the_line(plane)[1]

    shorter, longer = (experiments.unit_by_unit(2.0, steps=steps) for steps in (6, 8))
    one_turn = longer[2][-1].sum() / shorter[2][-1].sum() / experiments.on_the_line(longer[0])[1]
    what = (
        "part of the squared gradient of all units that {} leaves, over the square of "
        "$H_{{12}}^2/(H_{{11}}H_{{22}})$, with $H$ the Hessian in the lengths at the end: {}"
    )
    yield under("the turns go round in many passes, and each brings its unit close to the line")
    yield at_most(
        1.05,
        max(late(2.0, 4, 0), late(5.0, 10, 1)),
        what.format("pass 10", "L/μ of 2 and 5, turns of 4 and 10 steps, the larger"),
    )
    yield otherwise("each unit has one turn, or turns are too short for $L/\\mu$")
    yield at_most(
        1.05,
        one_turn,
        what.format("a turn of 8 steps in place of 6", "one turn each, L/μ of 2"),
    )
    yield at_most(1.05, late(20.0, 4, 1), what.format("pass 10", "L/μ of 20, turns of 4 steps"))


def _slopes(value, W, step=1e-4):
    """The gradient of a function of a layer by central differences."""
    turns = step * np.eye(W.size).reshape(-1, *W.shape)
    slopes = [(value(W + turn) - value(W - turn)) / (2 * step) for turn in turns]
    return np.reshape(slopes, W.shape)


@claim("kohler2019, Section 5", "holds", aliases=["neural-networks-odd-activation"])
def gaussian():
    r"""For Gaussian inputs, one hidden layer of tanh units and fixed output weights $\theta$, the
    gradient in unit $i$ is a combination of $u$ and the $Sw_j$: $\alpha_iu+\sum_jB_{ij}Sw_j$, with $B$
    the expected second derivatives of the loss in the scores $a_i=z^\top w_i$, and $\alpha_i$ the
    expected first one less $\sum_jB_{ij}u^\top w_j$. (Since tanh is odd, the loss of an example is a
    function of $z=-yx$ alone.)
    """
    rng = np.random.default_rng(0)

    def error(net, W):
        alpha, B = net.second_order(W)
        gradient = _slopes(net.value, W)
        left = gradient - np.outer(alpha, net.u) - B @ W @ net.S
        return np.abs(left).max() / np.abs(gradient).max()

    errors, odd = [], []
    for theta in ((3.0, -2.0), (1.0, 1.0), (0.5, 4.0)):
        factor = rng.normal(size=(4, 4))
        S = factor @ factor.T / 4 + np.eye(4)
        u = rng.normal(size=4)
        u *= np.sqrt(0.5 / (u @ np.linalg.solve(S, u)))
        W = rng.normal(size=(len(theta), 4)) / 3
        errors.append(error(GaussianNetwork(u, S, np.array(theta)), W))
        x, y = rng.normal(size=(200, 4)), rng.choice([-1.0, 1.0], size=200)
        printed = -y * (np.tanh(x @ W.T) @ theta)
        odd.append(np.abs(printed - np.tanh(-y[:, np.newaxis] * x @ W.T) @ theta).max())
    yield at_most(1e-12, max(odd), "largest difference of $-yF_x$ to $F_z$, three networks")
    yield at_most(
        1e-6,
        max(errors),
        "largest relative distance from the central differences of $f$, three networks of two units",
    )
    yield at_least(
        1e-3,
        error(experiments.skewed(), rng.normal(size=(2, 2)) / 2),
        "the same for five examples in place of a Gaussian",
    )


@claim("kohler2019, Section 5", "depends")
def dependence():
    """In deep networks, beyond the theory, batch normalization makes the gradient of one layer
    depend less on the other layers.
    """
    fresh = recorded.load(full_size.PATH)["full"]["fresh"]
    what = "logarithm of {}, with batch norm over without: mean of 20 seeds, 95 % for all looks"
    change = what.format("the change of the middle layer's direction gradient")
    mixed = what.format("the norm of its mixed second derivatives with another layer, of five")
    rate = deep.RATE
    yield under(
        f"it is told in steps of one learning rate, {rate}, the best for either kind, after the first "
        f"{deep.EVERY} of training"
    )
    yield at_most(0, tuple(deep.recorded_ratio(fresh, "change", "later", rate)), change)
    yield at_most(0, tuple(deep.recorded_ratio(fresh, "blocks", "later")), mixed)
    yield otherwise("training has not begun, or the layers below move by 1 % of their weights")
    yield at_most(0, tuple(deep.recorded_ratio(fresh, "change", "start", rate)), f"{change}; start")
    yield at_most(0, tuple(deep.recorded_ratio(fresh, "blocks", "start")), f"{mixed}; start")
    yield at_most(0, tuple(deep.recorded_ratio(fresh, "moved", "later", 0.01)), f"{change}; moves")
