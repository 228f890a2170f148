"""What the literature says about the transform itself and about what it does to a deep network."""

from functools import cache

import numpy as np
import torch
from scipy import stats
from sklearn.datasets import load_digits

from bncore.chapters.mechanics.forward import experiments
from bncore.lab import data, networks, probes, training
from bncore.mechanics import transform
from bncore.page.claims import at_least, at_most, claim, corrected, otherwise, under

TINY = 1e-300


def _batches(count, seed=0, features=6):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        scale = np.exp(2 * rng.normal(size=features))
        x = rng.gamma(1 + rng.random(features), scale, size=(rng.integers(2, 65), features))
        yield rng, x + rng.normal(size=features) * scale


def _x_hat(x, eps=TINY):
    return transform.forward(x, eps=eps)[0]


def _moved(y, z):
    return float(np.abs(y - z).max())


def _distance_to_normal(x):
    """Kolmogorov's distance of each column to the normal law of its mean and variance."""
    law = stats.norm.cdf(np.sort((x - x.mean(axis=0)) / x.std(axis=0), axis=0))
    steps = np.arange(len(x) + 1)[:, None] / len(x)
    return np.maximum(np.abs(law - steps[1:]), np.abs(law - steps[:-1])).max(axis=0)


@cache
def _pixels():
    """The digits' pixels that are not the same on every image."""
    pixels = load_digits().data / 16
    return pixels[:, pixels.std(axis=0) > 0]


@claim("encyclopaedia, Transformation", "holds")
def zero_mean_unit_variance():
    r"""The normalised activation has mean zero and variance one if $\varepsilon$ is left out of
    account.
    """
    normalised = [_x_hat(x) for _, x in _batches(200)]
    yield at_most(
        1e-12,
        max(np.abs(x.mean(axis=0)).max() for x in normalised),
        "largest mean of a feature, 200 random batches",
    )
    yield at_most(
        1e-12,
        max(np.abs(x.var(axis=0) - 1).max() for x in normalised),
        "largest difference of a variance from 1, ε negligible",
    )


@claim("sharad, Slide 14", "depends")
def unit_deviation_with_epsilon():
    r"""With $\varepsilon$ added to the variance, the normalised data have mean zero and standard
    deviation one.
    """
    pixels, eps = _pixels(), 1e-3
    deviation = _x_hat(pixels, eps).std(axis=0)
    wide = pixels.var(axis=0) >= 100 * eps
    yield under("$\\sigma^2 \\ge 100\\,\\varepsilon$")
    yield at_most(
        0.005,
        np.abs(deviation[wide] - 1).max(),
        "largest difference of a standard deviation from 1, over the digits' pixels "
        "with σ² ≥ 100 ε, ε = 0.001",
    )
    yield otherwise("some features vary less")
    yield at_most(
        0.005,
        np.abs(deviation - 1).max(),
        "largest difference of a standard deviation from 1, over all pixels that vary",
    )


@claim("cs682slides, Why Batch Normalization is good?", "fails")
def gaussian():
    """Batch norm makes each neuron's activations more or less Gaussian."""
    split = data.digits()
    model = networks.mlp((64, 100, 100, 10), "relu", gain=2**0.5)
    inside = ["activation1", "linear2", "activation2", "output"]
    hidden = probes.inputs_of(model, inside, split.x_train)
    values = np.column_stack([_pixels()[: len(split.x_train)], *hidden.values()]).astype(float)
    values = values[:, values.std(axis=0) > 0]
    normalised = _x_hat(values)
    before, after = _distance_to_normal(values), _distance_to_normal(normalised)
    yield at_least(
        0.01,
        (before - after).max(),
        "largest decrease of Kolmogorov's distance to the nearest normal law that batch "
        f"norm brings, over {values.shape[1]} pixels, inputs and outputs of ReLU units",
    )
    yield at_most(
        0.05,
        np.median(after[before > 0.1]),
        "median distance after batch norm of those that were farther than 0.1 before "
        "(a normal sample of this size: about 0.02)",
    )


@claim("ioffe2015, Section 3", "depends")
def recovers_identity():
    r"""With $\gamma = \sqrt{\mathrm{Var}[x]}$ and $\beta = \mathrm{E}[x]$ the transform gives back
    the original activations, so the layer loses no representation power.
    """
    own, population = 0.0, 0.0
    rng = np.random.default_rng(1)
    for _ in range(50):
        mean, deviation = rng.normal(size=4), np.exp(rng.normal(size=4))
        x = rng.normal(mean, deviation, size=(32, 4))
        size = np.abs(x).max()
        restored, _ = transform.forward(x, x.std(axis=0), x.mean(axis=0), TINY)
        fixed, _ = transform.forward(x, deviation, mean, TINY)
        own = max(own, _moved(restored, x) / size)
        population = max(population, _moved(fixed, x) / size)
    what = "largest relative difference between output and input, 50 random batches of 32"
    yield under("$\\mathrm{E}[x]$ and $\\mathrm{Var}[x]$ are those of the batch itself")
    yield at_most(1e-12, own, what)
    yield otherwise("$\\gamma$ and $\\beta$ are constants, here those of the population")
    yield at_most(1e-2, population, what)


@claim("readingnotes, How to standardize", "depends")
def gamma_new_deviation():
    r"""$\beta$ and $\gamma$ are the new mean and standard deviation of the standardised input."""
    rng = np.random.default_rng(6)
    x, eps = rng.normal(size=(64, 8)), 1e-5

    def error(gamma, deviation):
        beta = rng.normal(size=8)
        y, _ = transform.forward(deviation * x, gamma, beta, eps)
        return max(_moved(y.mean(axis=0), beta), _moved(y.std(axis=0), gamma))

    gamma = rng.uniform(0.5, 2, size=8)
    what = (
        "largest difference of the output's mean from β or of its standard deviation from γ, "
        "8 features"
    )
    yield under("$\\gamma > 0$ and $\\sigma^2 \\gg \\varepsilon$")
    yield at_most(1e-3, error(gamma, 1), f"{what}, σ near 1")
    yield otherwise(
        "$\\gamma < 0$, or $\\sigma^2$ near $\\varepsilon$; only $|\\gamma|\\sigma/s$ is the "
        "standard deviation"
    )
    yield at_most(1e-3, error(-gamma, 1), f"{what}, σ near 1, γ negative")
    yield at_most(1e-3, error(gamma, 0.003), f"{what}, σ near 0.003")


@claim("whatisbn, Normalizing output values", "fails", aliases=["inference-epsilon-variance"])
def epsilon_mimics_population():
    r"""Adding $\varepsilon$ makes up for a population's variance being larger than that of a batch."""
    rng, eps = np.random.default_rng(2), 1e-3
    normal = rng.normal(size=(50_000, 8))

    def error(deviation):
        return abs((deviation * normal).var(axis=1).mean() + eps - deviation**2) / deviation**2

    yield at_most(
        0.05,
        error(1),
        "relative error of E[σ_B²] + ε as an estimate of the population's variance, "
        "m = 8, population variance 1, ε = 0.001 (without ε: 0.125)",
    )
    yield at_most(0.05, error(0.01), "the same with population variance 0.0001")


@claim("whatisbn, Normalizing output values", "holds")
def sample_variance_lower():
    """The variance of a population is typically higher than that of a sample from it, especially
    of a small one.
    """
    rng = np.random.default_rng(3)
    laws = {
        "normal": (rng.normal, 1.0),
        "uniform": (rng.random, 1 / 12),
        "exponential": (rng.standard_exponential, 1.0),
    }
    share, gap = {}, 0.0
    for name, (draw, variance) in laws.items():
        for m in (4, 32):
            ratio = draw(size=(20_000, m)).var(axis=1) / variance
            share[name, m] = (ratio < 1).mean()
            gap = max(gap, abs(ratio.mean() - (m - 1) / m))
    yield at_least(
        0.5,
        min(share.values()),
        "smallest share of 20000 samples with a variance (divisor m) below that of a "
        "normal, uniform or exponential population, m = 4 and 32",
    )
    yield at_least(
        0.0,
        min(share[name, 4] - share[name, 32] for name in laws),
        "smallest growth of that share from m = 32 to m = 4",
    )
    yield at_most(0.05, gap, "largest difference of E[σ_B²]/σ² from (m − 1)/m")


@claim("whatisbn, Normalizing output values", "depends")
def epsilon_any_small_constant():
    r"""$\varepsilon$ can be any small positive constant, for example 0.001."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(256, 8))
    x /= x.std(axis=0)

    def change(deviation):
        small, large = (_x_hat(deviation * x, eps).std(axis=0) for eps in (1e-5, 1e-3))
        return np.abs(1 - large / small).max()

    what = "relative change of the output's scale between ε = 0.00001 and ε = 0.001"
    yield under("$\\sigma = 1$")
    yield at_most(1e-2, change(1), what)
    yield otherwise("$\\sigma = 0.01$")
    yield at_most(1e-2, change(0.01), what)


@claim("encyclopaedia, Transformation", "depends")
def epsilon_arbitrarily_small():
    r"""$\varepsilon$ is an arbitrarily small constant that keeps the division stable."""
    constant = np.full(16, 3.0, np.float32)

    def undefined(eps):
        with np.errstate(invalid="ignore"):
            centred = constant - constant.mean()
            y = centred / np.sqrt(centred.var() + np.float32(eps))
        return np.isnan(y).mean()

    what = "share of NaN in the normalised values of a constant feature, single precision"
    yield under("$\\varepsilon$ is a normal number of the precision computed in")
    yield at_most(0, undefined(1e-5), f"{what}, ε = 1e-5")
    yield otherwise("it is so small that it rounds to zero")
    yield at_most(0, undefined(1e-46), f"{what}, ε = 1e-46")


@claim("sharad, Slide 14", "misprinted")
def deviation_plus_epsilon():
    r"""The function subtracts the mean and divides by the standard deviation plus a small
    $\varepsilon$.
    """
    eps, printed, mended = 1e-5, 0.0, 0.0
    for rng, x in _batches(100):
        x *= 10 ** rng.uniform(-3, 0, size=x.shape[1]) / x.std(axis=0)
        oracle = torch.nn.functional.batch_norm(
            torch.tensor(x), None, None, training=True, eps=eps
        ).numpy()
        centred = x - x.mean(axis=0)
        printed = max(printed, _moved(centred / (x.std(axis=0) + eps), oracle))
        mended = max(mended, _moved(centred / np.sqrt(x.var(axis=0) + eps), oracle))
    what = "largest difference from torch's batch norm, 100 random batches, 0.001 ≤ σ ≤ 1"
    yield at_most(1e-6, printed, what)
    yield corrected(
        "It divides by $\\sqrt{\\sigma^2 + \\varepsilon}$: $\\varepsilon$ is added to the "
        "variance, as the slide's next paragraph says."
    )
    yield at_most(1e-6, mended, what)


@claim("sharad, Slide 15", "fails")
def affine_false_fixes_statistics():
    """In torch, `affine=False` means that mean and variance stay fixed during training."""
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.BatchNorm1d(102, affine=False)
    for _ in range(100):
        y = layer(3 + 2 * torch.randn(22, 102, generator=generator))
    yield at_most(
        0.1,
        layer.running_mean.abs().mean().item(),
        "mean change of the kept means after 100 batches drawn from N(3, 4)",
    )
    yield at_most(
        0.1,
        (layer.running_var - 1).abs().min().item(),
        "smallest distance of a kept variance from its initial value 1",
    )
    yield at_most(
        1e-5,
        y.mean(0).abs().max().item(),
        "largest mean of an output feature: the batch's own mean is subtracted",
    )


@claim("sharad, Slide 8", "holds")
def four_parameters():
    r"""A batch norm layer has two kinds of learnable parameters, $\beta$ and $\gamma$, and two
    kinds that are not learned, the moving averages of mean and variance.
    """
    layer = torch.nn.BatchNorm2d(7)
    learnable = {name: value.numel() for name, value in layer.named_parameters()}
    kept = {n: value.numel() for n, value in layer.named_buffers() if value.is_floating_point()}
    wrong = {"weight", "bias"} ^ set(learnable) | {"running_mean", "running_var"} ^ set(kept)
    sizes = {*learnable.values(), *kept.values()}
    yield at_most(
        0, len(wrong), "parameters and floating-point buffers of torch's layer beside these four"
    )
    yield at_most(
        0,
        max(abs(size - 7) for size in sizes),
        "entries of each for 7 features, largest difference from 7",
    )


@claim("sharad, Slide 20", "depends")
def non_linear():
    """Batch norm adds a non-linear transformation to the network."""
    layer = torch.nn.BatchNorm1d(6, dtype=torch.float64)
    curvature = {True: [], False: []}
    for _, x in _batches(50):
        a, b = torch.tensor(x), torch.tensor(x[::-1].copy()) ** 2
        for training_mode, found in curvature.items():
            layer.train(training_mode)
            middle = layer((a + b) / 2) - (layer(a) + layer(b)) / 2
            found.append(middle.abs().max().item() / (1 + layer(a).abs().max().item()))
    what = (
        "smallest gap between the output for the mean of two batches and the mean of the outputs, "
        "relative, 50 pairs (an affine map: 0)"
    )
    yield under("training: the batch's statistics depend on the input")
    yield at_least(1e-3, min(curvature[True]), what)
    yield otherwise("inference: the statistics are constants")
    yield at_least(1e-3, min(curvature[False]), what)


@claim("encyclopaedia, Transformation", "holds")
def per_dimension():
    """Each dimension of a layer's input is normalised separately from the others."""
    coupling, correlation = 0.0, []
    for rng, x in _batches(100):
        other = x.copy()
        other[:, 1:] = rng.normal(size=other[:, 1:].shape)
        coupling = max(coupling, _moved(_x_hat(x)[:, 0], _x_hat(other)[:, 0]))
        mixed = rng.normal(size=(64, 2)) @ np.array([[1.0, 0.9], [0.0, 0.1]])
        correlation.append(np.corrcoef(_x_hat(mixed).T)[0, 1])
    yield at_most(
        1e-12, coupling, "largest change of one normalised feature when all others are replaced"
    )
    yield at_least(
        0.9, min(correlation), "smallest correlation that survives between two correlated features"
    )


@claim("encyclopaedia, Transformation", "depends")
def fixes_layer_inputs():
    """The normalisation step fixes the means and variances of each layer's inputs during training."""
    split = data.digits()

    def drift(learned):
        model = networks.mlp((64, 50, 50, 10), "sigmoid", "batch")
        for norm in (model.norm1, model.norm2):
            norm.requires_grad_(learned)
        record = {
            "spread": lambda model, split: probes.inputs_of(
                model, ["activation2"], split.x_train, "batch"
            )["activation2"].std(axis=0)
        }
        history = training.train(model, split, 60, 64, 1.0, record=record, every=60)
        first, last = history.records["spread"]
        return float(np.abs(last / first - 1).max())

    what = (
        "largest relative change of an input's standard deviation at the second non-linearity, "
        "60 steps"
    )
    yield under("$\\gamma$ and $\\beta$ are not learned")
    yield at_most(0.01, drift(False), what)
    yield otherwise("they are learned")
    yield at_most(0.01, drift(True), what)


@claim("ioffe2015, Section 3.2", "holds")
def bias_is_idle():
    r"""The bias of a layer before a batch norm can be dropped: subtracting the mean cancels it, and
    $\beta$ takes its part.
    """
    largest = 0.0
    for rng, u in _batches(100):
        z = u @ rng.normal(size=(u.shape[1], 5))
        bias = rng.normal(scale=10, size=5)
        with_bias, without = (transform.forward(x)[0] for x in (z + bias, z))
        largest = max(largest, _moved(with_bias, without))
    yield at_most(
        1e-10, largest, "largest difference between BN(Wu + b) and BN(Wu), 100 random layers"
    )


@claim("ioffe2015, Section 3.2", "holds")
def sums_more_gaussian():
    """The input $Wu+b$ of a non-linearity is more symmetric, less sparse and more Gaussian than
    the output $u$ of the previous non-linearity.
    """
    split = data.digits()
    model = networks.mlp((64, 100, 100, 10), "relu", gain=2**0.5)
    training.train(model, split, 100, 64, 0.1, every=100)
    seen = probes.inputs_of(model, ["linear2", "activation2"], split.x_train)
    u, z = (seen[name] for name in ("linear2", "activation2"))
    u = u[:, u.std(axis=0) > 0]

    def ratio(statistic):
        return np.median(statistic(z)) / np.median(statistic(u))

    yield at_most(
        0.5,
        ratio(_distance_to_normal),
        "median Kolmogorov distance to a normal law: that of Wu + b over that of u, ReLU "
        "network on the digits",
    )
    yield at_most(
        0.5, ratio(lambda values: np.abs(stats.skew(values))), "the same for the absolute skewness"
    )
    yield at_most(
        0.01, (z == 0).mean() / (u == 0).mean(), "share of zeros of Wu + b over that of u"
    )


@claim("ioffe2015, Section 3.2", "holds")
def convolution_batch():
    r"""For feature maps of size $p \times q$ the statistics of a channel are taken over an
    effective batch of $m \cdot pq$ values, with one $\gamma$ and one $\beta$ a channel.
    """
    rng, ours, torchs = np.random.default_rng(5), 0.0, 0.0
    for _ in range(50):
        m, channels, p, q = rng.integers(2, 9, size=4)
        x = rng.normal(size=(m, channels, p, q))
        gamma, beta = rng.normal(size=(2, channels))
        y, _ = transform.forward(x, gamma, beta)
        rows = x.transpose(0, 2, 3, 1).reshape(m * p * q, channels)
        as_rows, _ = transform.forward(rows, gamma, beta)
        oracle = torch.nn.functional.batch_norm(
            *map(torch.tensor, (x, np.zeros(channels), np.ones(channels), gamma, beta)),
            training=True,
        )
        ours = max(ours, _moved(y.transpose(0, 2, 3, 1).reshape(rows.shape), as_rows))
        torchs = max(torchs, _moved(y, oracle.numpy()))
    yield at_most(1e-11, ours, "largest difference from normalising m·p·q rows, 50 random shapes")
    yield at_most(1e-11, torchs, "the same from torch's batch norm on maps")


@claim("ioffe2015, Section 3.3", "depends")
def scale_invariance():
    r"""For a scalar $a$, $\mathrm{BN}(Wu) = \mathrm{BN}((aW)u)$."""
    positive, negative, with_eps = 0.0, 0.0, 0.0
    for rng, z in _batches(100):
        a = 10 ** rng.uniform(-3, 3)
        positive = max(positive, _moved(_x_hat(a * z), _x_hat(z)))
        negative = max(negative, _moved(_x_hat(-a * z), _x_hat(z)))
        with_eps = max(with_eps, _moved(_x_hat(1e-3 * z, 1e-5), _x_hat(z, 1e-5)))
    what = "largest change of the output, 100 random batches"
    yield under("$a > 0$ and $\\varepsilon$ negligible beside $a^2\\sigma^2$")
    yield at_most(1e-9, positive, f"{what}, 0.001 ≤ a ≤ 1000")
    yield otherwise("$a < 0$, or $a^2\\sigma^2$ no larger than $\\varepsilon$")
    yield at_most(1e-9, negative, f"{what}, −1000 ≤ a ≤ −0.001")
    yield at_most(1e-9, with_eps, f"{what}, a = 0.001, ε = 0.00001")


@cache
def _deep(network, learning_rate=0.3, steps=150):
    return [experiments.accuracy(network, learning_rate, seed, steps) for seed in (0, 1)]


@claim("cs682slides, Other benefits in practice", "depends")
def saturating_nonlinearities():
    """It is batch norm that makes it possible to train deep networks of saturating non-linearities
    such as the sigmoid.
    """
    without = "best test accuracy without batch norm (chance: 0.1)"
    yield under("the weights start as torch draws them")
    yield at_least(
        0.85,
        min(_deep("sigmoid, batch norm")),
        "worst test accuracy with batch norm, five hidden layers of 50 sigmoids, "
        "150 steps, two seeds",
    )
    yield at_most(0.2, max(_deep("sigmoid")), f"{without}, same steps")
    yield otherwise("they start larger, with gain 4, and the learning rate is tuned")
    yield at_most(0.2, max(_deep("sigmoid, gain 4", 1.0, 300)), f"{without}, 300 steps")


@claim("cs682slides, Other benefits in practice", "depends")
def stuck_in_saturation():
    """Without batch norm a deep sigmoid network does not train because its units get stuck in the
    saturated ranges.
    """
    split = data.digits()

    def saturated(gain):
        model = networks.mlp(experiments.WIDTHS, "sigmoid", gain=gain)
        training.train(model, split, 100, 64, 0.3)
        layers = [f"activation{i}" for i in range(1, 6)]
        inputs = probes.inputs_of(model, layers, split.x_test)
        share = np.mean([np.abs(z) > 4 for z in inputs.values()])
        return share, probes.test_accuracy(model, split)

    (large_share, large), (small_share, small) = saturated(100.0), saturated(None)
    share = "share of sigmoid inputs beyond ±4, where the slope is below 0.02, after 100 steps"
    accuracy = "test accuracy without batch norm"
    yield under("the initial weights are large (gain 100)")
    yield at_least(0.5, large_share, share)
    yield at_most(0.7, large, accuracy)
    yield otherwise("they are torch's own: the signal fades in the middle of the sigmoid")
    yield at_least(0.5, small_share, share)
    yield at_most(0.7, small, accuracy)


@claim("cs682slides, Why Batch Normalization is good?", "holds")
def low_activations_spread():
    """Without batch norm, low activations in one layer can lead to lower ones in the next, and so
    on.
    """
    split = data.digits()
    widths, layers = (64, *[50] * 8, 10), [f"linear{i}" for i in range(2, 9)]

    def sizes(normalization):
        model = networks.mlp(widths, "relu", normalization, gain=3**-0.5)
        inputs = probes.inputs_of(model, layers, split.x_train, "batch")
        return np.array([inputs[name].mean() for name in layers])

    plain, normalised = sizes(None), sizes("batch")
    yield at_most(
        0.9,
        (plain[1:] / plain[:-1]).max(),
        "largest ratio of a layer's mean activation to that of the layer before, ReLU, "
        "eight hidden layers, weights of torch's size, no biases",
    )
    yield at_most(0.01, plain[-1] / plain[0], "last layer over first without batch norm")
    yield at_least(0.8, normalised[-1] / normalised[0], "the same with batch norm")


@claim("cs682slides, Better accuracy and faster", "misprinted")
def percentile_labels():
    """In the figure of a neuron's activations over time, the top line is the 15th percentile and
    the bottom line the 85th.
    """
    gaps = [np.percentile(x, 15) - np.percentile(x, 85) for _, x in _batches(100)]
    yield at_least(0, min(gaps), "smallest 15th − 85th percentile, 100 batches")
    yield corrected("The top line is the 85th percentile and the bottom line the 15th.")
    yield at_most(0, max(gaps), "largest 15th − 85th percentile, 100 batches")


@claim("ioffe2015, Section 4.1", "holds")
def stable_distributions():
    """Over training on digits, the inputs of a typical sigmoid in the last hidden layer are
    distributed much more stably with batch norm than without.
    """
    split = data.digits()

    def drift(normalization):
        history = experiments.percentile_run(normalization, split, steps=200, every=20)
        low, median, high = np.moveaxis(history.records["percentiles"], -1, 0)
        return float(np.median(np.ptp(median, axis=0) / (high - low).mean(axis=0)))

    plain, normalised = drift(None), drift("batch")
    yield at_most(
        0.3,
        normalised / plain,
        "range of a unit's median over training, in widths of its central 70 percent, "
        f"median over 100 units: batch norm's over the plain network's {plain:.1f}",
    )
