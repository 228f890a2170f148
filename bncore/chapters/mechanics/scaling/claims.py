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
    return studies.difference(
        last.sel(first=first), last.sel(first=other), looked_at=full_size.LOOKED_AT
    )


@claim("cs682slides, Feature Scaling", "holds")
def ranges_differ():
    """The features of raw training data often have very different ranges. (Very different: one at least
    ten times another. Often: in half or more of the tables at hand, all those of scikit-learn.)
    """
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
    """In general, gradient descent converges much faster with feature scaling than without. (Converges:
    to a hundredth of the first excess loss or less; of the first nine tenths, most tables gain little.
    Much: in a tenth of the steps. In general: on most of the tables at hand.)
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


def _batches():
    """A hundred random batches of rows of each table, without the features that are constant there."""
    rng = np.random.default_rng(0)
    for X in tables().values():
        for _ in range(100):
            batch = rng.permutation(X)[: rng.integers(2, len(X) + 1)]
            yield batch[:, np.ptp(batch, axis=0) > 0]


OF_BATCHES = "500 random batches of 2 rows or more of five tables, constant features left out"


@claim("cs682slides, Normalization Techniques", "holds")
def min_max_range():
    """$x_{new} = (x - x_{min}) / (x_{max} - x_{min})$ scales all numeric variables to the range
    $[0, 1]$. (Of the data that give the extremes, if no variable is constant there. Held-out values may
    lie outside.)
    """
    outside, short = 0.0, 0.0
    for batch in _batches():
        scaled = scaling.MinMax.fit(batch).apply(batch)
        low, high = scaled.min(axis=0), scaled.max(axis=0)
        outside = max(outside, (-low).max(), (high - 1).max())
        short = max(short, low.max(), (1 - high).max())
    yield at_most(1e-12, outside, f"how far a value lies outside the interval, {OF_BATCHES}")
    yield at_most(1e-12, short, "how far a variable's values end before an end of the interval")


@claim("readingnotes, Tips for using batch normalization", "holds")
def raw_inputs_batch():
    """Batch norm could standardise raw inputs of differing scales; for that the batch must be
    representative of the range of each variable. (Standardised: to within 0.3 standard deviations, as
    a root mean square over the table.)
    """
    rng = np.random.default_rng(0)

    def error(X, order, count, features=slice(None)):
        wanted, squares = standardised(X), []
        ones, zeros = np.ones(X.shape[1]), np.zeros(X.shape[1])
        for batch in np.array_split(order, count):
            x_hat, _ = transform.forward(X[batch], ones, zeros, eps=1e-12)
            squares.append(np.square(x_hat - wanted[batch])[:, features])
        return np.sqrt(np.concatenate(squares).mean())

    for name, X in _measured().items():
        what = f"{name} in {{}}: root mean square distance of {{}} from the standardised table"
        random = [error(X, rng.permutation(len(X)), 4) for _ in range(10)]
        words = what.format("4 random batches", "its features")
        yield at_most(0.3, max(random), f"{words}, largest of 10 shuffles")
        small = error(X, rng.permutation(len(X)), len(X) // 4)
        yield at_least(0.3, small, what.format("random batches of about 4 rows", "its features"))
        sorted_rows = error(X, np.argsort(X[:, 0]), 4, [0])
        words = what.format("4 batches of rows sorted by a feature", "that feature")
        yield at_least(0.3, sorted_rows, words)


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
def _moved(trained, held_out=True):
    """How far hidden features have left the scale to which they were brought, 20 seeds."""
    runs = [experiments.moved_hidden(trained, seed, held_out=held_out) for seed in range(20)]
    moved = {name: ("seed", [run[name] for run in runs]) for name in ("mean", "deviation")}
    return xr.Dataset(moved, {"seed": range(20)})


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
    yield at_most(0.2, _moved(False).deviation.median().item(), what)
    yield otherwise("they learn")
    yield at_most(0.2, _moved(True).deviation.median().item(), what)


@claim("encyclopaedia, Internal covariate shift", "holds")
def inputs_change():
    """When the parameters of earlier layers change during training, the distribution of the inputs of
    a later layer changes with them. (Changes: by more than a hundredth of a standard deviation, below
    which the forward chapter counts a distribution as fixed.)
    """
    still, learns = (_moved(trained, held_out=False) for trained in (False, True))
    for name, moment in (("mean", "means"), ("deviation", "standard deviations")):
        yield at_least(
            0.01,
            studies.difference(learns[name], still[name], looked_at=2),
            f"diabetes, one hidden layer of 8: largest change of the {moment} of hidden features over "
            "the same rows in 300 training steps, in standard deviations, where the layer below learns, "
            "less that where it stands still, 20 seeds",
        )


@claim("sharad, Normalizing Input Data", "holds")
def same_scale():
    """Normalising sets the mean of each feature to 0 and its variance to 1, so that all features
    are on the same scale. (In the data that give means and variances, which the source takes over the
    entire dataset, if no feature is constant there. Held-out data may differ. On one scale: of one
    standard deviation, to within a factor of two.)
    """
    mean, variance, ratio = 0.0, 0.0, 1.0
    for batch in _batches():
        scaled = standardised(batch)
        deviations = scaled.std(axis=0)
        mean = max(mean, np.abs(scaled.mean(axis=0)).max())
        variance = max(variance, np.abs(deviations**2 - 1).max())
        ratio = max(ratio, deviations.max() / deviations.min())
    yield at_most(1e-10, mean, f"largest distance of a mean from 0, {OF_BATCHES}")
    yield at_most(1e-10, variance, "largest distance of a variance from 1")
    yield at_most(2, ratio, "largest standard deviation of a batch over its smallest")


@claim("sharad, Normalizing Input Data", "fails")
def centring_equal_scale():
    """That values are centred on zero ensures that all features are on one scale. (Of centring
    alone, which is what the sentence names. On one scale: of one standard deviation, to within a factor
    of two.)
    """
    for name, X in tables().items():
        deviations = (X - X.mean(axis=0)).std(axis=0)
        yield at_most(
            2,
            deviations.max() / deviations.min(),
            f"{name}: largest standard deviation of a feature over the smallest, each centred on 0",
        )
