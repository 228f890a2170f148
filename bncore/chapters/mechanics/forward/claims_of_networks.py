"""What the literature says about distributions within a network, with batch norm and without."""

import numpy as np
from scipy import stats

from bncore.chapters.mechanics.forward import experiments
from bncore.lab import data, networks, probes, training
from bncore.page.claims import at_least, at_most, claim, corrected, otherwise, under


def _distance_to_normal(x):
    """Kolmogorov's distance of each column to the normal law of its mean and variance."""
    law = stats.norm.cdf(np.sort((x - x.mean(axis=0)) / x.std(axis=0), axis=0))
    steps = np.arange(len(x) + 1)[:, None] / len(x)
    return np.maximum(np.abs(law - steps[1:]), np.abs(law - steps[:-1])).max(axis=0)


@claim("cs682slides, Better accuracy and faster", "misprinted")
def percentile_labels():
    """In the figure of a neuron's activations over time, the top line is the 15th percentile and
    the bottom line the 85th.
    """
    batches = np.random.default_rng(0).gamma(2, size=(100, 50))
    gaps = np.percentile(batches, 15, axis=1) - np.percentile(batches, 85, axis=1)
    yield at_least(0, min(gaps), "smallest 15th − 85th percentile, 100 batches")
    yield corrected("The top line is the 85th percentile and the bottom line the 15th.")
    yield at_most(0, max(gaps), "largest 15th − 85th percentile, 100 batches")


@claim("cs682slides, Why Batch Normalization is good?", "fails")
def gaussian():
    """Batch norm makes each neuron's activations more or less Gaussian."""
    split = data.digits()
    model = networks.mlp((64, 100, 100, 10), "relu", "batch", gain=2**0.5)
    training.train(model, split, 100, 64, 0.1, every=100)
    inputs = probes.inputs_of(model, ["activation2", "output"], split.x_train, "batch")
    normalised = {
        "sums, normalised before ReLU": inputs["activation2"],
        "outputs of ReLU, normalised": inputs["output"],
        "the network's inputs, normalised": split.x_train.numpy(),
    }
    for name, values in normalised.items():
        values = values[:, values.std(axis=0) > 0].astype(float)
        near = _distance_to_normal(values) < 0.1
        yield at_least(
            0.9,
            near.mean(),
            f"{name}: share of neurons with a Kolmogorov distance from a normal law below 0.1, "
            "network trained on the digits for 100 steps",
        )


def _sums_over_outputs(activation, gain):
    """Statistics of the sums Wu + b of a trained layer over those of its inputs u.

    Median Kolmogorov distance to a normal law, median absolute skewness, and share of zeros.
    """
    split = data.digits()
    model = networks.mlp((64, 100, 100, 10), activation, gain=gain)
    training.train(model, split, 100, 64, 0.1, every=100)
    seen = probes.inputs_of(model, ["linear2", "activation2"], split.x_train)
    u, z = (seen[name] for name in ("linear2", "activation2"))
    zeros = (z == 0).mean() / max((u == 0).mean(), 1 / u.size)
    u, z = (values[:, values.std(axis=0) > 0] for values in (u, z))

    def ratio(statistic):
        return np.median(statistic(z)) / np.median(statistic(u))

    return ratio(_distance_to_normal), ratio(lambda v: np.abs(stats.skew(v))), zeros


@claim("ioffe2015, Section 3.2", "depends")
def sums_more_gaussian():
    """The input $Wu+b$ of a non-linearity is more symmetric, less sparse and more Gaussian than
    the output $u$ of the previous non-linearity.
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
        yield at_most(0.7, normal, f"{distance}, {name}")
        yield at_most(0.7, skewed, f"{skewness}, {name}")
        if case[0] == "relu":
            yield at_most(0.7, zeros, f"{sparseness}, {name}")
    yield otherwise("sigmoid or tanh with small weights stays in its linear middle")
    for name, case in small.items():
        yield at_most(0.7, _sums_over_outputs(*case)[0], f"{distance}, {name}")


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


@claim("ioffe2015, Section 4.1", "holds")
def stable_distributions():
    """Over training on digits, the inputs of a typical sigmoid in the last hidden layer are
    distributed much more stably with batch norm than without.
    """
    split = data.digits()

    def drift(normalization, seed):
        history = experiments.percentile_run(normalization, split, steps=200, every=20, seed=seed)
        low, median, high = np.moveaxis(history.records["percentiles"], -1, 0)
        return float(np.median(np.ptp(median, axis=0) / (high - low).mean(axis=0)))

    yield at_most(
        0.5,
        max(drift("batch", seed) / drift(None, seed) for seed in (0, 1, 2)),
        "range of a unit's median over training, in widths of its central 70 percent, "
        "median over 100 units: batch norm's over the plain network's, largest of three seeds",
    )
