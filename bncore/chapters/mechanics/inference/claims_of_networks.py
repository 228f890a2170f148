"""What the literature says about networks trained and used with batch norm's statistics."""

import copy
from functools import cache

import numpy as np
import torch
import xarray as xr

from bncore.chapters.mechanics.inference import full_size
from bncore.lab import data, networks, recorded, studies, training
from bncore.lab.inference import accuracy, refitted
from bncore.mechanics.inference import RunningStatistics, exact_statistics, normalize
from bncore.page.claims import at_least, at_most, claim, otherwise, under


@cache
def _digits():
    return data.digits()


@cache
def _trained(momentum, steps=200, seed=0):
    model = networks.mlp((64, 64, 64, 10), "relu", "batch", momentum=momentum, seed=seed)
    training.train(model, _digits(), steps, batch_size=32, learning_rate=0.1, seed=seed)
    return model


@cache
def _record(name):
    """Fresh seeds of a recorded run, each arm at its own best rate."""
    return recorded.load(full_size.PATH)["full"][name]["fresh"]


def _lead(statistics, other, batch_size, looked_at):
    """How much more accurate networks trained with these statistics are than with the others."""
    last = _record("statistics")["last"].sel(batch_size=batch_size)
    one, two = (last.sel(statistics=name) for name in (statistics, other))
    return studies.difference(one, two, looked_at=looked_at)


def _at_equal_cost(looked_at):
    """Lead of batches of 32 over the whole training set, as many examples read."""
    batch = _record("statistics")["last"].sel(statistics="batch", batch_size=32)
    whole = _record("equal_cost")["last"].sel(statistics="whole training set", batch_size=32)
    return studies.difference(batch, whole, looked_at=looked_at)


@claim("sharad, Parameters and Working", "holds")
def changed_input():
    """The saved mean and variance are used to normalise the input at inference even if its
    distribution has changed since training. (The result then need not have mean 0 and variance 1.)
    """
    x = data.digits().x_train.double()
    layer = torch.nn.BatchNorm1d(64, affine=False).double()
    for batch in x.split(64):
        layer(batch)
    layer.eval()
    washed = 0.3 * x + 0.35
    output = layer(washed).numpy()

    def distance(mean, var):
        return np.abs(output - normalize(washed.numpy(), mean, var, eps=1e-5)).max()

    saved = layer.running_mean.numpy(), layer.running_var.numpy()
    what = (
        "digits at 30 % of their contrast around 0.5: largest distance of the output from that with"
    )
    yield at_most(
        1e-9, distance(*saved), f"{what} the mean and variance saved on digits as they are"
    )
    yield at_least(1, distance(*exact_statistics([washed.numpy()])), f"{what} those of the input")


def _examples_read():
    """Examples that a network reads for a step of its moving averages, and for exact statistics."""
    split, model = _digits(), copy.deepcopy(_trained(0.1))
    read = []
    model.norm1.register_forward_pre_hook(lambda layer, x: read.append(len(x[0])))
    model.train()(split.x_train[:32])
    moving = sum(read)
    refitted(model, split.x_train)
    return moving, sum(read) - moving


@claim("sharad, Batch Norm during Inference", "depends")
def memory():
    """Calculating and saving the mean and variance of the full data is expensive; the moving average
    is cheaper because only its most recent value needs to be remembered.
    """
    moving, whole = _examples_read()
    features = 512
    totals = 1 + 2 * features
    x = np.random.default_rng(0).normal(size=(50, 20, features))
    mean, var = exact_statistics(iter(x))
    error = max(np.abs(mean - x.mean(axis=(0, 1))).max(), np.abs(var - x.var(axis=(0, 1))).max())
    yield under("the statistics have to be those of the current weights")
    yield at_least(
        2,
        whole / moving,
        "digits: examples that the network reads for the statistics of the full data, as a multiple "
        "of the batch of 32 that a moving average reads, and training reads anyway",
    )
    yield otherwise("totals over the batches as they come will do")
    yield at_least(
        2,
        totals / (2 * features),
        "numbers remembered between two batches for 512 features: a count, means and squared "
        "deviations of all data so far, as a multiple of moving means and variances",
    )
    yield at_most(1e-12, error, "error of the statistics of all the data computed that way")


@claim("encyclopaedia, Inference", "depends")
def dependence_useless():
    """Once a network is used, nothing is gained by outputs that depend on a mini-batch."""
    split, models = _digits(), [_trained(0.1, seed=seed) for seed in range(6)]

    def advantage(x):
        one, other = (
            [accuracy(model, x, split.y_test, statistics) for model in models]
            for statistics in ("batch", "running")
        )
        return _interval(xr.DataArray(np.subtract(one, other), dims="seed"), looked_at=2)

    what = "accuracy with the statistics of the test batch, minus accuracy with the saved ones, 6 seeds"
    yield under("the test data are distributed like the training data")
    yield at_most(0.05, advantage(split.x_test), f"{what}, digits")
    yield otherwise("they are not")
    yield at_most(
        0.05, advantage(0.3 * split.x_test + 0.35), f"{what}, digits with 30 % of the contrast"
    )


@claim("ioffe2015, Section 3.1", "holds")
def track_accuracy():
    """With moving averages one can track the accuracy of a model as it trains."""
    split = _digits()

    def error(steps):
        model = _trained(0.1, steps)
        fitted = refitted(model, split.x_train)
        return abs(
            accuracy(fitted, split.x_test, split.y_test)
            - accuracy(model, split.x_test, split.y_test)
        )

    yield at_most(
        0.03,
        max(error(steps) for steps in (50, 100, 200)),
        "digits: largest difference of the test accuracy with moving averages from that with exact "
        "statistics, after 50, 100 and 200 steps, momentum 0.1",
    )


@claim("encyclopaedia, Transformation", "undecided")
def whole_set_ideal():
    """The best would be to normalise by statistics of the whole training set."""
    what = (
        "digits: test accuracy of networks trained 3000 steps with statistics of the whole training "
        "set, less that with the batch's, each at its own best rate, 12 fresh seeds, batches of {}"
    )
    for m in (4, 32):
        yield at_least(0, _lead("whole training set", "batch", m, looked_at=2), what.format(m))


@claim("encyclopaedia, Transformation", "holds")
def whole_set_impractical():
    """With stochastic optimization it is not practical to normalise by the whole training set."""
    yield at_least(
        0,
        _at_equal_cost(looked_at=1),
        "digits: test accuracy after 3000 steps with statistics of batches of 32, less that with "
        "statistics of the whole training set when as many examples have passed the network, "
        "71 steps; each at its own best rate, 12 fresh seeds",
    )


@claim("encyclopaedia, Inference", "undecided")
def efficient_and_reliable():
    """Training is efficient and reliable because its normalisation depends on mini-batches."""
    yield at_least(
        0,
        _at_equal_cost(looked_at=3),
        "efficient: lead in test accuracy over statistics of the whole training set, as many "
        "examples read, digits, batches of 32, each at its own best rate, 12 fresh seeds",
    )
    what = (
        "reliable: lead over running averages, which the gradient takes for constants, after 3000 "
        "steps, batches of {}"
    )
    for m in (4, 32):
        yield at_least(0, _lead("batch", "running", m, looked_at=3), what.format(m))


@claim("sharad, Limitations", "undecided")
def small_batches():
    """If the batch size is small, the moving averages of mean and variance may be inaccurate, which
    can lead to problems with training. (Training meets the statistics of batches, and the test their
    moving averages.)
    """
    rng = np.random.default_rng(0)

    def errors(m):
        statistics = RunningStatistics(300, 0.1)
        for _ in range(50):
            statistics.update(rng.normal(size=(m, 300)))
        return np.sqrt([np.square(statistics.mean).mean(), np.square(statistics.var - 1).mean()])

    what = "error of the moving {} with batches of 4 over that with batches of 128, momentum 0.1"
    for name, ratio in zip(("mean", "variance"), errors(4) / errors(128), strict=True):
        yield at_least(3, ratio, what.format(name))
    yield at_least(
        0,
        _lead("whole training set", "batch", 4, looked_at=2),
        "digits, batches of 4: test accuracy that is lost by statistics of the batch beside those of "
        "the whole training set, 3000 steps, each at its own best rate, 12 fresh seeds",
    )
    last = _record("statistics").sel(statistics="batch", batch_size=4).isel(steps=-1)
    yield at_least(
        0,
        studies.difference(last.exact, last.kept, looked_at=2),
        "of that, what the moving averages lose: test accuracy of the same networks of batches with "
        "exact statistics of the training set, less that with moving averages",
    )


def _excess(kind, name="lost"):
    """By how much batch norm exceeds a network without, by change of the inputs."""
    found = _record("changes")[name].sel(kind=kind)
    return found.sel(normalization="batch") - found.sel(normalization="none")


def _interval(differences, looked_at):
    """Mean and interval of differences over seeds."""
    return studies.difference(differences, 0 * differences, looked_at=looked_at)


@claim("sharad, Limitations", "holds")
def less_robust():
    """Changes of its input data may harm a network with batch norm more."""
    excess = _excess("digits")
    most = str(excess.change[excess.mean("seed").argmax("change")].item())
    lost = excess.sel(change=most, drop=True)
    yield at_least(
        0,
        _interval(lost, looked_at=3),
        f"digits, change of {most}, which costs most of three: test accuracy that it costs with "
        "batch norm, less what it costs without, each network at its own best rate, 12 fresh seeds",
    )


@claim("sharad, Limitations", "fails")
def responds_less():
    """The reason for less robustness: with normalised activations a network may react less to
    changes of its inputs.
    """
    lost, moved = _excess("digits"), _excess("digits", "moved")
    worse = lost.change[lost.mean("seed") > 0].values.tolist()
    for change in worse:
        apart = moved.sel(change=change, drop=True)
        yield at_most(
            0,
            _interval(apart, looked_at=len(worse)),
            f"digits, change of {change}, which costs more accuracy with batch norm: how far it "
            "moves the scores, in their standard deviations, with batch norm less without, 12 fresh "
            "seeds",
        )


@claim("sharad, Limitations", "undecided")
def not_normal():
    """That a network responds less to changes can be a problem if its inputs are not normally
    distributed.
    """
    lost, moved = (
        {kind: _excess(kind, name) for kind in ("skewed", "normal")} for name in ("lost", "moved")
    )
    cost = sum(lost.values()).mean("seed")
    most = str(cost.change[cost.argmax("change")].item())
    apart = (lost["skewed"] - lost["normal"]).sel(change=most, drop=True)
    response = moved["skewed"].sel(change=most, drop=True)
    what = f"change of {most}, which costs most of three, batch norm less no batch norm"
    yield at_least(
        0,
        _interval(apart, looked_at=3),
        f"{what}: test accuracy that it costs for skewed inputs, less that for normal ones of the "
        "same mean and variance, 12 fresh seeds",
    )
    yield at_most(
        0,
        _interval(response, looked_at=3),
        f"{what}: how far it moves the scores for skewed inputs, in their standard deviations",
    )
