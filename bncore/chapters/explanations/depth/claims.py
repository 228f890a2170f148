"""What the literature says about depth and batch normalization."""

import numpy as np
import torch
import xarray as xr
from scipy import stats
from scipy.special import eval_gegenbauer, hyp2f1, roots_gegenbauer
from torch import nn

from bncore.chapters.explanations.depth import experiments
from bncore.explanations import depth
from bncore.explanations.activation import ACTIVATIONS
from bncore.lab import data, recorded, studies
from bncore.page.claims import at_least, at_most, claim, corrected, otherwise, under

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


@claim("encyclopaedia, Vanishing/exploding gradients", "holds")
def explosion():
    r"""A deep network with batch norm suffers from gradient explosion at initialisation, whatever
    its nonlinearity: squared gradients grow by a factor $\lambda>1$ a layer.
    """
    curved = [*CURVED, *_random_functions(4)]
    predicted = [depth.growth_rate(function, size) for function in curved for size in (16, 400)]
    measured = [
        experiments.measured_rates(function, 256, size, 20, 2).min()
        for function in ("relu", "tanh", "sigmoid")
        for size in (16, 400)
    ]
    yield at_least(
        1 + 1e-3,
        min(predicted),
        "least predicted growth of squared gradients, 14 nonlinearities, batches of 16 and 400",
    )
    yield at_least(
        1 + 1e-3,
        min(measured),
        "least growth measured, ReLU, tanh and sigmoid, width 256, 20 layers, batches of 16 and 400",
    )


@claim("encyclopaedia, Vanishing/exploding gradients", "misprinted")
def norm_or_square():
    r"""The gradient of the first layer's weights has a *norm* above $c\,\lambda^L$; for ReLU and
    large batches $\lambda=\pi/(\pi-1)\approx1.467$.
    """
    squares = [
        experiments.rate(experiments.gradients("relu", 26, 384, 200, seed).weights)
        for seed in range(3)
    ]
    growth = np.exp(np.log(squares).mean())
    limit = depth.growth_rate("relu")
    yield at_most(
        0.03,
        abs(growth**0.5 / limit - 1),
        "growth of the norm of weight gradients over 1.467, less 1; width 384, batch 200",
    )
    yield corrected(
        "The *squared* norm grows by 1.467 a layer, and the norm by its root, 1.211. The source "
        "it rests on, Yang et al., defines its rates by squares."
    )
    yield at_most(0.03, abs(growth / limit - 1), "the same for the squared norm")


@claim("encyclopaedia, Vanishing/exploding gradients", "fails")
def batch_size():
    r"""For any fixed nonlinearity, $\lambda$ decreases as the batch size increases."""
    steps = [np.diff([depth.growth_rate(name, size) for size in BATCHES]) for name in ACTIVATIONS]
    small, large = (depth.growth_rate(rippled, size) for size in (12, 400))
    nets = [experiments.measured_rates(rippled, 256, size, 20, 2).mean() for size in (12, 64)]
    yield at_most(
        0,
        np.max(steps),
        "largest change of $\\lambda_B$ from one batch size to the next, 4 to 400, 11 activations in "
        "use",
    )
    bent = "an activation that bends only beyond 2.2, where small batches do not reach"
    yield at_most(0, large - small, f"$\\lambda_{{400}}-\\lambda_{{12}}$, {bent}")
    yield at_most(0, nets[1] - nets[0], "its growth measured at 64 less that at 12, width 256")


@claim("yang2019, theorem on ReLU in Section 3", "holds")
def relu():
    r"""With ReLU the gradient norm squared explodes at a rate that decreases to
    $\pi/(\pi-1)\approx1.467$ as $B\to\infty$.
    """
    sizes = [*range(4, 40), 100, 1000, 10**5]
    rates = np.array([depth.relu_growth_rate(size) for size in sizes])
    quadrature = [depth.growth_rate("relu", size) for size in BATCHES]
    closed = [depth.relu_growth_rate(size) for size in BATCHES]
    yield at_most(
        1e-9,
        np.max(np.abs(np.divide(quadrature, closed) - 1)),
        "largest relative difference of quadrature and closed form, batches of 4 to 400",
    )
    yield at_most(
        0, np.diff(rates).max(), "largest change from one batch size to the next, 39 sizes"
    )
    yield at_most(
        1e-4, abs(rates[-1] - np.pi / (np.pi - 1)), "distance from $\\pi/(\\pi-1)$ at $B=10^5$"
    )


def _gegenbauer_rate(function, size, degree):
    """The rate from the printed series; polynomials orthonormal on [-1, 1] with weight (1-x²)^((B-4)/2)."""
    alpha = (size - 3) / 2
    x, weights = roots_gegenbauer(2 * degree, alpha)
    values = function(np.sqrt(size - 1) * x)
    k = np.arange(1, degree)
    polynomials = eval_gegenbauer(k[:, np.newaxis], alpha, x)
    squares = (polynomials @ (weights * values)) ** 2 / (polynomials**2 @ weights)
    c = 1 - (-1.0) ** k * hyp2f1(-k, size - 3 + k, size / 2 - 1, (size - 2) / (2 * (size - 1)))
    return (k * (size - 3 + k) / (size - 3) * c) @ squares / (c @ squares)


@claim("yang2019, theorem that batch norm causes gradient explosion", "holds")
def gegenbauer():
    r"""If $\varphi(\sqrt{B-1}\,t)$ has the coefficients $a_k$ in the Gegenbauer polynomials of order
    $\frac{B-3}2$, the rate is $\sum_k k\frac{B-3+k}{B-3}c_ka_k^2\big/\sum_kc_ka_k^2$ with
    $c_k=1-(-1)^kF_k$, $F_k={}_2F_1(-k,B-3+k,\frac B2-1;x)$ and $x=\frac{B-2}{2(B-1)}$; it is least,
    $\frac{B-2}{B-3}$, for linear $\varphi$ only. (Read: coefficients in the polynomials scaled to norm 1
    under the weight $(1-t^2)^{\frac B2-2}$; for others the squared norms belong into both sums. And
    linear up to a constant, which batch norm removes.)
    """
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
    yield at_most(
        1e-6,
        np.max(np.abs(errors)),
        "largest relative difference of series and integral, four activations, batches of "
        "5, 8 and 16",
    )
    yield at_least(
        1e-3,
        min(excess),
        "least $\\lambda_B-\\frac{B-2}{B-3}$ of 10 curved activations, batches of 4, 8, 64",
    )
    yield at_most(1e-12, abs(depth.growth_rate("identity", 8) - 6 / 5), "its size for the identity")


@claim("yang2019, Abstract", "holds")
def initial_scale():
    """Exploding gradients cannot be eliminated by tuning the variance of the initial weights; they can be
    reduced by tuning the network close to the linear regime.
    """
    growths = [
        experiments.measured_rates(name, 256, 64, 20, 2, gain=gain)
        for name in ("relu", "tanh")
        for gain in (0.1, 1.0, 10.0)
    ]
    yield at_least(
        1 + 1e-3,
        np.min(growths),
        "least growth of squared gradients a layer, ReLU and tanh, weights of gain 0.1, 1 and 10, two "
        "networks of 20 layers each, batches of 64",
    )
    nearer = [
        experiments.measured_rates(lambda z, gamma=gamma: torch.tanh(gamma * z), 256, 64, 20, 2)
        for gamma in (2.0, 1.0, 0.5, 0.1)
    ]
    yield at_most(
        0,
        np.diff(nearer, axis=0).max(),
        "largest change of this growth in $\\tanh(\\gamma z)$ as $\\gamma$ falls from 2 to 0.1 in three steps",
    )


@claim("yang2019, Abstract", "depends")
def single_step():
    """After a single step of optimisation the gradients have a dramatically smaller dynamic range.
    (Read: the largest squared weight gradient over the smallest falls tenfold.)
    """

    def left(layers, step):
        before, after, rates = zip(
            *(experiments.dynamic_range(layers, step, seed) for seed in range(3)), strict=True
        )
        return at_most(
            0.1,
            np.divide(after, before).max(),
            f"range after over range before, the largest of three ReLU networks of {layers} layers, at "
            f"learning rates near {np.median(rates):.1g}",
        )

    yield under(
        "the network has 20 layers or more, and the step is ten times as long as the weights, in the layer "
        "where it is longest beside them"
    )
    for layers in (20, 40, 80):
        yield left(layers, 10)
    yield otherwise("the step is a tenth as long as they are")
    for layers in (20, 40, 80):
        yield left(layers, 0.1)


@claim("ioffe2015, Section 3.3", "holds")
def jacobian():
    """Batch norm may lead the layer Jacobians to have singular values close to 1, if layers are
    linear and their outputs uncorrelated. (Conjectured there; judged from one normalised batch to the
    next, with weights whose rows are orthogonal, of lengths from 0.01 to 100. Close: between a half and
    2. Left out: those that are zero because batch norm blocks two directions of each unit.)
    """
    shares, zeros = zip(
        *(_near_one(nn.Identity(), _orthogonal_rows, seed) for seed in range(4)), strict=True
    )
    yield at_least(
        0.9, min(shares), "share of singular values between a half and 2, smallest of four layers"
    )
    yield at_most(0, max(zeros) - 16, "zero singular values, of 512, less two for each of 8 units")


def _orthogonal_rows(weight, generator):
    """Fill with orthogonal rows, whose lengths are drawn over four decades."""
    nn.init.orthogonal_(weight, generator=generator)
    decades = 4 * torch.rand(len(weight), 1, generator=generator, dtype=weight.dtype) - 2
    return weight * 10**decades


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


def _trained(kind, layers):
    """Test accuracies of fresh seeds at the best rate, after the last step."""
    kept = recorded.load(experiments.RECORD)["full"]["training"]["fresh"]
    return kept["last"].sel(kind=kind, layers=layers)


@claim("encyclopaedia, Vanishing/exploding gradients", "depends")
def untrainable():
    """Practically, deep networks with batch norm and without skip connections are untrainable. (Read: after
    3000 steps, at the best learning rate, they classify less than half of the digits.)
    """

    def half(layers):
        found = _trained("batch norm", layers)
        missing = studies.difference(found, xr.full_like(found, 0.5), looked_at=3)
        return at_most(
            0,
            missing,
            f"test accuracy on the digits less one half, {layers} layers with batch norm and without "
            "skips, 3000 steps at the best of seven rates; interval over ten fresh seeds (recorded run)",
        )

    yield under("deep means 60 layers")
    yield half(60)
    yield otherwise("it means 30")
    yield half(30)


@claim("readingnotes, Introduction", "holds")
def tens_of_layers():
    """Networks of tens of layers are hard to train, since they can be sensitive to their random initial
    weights and to how the learning algorithm is set up. (The latter is read as the learning rate. In the
    recorded run a seed draws the split and the batches with the weights.)
    """
    fresh = {layers: _trained("plain", layers) for layers in (10, 60)}
    good = [(fresh[layers] >= 0.9).astype(float) for layers in (10, 60)]
    yield at_least(
        0,
        studies.difference(*good, looked_at=3),
        "share of networks without batch norm that reach a test accuracy of 0.9 on the digits in 3000 "
        "steps, at the best rate: 10 layers less 60; interval over ten fresh seeds (recorded run)",
    )
    images = len(data.digits().y_test)
    right = (images * fresh[60].values).round()
    table = [right, images - right]
    yield at_most(
        0.05 / 3,
        stats.chi2_contingency(table).pvalue,
        "chance that ten networks of 60 layers, each with a seed of its own, differ as much in "
        f"accuracy if all are as good, {images} test images each",
    )
    tuning = recorded.load(experiments.RECORD)["full"]["training"]["tuning"]["last"]
    wide, narrow = (
        (tuning.sel(kind="plain", layers=layers) >= 0.9).sum("learning_rate") for layers in (10, 60)
    )
    yield at_least(
        0,
        studies.difference(wide, narrow, looked_at=3),
        "learning rates, of eight, two a decade, at which a network reaches 0.9: 10 layers less 60; interval "
        "over three seeds",
    )


@claim("encyclopaedia, Vanishing/exploding gradients", "fails")
def skips():
    """Only skip connections in the fashion of residual networks relieve it."""

    def spread(activation, skip=False):
        squares = [
            experiments.gradients(activation, 60, 128, 64, seed, skip=skip).weights
            for seed in range(3)
        ]
        return np.array([np.log10(some.max() / some.min()) for some in squares])

    what = "decades from the smallest to the largest squared weight gradient, 60 layers"
    for name in ("relu", "tanh"):
        yield at_most(
            0.5,
            (spread(name, True) / spread(name)).max(),
            f"{what}, {name} with skip connections over without, largest of three networks",
        )
    yield at_least(
        0.5,
        (spread(lambda z: torch.tanh(0.1 * z)) / spread("tanh")).max(),
        f"{what}, without skip connections, tanh behind $\\gamma=0.1$ over tanh behind $\\gamma=1$, "
        "largest of three networks",
    )


@claim("encyclopaedia, Vanishing/exploding gradients", "holds")
def single_and_stacked():
    """Explosion and smoothness are consistent: smoothness is about a single batch norm in a network,
    the explosion about many stacked ones. (Read: one may double the squared gradient at most, for the
    variance that it sees; every five of a stack do more than that. Geometric means of four networks,
    since single networks scatter.)
    """
    single = [
        [experiments.one_among(place, 20, 128, 64, seed, scale) for seed in range(4)]
        for place in (1, 5, 10, 20)
        for scale in (0.3, 1.0)
    ]
    stacked = np.array(
        [
            [experiments.stacked(count, 20, 128, 64, seed)[0] for count in (0, 5, 10, 15, 20)]
            for seed in range(4)
        ]
    )
    yield at_most(
        2,
        np.exp(np.log(single).mean(axis=1)).max(),
        "squared gradient at layer 1 of 20 ReLU layers with one batch norm, in layer 1, 5, 10 or 20, times "
        "the variance that it sees, over that without: largest mean, for inputs of two sizes",
    )
    yield at_least(
        2,
        np.exp(np.log(stacked[:, 1:] / stacked[:, :-1]).mean(axis=0)).min(),
        "that gradient over that with five batch norms fewer, for 5, 10, 15 and 20 in the first layers: "
        "smallest mean",
    )


def _decades(activation, gain, normalization, layers):
    """By how many decades squared gradients grow or shrink over the layers, of three networks."""
    squares = [
        experiments.gradients(
            activation, layers, 128, 64, seed, normalization=normalization, gain=gain
        ).signals
        for seed in range(3)
    ]
    return np.abs([np.log10(some[0] / some[-1]) for some in squares])


@claim("cs682slides, Why Batch Normalization is good?", "depends")
def remedy():
    """Batch norm reduces the effects of exploding and vanishing gradients."""

    def compared(activation, gain, beyond):
        rate, depths = depth.growth_rate(activation, 64), (10, 40)
        without, with_it = (
            np.array([_decades(activation, gain, one, layers) for layers in depths])
            for one in (None, "batch")
        )
        factors = 10 ** (np.median(without, axis=1) / (np.array(depths) - 1))
        words = f"{activation}, weights of gain {gain:.3g}, three networks each of 10 and 40 layers"
        yield at_most(
            0,
            (with_it - without).max(),
            "decades by which squared gradients grow or shrink over the layers: with batch norm less "
            f"without, largest; {words}",
        )
        yield beyond(
            rate,
            factors.min() if beyond is at_least else factors.max(),
            "factor by which they grow or shrink a layer without it, "
            f"{'smallest' if beyond is at_least else 'largest'} median, beside $\\lambda$; {words}",
        )

    yield under(
        "without it squared gradients grow or shrink by more than a factor of $\\lambda$ a layer, the growth "
        "rate of the activation with batch norm"
    )
    for activation, gain in (("sigmoid", 1.0), ("relu", 1.0), ("relu", 2.0), ("tanh", 2.5)):
        yield from compared(activation, gain, at_least)
    yield otherwise("they change by less, as with ReLU and weights near He's, of gain $\\sqrt2$")
    for gain in (1.3, 2**0.5):
        yield from compared("relu", gain, at_most)


@claim("cs682slides, Why Batch Normalization is good?", "fails")
def normality():
    """Batch norm lessens exploding and vanishing gradients because it makes everything roughly normally
    distributed.
    """
    left = [
        experiments.two_valued("batch", seed)[0] / experiments.two_valued(None, seed)[0]
        for seed in range(3)
    ]
    yield at_least(
        0.5,
        max(left),
        "decades by which squared gradients vanish over 20 layers of sigmoids, with batch norm over "
        "without, where each unit has two values over the batch, as far from normal as can be: largest of "
        "three networks",
    )


@claim("he2015, Section 2.2, backward propagation case", "holds")
def he():
    """With ReLU and weights of variance $2/n$, gradients neither grow nor shrink from layer to
    layer; with $1/n$ they shrink by half.
    """
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
    yield at_most(
        0.03,
        np.max(np.abs(errors)),
        "largest relative error of the growth of squared gradients, 1 and 1/2; width 256",
    )
