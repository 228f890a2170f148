"""What the literature says about distributions within a network, with batch norm and without."""

from functools import cache, partial

import numpy as np
import torch
from scipy import stats

from bncore.chapters.mechanics.forward import full_size
from bncore.lab import data, networks, probes, recorded, studies, training
from bncore.mechanics import transform
from bncore.page.claims import at_least, at_most, claim, corrected, otherwise, under


def _distance_to_normal(x):
    """Kolmogorov's distance of each column to the normal law of its mean and variance."""
    law = stats.norm.cdf(np.sort((x - x.mean(axis=0)) / x.std(axis=0), axis=0))
    steps = np.arange(len(x) + 1)[:, None] / len(x)
    return np.maximum(np.abs(law - steps[1:]), np.abs(law - steps[:-1])).max(axis=0)


@claim("cs682slides, Better accuracy and faster", "misprinted")
def percentile_labels():
    """In the figure of a neuron's activations over time, the top line is the 15th percentile and
    the bottom line the 85th. (The caption contradicts itself: no 15th percentile is above an 85th.)
    """
    low, high = np.percentile(np.random.default_rng(0).normal(size=1000), (15, 85))
    yield at_least(0, low - high, "15th − 85th percentile of 1000 normal values")
    yield corrected("The top line is the 85th percentile and the bottom line the 15th.")
    yield at_least(0, high - low, "85th − 15th percentile of these")


@cache
def _seen(activation, normalization, gain, seed):
    """What reaches and leaves the first hidden layer's units and reaches the second's, 100 steps on.

    Those that are constant over the training set are left out.
    """
    split = data.digits(seed)
    model = networks.mlp((64, 100, 100, 10), activation, normalization, gain=gain, seed=seed)
    training.train(model, split, 100, 64, 0.1, seed, every=100)
    names = {"sums": "activation1", "outputs": "linear2", "next sums": "activation2"}
    seen = probes.inputs_of(model, list(names.values()), split.x_train, "batch")
    return {
        name: values[:, values.std(axis=0) > 0].astype(float)
        for name, values in ((name, seen[layer]) for name, layer in names.items())
    }


def _near_normal(values):
    """Share of the columns with a Kolmogorov distance from a normal law below 0.1."""
    return (_distance_to_normal(values) < 0.1).mean()


@claim("cs682slides, Why Batch Normalization is good?", "fails")
def gaussian():
    """Batch norm makes each neuron's activations more or less Gaussian. (Read: most neurons'
    outputs are within 0.1 of a normal law in Kolmogorov's distance. The sums that reach the neurons are,
    but without batch norm too.)
    """
    what = "share of neurons within 0.1 of a normal law in Kolmogorov's distance, digits, 100 steps, {}"
    for activation, gain in (("relu", 2**0.5), ("sigmoid", 4.0)):
        shares = [_near_normal(_seen(activation, "batch", gain, s)["outputs"]) for s in range(3)]
        yield at_least(
            0.5,
            max(shares),
            what.format(
                f"outputs of {activation} after batch norm, gain {gain:.2g}: largest of 3 seeds"
            ),
        )
    with_it, without = (_near_normal(_seen("relu", n, 2**0.5, 0)["sums"]) for n in ("batch", None))
    words = f"sums that reach relu, with batch norm, one seed (without: {without:.2f})"
    yield at_least(0.5, with_it, what.format(words))
    raw = data.digits().x_train.double().numpy()
    raw = raw[:, raw.std(axis=0) > 0]
    x_hat = transform.forward(raw)[0]
    yield at_least(
        0.5, _near_normal(x_hat), what.format("pixels, normalised").replace(", 100 steps", "")
    )


@claim("readingnotes, How to standardize", "holds")
def non_gaussian_inputs():
    """With some activation functions the distribution of the inputs to a layer may be quite
    non-Gaussian.
    """
    near = [_near_normal(_seen("relu", "batch", 2**0.5, seed)["outputs"]) for seed in range(3)]
    yield at_most(
        0.5,
        max(near),
        "share of ReLU outputs, which the next layer receives, within 0.1 of a normal law in "
        "Kolmogorov's distance, digits, 100 steps, batch norm, gain √2: largest of 3 seeds",
    )


def _sums_over_outputs(activation, gain):
    """Statistics of the sums Wu + b of a trained layer over those of its inputs u, for three seeds.

    Median Kolmogorov distance to a normal law, median absolute skewness, and share of zeros.
    """
    found = []
    for seed in range(3):
        seen = _seen(activation, None, gain, seed)
        u, z = seen["outputs"], seen["next sums"]
        normal, skewed = (
            np.median(statistic(z)) / np.median(statistic(u))
            for statistic in (_distance_to_normal, lambda v: np.abs(stats.skew(v)))
        )
        found.append((normal, skewed, (z == 0).mean() / max((u == 0).mean(), 1 / u.size)))
    return np.array(found).T


@claim("ioffe2015, Section 3.2", "depends")
def sums_more_gaussian():
    """The input $Wu+b$ of a non-linearity is likely to be more symmetric, less sparse and more Gaussian
    than the output $u$ of the previous non-linearity. (Likely: for the median unit.)
    """
    distance = (
        "median Kolmogorov distance to a normal law, that of Wu + b over that of u, after 100 steps"
    )
    skewness, sparseness = "the same for the absolute skewness", "the same for the share of zeros"
    large = {
        "ReLU, gain √2": ("relu", 2**0.5),
        "sigmoid, gain 4": ("sigmoid", 4.0),
        "tanh, gain 3": ("tanh", 3.0),
    }
    small = {"sigmoid, torch's weights": ("sigmoid", None), "tanh, torch's weights": ("tanh", None)}
    yield under(
        "the units are rectified, or the weights large enough to use the bends of a sigmoid"
    )
    for name, case in large.items():
        normal, skewed, zeros = _sums_over_outputs(*case)
        yield at_most(1, normal.max(), f"{distance}, {name}, largest of 3 seeds")
        yield at_most(1, skewed.max(), f"{skewness}, {name}")
        if case[0] == "relu":
            yield at_most(1, zeros.max(), f"{sparseness}, {name}")
    yield otherwise("sigmoid or tanh with small weights stays in its linear middle")
    for name, case in small.items():
        normal, _, _ = _sums_over_outputs(*case)
        yield at_most(1, np.median(normal).item(), f"{distance}, {name}, median of 3 seeds")


@claim("readingnotes, How to standardize", "holds")
def gamma_new_deviation():
    r"""$\beta$ and $\gamma$ are a new mean and a new standard deviation of the standardised input,
    which the layer learns.
    """
    split = data.digits()
    model = networks.mlp((64, 50, 50, 10), "relu", "batch")
    training.train(model, split, 100, 64, 0.3, every=100)
    names = ["activation1", "activation2"]
    seen = probes.inputs_of(model, names, split.x_test, "batch")
    means, deviations, moved = [], [], []
    for norm, name in zip((model.norm1, model.norm2), names, strict=True):
        gamma, beta = (value.detach().numpy() for value in (norm.weight, norm.bias))
        means.append(np.abs(seen[name].mean(axis=0) - beta).max())
        deviations.append(np.abs(seen[name].std(axis=0) - gamma).max())
        moved.append(max(np.abs(gamma - 1).max(), np.abs(beta).max()))
    what = "over a batch of held-out digits, after 100 steps, ε = 0.00001"
    yield at_most(1e-3, max(means), f"largest difference of a unit's mean from β, {what}")
    yield at_most(1e-3, max(deviations), "the same of its standard deviation from γ")
    yield at_least(0.1, max(moved), "how far one of the learned β and γ is from 0 or 1")


@claim("sharad, Examples", "holds")
def affine_false_fixes_statistics():
    """In torch, `affine=False` means that the data's mean and variance are fixed during training. (The
    data that leave the layer. The statistics that it keeps go on moving.)
    """
    split = data.digits()

    def drift(affine):
        def moments(model, split):
            y = probes.inputs_of(model, ["activation1"], split.x_train, "batch")["activation1"]
            return np.array([y.mean(axis=0), y.std(axis=0)])

        norm = partial(torch.nn.BatchNorm1d, affine=affine)
        model = networks.mlp((64, 50, 10), "relu", norm)
        history = training.train(model, split, 100, 64, 0.3, record={"moments": moments}, every=100)
        first, last = history.records["moments"]
        return float(np.abs(last - first).max())

    what = (
        "largest change over 100 steps, digits, of the mean or standard deviation of a unit that leaves "
        "the layer"
    )
    yield at_most(0.01, drift(False), f"{what}, affine=False")
    yield at_least(0.1, drift(True), f"{what}, affine=True")


@claim("encyclopaedia, Transformation", "depends")
def fixes_layer_inputs():
    """The normalisation step fixes the means and variances of each layer's inputs during training."""
    split = data.digits()

    def drift(learned):
        model = networks.mlp((64, 50, 50, 10), "sigmoid", "batch")
        for norm in (model.norm1, model.norm2):
            norm.requires_grad_(learned)

        def moments(model, split):
            inputs = probes.inputs_of(model, ["activation2"], split.x_train, "batch")["activation2"]
            return np.array([inputs.mean(axis=0), inputs.std(axis=0)])

        record = {"moments": moments}
        history = training.train(model, split, 60, 64, 1.0, record=record, every=60)
        first, last = history.records["moments"]
        return float(np.abs((last - first) / first[1]).max())

    what = (
        "largest change of an input's mean or standard deviation at the second non-linearity, "
        "in standard deviations, 60 steps"
    )
    yield under("$\\gamma$ and $\\beta$ are not learned")
    yield at_most(0.01, drift(False), what)
    yield otherwise("they are learned")
    yield at_most(0.01, drift(True), what)


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


@cache
def _record(name):
    return recorded.load(full_size.PATH)["full"][name]


@claim("ioffe2015, Section 4.1", "holds")
def stable_distributions():
    """Over training on digits, the inputs of a typical sigmoid in the last hidden layer are
    distributed much more stably with batch norm than without. (Much: their median moves half as far or
    less.)
    """
    far = np.log2(_record("wandering")["fresh"].wandered)
    yield at_least(
        1,
        studies.difference(
            far.sel(normalization="none"), far.sel(normalization="batch"), looked_at=1
        ),
        "range of a unit's median over 600 steps, in widths of its central 70 percent, median over 100 "
        "units: the plain network's over batch norm's, logarithm to base 2, each at its own best rate, "
        "ten fresh seeds (recorded run)",
    )


@claim("encyclopaedia, Internal covariate shift", "depends")
def gradients_at_larger_rates():
    """With batch norm a network can use larger learning rates without vanishing or exploding gradients.
    (Larger: than any of the grid at which it trains without. Vanish and explode: over the layers, or in
    training, by a factor of ten.)
    """

    def ranges(name, rate):
        found = _record("gradients")[name].sel(normalization="batch", learning_rate=rate)
        words = f"{name}, rate {rate:g}, 300 steps, five fresh seeds (recorded run)"
        across = "decades from the last hidden layer's gradient to the first's"
        yield at_most(1, found.most.max().item(), f"{across}, most at any step: {words}")
        yield at_least(-1, found.least.min().item(), f"{across}, least: {words}")
        yield at_most(
            1, found.grown.max().item(), f"decades by which a gradient grows in training: {words}"
        )

    yield under("it has few layers, here five hidden ones")
    for name, rate in (("sigmoid", 10.0), ("ReLU", 1.0), ("ReLU", 3.0)):
        yield from ranges(name, rate)
        plain = _record("gradients")[name].sel(normalization="none", learning_rate=rate)
        yield at_least(
            1,
            np.maximum(np.abs(plain.least), plain.grown).min().item(),
            f"the largest of these without batch norm, at the same rate, smallest of the seeds: {name}",
        )
    yield otherwise("it has many, here thirty: at its start gradients explode")
    yield from ranges("ReLU, 30 layers", 1.0)
