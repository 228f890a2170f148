"""What the literature says about the scales of features, and about batch norm in place of scaling."""

from functools import cache

import numpy as np
import xarray as xr
from sklearn.datasets import load_diabetes, load_linnerud

from bncore.chapters.mechanics.scaling import experiments, full_size
from bncore.chapters.mechanics.scaling.experiments import standardised, tables
from bncore.lab import recorded, studies
from bncore.mechanics import scaling, transform
from bncore.page.claims import at_least, at_most, claim, otherwise, under


@cache
def _record(name):
    """Fresh seeds of a recorded run, each arm at its own best rate."""
    return recorded.load(full_size.PATH)["full"][name]["fresh"]


def _lead(source, first, other):
    """How much more accurate a network is with its inputs scaled in one way than in the other."""
    last = _record("first")["last"].sel(source=source)
    return studies.difference(last.sel(first=first), last.sel(first=other), looked_at=7)


@claim("cs682slides, Feature Scaling", "holds")
def ranges_differ():
    """The features of raw training data often have very different ranges."""
    found = tables() | {"linnerud": load_linnerud().data}
    ratios = [np.ptp(X, axis=0).max() / np.ptp(X, axis=0).min() for X in found.values()]
    yield at_least(
        0.5,
        np.mean(np.array(ratios) >= 10),
        f"share of {len(found)} tables of scikit-learn, in the units in which they come, in which "
        "the widest feature has at least ten times the range of the narrowest",
    )


@claim("cs682slides, Feature Scaling", "holds")
def distance_governed():
    """If one feature has a much broader range than the others, that feature governs the Euclidean
    distance between two samples. (Much broader is read as a hundred times. At ten times a feature
    with a few far values may hold less than half.)
    """

    def least_share(X):
        X, shares = experiments.min_max(X), []
        for k in range(X.shape[1]):
            variances = (X * np.where(np.arange(X.shape[1]) == k, 100, 1)).var(axis=0)
            shares.append(variances[k] / variances.sum())
        return min(shares)

    yield from [
        at_least(
            0.5,
            least_share(X),
            f"{name}, min–max scaled: share of the mean squared distance of two samples that a "
            "feature holds once its range is 100 times that of the others, smallest over the features",
        )
        for name, X in _measured().items()
    ]
    wine = tables()["wine"].var(axis=0)
    yield at_least(
        0.5,
        wine[-1] / wine.sum(),
        "wine as it comes: the same share of proline, whose range is 15 times the next",
    )


def _measured():
    """Tables whose features all vary in any half of the rows."""
    return {name: X for name, X in tables().items() if name != "digits"}


@claim("cs682slides, Feature Scaling", "depends")
def distance_shares():
    """After normalisation each feature contributes approximately proportionately to the distance.
    (Read: about as much as any other.)
    """
    rng = np.random.default_rng(0)

    def spread(kind, X):
        shares = []
        for _ in range(20):
            first, second = np.array_split(rng.permutation(X), 2)
            variances = kind.fit(first).apply(second).var(axis=0)
            shares.append(variances / variances.sum())
        found = np.mean(shares, axis=0)
        return found.max() / found.min()

    what = (
        "{}: largest share of the mean squared distance over the smallest, on the other half of the "
        "rows than the scaling is fitted to, mean shares of 20 splits"
    )
    for heading, kind in (
        (under("standardised to variance 1"), scaling.Standardization),
        (otherwise("min–max scaled to $[0, 1]$"), scaling.MinMax),
    ):
        yield heading
        yield from [at_most(2, spread(kind, X), what.format(n)) for n, X in _measured().items()]


SCALINGS = {"standardised": standardised, "min–max scaled": experiments.min_max}


@cache
def _steps(name, how, level):
    X = tables()[name] if how == "raw" else SCALINGS[how](tables()[name])
    return experiments.fewest_steps(X, experiments.targets()[name], level)


def _speed_up(name, how, level):
    """How many times the steps gradient descent takes on the raw features of a table."""
    return _steps(name, "raw", level) / _steps(name, how, level)


@claim("cs682slides, Feature Scaling", "holds")
def descent_faster():
    """In general, gradient descent converges much faster with feature scaling than without. (Much: in
    a tenth of the steps. In general: on most tables.)
    """
    for how in SCALINGS:
        for level in (0.01, 0.001, 0.0001):
            faster = [_speed_up(name, how, level) >= 10 for name in tables()]
            yield at_least(
                0.5,
                np.mean(faster),
                f"share of {len(faster)} tables of scikit-learn on which least squares for their "
                f"targets takes ten times the steps or more raw than {how}, to {level:g} of the "
                "first excess loss, each with its own best step",
            )


@claim("cs682slides, Feature Scaling", "depends")
def learning_rate():
    """Normalisation ensures numerical stability, which lets one use higher learning rates. (Stable:
    gradient descent on least squares does not diverge. Normalised: to mean 0 and variance 1.)
    """

    def higher(X):
        return experiments.largest_step(standardised(X)) / experiments.largest_step(X)

    what = "{}: largest stable step $2/\\lambda_{{\\max}}$ after standardising over that before"
    yield under("the mean square of a feature, in its own units, exceeds the number of features")
    yield from [at_least(1.1, higher(X), what.format(name)) for name, X in _measured().items()]
    X, y = load_diabetes(return_X_y=True, scaled=False)
    step = 0.9 * experiments.largest_step(standardised(X))
    grows = (
        "diabetes: factor of the excess loss in 20 steps at nine tenths of the step that is stable "
        "after standardising"
    )
    yield at_most(1, experiments.growth(standardised(X), y, step), f"{grows}, standardised")
    yield at_least(10, experiments.growth(X, y, step), f"{grows}, raw")
    yield otherwise("the features are small, as those of scikit-learn's `load_diabetes()`")
    small = load_diabetes().data
    yield at_least(1.1, higher(small), what.format("diabetes, each column of length 1"))


@claim("cs682slides, Normalization Techniques", "depends")
def min_max_range():
    """$x_{new} = (x - x_{min}) / (x_{max} - x_{min})$ scales all numeric variables to the range
    $[0, 1]$.
    """
    X = np.random.default_rng(0).permutation(tables()["breast cancer"])
    train, test = X[:285], X[285:]
    fitted = scaling.MinMax.fit(train)

    def outside(Z):
        return np.maximum(-Z, Z - 1).max()

    what = "breast cancer: how far the farthest value lies outside the interval"
    yield under("on the data that gave the extremes")
    yield at_most(1e-12, outside(fitted.apply(train)), what)
    yield otherwise("on held-out data")
    yield at_most(1e-12, outside(fitted.apply(test)), what)


@claim("readingnotes, Tips for using batch normalization", "holds")
def raw_inputs_batch():
    """Batch norm could standardise raw inputs of differing scales; for that the batch must be
    representative of the range of each variable.
    """
    X = tables()["breast cancer"]
    rng = np.random.default_rng(0)
    ones, zeros = np.ones(X.shape[1]), np.zeros(X.shape[1])

    def error(order, count):
        total = 0.0
        wanted = standardised(X)
        for batch in np.array_split(order, count):
            x_hat, _ = transform.forward(X[batch], ones, zeros, eps=1e-12)
            total += np.square(x_hat - wanted[batch]).sum()
        return np.sqrt(total / X.size)

    what = "breast cancer in {}: root mean square distance from the standardised table"
    yield at_most(
        0.3,
        max(error(rng.permutation(len(X)), 4) for _ in range(10)),
        what.format("4 random batches") + ", largest of 10 shuffles",
    )
    for words, order, count in (
        ("142 random batches of about 4", rng.permutation(len(X)), 142),
        ("4 batches of rows sorted by the first feature", np.argsort(X[:, 0]), 4),
    ):
        yield at_least(0.3, error(order, count), what.format(words))


@claim("readingnotes, Tips for using batch normalization", "undecided")
def non_gaussian_first():
    """Highly non-Gaussian variables are better scaled beforehand than by batch norm during
    training.
    """
    what = (
        "test accuracy of a ReLU network after 1000 steps, {} beforehand less batch norm as the first "
        "layer, each at its own best rate, 8 fresh seeds: {}"
    )
    inputs = {
        "product": "log-normal features, classes by their product",
        "sum": "log-normal features, classes by their sum",
        "breast cancer": "breast cancer",
    }
    for first in ("z-score", "logarithm"):
        for source, words in inputs.items():
            yield at_least(0, _lead(source, first, "batch norm"), what.format(first, words))


@claim("sharad, Normalizing Input Data", "holds")
def performance():
    """A model can do better on normalised data."""
    yield at_least(
        0,
        _lead("breast cancer", "z-score", "nothing"),
        "breast cancer: test accuracy of a ReLU network after 1000 steps on standardised features, "
        "less that on raw ones, each at its own best rate, 8 fresh seeds",
    )


@cache
def _moved(trained):
    """How far hidden features have left the scale to which they were brought, 20 seeds."""
    moved = [experiments.scale_of_hidden(trained, seed) for seed in range(20)]
    return xr.DataArray(moved, {"seed": range(20)})


@claim("sharad, The need for BatchNorm", "depends")
def hidden_layers_alike():
    """Blank out the layers below, and the activations that reach a hidden layer are no different
    from original inputs: the same logic asks us to normalise them.
    """
    what = (
        "diabetes, one hidden layer of 8: largest distance from standard deviation 1 of held-out "
        "hidden features, by a scaling fitted before 300 training steps, median of 20 seeds"
    )
    yield under("the layers below stand still")
    yield at_most(0.2, _moved(False).median().item(), what)
    yield otherwise("they learn")
    yield at_most(0.2, _moved(True).median().item(), what)


@claim("encyclopaedia, Internal covariate shift", "holds")
def inputs_change():
    """When the parameters of earlier layers change during training, the distribution of the inputs of
    a later layer changes with them.
    """
    yield at_least(
        0,
        studies.difference(_moved(True), _moved(False), looked_at=1),
        "diabetes, one hidden layer of 8: largest distance from standard deviation 1 of held-out "
        "hidden features, scaled before 300 training steps, where the layer below learns, less that "
        "where it stands still, 20 seeds",
    )


@claim("sharad, Normalizing Input Data", "holds")
def same_scale():
    """Normalising sets the mean of each feature to 0 and its variance to 1, so that all features
    are on the same scale. (On one scale: no standard deviation is twice another, on other rows than
    those that gave means and variances.)
    """
    rng = np.random.default_rng(0)
    for name, X in _measured().items():
        ratios = []
        for _ in range(20):
            first, second = np.array_split(rng.permutation(X), 2)
            fitted = scaling.Standardization.fit(first)
            deviations = fitted.apply(second).std(axis=0)
            ratios.append(deviations.max() / deviations.min())
        yield at_most(
            2,
            np.mean(ratios),
            f"{name}: largest standard deviation of a feature over the smallest, on the half of the "
            f"rows that did not give means and variances, mean of 20 splits (raw: "
            f"{X.std(axis=0).max() / X.std(axis=0).min():.2g})",
        )
    errors = []
    for X in _measured().values():
        Z = standardised(X)
        errors.append(max(np.abs(Z.mean(axis=0)).max(), np.abs(Z.var(axis=0) - 1).max()))
    yield at_most(
        1e-10,
        max(errors),
        "largest distance from mean 0 and variance 1, on the rows that gave them",
    )


@claim("sharad, Normalizing Input Data", "fails")
def centring_equal_scale():
    """That values are centred on zero ensures that all features are on one scale. (Of centring
    alone, which is what the sentence names.)
    """
    for name in ("diabetes", "breast cancer"):
        X = tables()[name]
        deviations = (X - X.mean(axis=0)).std(axis=0)
        yield at_most(
            2,
            deviations.max() / deviations.min(),
            f"{name}: largest standard deviation of a feature over the smallest, each centred on 0",
        )
