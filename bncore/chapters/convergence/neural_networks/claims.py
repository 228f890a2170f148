"""What the literature says about batch normalization in networks with hidden layers."""

import numpy as np

from bncore.chapters.convergence.neural_networks import deep, experiments
from bncore.convergence import GaussianNetwork
from bncore.page.claims import Evidence, Measurement, claim


@claim(
    id="neural-networks-odd-activation",
    source="encyclopaedia, Neural networks",
    statement=(
        "With a hidden layer $F_x(W,\\Theta)=\\sum_i\\theta_i\\varphi(x^\\top w_i)$ and labels "
        "$y=\\pm1$, the loss $E\\,\\ell(-yF_x)$ is of the form studied for halfspaces: "
        "$-yF_x = F_z$ with $z=-yx$. (The text only says that $\\varphi$ is assumed to be tanh; "
        "reconstructed.)"
    ),
    chapter="convergence/neural_networks",
    verdict="depends",
)
def odd_activation() -> Evidence:
    rng = np.random.default_rng(0)
    x, W, theta = rng.normal(size=(200, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)
    y = rng.choice([-1.0, 1.0], size=200)

    def error(activation):
        printed = -y * (activation(x @ W.T) @ theta)
        return np.abs(printed - activation(-y[:, np.newaxis] * (x @ W.T)) @ theta).max()

    return Evidence(
        under=(
            "$\\varphi$ is odd",
            [
                Measurement(
                    "largest difference for tanh, 200 examples", error(np.tanh), at_most=1e-12
                )
            ],
        ),
        otherwise=(
            "it is not",
            [
                Measurement(
                    "the same for ReLU", error(lambda a: np.maximum(a, 0.0)), at_most=1e-12
                ),
                Measurement(
                    "the same for the sigmoid", error(lambda a: 1 / (1 + np.exp(-a))), at_most=1e-12
                ),
            ],
        ),
    )


@claim(
    id="neural-networks-unit-on-the-line",
    source="encyclopaedia, Neural networks",
    statement=(
        "For fixed $\\Theta$ the critical points of a particular hidden unit all align along one "
        "line: $\\hat w_i = \\hat k_i\\,S^{-1}u$. (Formula reconstructed.)"
    ),
    chapter="convergence/neural_networks",
    verdict="depends",
)
def unit_on_the_line() -> Evidence:
    plane = experiments.Plane(experiments.U, experiments.S, [3.0, 3.0])

    def worst(others):
        angles, slopes = [], []
        for other in others:
            best = plane.best_first(experiments.line(), other)
            angles.append(experiments.off_line(best[np.newaxis])[0])
            slopes.append(np.abs(plane.gradient(np.vstack([best, other]))[0]).max())
        return [
            Measurement("gradient of the unit there, largest entry", max(slopes), at_most=1e-6),
            Measurement(
                "largest angle to the line of the unit's minimiser, in degrees",
                max(angles),
                at_most=0.01,
            ),
        ]

    return Evidence(
        under=(
            "the other unit is 0 or on the line",
            worst([experiments.turned(0, length) for length in (0.0, 0.5, 1.5)]),
        ),
        otherwise=(
            "it is held 30, 60 and 120 degrees off the line",
            worst([experiments.turned(angle, 1.5) for angle in (30, 60, 120)]),
        ),
    )


def _critical_points():
    found = [experiments.critical_points(theta, 0.25) for theta in ((3, 2), (5, 2))]
    return tuple(np.concatenate(values) for values in zip(*found, strict=True))


@claim(
    id="neural-networks-all-on-the-line",
    source="kohler2019, Section 5",
    statement=(
        "Where the gradient in all hidden units is zero, all units lie on the line $S^{-1}u$, for "
        "Gaussian inputs, tanh units and fixed output weights."
    ),
    chapter="convergence/neural_networks",
    verdict="depends",
)
def all_on_the_line() -> Evidence:
    angles, conditions = _critical_points()
    invertible = conditions > 1e-7
    plane, _, pair = experiments.splayed(1.5, 0.49)
    return Evidence(
        under=(
            "the matrix $B$ of second-order coefficients is invertible there",
            [
                Measurement(
                    "searches that end at a point with invertible $B$, two networks of two units",
                    invertible.sum(),
                    at_least=2,
                ),
                Measurement(
                    "largest angle to the line among them, in degrees",
                    angles[invertible].max(),
                    at_most=0.01,
                ),
            ],
        ),
        otherwise=(
            "$B$ is singular",
            [
                Measurement(
                    "largest entry of the gradient at the best pair of two equal units",
                    np.abs(plane.gradient(pair)).max(),
                    at_most=1e-10,
                ),
                Measurement(
                    "angle of its units to the line, in degrees",
                    experiments.off_line(pair, plane.u, plane.S).max(),
                    at_most=0.01,
                ),
                Measurement(
                    "largest angle among the critical points found with singular $B$",
                    angles[~invertible].max(),
                    at_most=0.01,
                ),
            ],
        ),
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


@claim(
    id="neural-networks-rate",
    source="encyclopaedia, Neural networks",
    statement=(
        "GDNP on one hidden unit after the other: $\\|\\nabla_{\\tilde w_i} f\\|^2_{S^{-1}} \\le "
        "(1-\\mu/L)^{2t}\\,C\\,(\\rho(w_0)-\\rho^*)$ plus a term for the length that halves with "
        "every bisection. (Formula reconstructed. The length term is the corrected one of the "
        "chapter on halfspaces, and $C$ grows with the lengths.)"
    ),
    chapter="convergence/neural_networks",
    verdict="depends",
)
def rate() -> Evidence:
    return Evidence(
        under=(
            "units that have not had their turn wait at 0",
            [
                Measurement(
                    "largest squared gradient over its bound, two units, two condition numbers, "
                    "two starts",
                    _worst_ratio("zero"),
                    at_most=1,
                )
            ],
        ),
        otherwise=(
            "they wait at their random starts",
            [Measurement("the same", _worst_ratio("start"), at_most=1)],
        ),
    )


@claim(
    id="neural-networks-whole",
    source="encyclopaedia, Neural networks",
    statement=(
        "Since the parameters of each hidden unit converge linearly, the whole problem converges "
        "at a linear rate."
    ),
    chapter="convergence/neural_networks",
    verdict="depends",
)
def whole() -> Evidence:
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
    return Evidence(
        under=(
            "the turns go round in many passes, whose rate is set by the coupling of the units",
            [
                Measurement(
                    "squared gradient of all units after a pass, over that after the pass before: "
                    "largest of passes 7 to 10, for L/μ of 2, 5 and 20",
                    max(left),
                    at_most=0.8,
                ),
                Measurement(
                    "largest relative difference of that of pass 10 to the prediction from the "
                    "curvature in the lengths",
                    max(errors),
                    at_most=0.03,
                ),
            ],
        ),
        otherwise=(
            "in one pass with ever more steps, or at the rate of a unit in its turn",
            [
                Measurement(
                    "squared gradient of all units after one pass: with 20 steps a unit over "
                    "that with 10",
                    one_pass[1] / one_pass[0],
                    at_most=1e-3,
                ),
                Measurement(
                    "what a late pass of 12 steps a unit leaves, over $(1-\\mu/L)^2$, the most "
                    "that a single step may leave; largest for L/μ of 2, 5 and 20",
                    max(beside),
                    at_most=1,
                ),
            ],
        ),
    )


@claim(
    id="neural-networks-gaussian",
    source="kohler2019, Section 5",
    statement=(
        "For Gaussian inputs the gradient in unit $i$ is a combination of $u$ and the "
        "$Sw_j$: $\\alpha_iu+\\sum_jB_{ij}Sw_j$."
    ),
    chapter="convergence/neural_networks",
    verdict="depends",
)
def gaussian() -> Evidence:
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

    return Evidence(
        under=(
            "$z$ is Gaussian",
            [Measurement("relative error, three units", error(network, W), at_most=1e-9)],
        ),
        otherwise=(
            "$z$ takes four values",
            [
                Measurement(
                    "the same, two units",
                    error(corners, np.array([[0.8, -0.5], [0.3, 0.9]])),
                    at_most=1e-9,
                )
            ],
        ),
    )


@claim(
    id="neural-networks-dependence",
    source="kohler2019, Section 5",
    statement=(
        "In deep networks, beyond the theory, batch normalization makes the gradient of one layer "
        "depend less on the other layers."
    ),
    chapter="convergence/neural_networks",
    verdict="depends",
)
def dependence() -> Evidence:
    rate = deep.LEARNING_RATES.index(0.1)
    sizes = [deep.dependence(kind).relative_blocks for kind in ("batch", None)]
    middle = deep.OTHERS.index(3)
    return Evidence(
        under=(
            f"the layers below take a step of the same learning rate, 0.1, after the first {deep.EVERY} "
            "training steps",
            [
                Measurement(
                    "change of the middle layer's direction gradient, with batch norm over "
                    "without: the largest of five seeds",
                    deep.ratio("same learning rate", rate, slice(1, None)).max(),
                    at_most=0.8,
                ),
            ],
        ),
        otherwise=(
            "before training, or free of the scale of the weights",
            [
                Measurement(
                    "the same ratio before training, geometric mean of five seeds",
                    np.exp(np.log(deep.ratio("same learning rate", rate, slice(0, 1))).mean()),
                    at_most=1,
                ),
                Measurement(
                    "ratio of the mixed second derivatives with the layer below, times its "
                    "weights over the gradient: geometric mean of five seeds and all records",
                    np.exp(np.log(sizes[0] / sizes[1])[:, :, middle].mean()),
                    at_most=1,
                ),
            ],
        ),
    )
