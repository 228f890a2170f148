"""What the literature says about the transform itself."""

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

from bncore.mechanics import transform
from bncore.page.claims import at_least, at_most, claim, corrected, otherwise, under
from bncore.page.labels import value_text

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


@cache
def _pixels():
    """The digits' pixels that are not the same on every image."""
    pixels = load_digits().data / 16
    return pixels[:, pixels.std(axis=0) > 0]


TABLES = {
    "diabetes": lambda: load_diabetes(scaled=False).data,
    "iris": lambda: load_iris().data,
    "wine": lambda: load_wine().data,
    "breast cancer": lambda: load_breast_cancer().data,
}


@claim("encyclopaedia, Transformation", "holds")
def zero_mean_unit_variance():
    r"""The normalised activation has mean zero and variance one if $\varepsilon$ is left out of
    account.
    """
    rng = np.random.default_rng(0)
    means, variances = [], []
    for table in TABLES.values():
        rows = table()
        for _ in range(25):
            batch = torch.tensor(rng.permutation(rows)[:32], dtype=torch.float32)
            x_hat = torch.nn.functional.batch_norm(batch, None, None, training=True, eps=1e-30)
            means.append(x_hat.double().mean(0).abs().max().item())
            varies = batch.double().var(0) > 0
            apart = x_hat.double().var(0, correction=0)[varies] - 1
            variances.append(apart.abs().max().item())
    what = (
        "100 batches of 32 rows of four tables, torch's batch norm in single precision, ε = 1e-30"
    )
    yield at_most(1e-3, max(means), f"largest mean of a normalised feature, {what}")
    yield at_most(1e-3, max(variances), "largest difference of its variance from 1, if it varies")


@claim("sharad, Examples", "depends")
def unit_deviation_with_epsilon():
    r"""With $\varepsilon$ added to the variance, the normalised data have mean zero and standard
    deviation one. (One: to two decimals.)
    """
    what = "{}, in its own units, ε = 0.00001: largest {} of a normalised feature"
    for heading, names in (
        (
            under("the variance of each feature is far above $\\varepsilon$"),
            ["diabetes", "iris", "wine"],
        ),
        (otherwise("that of some is not"), ["breast cancer"]),
    ):
        yield heading
        for name in names:
            x_hat = _x_hat(TABLES[name](), 1e-5)
            apart = np.abs(x_hat.std(axis=0) - 1).max()
            yield at_most(
                0.005, apart, what.format(name, "distance from 1 of the standard deviation")
            )
            yield at_most(0.005, np.abs(x_hat.mean(axis=0)).max(), what.format(name, "mean"))


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
    yield under("$\\mathrm{E}[x]$ and $\\mathrm{Var}[x]$ are the batch's own")
    yield at_most(1e-12, own, what)
    yield otherwise("they are constants over the mini-batches, here the population's")
    yield at_most(1e-2, population, what)


@claim("whatisbn, Normalizing output values", "fails", aliases=["inference-epsilon-variance"])
def epsilon_mimics_population():
    r"""A population's variance being larger than that of a batch, the little that $\varepsilon$ adds
    to the variance of each batch helps to take this into account. (Takes it into account: for most
    features at least half of the gap is closed, and not overshot by as much. The gap is a share of the
    variance, $\sigma^2/m$, and $\varepsilon$ is a constant, so for some size of the batch they are near
    each other by chance.)
    """
    variance, eps = _pixels().var(axis=0), 1e-3
    for m in (8, 32, 128, 512):
        gap = variance / m
        yield at_least(
            0.5,
            np.mean(np.abs(gap - eps) <= gap / 2),
            "share of the digits' pixels, of those that vary, for which ε = 0.001 closes half of the gap "
            f"or more between the population's variance and the expected variance of batches of {m}",
        )


@claim("whatisbn, Normalizing output values", "holds")
def sample_variance_lower():
    """The variance of a population is typically higher than that of a sample from it, especially
    of a small one. (Typically: than that of more than half of the samples. Especially: the gap to the
    mean variance of the samples is larger.)
    """
    rng = np.random.default_rng(3)
    laws = {
        "normal": (rng.normal, 1.0),
        "uniform": (rng.random, 1 / 12),
        "exponential": (rng.standard_exponential, 1.0),
    }
    for name, (draw, variance) in laws.items():
        ratios = {m: draw(size=(20_000, m)).var(axis=1) / variance for m in (4, 32)}
        for m, ratio in ratios.items():
            what = f"share of 20000 samples of {m} whose variance, divisor m, is below that of the"
            yield at_least(0.5, (ratio < 1).mean(), f"{what} {name} population")
        yield at_least(
            0,
            ratios[32].mean() - ratios[4].mean(),
            f"{name}: gap to the mean variance of the samples, as a share of the population's, of "
            f"samples of 4 ({1 - ratios[4].mean():.2f}) less that of 32",
        )


@claim("whatisbn, Normalizing output values", "depends")
def epsilon_any_small_constant():
    r"""$\varepsilon$ can be any small positive constant, for example 0.001. (Any: the output is the same
    to a hundredth.)
    """
    what = "{}, in its own units: largest relative change of a feature's output from ε = 0.00001 to 0.001"
    for heading, names in (
        (
            under("the variance of each feature is more than a hundred times $\\varepsilon$"),
            ["diabetes", "iris"],
        ),
        (otherwise("that of some is not"), ["wine", "breast cancer"]),
    ):
        yield heading
        for name in names:
            small, large = (_x_hat(TABLES[name](), eps).std(axis=0) for eps in (1e-5, 1e-3))
            yield at_most(1e-2, np.abs(1 - large / small).max(), what.format(name))


@claim("encyclopaedia, Transformation", "depends")
def epsilon_arbitrarily_small():
    r"""$\varepsilon$ is an arbitrarily small constant that keeps the division stable."""
    rng, tiny = np.random.default_rng(4), 1e-30
    constant = np.tile(rng.uniform(50, 150, size=200), (32, 1))
    varying = constant + rng.normal(size=constant.shape)

    def normalised(x, eps):
        layer = torch.nn.BatchNorm1d(200, eps=eps)
        return layer(torch.tensor(x, dtype=torch.float32)).detach().double().numpy()

    what = (
        f"torch's layer, single precision, ε = {tiny:g}, 32 values of 200 features near 50 to 150"
    )
    yield under("every feature varies over the batch, far beyond rounding")
    apart = np.abs(normalised(varying, tiny).std(axis=0) - 1)
    yield at_most(
        1e-5, apart.max(), f"largest difference of a standard deviation from 1, {what}, σ about 1"
    )
    yield otherwise("some features are constant")
    yield at_most(
        1,
        np.abs(normalised(constant, tiny)).max(),
        f"largest normalised value, exactly 0: {what}, σ = 0 "
        f"(ε = 0.00001: {np.abs(normalised(constant, 1e-5)).max():.2f})",
    )


@claim("sharad, Examples", "holds")
def denominator_never_zero():
    r"""With a small $\varepsilon$ added to the variance, the denominator of the normalisation is never
    zero.
    """
    for precision in (torch.float32, torch.float64):
        x = (2 ** torch.arange(-50, 50, dtype=precision)).repeat(32, 1)
        variance = x.var(dim=0, correction=0).max().item()
        yield at_most(0, variance, "largest variance of 100 constant features, powers of 2")
        for eps in (1e-3, 1e-5, torch.finfo(precision).tiny):
            y = torch.nn.functional.batch_norm(x, None, None, training=True, eps=eps)
            words = f"share of finite values, torch's batch norm of these, {x.dtype}, ε = {value_text(eps)}"
            yield at_least(1, y.isfinite().double().mean().item(), words)


@claim("sharad, Examples", "misprinted")
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


@claim("sharad, Parameters and Working", "holds")
def four_parameters():
    r"""A batch norm layer has two learnable parameters, $\beta$ and $\gamma$, and two that are not
    learned but saved with its state, the moving averages of mean and variance; so a network with
    three such layers has three of each.
    """
    model = torch.nn.Sequential(*(torch.nn.BatchNorm1d(7) for _ in range(3)))
    learned = dict(model.named_parameters())
    kept = {n: v for n, v in model.state_dict().items() if v.is_floating_point()}
    kept = {name: value for name, value in kept.items() if name not in learned}

    def beside(found, *two):
        return len({f"{layer}.{name}" for layer in range(3) for name in two} ^ set(found))

    what = "three batch norm layers of torch: {}, beside those named or missing among them"
    yield at_most(0, beside(learned, "weight", "bias"), what.format("learnable parameters"))
    yield at_most(
        0,
        beside(kept, "running_mean", "running_var"),
        what.format("other real numbers in the saved state"),
    )
    yield at_most(
        0,
        max(abs(value.numel() - 7) for value in (*learned.values(), *kept.values())),
        "entries of each for 7 features, largest difference from 7",
    )


@claim("sharad, Limitations", "depends")
def non_linear():
    """Batch norm adds a non-linear transformation to the network. (Whether this makes the network harder
    to interpret, as the sentence concludes, no computation decides.)
    """
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
    yield under("the network is training: the statistics depend on the input")
    yield at_least(1e-3, min(curvature[True]), what)
    yield otherwise("it is at inference: the statistics are constants")
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

    def change(a, eps):
        largest = 0.0
        for rng, u in _batches(100):
            W = rng.normal(size=(u.shape[1], 5))
            W /= (u @ W).std(axis=0)
            moved = _moved(_x_hat(u @ (a * W), eps), _x_hat(u @ W, eps))
            largest = max(largest, moved / np.abs(u @ W).max())
        return largest

    what = "largest change of the output over the largest Wu, 100 layers, variance of each Wu 1"
    yield under("$a > 0$, and the variance of $aWu$ is a thousand times $\\varepsilon$ or more")
    yield at_most(
        1e-2,
        max(change(a, 1e-5) for a in (0.1, 3.0, 1000.0)),
        f"{what}, a = 0.1, 3 and 1000, ε = 0.00001",
    )
    yield otherwise("$a < 0$, or the variance is but ten times $\\varepsilon$")
    for a, eps in ((-3.0, 1e-5), (0.1, 1e-3)):
        yield at_most(1e-2, change(a, eps), f"{what}, a = {a}, ε = {eps:.5f}")
