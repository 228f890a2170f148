"""What the literature says about batch normalization in networks with hidden layers."""

import numpy as np

from bncore.chapters.convergence.neural_networks import deep, experiments
from bncore.convergence import GaussianNetwork
from bncore.page.claims import at_least, at_most, claim, otherwise, under


@claim("encyclopaedia, Neural networks", "depends", lost=True)
def odd_activation():
    r"""With a hidden layer $F_x(W,\Theta)=\sum_i\theta_i\varphi(x^\top w_i)$ and labels $y=\pm1$,
    the loss $E\,\ell(-yF_x)$ is of the form studied for halfspaces: $-yF_x = F_z$ with
    $z=-yx$. (The text only says that $\varphi$ is assumed to be tanh.)
    """
    rng = np.random.default_rng(0)
    x, W, theta = rng.normal(size=(200, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)
    y = rng.choice([-1.0, 1.0], size=200)

    def error(activation):
        printed = -y * (activation(x @ W.T) @ theta)
        return np.abs(printed - activation(-y[:, np.newaxis] * (x @ W.T)) @ theta).max()

    yield under("$\\varphi$ is odd")
    yield at_most(1e-12, error(np.tanh), "largest difference for tanh, 200 examples")
    yield otherwise("it is not")
    yield at_most(1e-12, error(lambda a: np.maximum(a, 0.0)), "the same for ReLU")
    yield at_most(1e-12, error(lambda a: 1 / (1 + np.exp(-a))), "the same for the sigmoid")


@claim("encyclopaedia, Neural networks", "depends", lost=True)
def unit_on_the_line():
    r"""For fixed $\Theta$ the critical points of a particular hidden unit all align along one line:
    $\hat w_i = \hat k_i\,S^{-1}u$.
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

    yield under("the other unit is 0 or on the line")
    yield from worst([experiments.turned(0, length) for length in (0.0, 0.5, 1.5)])
    yield otherwise("it is held 30, 60 and 120 degrees off the line")
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
    yield under("the matrix $B$ of second-order coefficients is invertible there")
    yield at_least(
        2,
        invertible.sum(),
        "searches that end at a point with invertible $B$, two networks of two units",
    )
    yield at_most(
        0.01, angles[invertible].max(), "largest angle to the line among them, in degrees"
    )
    yield otherwise("$B$ is singular")
    yield at_most(
        1e-10,
        np.abs(plane.gradient(pair)).max(),
        "largest entry of the gradient at the best pair of two equal units",
    )
    yield at_most(
        0.01,
        experiments.off_line(pair, plane.u, plane.S).max(),
        "angle of its units to the line, in degrees",
    )
    yield at_most(
        0.01,
        angles[~invertible].max(),
        "largest angle among the critical points found with singular $B$",
    )


def _worst_ratio(others):
    ratios = []
    for condition in (2.0, 20.0):
        for seed in (0, 1):
            _, judged, _, _ = experiments.unit_by_unit(
                condition, steps=10, halvings=20, others=others, seed=seed
            )
            ratios.extend(np.max(turn.measured / turn.bound) for turn in judged)
    return max(ratios)


@claim("encyclopaedia, Neural networks", "depends", lost=True)
def rate():
    r"""GDNP on one hidden unit after the other: $\|\nabla_{\tilde w_i} f\|^2_{S^{-1}} \le
    (1-\mu/L)^{2t}\,C\,(\rho(w_0)-\rho^*)$ plus a term for the length that halves with every
    bisection. (The length term is the corrected one of the chapter
    on halfspaces, and $C$ grows with the lengths.)
    """
    yield under("units that have not had their turn wait at 0")
    yield at_most(
        1,
        _worst_ratio("zero"),
        "largest squared gradient over its bound, two units, two condition numbers, two starts",
    )
    yield otherwise("they wait at their random starts")
    yield at_most(1, _worst_ratio("start"), "the same")


@claim("encyclopaedia, Neural networks", "depends")
def whole():
    """Since the parameters of each hidden unit converge linearly, the whole problem converges at a
    linear rate.
    """
    one_pass = [
        experiments.unit_by_unit(2.0, steps=steps, halvings=40)[2][-1].sum() for steps in (10, 20)
    ]
    left, errors, beside = [], [], []
    for condition in experiments.CONDITIONS:
        plane, _, after, _ = experiments.passes(condition)
        totals = experiments.totals(after)
        ratios = totals[1:] / totals[:-1]
        left.append(ratios[5:].max())
        errors.append(abs(ratios[-1] / experiments.on_the_line(plane)[1] - 1))
        beside.append(ratios[-1] / (1 - 1 / condition) ** 2)
    yield under("the turns go round in many passes, whose rate is set by the coupling of the units")
    yield at_most(
        0.8,
        max(left),
        "squared gradient of all units after a pass, over that after the pass before: "
        "largest of passes 7 to 10, for L/μ of 2, 5 and 20",
    )
    yield at_most(
        0.03,
        max(errors),
        "largest relative difference of that of pass 10 to the prediction from the "
        "curvature in the lengths",
    )
    yield otherwise("in one pass with ever more steps, or at the rate of a unit in its turn")
    yield at_most(
        1e-3,
        one_pass[1] / one_pass[0],
        "squared gradient of all units after one pass: with 20 steps a unit over that with 10",
    )
    yield at_most(
        1,
        max(beside),
        "what a late pass of 12 steps a unit leaves, over $(1-\\mu/L)^2$, the most "
        "that a single step may leave; largest for L/μ of 2, 5 and 20",
    )


@claim("kohler2019, Section 5", "depends")
def gaussian():
    r"""For Gaussian inputs the gradient in unit $i$ is a combination of $u$ and the $Sw_j$:
    $\alpha_iu+\sum_jB_{ij}Sw_j$.
    """
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(4, 4))
    S = factor @ factor.T / 4 + np.eye(4)
    u = rng.normal(size=4)
    u *= np.sqrt(0.5 / (u @ np.linalg.solve(S, u)))
    W = rng.normal(size=(3, 2)) @ rng.normal(size=(2, 4)) / 3
    network = GaussianNetwork(u, S, np.array([3.0, -2.0, 1.0]))
    corners = experiments.skewed()

    def error(net, weights):
        alpha, B = net.second_order(weights)
        gradient = net.gradient(weights)
        left = gradient - np.outer(alpha, net.u) - B @ weights @ net.S
        return np.abs(left).max() / np.abs(gradient).max()

    yield under("$z$ is Gaussian")
    yield at_most(1e-9, error(network, W), "relative error, three units")
    yield otherwise("$z$ takes four values")
    yield at_most(1e-9, error(corners, np.array([[0.8, -0.5], [0.3, 0.9]])), "the same, two units")


@claim("kohler2019, Section 5", "depends")
def dependence():
    """In deep networks, beyond the theory, batch normalization makes the gradient of one layer
    depend less on the other layers.
    """
    rate = deep.LEARNING_RATES.index(0.1)
    sizes = [deep.dependence(kind).relative_blocks for kind in ("batch", None)]
    middle = deep.OTHERS.index(3)
    yield under(
        f"the layers below take a step of the same learning rate, 0.1, after the first {deep.EVERY} "
        "training steps"
    )
    yield at_most(
        0.8,
        deep.ratio("same learning rate", rate, slice(1, None)).max(),
        "change of the middle layer's direction gradient, with batch norm over "
        "without: the largest of five seeds",
    )
    yield otherwise("before training, or free of the scale of the weights")
    yield at_most(
        1,
        np.exp(np.log(deep.ratio("same learning rate", rate, slice(0, 1))).mean()),
        "the same ratio before training, geometric mean of five seeds",
    )
    yield at_most(
        1,
        np.exp(np.log(sizes[0] / sizes[1])[:, :, middle].mean()),
        "ratio of the mixed second derivatives with the layer below, times its "
        "weights over the gradient: geometric mean of five seeds and all records",
    )
