"""What the literature says about depth and batch normalization."""

import numpy as np
import torch
from scipy.special import eval_gegenbauer, hyp2f1, roots_gegenbauer
from torch import nn

from bncore.chapters.explanations.depth import experiments
from bncore.explanations import depth
from bncore.explanations.activation import ACTIVATIONS
from bncore.lab import recorded
from bncore.page.claims import Evidence, Measurement, claim

BATCHES = [4, 5, 6, 8, 12, 20, 40, 100, 400]
CURVED = [name for name in ACTIVATIONS if name != "identity"]


def rippled(z):
    """z up to 2.2 in size, then a ripple: linear for all that a small batch reaches."""
    return z.clamp(-2.2, 2.2) + torch.sin(5 * nn.functional.softshrink(z, 2.2))


def _random_functions(count):
    """Continuous piecewise linear functions with four random slopes."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        kinks, slopes = np.sort(rng.normal(size=3)), rng.normal(size=4)

        def function(z, kinks=kinks, slopes=slopes):
            y = slopes[0] * z
            for kink, change in zip(kinks, np.diff(slopes), strict=True):
                y = y + change * torch.relu(z - kink)
            return y

        yield function


@claim(
    id="depth-explosion",
    source="encyclopaedia, Vanishing/exploding gradients",
    statement=(
        "A deep network with batch norm suffers from gradient explosion at initialisation, whatever "
        "its activation: squared gradients grow by a factor $\\lambda>1$ a layer."
    ),
    chapter="explanations/depth",
    verdict="depends",
)
def explosion() -> Evidence:
    functions = [*ACTIVATIONS, *_random_functions(4)]
    excess = [depth.growth_rate(function, 16) - 14 / 13 for function in functions]
    measured = [
        experiments.measured_rates(name, 256, 16, 20, 2).min() for name in ("identity", "tanh")
    ]
    return Evidence(
        under=(
            "the batch is finite, from 4 on, or the activation is not affine",
            [
                Measurement(
                    "least $\\lambda_B-\\frac{B-2}{B-3}$, 15 activations, batches of 16",
                    min(excess),
                    at_least=-1e-9,
                ),
                Measurement(
                    "least $\\lambda$ of a large batch, 10 curved activations",
                    min(depth.growth_rate(name) for name in CURVED),
                    at_least=1 + 1e-3,
                ),
                Measurement(
                    "least growth measured, linear and tanh, width 256, batches of 16",
                    min(measured),
                    at_least=1 + 1e-3,
                ),
            ],
        ),
        otherwise=(
            "the activation is affine and the batch large",
            [
                Measurement(
                    "$\\lambda$ of the identity", depth.growth_rate("identity"), at_least=1 + 1e-3
                )
            ],
        ),
    )


@claim(
    id="depth-norm-or-square",
    source="encyclopaedia, Vanishing/exploding gradients",
    statement=(
        "The gradient of the first layer's weights has a *norm* above $c\\,\\lambda^L$; for ReLU and "
        "large batches $\\lambda=\\pi/(\\pi-1)\\approx1.467$."
    ),
    chapter="explanations/depth",
    verdict="misprinted",
)
def norm_or_square() -> Evidence:
    squares = [
        experiments.rate(experiments.gradients("relu", 26, 384, 200, seed).weights)
        for seed in range(3)
    ]
    growth = np.exp(np.log(squares).mean())
    limit = depth.growth_rate("relu")
    return Evidence(
        printed=[
            Measurement(
                "growth of the norm of weight gradients over 1.467, less 1; width 384, batch 200",
                abs(growth**0.5 / limit - 1),
                at_most=0.03,
            )
        ],
        corrected=[
            Measurement("the same for the squared norm", abs(growth / limit - 1), at_most=0.03)
        ],
        correction=(
            "The *squared* norm grows by 1.467 a layer, and the norm by its root, 1.211. The source "
            "it rests on, Yang et al., defines its rates by squares."
        ),
    )


@claim(
    id="depth-batch-size",
    source="encyclopaedia, Vanishing/exploding gradients",
    statement="For any fixed nonlinearity, $\\lambda$ decreases as the batch size increases.",
    chapter="explanations/depth",
    verdict="depends",
)
def batch_size() -> Evidence:
    steps = [np.diff([depth.growth_rate(name, size) for size in BATCHES]) for name in ACTIVATIONS]
    small, large = (depth.growth_rate(rippled, size) for size in (12, 400))
    nets = [experiments.measured_rates(rippled, 256, size, 20, 2).mean() for size in (12, 64)]
    return Evidence(
        under=(
            "the activation is one of 11 in use",
            [
                Measurement(
                    "largest change of $\\lambda_B$ from one batch size to the next, 4 to 400",
                    np.max(steps),
                    at_most=0,
                )
            ],
        ),
        otherwise=(
            "it bends only beyond 2.2, where small batches do not reach",
            [
                Measurement("$\\lambda_{400}-\\lambda_{12}$", large - small, at_most=0),
                Measurement(
                    "growth measured at 64 less that at 12, width 256",
                    nets[1] - nets[0],
                    at_most=0,
                ),
            ],
        ),
    )


@claim(
    id="depth-relu",
    source="yang2019, theorem on ReLU in Section 3",
    statement=(
        "With ReLU the gradient norm squared explodes at a rate that decreases to "
        "$\\pi/(\\pi-1)\\approx1.467$ as $B\\to\\infty$."
    ),
    chapter="explanations/depth",
    verdict="holds",
)
def relu() -> Evidence:
    sizes = [*range(4, 40), 100, 1000, 10**5]
    rates = np.array([depth.relu_growth_rate(size) for size in sizes])
    quadrature = [depth.growth_rate("relu", size) for size in BATCHES]
    closed = [depth.relu_growth_rate(size) for size in BATCHES]
    return Evidence(
        printed=[
            Measurement(
                "largest relative difference of quadrature and closed form, batches of 4 to 400",
                np.max(np.abs(np.divide(quadrature, closed) - 1)),
                at_most=1e-9,
            ),
            Measurement(
                "largest change from one batch size to the next, 39 sizes",
                np.diff(rates).max(),
                at_most=0,
            ),
            Measurement(
                "distance from $\\pi/(\\pi-1)$ at $B=10^5$",
                abs(rates[-1] - np.pi / (np.pi - 1)),
                at_most=1e-4,
            ),
        ]
    )


def _gegenbauer_rate(function, size, degree):
    """The rate from the printed series; orthogonal polynomials on [-1, 1] with weight (1-x²)^((B-4)/2)."""
    alpha = (size - 3) / 2
    x, weights = roots_gegenbauer(2 * degree, alpha)
    values = function(np.sqrt(size - 1) * x)
    k = np.arange(1, degree)
    polynomials = eval_gegenbauer(k[:, np.newaxis], alpha, x)
    squares = (polynomials @ (weights * values)) ** 2 / (polynomials**2 @ weights)
    c = 1 - (-1.0) ** k * hyp2f1(-k, size - 3 + k, size / 2 - 1, (size - 2) / (2 * (size - 1)))
    return (k * (size - 3 + k) / (size - 3) * c) @ squares / (c @ squares)


@claim(
    id="depth-gegenbauer",
    source="yang2019, theorem that batch norm causes gradient explosion",
    statement=(
        "If $\\varphi$ has Gegenbauer coefficients $a_k$ of order $\\frac{B-3}2$, the rate is "
        "$\\sum_k k\\frac{B-3+k}{B-3}c_ka_k^2\\big/\\sum_kc_ka_k^2$ with $c_k=1-(-1)^kF_k$, "
        "$F_k={}_2F_1(-k,B-3+k,\\frac B2-1;x)$ and $x=\\frac{B-2}{2(B-1)}$; it is least, "
        "$\\frac{B-2}{B-3}$, for linear $\\varphi$ only."
    ),
    chapter="explanations/depth",
    verdict="holds",
)
def gegenbauer() -> Evidence:
    functions = [
        (torch.tanh, np.tanh),
        (torch.sin, np.sin),
        (lambda z: z**3 - z, lambda z: z**3 - z),
        (lambda z: torch.exp(z / 2), lambda z: np.exp(z / 2)),
    ]
    errors = [
        _gegenbauer_rate(plain, size, 60) / depth.growth_rate(function, size) - 1
        for function, plain in functions
        for size in (5, 8, 16)
    ]
    excess = [
        depth.growth_rate(name, size) - (size - 2) / (size - 3)
        for name in CURVED
        for size in (4, 8, 64)
    ]
    return Evidence(
        printed=[
            Measurement(
                "largest relative difference of series and integral, four activations, batches of "
                "5, 8 and 16",
                np.max(np.abs(errors)),
                at_most=1e-6,
            ),
            Measurement(
                "least $\\lambda_B-\\frac{B-2}{B-3}$ of 10 curved activations, batches of 4, 8, 64",
                min(excess),
                at_least=1e-3,
            ),
            Measurement(
                "its size for the identity",
                abs(depth.growth_rate("identity", 8) - 6 / 5),
                at_most=1e-12,
            ),
        ]
    )


@claim(
    id="depth-initial-scale",
    source="yang2019, Abstract",
    statement=(
        "Tuning the variance of the initial weights does not change the explosion; tuning the "
        "network close to the linear regime reduces it."
    ),
    chapter="explanations/depth",
    verdict="holds",
)
def initial_scale() -> Evidence:
    small, large = (
        experiments.gradients("relu", 16, 128, 32, 0, gain=gain).signals for gain in (0.3, 10.0)
    )
    # The first layer's pre-activations have not passed a batch norm, and scale with the weights.
    ratios = (small / small[-1])[1:] / (large / large[-1])[1:]
    slopes = [
        depth.growth_rate(lambda z, gamma=gamma: torch.tanh(gamma * z), 64)
        for gamma in (2.0, 1.0, 0.5, 0.1)
    ]
    return Evidence(
        printed=[
            Measurement(
                "largest relative change of squared gradients in layers 2 to 16, weights 33 times as "
                "large",
                np.max(np.abs(ratios - 1)),
                at_most=1e-2,
            ),
            Measurement(
                "largest change of $\\lambda_{64}$ of $\\tanh(\\gamma z)$ as $\\gamma$ falls from 2 "
                "to 0.1 in three steps",
                np.diff(slopes).max(),
                at_most=0,
            ),
            Measurement(
                "$\\lambda_{64}$ over its lower bound at $\\gamma=0.1$, less 1",
                slopes[-1] / (62 / 61) - 1,
                at_most=1e-3,
            ),
        ]
    )


@claim(
    id="depth-single-step",
    source="yang2019, Abstract",
    statement=(
        "After a single step of optimisation the gradients have a dramatically smaller dynamic "
        "range. (Read: the largest squared weight gradient over the smallest falls tenfold.)"
    ),
    chapter="explanations/depth",
    verdict="depends",
)
def single_step() -> Evidence:
    def left(rate):
        ranges = [experiments.dynamic_range(20, rate, seed) for seed in range(2)]
        return max(after / before for before, after in ranges)

    return Evidence(
        under=(
            "the step is large, a learning rate of 1",
            [
                Measurement(
                    "range after over range before, the larger of two ReLU networks of 20 layers",
                    left(1.0),
                    at_most=0.1,
                )
            ],
        ),
        otherwise=(
            "the learning rate is 0.001",
            [Measurement("the same", left(0.001), at_most=0.1)],
        ),
    )


@claim(
    id="depth-jacobian",
    source="ioffe2015, Section 3.3",
    statement=(
        "Batch norm may lead the layer Jacobians to have singular values close to 1. (Conjectured "
        "there; judged at initialisation, from one normalised batch to the next. Close: between a "
        "half and 2. Left out: those that are zero by construction, because batch norm blocks two "
        "directions of each unit, and ReLU does not see half of its inputs.)"
    ),
    chapter="explanations/depth",
    verdict="depends",
)
def jacobian() -> Evidence:
    gaussian, orthogonal = nn.init.normal_, nn.init.orthogonal_
    linear, zeros = zip(
        *(_near_one(nn.Identity(), orthogonal, seed) for seed in (0, 1)), strict=True
    )

    def least(activation, weights):
        return min(_near_one(activation, weights, seed)[0] for seed in (0, 1))

    share = "share of singular values between a half and 2, the smaller of two layers"
    return Evidence(
        under=(
            "the layer is linear, as the source assumes, and its weights are orthogonal",
            [
                Measurement(share, min(linear), at_least=0.9),
                Measurement(
                    "zero singular values, of 512, less two for each of 8 units",
                    max(zeros) - 16,
                    at_most=0,
                ),
            ],
        ),
        otherwise=(
            "the weights are Gaussian, or the activation is tanh",
            [
                Measurement(
                    "the same, Gaussian weights, linear",
                    least(nn.Identity(), gaussian),
                    at_least=0.9,
                ),
                Measurement(
                    "the same, Gaussian weights, ReLU", least(torch.relu, gaussian), at_least=0.9
                ),
                Measurement(
                    "the same, orthogonal weights, tanh",
                    least(torch.tanh, orthogonal),
                    at_least=0.9,
                ),
            ],
        ),
    )


def _near_one(activation, weights, seed, width=8, batch=64):
    """The share of singular values near 1 among those that are not zero, and how many are zero."""
    generator = torch.Generator().manual_seed(seed)
    W = weights(torch.empty(width, width, dtype=torch.float64), generator=generator)
    x = torch.randn(batch, width, generator=generator, dtype=torch.float64)

    def normalized(h):
        return (h - h.mean(0)) / h.std(0, correction=0)

    def layer(x):
        return normalized(activation(x) @ W.T)

    J = torch.autograd.functional.jacobian(layer, normalized(x)).reshape(batch * width, -1)
    singular = torch.linalg.eigvalsh(J @ J.T).clamp_min(0).sqrt()
    alive = singular > 1e-6 * singular.max()
    near = (singular[alive] > 0.5) & (singular[alive] < 2)
    return near.double().mean().item(), int((~alive).sum())


def _best(layers, kind):
    rows = recorded.load(experiments.RECORD)["full"]["training"]
    return max(
        np.mean(row["accuracy"]) for row in rows if row["layers"] == layers and row["kind"] == kind
    )


@claim(
    id="depth-untrainable",
    source="encyclopaedia, Vanishing/exploding gradients",
    statement="Practically, deep networks with batch norm and without skip connections are untrainable.",
    chapter="explanations/depth",
    verdict="depends",
)
def untrainable() -> Evidence:
    what = (
        "best mean accuracy on the digits after 150 steps, over five learning rates, batch norm "
        "without skips"
    )
    return Evidence(
        under=(
            "the network has 60 layers and 150 steps (recorded run)",
            [
                Measurement(what, _best(60, "batch norm"), at_most=0.3),
                Measurement(
                    "for comparison, no better: without batch norm, He's initialisation",
                    _best(60, "plain"),
                    at_most=0.3,
                ),
            ],
        ),
        otherwise=(
            "it has 10",
            [Measurement("the same", _best(10, "batch norm"), at_most=0.3)],
        ),
    )


@claim(
    id="depth-skips",
    source="encyclopaedia, Vanishing/exploding gradients",
    statement="Skip connections in the fashion of residual networks relieve it.",
    chapter="explanations/depth",
    verdict="holds",
)
def skips() -> Evidence:
    def spread(skip):
        squares = experiments.gradients("relu", 60, 128, 64, 0, skip=skip).weights
        return np.log10(squares.max() / squares.min())

    return Evidence(
        printed=[
            Measurement(
                "best mean accuracy of 60 layers with skips after 150 steps, over five learning rates "
                "(recorded run)",
                _best(60, "residual"),
                at_least=0.9,
            ),
            Measurement(
                "decades from the smallest to the largest squared weight gradient, 60 ReLU blocks",
                spread(True),
                at_most=3,
            ),
            Measurement("the same without skips", spread(False), at_least=8),
        ]
    )


@claim(
    id="depth-single-and-stacked",
    source="encyclopaedia, Vanishing/exploding gradients",
    statement=(
        "Explosion and smoothness are consistent: smoothness is the effect of a single batch norm in "
        "a network, the explosion that of many stacked ones."
    ),
    chapter="explanations/depth",
    verdict="depends",
)
def single_and_stacked() -> Evidence:
    def relative(count, scale):
        values = [
            experiments.stacked(count, 20, 128, 64, seed, scale)[0]
            / experiments.stacked(0, 20, 128, 64, seed, scale)[0]
            for seed in range(2)
        ]
        return np.exp(np.log(values).mean())

    single = "squared gradient at layer 1 with one batch norm there over that with none"
    return Evidence(
        under=(
            "what the single batch norm sees has a standard deviation of 2 over the batch",
            [
                Measurement(f"{single}; 20 ReLU layers", relative(1, 2.0), at_most=0.5),
                Measurement("the same with 20 batch norms", relative(20, 2.0), at_least=100),
            ],
        ),
        otherwise=(
            "it has a standard deviation of 1/2",
            [Measurement(single, relative(1, 0.5), at_most=0.5)],
        ),
    )


@claim(
    id="depth-remedy",
    source="cs682slides, Why Batch Normalization is good?",
    statement="Batch norm reduces the effects of exploding and vanishing gradients.",
    chapter="explanations/depth",
    verdict="depends",
)
def remedy() -> Evidence:
    def decades(activation, gain, normalization):
        squares = experiments.gradients(
            activation, 20, 128, 64, 0, normalization=normalization, gain=gain
        ).signals
        return abs(np.log10(squares[0] / squares[-1]))

    what = "decades of squared gradients over 20 layers, with batch norm less without"
    sigmoid, tanh = (
        decades(name, gain, "batch") - decades(name, gain, None)
        for name, gain in (("sigmoid", 1.0), ("tanh", 2.5))
    )
    he = decades("relu", 2**0.5, "batch") - decades("relu", 2**0.5, None)
    return Evidence(
        under=(
            "the network without it has vanishing or exploding gradients",
            [
                Measurement(f"{what}; sigmoid, weights $N(0,1/n)$", sigmoid, at_most=0),
                Measurement("the same for tanh, weights $N(0,6.25/n)$", tanh, at_most=0),
            ],
        ),
        otherwise=(
            "it has ReLU and He's initialisation",
            [Measurement("the same", he, at_most=0)],
        ),
    )


@claim(
    id="depth-he",
    source="he2015, Section 2.2, backward propagation case",
    statement=(
        "With ReLU and weights of variance $2/n$, gradients neither grow nor shrink from layer to "
        "layer; with $1/n$ they shrink by half."
    ),
    chapter="explanations/depth",
    verdict="holds",
)
def he() -> Evidence:
    errors = []
    for variance in (2.0, 1.0):
        runs = [
            experiments.gradients(
                "relu", 20, 256, 32, seed, normalization=None, gain=variance**0.5
            ).signals
            for seed in range(4)
        ]
        growth = np.exp(np.mean([np.log(run[0] / run[-1]) for run in runs]) / 19)
        errors.append(growth / (variance / 2) - 1)
    return Evidence(
        printed=[
            Measurement(
                "largest relative error of the growth of squared gradients, 1 and 1/2; width 256",
                np.max(np.abs(errors)),
                at_most=0.03,
            )
        ]
    )
