"""What the literature says about networks trained and used with batch norm's statistics."""

import copy
from functools import cache

import numpy as np
import torch

from bncore.chapters.mechanics.inference import full_size
from bncore.lab import data, networks, recorded, studies, training
from bncore.lab.inference import accuracy, refitted
from bncore.lab.modes import evaluation
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
def _record(*names):
    """Fresh seeds of a recorded run, each arm at its own best rate."""
    found = recorded.load(full_size.PATH)["full"]
    for name in names:
        found = found[name]
    return found["fresh"]


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
    """Once a network is used, nothing is gained by outputs that depend on a mini-batch. (Nothing: less
    than one digit of the test set.)
    """
    gain = _record("use", "in_company").gain.sel(kind="digits")
    cells, one_digit = gain.contrast.size * gain.batch_size.size, 1 / len(_digits().x_test)
    for heading, contrast, words in (
        (under("the test data are distributed like the training data"), 1.0, "digits"),
        (otherwise("they are not"), 0.3, "digits with 30 % of the contrast"),
    ):
        yield heading
        for m in gain.batch_size.values:
            yield at_most(
                one_digit,
                _interval(gain.sel(contrast=contrast, batch_size=m), looked_at=cells),
                f"{words}, test batches of {m}: accuracy with their statistics, minus accuracy with the "
                "saved ones, 30 fresh seeds, at the best rate",
            )


@claim("encyclopaedia, Inference", "holds")
def deterministic():
    """With population statistics the output depends on the input in a deterministic manner, and
    not on the mini-batch.
    """
    model, pool = _trained(0.1), _digits().x_test

    def spread(statistics):
        with evaluation(model, statistics):
            scores = [scores_of(model, i, draws=20) for i in range(30)]
        return np.std(scores, axis=1).mean() / np.std(scores)

    def scores_of(model, i, draws):
        rng = np.random.default_rng(i)
        others = [rng.choice(len(pool), 31, replace=False) for _ in range(draws)]
        return [model(pool[[i, *company]])[0].numpy() for company in others]

    what = (
        "standard deviation of the scores of one digit over 20 batches of 32 in which it comes, as a "
        "share of that of all scores, mean of 30 digits"
    )
    yield at_most(
        1e-5, spread("running"), f"{what}, saved statistics (rounding: about $10^{{-7}}$)"
    )
    yield at_least(1e-2, spread("batch"), f"{what}, the batch's statistics")


@claim("encyclopaedia, Inference", "depends", lost=True)
def population_mean():
    r"""The population mean of a feature is the average of the means of its mini-batches, all of size
    $m$, $\mathrm{E}[x] = \mathrm{E}_B[\mu_B]$.
    """
    split, seen, rng = _digits(), {}, np.random.default_rng(0)
    model = refitted(_trained(0.1), split.x_train)
    for name in ("norm1", "norm2"):
        layer = getattr(model, name)
        layer.register_forward_pre_hook(lambda _, x, name=name: seen.update({name: x[0]}))

    def means(x, statistics):
        with evaluation(model, statistics):
            model(x)
        return {name: values.mean(0).double().numpy() for name, values in seen.items()}

    population = means(split.x_train, "running")
    drawn = [split.x_train[rng.integers(len(split.x_train), size=8)] for _ in range(2000)]
    found = [means(batch, "batch") for batch in drawn]

    def error(name):
        batches = np.array([one[name] for one in found])
        standard = batches.std(axis=0, ddof=1) / len(batches) ** 0.5
        varies = standard > 0
        apart = (batches.mean(axis=0) - population[name])[varies] / standard[varies]
        return np.square(apart).mean()

    what = (
        "mean square of the distance of the average mean of 2000 random batches of 8 digits from the "
        "mean at inference, in standard errors, 64 features (1 where the formula is right)"
    )
    yield under("no layer below normalises by mini-batches, as below the first batch norm")
    yield at_most(2, error("norm1"), f"{what}, first batch norm")
    yield otherwise("layers below do")
    yield at_most(2, error("norm2"), f"{what}, second batch norm")


@claim("sharad, Batch Norm during Inference", "holds")
def single_sample():
    """At inference there is a single sample and not a mini-batch, and in this case the saved moving
    averages have to come in. (Or else it is normalised by its own statistics.)
    """
    found = _record("use", "alone")
    for kind in found.kind.values:
        kept, own = (found[name].sel(kind=kind) for name in ("kept", "own"))
        values = {
            "convolutional": "which has one value of a feature at each of 64 pixels",
            "fully connected": "which has one value of a feature",
        }
        yield at_least(
            0,
            studies.difference(kept, own, looked_at=found.kind.size),
            f"{kind} network: test accuracy on single digits with the saved moving averages, less that "
            f"with the statistics of the one digit, {values[kind]}, at the best rate, 12 fresh seeds",
        )


@claim("readingnotes, Improvement", "depends")
def renormalization():
    """Batch renormalization's correction for each feature ensures that the activations of training and
    inference match. (Match: to a twentieth of their spread.)
    """
    found = _record("use", "mismatch").mismatch

    def apart(normalization, m):
        one = found.sel(normalization=normalization, batch_size=m)
        return _interval(one, looked_at=5)

    what = (
        "root mean square distance of a network's scores in training from those at inference, over "
        "their standard deviation, digits, batches of {}, at the best rate, 8 fresh seeds"
    )
    yield under("corrections seldom reach their limits, as with batches of 8 or 32")
    for m in (8, 32):
        yield at_least(0.05, apart("batch", m), f"{what.format(m)}: batch norm")
        yield at_most(0.05, apart("renorm", m), f"{what.format(m)}: batch renorm")
    yield otherwise("they often do, as with batches of 2")
    yield at_most(0.05, apart("renorm", 2), f"{what.format(2)}: batch renorm")


@claim("ioffe2015, Section 3.1", "holds")
def track_accuracy():
    """With moving averages one can track the accuracy of a model as it trains."""
    split = _digits()

    def error(steps, seed):
        model = _trained(0.1, steps, seed)
        fitted = refitted(model, split.x_train)
        exact, moving = (accuracy(one, split.x_test, split.y_test) for one in (fitted, model))
        return abs(moving - exact) / (exact * (1 - exact) / len(split.x_test)) ** 0.5

    yield at_most(
        2,
        max(error(steps, seed) for steps in (50, 100, 200) for seed in range(3)),
        "digits: largest difference of the test accuracy with moving averages from that with exact "
        "statistics, in standard errors of an accuracy on 449 test digits, after 50, 100 and 200 "
        "steps (in earlier ones the averages' start still weighs), momentum 0.1, three seeds",
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
