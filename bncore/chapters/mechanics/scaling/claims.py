"""What the literature says about feature scaling, and what batch norm does of it."""

import numpy as np
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

from bncore.chapters.mechanics.scaling import experiments
from bncore.mechanics import scaling, transform
from bncore.page.claims import at_least, at_most, claim, otherwise, under


def _diabetes():
    return load_diabetes(return_X_y=True, scaled=False)


def _breast_cancer():
    return load_breast_cancer(return_X_y=True)


def _standardised(X):
    return scaling.Standardization.fit(X).apply(X)


def _min_max(X):
    return scaling.MinMax.fit(X).apply(X)


def _with_intercept(X):
    return experiments.with_intercept(X)


def _off_diagonal(matrix):
    return float(np.abs(matrix - np.diag(np.diag(matrix))).max())


def _correlation(X):
    return np.corrcoef(X, rowvar=False)


def _tables():
    """Tables of scikit-learn, in the units in which they come."""
    pixels = load_digits().data / 16
    return {
        "diabetes": _diabetes()[0],
        "breast cancer": _breast_cancer()[0],
        "wine": load_wine().data,
        "iris": load_iris().data,
        "digits": pixels[:, pixels.std(axis=0) > 0],
    }


def _speed_up(X):
    """Ratio of the steps for one digit of accuracy, raw to standardised, intercept included."""
    raw, standardised = (
        scaling.gradient_descent_rate(scaling.condition_number(_with_intercept(Z)))
        for Z in (X, _standardised(X))
    )
    return float(np.log(standardised) / np.log(raw))


@claim("cs682slides, Feature Scaling", "holds")
def distance_governed():
    """If one feature has a much broader range than the others, that feature governs the Euclidean
    distance between two samples.
    """
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 10)) * np.r_[100.0, np.ones(9)]
    pairs = np.abs(X[:150] - X[150:])
    distances = np.linalg.norm(pairs, axis=1)
    table, _ = _breast_cancer()
    variances = table.var(axis=0)
    yield at_least(
        0.99,
        np.corrcoef(distances, pairs[:, 0])[0, 1],
        "correlation of the distance with the difference in one feature that is 100 times "
        "as broad as nine others, 150 pairs",
    )
    yield at_least(
        0.95,
        np.sort(variances)[-2:].sum() / variances.sum(),
        "breast cancer: share of the mean squared distance that the 2 features in "
        "square units (of 30) hold",
    )


@claim("cs682slides, Feature Scaling", "depends")
def distance_shares():
    """After normalisation each feature contributes approximately proportionately to the distance."""

    def spread(Z):
        variances = Z.var(axis=0)
        return variances.max() / variances.min()

    tables = {"diabetes": _diabetes()[0], "breast cancer": _breast_cancer()[0]}
    what = "{}: largest share of the mean squared distance over the smallest"
    yield under("standardised to variance 1")
    yield from [
        at_most(2, spread(_standardised(X)), what.format(name)) for name, X in tables.items()
    ]
    yield otherwise("min–max scaled to $[0, 1]$")
    yield from [at_most(2, spread(_min_max(X)), what.format(name)) for name, X in tables.items()]


@claim("cs682slides, Feature Scaling", "holds")
def descent_faster():
    """In general, gradient descent converges much faster with feature scaling than without."""
    what = "{}: raw steps for a digit of accuracy over standardised ones, each with its best step"
    yield from [at_least(10, _speed_up(X), what.format(name)) for name, X in _tables().items()]


@claim("cs682slides, Feature Scaling", "holds")
def learning_rate():
    """Normalisation ensures numerical stability, which lets one use higher learning rates."""

    def limit(X):
        return 2 / (np.linalg.norm(X, 2) ** 2 / len(X))

    def growth(X, y, step):
        centred = y - y.mean()
        loss = experiments.excess_loss(
            X, centred, experiments.descend(X, centred, step, 20, np.full(X.shape[1], 1e-3))
        )
        return loss[-1] / loss[0]

    what = "{}: largest stable step $2/\\lambda_{{\\max}}$ after standardising over that before"
    yield from [
        at_least(1.1, limit(_standardised(X)) / limit(X), what.format(name))
        for name, X in _tables().items()
    ]
    X, y = _diabetes()
    scaled = _standardised(X)
    step = 0.9 * limit(scaled)
    what = (
        "diabetes: factor of the excess loss in 20 steps at nine tenths of the step that is stable"
    )
    yield at_most(1, growth(scaled, y, step), f"{what} after standardising, standardised")
    yield at_least(10, growth(X, y, step), f"{what} after standardising, raw")


@claim("cs682slides, Normalization Techniques", "depends")
def min_max_range():
    """$x_{new} = (x - x_{min}) / (x_{max} - x_{min})$ scales all numeric variables to the range
    $[0, 1]$.
    """
    X = np.random.default_rng(0).permutation(_breast_cancer()[0])
    train, test = X[:285], X[285:]
    fitted = scaling.MinMax.fit(train)

    def outside(Z):
        return np.maximum(-Z, Z - 1).max()

    what = "breast cancer: how far the farthest value lies outside the interval"
    yield under("on the data that gave the extremes")
    yield at_most(1e-12, outside(fitted.apply(train)), what)
    yield otherwise("on held-out data")
    yield at_most(1e-12, outside(fitted.apply(test)), what)


def _whiteness(name, X):
    """Largest correlation left by whitening, and by what is said to be another name of it."""
    for process, kind in (
        ("whitening", scaling.ZCAWhitening),
        ("standardising", scaling.Standardization),
    ):
        yield at_most(
            0.05,
            _off_diagonal(_correlation(kind.fit(X).apply(X))),
            f"{name}: largest correlation between two features after {process}",
        )


@claim("cs682slides, Normalization Techniques", "fails")
def called_whitening():
    """Scaling each variable to mean 0 and variance 1 is what neural-network people call whitening."""
    yield from _whiteness("diabetes", _tables()["diabetes"])
    yield from _whiteness("wine", _tables()["wine"])


@claim("readingnotes, Standardize Layer Inputs", "fails")
def images_whitened():
    """Standardising each input variable is the process that computer vision calls whitening when
    it is applied to images.
    """
    yield from _whiteness("digits, 61 pixels that vary", _tables()["digits"])


@claim("cs682slides, Batch Normalization", "holds")
def batch_norm_whitens():
    """Batch norm in essence whitens the intermediate layers of a network, where whitening, as
    earlier in the talk, means zero mean and unit variance of each variable.
    """
    rng = np.random.default_rng(0)
    inputs = load_digits().data / 16
    means, variances = [], []
    for _ in range(10):
        weights = rng.normal(size=(64, 32)) / 8
        batch = inputs[rng.choice(len(inputs), 256, replace=False)] @ weights
        after, _ = transform.forward(batch, np.ones(32), np.zeros(32))
        means.append(np.abs(after.mean(axis=0)).max())
        variances.append(np.abs(after.var(axis=0) - 1).max())
    what = "digits, 32 units, 10 random layers and batches: largest distance of a unit's"
    yield at_most(0.01, max(means), f"{what} mean from 0")
    yield at_most(0.01, max(variances), f"{what} variance from 1")


@claim("cs682slides, Delve into details", "holds", id="scaling-scalars-instead-of-whitening")
def scalars_instead():
    """Instead of whitening, batch norm normalises each scalar element by itself."""
    rng = np.random.default_rng(0)
    together, alone = [], []
    for _ in range(50):
        x = rng.normal(size=(20, 5)) @ rng.normal(size=(5, 5))
        x_hat, _ = transform.forward(x, np.ones(5), np.zeros(5))
        for k in range(5):
            other = rng.normal(size=x.shape)
            other[:, k] = x[:, k]
            column, _ = transform.forward(other, np.ones(5), np.zeros(5))
            together.append(np.abs(x_hat[:, k] - column[:, k]).max())
        alone.append(np.abs(np.diag(np.cov(x_hat.T, bias=True)) - 1).max())
    yield at_most(
        1e-12,
        max(together),
        "largest change of a normalised feature when all others are replaced, 250 cases",
    )
    yield at_most(
        1e-2, max(alone), "largest distance of a variance from 1, $\\varepsilon = 10^{-5}$"
    )


@claim("ioffe2015, Section 3", "holds")
def speeds_up_correlated():
    """Normalising each scalar feature to mean 0 and variance 1 speeds up convergence even when the
    features are not decorrelated (after LeCun et al.).
    """
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(200):
        d = int(rng.integers(2, 8))
        H = _correlation(rng.normal(size=(2 * d, d)))
        scales = np.exp(3 * rng.normal(size=d))
        gains.append(experiments.condition(scales[:, None] * H * scales) / experiments.condition(H))
    for name, X in _tables().items():
        H, raw = _correlation(X), np.cov(X, rowvar=False)
        yield at_least(0.5, _off_diagonal(H), f"{name}: largest correlation")
        yield at_least(
            1.1,
            experiments.condition(raw) / experiments.condition(H),
            f"{name}: factor by which standardising divides $\\kappa$ of the centred features",
        )
    yield at_least(
        2,
        np.percentile(gains, 5),
        "factor by which standardising divides $\\kappa$, 200 random correlation "
        "matrices of 2 to 7 features with log-normal scales, 5th percentile",
    )


@claim("ioffe2015, Section 2", "holds")
def whitened_faster():
    """The training of a network converges faster if its inputs are whitened: mean 0, variance 1,
    decorrelated.
    """
    wine = load_wine()
    rates = [10.0**power for power in range(-4, 3)]
    for name, X, labels in (
        ("breast cancer", *_breast_cancer()),
        ("wine, one class of three", wine.data, wine.target == 1),
    ):
        raw, white = (
            experiments.network_losses(Z, labels.astype(float), rates)
            for Z in (X, scaling.ZCAWhitening.fit(X).apply(X))
        )
        best_raw, best_white = (losses[losses.mean(axis=1).argmin()] for losses in (raw, white))
        yield at_most(
            0.5,
            (best_white / best_raw).max(),
            f"{name}: loss of a tanh network of 16 units after 300 steps, whitened over raw, each "
            "at its best rate of seven, largest of three seeds",
        )


@claim("ioffe2015, Section 3", "holds")
def joint_singular():
    """Whitening a mini-batch jointly would need regularisation, because a mini-batch no larger
    than the number of activations has a singular covariance matrix.
    """
    rng = np.random.default_rng(0)
    smallest, margin = 0.0, []
    for _ in range(100):
        d = int(rng.integers(2, 30))
        m = int(rng.integers(2, d + 1))
        covariance = np.cov(rng.normal(size=(m, d)).T, bias=True)
        values = np.linalg.eigvalsh(covariance)
        smallest = max(smallest, abs(values[0]) / values[-1])
        larger = np.linalg.eigvalsh(np.cov(rng.normal(size=(d + 2, d)).T, bias=True))
        margin.append(larger[0] / larger[-1])
    yield at_most(
        1e-12,
        smallest,
        "largest ratio of smallest to largest eigenvalue, 100 Gaussian batches with $m \\le d$",
    )
    yield at_least(1e-9, min(margin), "smallest such ratio with $m = d + 2$")


@claim("ioffe2015, Section 3", "holds")
def whitening_differentiable():
    """Full whitening of a layer's inputs is not everywhere differentiable."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(100, 2))
    round_cloud = scaling.PCAWhitening.fit(Z).apply(Z)
    flat_cloud = Z * [1, 1e-7]

    def jump(kind, one, other):
        difference = kind.fit(one).apply(one) - kind.fit(other).apply(other)
        return np.abs(difference).max() / np.abs(one - other).max()

    what = "change of the output over change of the input, for inputs about $10^{-7}$ apart"
    yield at_least(
        1e4,
        jump(scaling.PCAWhitening, round_cloud * [1, 1 + 1e-7], round_cloud * [1 + 1e-7, 1]),
        f"PCA whitening at equal variances: {what}",
    )
    yield at_least(
        1e4,
        jump(scaling.ZCAWhitening, flat_cloud, flat_cloud * [1, -1]),
        f"ZCA whitening at a singular covariance: {what}",
    )


@claim("readingnotes, Tips for using batch normalization", "holds")
def raw_inputs_batch():
    """Batch norm could standardise raw inputs of differing scales, if the batch is representative
    of the range of each variable.
    """
    X, _ = _breast_cancer()
    rng = np.random.default_rng(0)
    ones, zeros = np.ones(X.shape[1]), np.zeros(X.shape[1])

    def error(order):
        total = 0.0
        wanted = _standardised(X)
        for batch in np.array_split(order, 4):
            x_hat, _ = transform.forward(X[batch], ones, zeros, eps=1e-12)
            total += np.square(x_hat - wanted[batch]).sum()
        return np.sqrt(total / X.size)

    yield at_most(
        0.3,
        max(error(rng.permutation(len(X))) for _ in range(10)),
        "breast cancer in four random batches: root mean square distance from the standardised "
        "table, largest of 10 shuffles",
    )


@claim("readingnotes, Tips for using batch normalization", "holds")
def non_gaussian_first():
    """Highly non-Gaussian variables are better scaled beforehand than by batch norm during
    training.
    """
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(400, 64))
    heavy = np.exp(2 * normal)

    def wobble(batches):
        deviations = batches.std(axis=1)
        return deviations.std(axis=0) / deviations.mean(axis=0)

    table = _breast_cancer()[0]
    positive = table[:, table.min(axis=0) > 0]
    skewed = positive[:, np.argsort(stats.skew(positive))[-5:]]
    rows = np.array([rng.choice(len(table), 64, replace=False) for _ in range(400)])

    yield at_least(
        5,
        wobble(heavy) / wobble(normal),
        "relative spread of the scale that batch norm divides by, over 400 batches of 64 "
        "log-normal values ($\\sigma = 2$), over that of Gaussian ones",
    )
    yield at_most(
        0.6,
        wobble(np.log(skewed)[rows]).mean() / wobble(skewed[rows]).mean(),
        "breast cancer, the five most skewed positive features: that spread over batches "
        "of 64 after taking logarithms beforehand, over that of the raw features",
    )


@claim("sharad, slide 7", "depends")
def hidden_layers_alike():
    """Blank out the layers below, and the activations that reach a hidden layer are no different
    from original inputs: the same logic asks us to normalise them.
    """
    X, y = _diabetes()
    inputs, target = _standardised(X), ((y - y.mean()) / y.std())[:, None]

    def drift(trained, seed):
        rng = np.random.default_rng(seed)
        first, second = rng.normal(size=(10, 8)) / 3, rng.normal(size=(8, 1))
        order = rng.permutation(len(inputs))
        seen, held_out = order[:300], order[300:]
        fitted = scaling.Standardization.fit(np.tanh(inputs[seen] @ first))
        for _ in range(300):
            hidden = np.tanh(inputs[seen] @ first)
            error = (hidden @ second - target[seen]) / len(seen)
            slope = (error @ second.T) * (1 - hidden**2)
            second = second - 0.3 * hidden.T @ error
            if trained:
                first = first - 0.3 * inputs[seen].T @ slope
        scaled = fitted.apply(np.tanh(inputs[held_out] @ first))
        return np.abs(scaled.std(axis=0) - 1).max()

    what = (
        "diabetes, one hidden layer of 8: largest distance from standard deviation 1 of held-out "
        "hidden features, by a scaling fitted before 300 training steps, largest of three seeds"
    )
    yield under("the layers below stand still")
    yield at_most(0.2, max(drift(False, seed) for seed in range(3)), what)
    yield otherwise("they learn")
    yield at_most(0.2, max(drift(True, seed) for seed in range(3)), what)


@claim("sharad, slide 5", "holds")
def same_scale():
    """Normalising sets the mean of each feature to 0 and its variance to 1, so that all features
    are on the same scale.
    """
    errors = []
    for X in (_diabetes()[0], _breast_cancer()[0]):
        Z = _standardised(X)
        errors.append(max(np.abs(Z.mean(axis=0)).max(), np.abs(Z.var(axis=0) - 1).max()))
    yield at_most(
        1e-10,
        max(errors),
        "largest distance from mean 0 and variance 1, diabetes and breast cancer",
    )
