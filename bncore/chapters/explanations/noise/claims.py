"""What the literature says about the noise of batch norm."""

from itertools import product

import numpy as np
import torch
from scipy import stats

from bncore.chapters.explanations.noise import experiments
from bncore.explanations import noise, variance_shift
from bncore.lab import data, networks, probes, training
from bncore.page.claims import at_least, at_most, claim, otherwise, under


@claim("cs682slides, Other benefits in practice", "fails")
def memorizing():
    """Every normalised value depends on the current batch, so that the network can no longer just
    memorise values and their correct answers.
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


@claim("readingnotes, Tips for using batch normalization, 6", "depends")
def larger_batch():
    """The larger the batch, the less noise the values within it have."""
    sizes = (4, 8, 16, 32, 64, 128)

    def change(z, sizes):
        return np.diff(np.log([noise.GaussianOutput(z, m).moments()[1] for m in sizes])).max()

    yield under("the example lies within one standard deviation of the mean")
    yield at_most(
        0,
        max(change(z, sizes) for z in (0.0, 0.5, 1.0)),
        "largest change of the logarithm of its output's variance when the batch "
        "doubles, from 4 to 128, normal company, $z=0$, 0.5 and 1",
    )
    yield otherwise(
        "it lies further out: in a small batch its output saturates below $\\sqrt{m-1}$"
    )
    yield at_most(0, change(2.0, (4, 8)), "the same from 4 to 8, $z=2$")


@claim("luo2019, Section 2", "depends")
def law_of_the_deviation():
    r"""The standard deviation of a batch of $M$ values is $\sigma_B\sim
    N(\sigma_P,\frac{\rho+2}{4M})$, with $\rho$ the kurtosis.
    """
    rng, m, draws = np.random.default_rng(0), 200, 10_000
    laws = {
        "normal": (lambda size: rng.normal(size=size), 0.0),
        "uniform": (lambda size: rng.uniform(-(3**0.5), 3**0.5, size=size), -1.2),
        "Laplace": (lambda size: rng.laplace(scale=0.5**0.5, size=size), 3.0),
    }
    excess, plain, scaled = [], [], []
    for draw, kurtosis in laws.values():
        measured = 4 * m * draw((draws, m)).std(axis=1).var()
        excess.append(abs(measured / (kurtosis + 2) - 1))
        plain.append(abs(measured / (kurtosis + 3 + 2) - 1))
        scaled.append(abs(9 * measured / (kurtosis + 2) - 1))
    what = (
        "largest relative error of the variance of $\\sigma_B$, normal, uniform and Laplace values"
    )
    yield under(
        "the values have variance 1 and $\\rho$ is the excess over the kurtosis of a normal "
        "distribution"
    )
    yield at_most(0.1, max(excess), f"{what}, batches of {m}")
    yield otherwise(
        "$\\rho$ is the fourth moment of standardised values, or the variance is $\\sigma_P^2$, "
        "which then belongs in front"
    )
    yield at_most(0.1, max(plain), f"{what}, the fourth moment")
    yield at_most(0.1, max(scaled), f"{what}, variance 9")


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
    """A large feature dimension reduces the variance shift."""
    rng = np.random.default_rng(0)

    def ratios(weights, correlation):
        found = []
        for d in (16, 64, 256, 1024):
            covariance = np.full((d, d), correlation) + (1 - correlation) * np.eye(d)
            found.append(
                np.mean(
                    [
                        variance_shift.behind_weights(0.5, weights(d), np.full(d, 0.5), covariance)
                        for _ in range(10)
                    ]
                )
            )
        return np.array(found)

    aligned = ratios(lambda d: 1 + rng.normal(size=d), 0.2)
    independent = ratios(lambda d: 1 + rng.normal(size=d), 0.0)
    centred = ratios(lambda d: (w := rng.normal(size=d)) - w.mean(), 0.2)
    what = "ratio of the variances at width 1024 over that at width 16, $p=0.5$, mean of ten units"
    yield under("the inputs are correlated and the weights have a common sign on average")
    yield at_least(1.1, aligned[-1] / aligned[0], what)
    yield otherwise("the inputs are independent, or the weights of a unit sum to zero")
    yield at_least(1.1, independent[-1] / independent[0], f"{what}, independent")
    yield at_least(1.1, centred[-1] / centred[0], f"{what}, sum zero")


@claim("teye2018, abstract", "depends")
def posterior():
    """Training with batch norm is approximate inference in a Bayesian model, so that the spread
    over sampled batches is the uncertainty which the training data leave.
    """
    count, z, draws, rng = 100, 1.0, 20_000, np.random.default_rng(0)
    values = stats.norm.ppf((np.arange(count) + 0.5) / count)
    values = (values - values.mean()) / values.std()
    spread = (
        z * np.sqrt(rng.chisquare(count - 1, size=draws) / count)
        - rng.normal(size=draws) / count**0.5
    ).var()

    def sampled(m):
        batches = rng.permuted(np.tile(values, (draws, 1)), axis=1)[:, :m]
        return ((z - batches.mean(axis=1)) / batches.std(axis=1)).var() / spread

    what = (
        "variance of a normalised value over batches from 100 normal values, over that of the "
        "posterior of mean and variance: how far from 1"
    )
    yield under("batches hold half of the training set, drawn without replacement")
    yield at_most(0.15, abs(sampled(50) - 1), f"{what}, batches of 50")
    yield otherwise("the batch is that of training, whatever the size of the training set")
    yield at_most(0.15, abs(sampled(10) - 1), f"{what}, batches of 10")


@claim("ioffe2015, Section 3.4", "depends")
def regularizes():
    """In training an example is seen together with the others of its batch, and the network no
    longer gives it a deterministic value. This is advantageous to generalisation.
    """
    runs = experiments.record()["full"]["noise"]

    def gain(level, arm, base="whole batch"):
        mean, error = experiments.paired(runs[level], arm, "test accuracy", base)
        return 100 * (mean - 2 * error)

    what = "test accuracy gained, in percentage points, less two standard errors, eight seeds:"
    yield under(
        "the digits as they are, and groups of 32 or 64 examples (for groups of 8 and 16 of "
        "these digits, eight seeds do not decide)"
    )
    yield from [
        at_least(0, gain("0.0", f"ghost {m}"), f"{what} groups of {m} over the whole batch of 128")
        for m in (32, 64)
    ]
    yield otherwise("digits with noise on every pixel")
    yield at_least(0, gain("0.3", "ghost 32"), f"{what} groups of 32 over the whole batch of 128")
    yield at_least(
        0,
        gain("0.3", "batch of 16", "batch of 16, quiet"),
        f"{what} gradients of 16, with their own statistics over those of 128",
    )


@claim("hoffer2017, abstract", "depends")
def ghost_batches():
    """Statistics over small ghost batches decrease the generalisation error of a large batch
    without more updates.
    """
    runs = experiments.record()["full"]["noise"]

    def excess(level):
        return max(
            experiments.paired(runs[level], f"ghost {m}", "test loss")[0] for m in (16, 32, 64)
        )

    what = (
        "test loss of ghost batches less that of the whole batch of 128, after 600 steps: the largest "
        "of sizes 16, 32 and 64, mean of eight seeds"
    )
    yield under("the digits as they are")
    yield at_most(0, excess("0.0"), what)
    yield otherwise("digits with noise on every pixel, which ghost batches overfit sooner")
    yield at_most(0, excess("0.3"), what)


@claim("encyclopaedia, Internal covariate shift", "fails")
def without_dropout():
    """Batch normalization regularises, so that it is unnecessary to use dropout to mitigate
    overfitting.
    """
    results = experiments.record()["full"]["dropout"]
    cases = [values for name, values in results.items() if name.startswith("after")]
    apart = np.mean(cases, axis=0) - results["none"]
    error = apart.std(axis=0, ddof=1) / np.sqrt(len(apart))
    yield at_most(
        0,
        100 * (apart.mean(axis=0) - 2 * error)[0],
        "test accuracy that dropout behind the last batch norm adds to batch norm, in "
        "percentage points: mean over seven keep probabilities together and eight seeds, less "
        "two standard errors; for most of the seven alone, eight seeds do not decide",
    )


@claim("li2019, Section 5, dropout after all batch norms", "holds")
def dropout_last():
    """Dropout behind the last batch norm causes no variance shift and does no harm."""
    results = experiments.record()["full"]["dropout"]
    cases = [values for name, values in results.items() if name.startswith("after")]
    ratios = np.concatenate([values[:, 4] for values in cases])
    harm = max((values - results["none"])[:, 1].mean() for values in cases)
    yield at_most(
        0.02,
        np.abs(ratios - 1).max(),
        "largest distance from 1 of the variance without dropout over the running variance, "
        "mean over features, seven keep probabilities and eight seeds",
    )
    yield at_most(
        0,
        harm,
        "test loss less that without dropout: the largest of seven keep probabilities, mean "
        "of eight seeds",
    )


@claim("hendrycks2016, abstract", "depends")
def refitting():
    """After training with dropout, updating the variances of batch norm with dropout off gives
    higher accuracy.
    """
    results = experiments.record()["full"]["dropout"]

    def gain(*keeps):
        cases = np.mean([results[f"before batch norms, {p}"] for p in keeps], axis=0)
        apart = 100 * (cases[:, 2] - cases[:, 0])
        return apart.mean(), apart.mean() - 2 * apart.std(ddof=1) / np.sqrt(len(apart))

    what = "test accuracy gained, in percentage points, mean of eight seeds"
    yield under("moderate dropout: the mean over the keep probabilities 0.5, 0.6, 0.7 and 0.8")
    yield at_least(0, gain(0.8, 0.7, 0.6, 0.5)[1], f"{what}, less two standard errors")
    yield otherwise(
        "so much dropout that the network hardly learns: $p=0.3$, where eight seeds show no gain"
    )
    yield at_least(0, gain(0.3)[0], what)
    yield at_least(0, gain(0.3)[1], f"{what}, less two standard errors")


@claim("teye2018, abstract", "depends")
def sampled_batches():
    """Without a change of network or training, sampled batches give estimates of uncertainty that
    are better than those of the network with running statistics.
    """
    results = experiments.record()["full"]["sampling"]

    def excess(level):
        numbers = results[level]["numbers"]
        apart = (numbers["sampled 32"] - numbers["running"])[:, 0, 1]
        return apart.mean() + 2 * apart.std(ddof=1) / np.sqrt(len(apart))

    what = (
        "negative log-likelihood of the test set with sampled batches of 32, the size in training, "
        "less that with running statistics: mean of eight networks, plus two standard errors"
    )
    yield under("the network is too sure: digits with noise on every pixel")
    yield at_most(0, excess("0.3"), what)
    yield otherwise("it is too cautious already: the digits as they are")
    yield at_most(0, excess("0.0"), what)
