"""What the literature says about the noise of batch norm."""

from itertools import product

import numpy as np
import torch
import xarray as xr
from scipy import stats

from bncore.chapters.explanations.noise import experiments, overfitting, scatter
from bncore.explanations import variance_shift
from bncore.lab import data, networks, probes, training
from bncore.lab.studies import difference
from bncore.page.claims import at_least, at_most, claim, otherwise, under


@claim("cs682slides, Other benefits in practice", "fails")
def memorizing():
    """With batch norm a network can no longer simply memorise values together with their correct
    answers, as each normalised value depends on the batch it is in.
    """
    split = data.digits(test_fraction=0.85)
    labels = torch.randint(10, split.y_train.shape, generator=torch.Generator().manual_seed(0))
    shuffled = split._replace(y_train=labels)
    model = networks.mlp((64, 128, 128, 10), "relu", "batch")
    training.train(model, shuffled, 700, batch_size=16)
    with probes.evaluation(model):
        right = (model(split.x_train).argmax(1) == labels).double().mean().item()
    yield at_most(
        0.5,
        right,
        f"fraction of {len(labels)} random labels that a network learns by heart in batches of 16",
    )


@claim("readingnotes, Tips for using batch normalization, 6", "holds")
def larger_batch():
    """The larger the batch, the less noise it has, because its mean and variance are nearer to those
    of the whole data set.
    """
    sizes, draws, rng = (4, 8, 16, 32, 64, 128), 2000, np.random.default_rng(0)
    changes_of = {"mean": [], "variance": [], "normalised values": []}
    for values in scatter.populations().values():
        z = (values - values.mean()) / values.std()
        batches = rng.permuted(np.tile(z, (draws, 1)), axis=1)
        noises = {name: [] for name in changes_of}
        for m in sizes:
            batch = batches[:, :m]
            mean, variance = batch.mean(axis=1), batch.var(axis=1)
            normalised = (batch - mean[:, None]) / np.sqrt(variance)[:, None]
            noises["mean"].append((mean**2).mean())
            noises["variance"].append(((variance - 1) ** 2).mean())
            noises["normalised values"].append(((normalised - batch) ** 2).mean())
        for name, found in noises.items():
            changes_of[name].append(np.diff(np.log(found)).max())
    for name, changes in changes_of.items():
        yield at_most(
            0,
            max(changes),
            f"noise of the {name}, their mean square distance from what the whole data set gives: "
            "largest change of its logarithm when the batch doubles, from 4 to 128, normal, "
            "heavy-tailed and digit values",
        )


@claim("luo2019, Section 2", "depends")
def law_of_the_deviation():
    r"""The standard deviation of a batch of $M$ values is $\sigma_B\sim
    N(\sigma_P,\frac{\rho+2}{4M})$, with $\rho$ the kurtosis. (Read: for large $M$, and $\rho$ in excess
    of a normal distribution's.)
    """
    rng, m, draws = np.random.default_rng(0), 1600, 4000
    kurtoses = {
        0.0: rng.normal(size=(draws, m)),
        -1.2: rng.uniform(-(3**0.5), 3**0.5, size=(draws, m)),
        3.0: rng.laplace(scale=0.5**0.5, size=(draws, m)),
    }
    deviations = {kurtosis: values.std(axis=1) for kurtosis, values in kurtoses.items()}

    def apart(deviation, factor=1.0, name="the law"):
        found = []
        for kurtosis, drawn in deviations.items():
            law = stats.norm(deviation, np.sqrt(factor * (kurtosis + 2) / (4 * m)))
            found.append(stats.kstest(deviation * drawn, law.cdf).statistic)
        return at_most(
            0.05,
            max(found),
            f"largest difference of the distribution of $\\sigma_B$ in {draws} batches of {m} from "
            f"{name}, normal, uniform and Laplace values with $\\sigma_P={deviation}$",
        )

    yield under("$\\sigma_P=1$")
    yield apart(1)
    yield otherwise("it is not: the law's variance lacks the factor $\\sigma_P^2$")
    yield apart(3)
    yield apart(0.3)
    yield apart(3, 9.0, "the law with that factor")


@claim("li2019, Section 3, dropout before batch norm", "holds")
def direct_shift():
    r"""For a value of mean $c$ and variance $v$ with dropout right before batch norm, the variance
    at test over that in training is $\frac{v}{\frac1p(c^2+v)-c^2}$.
    """
    rng, worst = np.random.default_rng(0), 0.0
    masks = np.array(list(product((0, 1), repeat=6)))
    for _ in range(200):
        keep, x = rng.uniform(0.1, 1), rng.normal(rng.normal(), np.exp(rng.normal()), size=6)
        c, v = x.mean(), x.var()
        kept = masks.sum(axis=1)
        chance = keep**kept * (1 - keep) ** (6 - kept)
        values = masks * x / keep
        mean = (chance @ values).mean()
        training = (chance @ (values - mean) ** 2).mean()
        printed = v / ((c**2 + v) / keep - c**2)
        worst = max(worst, abs(printed * training / v - 1))
    yield at_most(
        1e-11,
        worst,
        "largest relative difference from the ratio over all 64 masks of dropout, 200 random "
        "sets of six values",
    )


@claim("li2019, abstract", "depends")
def wide_layers():
    """A large feature dimension reduces the variance shift. (Read: a width of 1024 by a tenth or more,
    against one of 16.)
    """
    rng = np.random.default_rng(0)

    def ratio(mean):
        found = []
        for d in (16, 1024):
            covariance = np.full((d, d), 0.2) + 0.8 * np.eye(d)
            units = [mean + rng.normal(size=d) for _ in range(40)]
            found.append(
                np.mean(
                    [
                        variance_shift.behind_weights(0.5, w, np.full(d, 0.5), covariance)
                        for w in units
                    ]
                )
            )
        return found[1] / found[0]

    what = (
        "ratio of the variances at width 1024 over that at width 16, inputs with correlation 0.2, "
        "$p=0.5$, mean of 40 units"
    )
    yield under("inputs are correlated and the weights of a unit have a common sign on average")
    yield at_least(1.1, ratio(1.0), what)
    yield otherwise("weights are of either sign alike, as they are drawn before training")
    yield at_least(1.1, ratio(0.0), what)


@claim("teye2018, abstract", "fails")
def posterior():
    """Training with batch norm is approximate inference in a Bayesian model. (Read: for the mean and
    the variance of a unit, the spread over batches of training is the uncertainty that the training
    data leave, within a factor of two.)
    """

    def sampled(count, m, z=1.0, draws=20_000):
        rng = np.random.default_rng(0)
        values = stats.norm.ppf((np.arange(count) + 0.5) / count)
        values = (values - values.mean()) / values.std()
        spread = (
            z * np.sqrt(rng.chisquare(count - 1, size=draws) / count)
            - rng.normal(size=draws) / count**0.5
        ).var()
        batches = rng.permuted(np.tile(values, (draws, 1)), axis=1)[:, :m]
        over = ((z - batches.mean(axis=1)) / batches.std(axis=1)).var() / spread
        return max(over, 1 / over)

    what = (
        "variance of a normalised value over batches of 10 from {} normal values, over that of the "
        "posterior of mean and variance, or that over this"
    )
    yield at_most(2, sampled(100, 10), what.format(100))
    yield at_most(2, sampled(200, 10), what.format(200))


CLEAN, NOISY = 0.0, 0.3
PLACES = ("after the last one", "before batch norms")
OVER_SEEDS = f"median and its interval over 16 fresh seeds, for {overfitting.LOOKED_AT} comparisons"


def _gained(level, *networks, **less):
    """Points of test accuracy in the recorded study: median over its fresh seeds, and interval."""
    fresh = experiments.record()["full"]["overfitting"]["fresh"]
    return overfitting.gained(fresh, level, *networks, **less)


def _listed(intervals):
    return ", ".join(f"{x.median:.1f} ({x.low:.1f} to {x.high:.1f})" for x in intervals)


def _points(first, second):
    return (
        f"test accuracy, in percentage points, of {first} over {second}, each at its best rate and "
        f"strength after 600 steps; {OVER_SEEDS}"
    )


@claim("encyclopaedia, Internal covariate shift", "undecided")
def generalizes():
    """Batch normalization seems to regularise, such that the network generalises better."""
    what = _points("batch norm", "no batch norm")
    for level, digits in ((CLEAN, "digits"), (NOISY, "noisy digits")):
        yield at_least(0, _gained(level, "whole batch", "no batch norm"), f"{what}, {digits}")


@claim("ioffe2015, Section 3.4", "fails")
def regularizes():
    """In training an example is seen together with the others of its batch, and the network no
    longer gives it a deterministic value. In experiments this is found advantageous to
    generalisation. (Judged: the second sentence, by more of this noise than a whole batch of 128 has.)
    """
    what = _points("six kinds of noise in the statistics, on average,", "the whole batch of 128")
    for level, digits in ((CLEAN, "digits"), (NOISY, "noisy digits")):
        yield at_least(0, _gained(level, overfitting.KINDS), f"{what}, {digits}")


@claim("readingnotes, Tips for using batch normalization, 6", "fails")
def slight_regularization():
    """The noise of the batch statistics causes a slight regularisation, which is reduced as the batch
    grows.
    """
    for level, digits in ((CLEAN, "digits"), (NOISY, "noisy digits")):
        for size in (8, 16, 32, 64):
            what = _points(f"ghost batches of {size}", "the whole batch of 128")
            yield at_least(0, _gained(level, f"ghost {size}"), f"{what}, {digits}")
        what = _points("ghost batches of 8", "ghost batches of 64")
        yield at_least(0, _gained(level, "ghost 8", "ghost 64"), f"{what}, {digits}")


@claim("hoffer2017, abstract", "undecided")
def ghost_batches():
    """Statistics over small ghost batches make possible that a large batch generalises better without
    more updates.
    """
    found = [_gained(level, ghost) for ghost in overfitting.GHOSTS for level in (CLEAN, NOISY)]
    what = _points("ghost batches", "the whole batch of 128")
    yield at_least(
        0,
        tuple(np.max(found, axis=0)),
        f"{what}: the largest of eight, of groups of 8, 16, 32 and 64 on digits and noisy digits: "
        f"{_listed(found)}",
    )


@claim("encyclopaedia, Internal covariate shift", "undecided")
def without_dropout():
    """Batch normalization regularises, so that it is unnecessary to use dropout to mitigate
    overfitting.
    """
    what = _points("batch norm with dropout behind the last one", "batch norm alone")
    for level, digits in ((CLEAN, "digits"), (NOISY, "noisy digits")):
        yield at_most(0, _added("dropout", level, "whole batch"), f"{what}, {digits}")


@claim("cs682slides, Other benefits in practice", "undecided")
def less_demand():
    """Batch norm lowers the demand for regularisation, such as dropout or an L2 penalty."""
    for how, of in (("dropout", "dropout"), ("L2", "an L2 penalty")):
        for level, digits in ((CLEAN, "digits"), (NOISY, "noisy digits")):
            yield at_most(
                0,
                _added(how, level, "whole batch", less="no batch norm"),
                f"test accuracy, in percentage points, that {of} adds with batch norm, less what it "
                f"adds without, {digits}, all at their best rates and strengths; {OVER_SEEDS}",
            )


def _added(how, level, network, less=None):
    """What a regulariser adds to a network, less what it adds to another."""
    other = (f"{less}, {how}", less) if less else ()
    return _gained(level, f"{network}, {how}", network, less=other)


@claim("sharad, Advantages", "undecided")
def can_reduce_regularization():
    """Batch norm can reduce the need for regularisation by dropout or an L2 penalty. (Read: in one of
    the cases tried, or more.)
    """
    added = [
        _added(how, level, "whole batch", less="no batch norm")
        for how in ("dropout", "L2")
        for level in (CLEAN, NOISY)
    ]
    yield at_most(
        0,
        tuple(np.min(added, axis=0)),
        "test accuracy, in percentage points, that a regulariser adds with batch norm, less what it "
        "adds without: the least of dropout on digits and noisy digits and an L2 penalty on both; "
        f"{OVER_SEEDS}: {_listed(added)}",
    )


@claim("sharad, Advantages", "fails")
def replaces_regularization():
    """Batch norm replaces regularisation because it stabilises training, which makes overfitting
    less likely.
    """
    for how, of in (("dropout", "dropout"), ("L2", "an L2 penalty")):
        what, network = _points("batch norm", f"no batch norm with {of}"), f"no batch norm, {how}"
        for level, digits in ((CLEAN, "digits"), (NOISY, "noisy digits")):
            yield at_least(0, _gained(level, "whole batch", network), f"{what}, {digits}")


@claim("readingnotes, Tips for using batch normalization, 6", "holds")
def masks():
    """Random dropout may make the normalisation noisy."""
    split = experiments.digits(0)
    model = networks.mlp(experiments.WIDTHS, "relu", "batch")
    inputs = probes.inputs_of(model, ["linear2"], split.x_train, "batch")["linear2"]
    weight = model.linear2.weight.detach().numpy()
    drawn = scatter.noise_of_masks(inputs, weight, 0.5, 16)
    company = scatter.share_of_noise((inputs @ weight.T)[:, :, None], 16, 200, 20)
    yield at_least(
        0.1,
        drawn / company,
        "variance of a normalised value over masks of dropout, p = 0.5, on the rest of its batch of "
        "16, over its variance if the rest of the batch is drawn anew without dropout",
    )


@claim("li2019, Section 5, dropout after all batch norms", "undecided")
def dropout_last():
    """Dropout behind the last batch norm causes no variance shift and does no harm. (No shift is read
    as less than a tenth of that of the same dropout before batch norms.)
    """
    ratio = experiments.record()["full"]["dropout"]["ratio"]
    ratio = ratio.where(ratio.keep < 1, drop=True)
    behind, before = (abs(np.log(ratio.sel(place=place)).mean("seed")) for place in PLACES)
    yield at_most(
        0.1,
        (behind / before).max().item(),
        "shift of the variance without dropout from the running one, dropout behind the last batch "
        "norm over dropout before batch norms, mean over features and eight seeds: largest of seven "
        "keep probabilities (recorded run)",
    )
    what = _points("batch norm with dropout behind the last one", "batch norm alone")
    for level, digits in ((CLEAN, "digits"), (NOISY, "noisy digits")):
        yield at_least(0, _added("dropout", level, "whole batch"), f"{what}, {digits}")


@claim("hendrycks2016, abstract", "undecided")
def refitting():
    """After training with dropout, updating the variances of batch norm with dropout off gives
    higher accuracy.
    """
    fresh = experiments.record()["full"]["refitting"]["fresh"]
    for level, digits in ((CLEAN, "digits"), (NOISY, "noisy digits")):
        found = 100 * fresh.sel(pixel_noise=level, drop=True)
        yield at_least(
            0,
            difference(found["fitted accuracy"], found["accuracy"], looked_at=2),
            "test accuracy gained, in percentage points, with dropout before batch norms that keeps "
            f"half, at its best rate, {digits}; interval over 16 fresh seeds, for two data sets",
        )


def _apart(first, second, looked_at):
    """Mean difference over the seeds with its interval, allowing for all that were looked at."""
    over_seeds = [
        xr.DataArray(values, [("seed", range(len(values)))]) for values in (first, second)
    ]
    return difference(*over_seeds, looked_at=looked_at)


@claim("teye2018, abstract", "depends")
def sampled_batches():
    """Without a change of network or training, sampled batches give estimates of uncertainty that
    are better than those of the network with running statistics.
    """
    results = experiments.record()["full"]["sampling"]

    def excess(level):
        numbers = results[level]["numbers"]
        return at_most(
            0,
            _apart(numbers["sampled 32"][:, 0, 1], numbers["running"][:, 0, 1], 12),
            "negative log-likelihood of the test set with sampled batches of 32, the size in "
            "training, less that with running statistics; interval over eight networks, for six sizes "
            "and two data sets",
        )

    hottest = "temperature that fits the outputs of the network with running statistics best, {}"
    yield under("the network is too sure of itself, as on digits with noise on every pixel")
    yield at_least(1, np.min(results["0.3"]["temperature"]), hottest.format("least of eight"))
    yield excess("0.3")
    yield otherwise("it is too cautious already, as on the digits as they are")
    yield at_most(1, np.max(results["0.0"]["temperature"]), hottest.format("largest of eight"))
    yield excess("0.0")
