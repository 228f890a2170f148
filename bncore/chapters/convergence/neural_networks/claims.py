"""What the literature says about batch normalization in networks with hidden layers."""

import itertools

import numpy as np

from bncore.chapters.convergence.neural_networks import deep, experiments, full_size
from bncore.convergence import GaussianNetwork, bounds
from bncore.lab import recorded
from bncore.page.claims import at_least, at_most, claim, otherwise, under


@claim("encyclopaedia, Neural networks", "holds", lost=True)
def odd_activation():
    r"""The units of $F_x(W,\Theta)=\sum_i\theta_i\varphi(x^\top w_i)$ are assumed to be tanh units, and
    the objective is $E\,\ell(-yF_x)$. (The assumption works: the objective is then one of $z=-yx$
    alone, as for halfspaces, since $-yF_x = F_z$.)
    """
    rng = np.random.default_rng(0)
    x, W, theta = rng.normal(size=(200, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)
    y = rng.choice([-1.0, 1.0], size=200)
    z = -y[:, np.newaxis] * x

    def error(activation):
        printed = -y * (activation(x @ W.T) @ theta)
        return np.abs(printed - activation(z @ W.T) @ theta).max()

    yield at_most(1e-12, error(np.tanh), "largest difference of $-yF_x$ to $F_z$, tanh units")
    yield at_least(0.1, error(lambda a: np.maximum(a, 0.0)), "the same for ReLU units")
    yield at_least(0.1, error(lambda a: 1 / (1 + np.exp(-a))), "the same for sigmoid units")


@claim("encyclopaedia, Neural networks", "depends", lost=True)
def unit_on_the_line():
    r"""With the output weights $\Theta$ held, a hidden unit whose gradient is zero has the weights
    $\hat w_i = \hat k_i\,S^{-1}u$: one line serves all its critical points.
    """
    plane = experiments.Plane(experiments.U, experiments.S, [3.0, 3.0])

    def worst(others):
        angles, slopes = [], []
        for other in others:
            best = plane.best_first(experiments.line(), other)
            angles.append(experiments.off_line(best[np.newaxis])[0])
            slopes.append(np.abs(plane.gradient(np.vstack([best, other]))[0]).max())
        return [
            at_most(1e-6, max(slopes), "gradient of the unit there, largest entry"),
            at_most(
                0.01, max(angles), "largest angle to the line of the unit's minimiser, in degrees"
            ),
        ]

    yield under("the other units are 0 or on the line")
    yield from worst([experiments.turned(0, length) for length in (0.0, 0.5, 1.5)])
    yield otherwise("they are off the line, by 30, 60 and 120 degrees")
    yield from worst([experiments.turned(angle, 1.5) for angle in (30, 60, 120)])


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
    slope = np.abs(plane.gradient(pair)).max()
    turned = experiments.off_line(pair, plane.u, plane.S).max()
    ended = "searches that end at a point with invertible $B$, two networks of two units"
    largest = "largest angle to the line among the critical points found with {} $B$, in degrees"
    yield under("the matrix $B$ of second-order coefficients is invertible there")
    yield at_least(2, invertible.sum(), ended)
    yield at_most(0.01, angles[invertible].max(), largest.format("invertible"))
    yield otherwise("$B$ is singular")
    yield at_most(1e-10, slope, "largest entry of the gradient at the best pair of two equal units")
    yield at_most(0.01, turned, "angle of its units to the line, in degrees")
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
    one_pass = [
        experiments.unit_by_unit(2.0, steps=steps, halvings=40)[2][-1].sum() for steps in (10, 20)
    ]
    left = []
    for condition in experiments.CONDITIONS:
        totals = experiments.totals(experiments.passes(condition)[2])
        left.append((totals[1:] / totals[:-1])[5:].max())
    yield under("the turns go round in many passes")
    yield at_most(
        0.8,
        max(left),
        "squared gradient of all units after a pass, over that after the pass before: "
        "largest of passes 7 to 10, for L/μ of 2, 5 and 20",
    )
    yield otherwise("each unit has one turn, of ever more steps")
    yield at_most(
        0.8,
        one_pass[1] / one_pass[0],
        "squared gradient of all units at the end: with 20 steps a unit over that with 10",
    )


def _slopes(value, W, step=1e-4):
    """The gradient of a function of a layer by central differences."""
    turns = step * np.eye(W.size).reshape(-1, *W.shape)
    slopes = [(value(W + turn) - value(W - turn)) / (2 * step) for turn in turns]
    return np.reshape(slopes, W.shape)


@claim("kohler2019, Section 5", "holds")
def gaussian():
    r"""For Gaussian inputs, one hidden layer of tanh units and fixed output weights $\theta$, the
    gradient in unit $i$ is a combination of $u$ and the $Sw_j$: $\alpha_iu+\sum_jB_{ij}Sw_j$, with $B$
    the expected second derivatives of the loss in the scores $a_i=z^\top w_i$, and $\alpha_i$ the
    expected first one less $\sum_jB_{ij}u^\top w_j$.
    """
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(5):
        factor = rng.normal(size=(4, 4))
        S = factor @ factor.T / 4 + np.eye(4)
        u = rng.normal(size=4)
        u *= np.sqrt(0.5 / (u @ np.linalg.solve(S, u)))
        W = rng.normal(size=(2, 4)) / 3
        net = GaussianNetwork(u, S, np.array([3.0, -2.0]))
        alpha, B = net.second_order(W)
        gradient = _slopes(net.value, W)
        left = gradient - np.outer(alpha, net.u) - B @ W @ net.S
        errors.append(np.abs(left).max() / np.abs(gradient).max())
    yield at_most(
        1e-6,
        max(errors),
        "largest relative distance from the central differences of $f$, five networks of two units",
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
