"""What the literature says about feature scaling, and what batch norm does of it."""

import numpy as np
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

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


def _spectral_sample(H, samples=400, seed=0):
    """Data whose sample covariance is exactly H and whose mean is 0."""
    Z = np.random.default_rng(seed).normal(size=(samples, len(H)))
    return scaling.ZCAWhitening.fit(Z).apply(Z) @ np.linalg.cholesky(H).T


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
        at_most(1.001, spread(_standardised(X)), what.format(name)) for name, X in tables.items()
    ]
    yield otherwise("min–max scaled to $[0, 1]$")
    yield from [at_most(2, spread(_min_max(X)), what.format(name)) for name, X in tables.items()]


@claim("cs682slides, Feature Scaling", "depends")
def descent_faster():
    """In general, gradient descent converges much faster with feature scaling than without."""
    H = experiments.idle_features(20)
    what = "{}: raw steps for a digit of accuracy over standardised ones, best constant steps"
    yield under("the features are off-centre and of very different scales")
    yield at_least(100, _speed_up(_diabetes()[0]), what.format("diabetes"))
    yield at_least(100, _speed_up(_breast_cancer()[0]), what.format("breast cancer"))
    yield otherwise("the features are centred, and the small ones carry nothing the others lack")
    yield at_least(1, _speed_up(_spectral_sample(H)), what.format("20 features, constructed"))


@claim("cs682slides, Feature Scaling", "depends")
def learning_rate():
    """Normalisation ensures numerical stability, which lets one use higher learning rates."""

    def limit(X):
        return 2 / (np.linalg.norm(X, 2) ** 2 / len(X))

    def gain(X):
        return limit(_standardised(X)) / limit(X)

    def diverges(X, y, step):
        centred = y - y.mean()
        loss = experiments.excess_loss(
            X, centred, experiments.descend(X, centred, step, 20, np.full(X.shape[1], 1e-3))
        )
        return loss[-1] / loss[0]

    X, y = _diabetes()
    what = "largest stable step $2/\\lambda_{\\max}$ after standardising over that before"
    yield under("one raw feature has a mean square above the number of features")
    yield at_least(10, gain(X), f"diabetes: {what}")
    yield at_least(10, gain(_breast_cancer()[0]), f"breast cancer: {what}")
    yield at_least(
        10,
        diverges(X, y, 0.9 * limit(_standardised(X))),
        "diabetes: growth of the excess loss in 20 steps, raw features, with nine "
        "tenths of the step that is stable after standardising",
    )
    yield otherwise("the mean squares of the raw features sum to less than 1")
    yield at_least(1, gain(X / 1000), f"diabetes in units 1000 times as large: {what}")


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


@claim("cs682slides, Normalization Techniques", "depends")
def called_whitening():
    """Scaling each variable to mean 0 and variance 1 whitens the data."""
    rng = np.random.default_rng(0)
    what = "{}: largest covariance between two standardised features"
    independent = rng.uniform(-1, 1, size=(20_000, 5)) * [1, 10, 100, 0.1, 5]
    yield under("uncorrelated features")
    yield at_most(
        0.05,
        _off_diagonal(_correlation(_standardised(independent))),
        what.format("20 000 samples of 5 independent features"),
    )
    yield otherwise("correlated features")
    yield from [
        at_most(0.05, _off_diagonal(_correlation(_standardised(X))), what.format(name))
        for name, X in (
            ("diabetes", _diabetes()[0]),
            ("breast cancer", _breast_cancer()[0]),
        )
    ]


@claim("readingnotes, Standardize Layer Inputs", "fails")
def images_whitened():
    """Standardising each input variable is the process that computer vision calls whitening when
    it is applied to images.
    """
    pixels = load_digits().data
    pixels = pixels[:, pixels.std(axis=0) > 0]
    standardised, whitened = _standardised(pixels), scaling.ZCAWhitening.fit(pixels).apply(pixels)
    yield at_most(
        1.001,
        scaling.condition_number(whitened),
        "digits: condition number after whitening, 61 pixels that vary",
    )
    yield at_most(
        1.001,
        scaling.condition_number(standardised),
        "digits: condition number after standardising, were the two one process",
    )
    yield at_most(
        0.05,
        _off_diagonal(_correlation(standardised)),
        "digits: largest correlation between two standardised pixels",
    )


@claim("cs682slides, Batch Normalization", "depends")
def batch_norm_whitens():
    """Batch norm in essence whitens the intermediate layers of a network."""
    rng = np.random.default_rng(0)
    inputs = load_digits().data / 16
    scalar, correlated = [], []
    for _ in range(10):
        weights = rng.normal(size=(64, 32)) / 8
        batch = inputs[rng.choice(len(inputs), 256, replace=False)] @ weights
        after, _ = transform.forward(batch, np.ones(32), np.zeros(32))
        scalar.append(max(np.abs(after.mean(axis=0)).max(), np.abs(after.var(axis=0) - 1).max()))
        correlated.append(_off_diagonal(_correlation(after)))
    what = "digits, 32 units, 10 random layers and batches"
    yield under("whitening means mean 0 and variance 1 of each unit, as earlier in the same talk")
    yield at_most(0.01, max(scalar), f"{what}: largest distance from mean 0 and variance 1")
    yield otherwise("it means decorrelating too, as for Ioffe and Szegedy")
    yield at_most(
        0.1, min(correlated), f"{what}: least of the largest correlations between two units"
    )


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


@claim("ioffe2015, Section 3", "depends")
def speeds_up_correlated():
    """Normalising each scalar feature to mean 0 and variance 1 speeds up convergence even when the
    features are not decorrelated (after LeCun et al.).
    """
    rng = np.random.default_rng(0)
    gains, worst = [], 0.0
    for _ in range(200):
        d = int(rng.integers(2, 8))
        H = _correlation(rng.normal(size=(2 * d, d)))
        scales = np.exp(3 * rng.normal(size=d))
        gains.append(experiments.condition(scales[:, None] * H * scales) / experiments.condition(H))
        worst = max(worst, 1 / gains[-1] / d)
    H = experiments.idle_features(20)
    D = 1 / np.sqrt(np.diag(H))
    yield under("scales that differ widely and have nothing to do with the correlations")
    yield at_least(
        2,
        np.percentile(gains, 5),
        "factor by which standardising divides $\\kappa$, 200 random correlation "
        "matrices of 2 to 7 features with log-normal scales, 5th percentile",
    )
    yield at_most(1, worst, "largest growth of $\\kappa$, in units of the number of features")
    yield otherwise("small features that repeat what two large, nearly equal ones say")
    yield at_least(
        1,
        experiments.condition(H) / experiments.condition(D[:, None] * H * D),
        "factor by which standardising divides $\\kappa$, 20 features, constructed",
    )


@claim("ioffe2015, Section 2", "depends")
def whitened_faster():
    """Training converges faster if the inputs are whitened: mean 0, variance 1, decorrelated."""
    X, y = _diabetes()
    target = (y - y.mean()) / y.std()
    white = _with_intercept(scaling.PCAWhitening.fit(X).apply(X))
    one_step = experiments.excess_loss(white, target, experiments.descend(white, target, 1.0, 1))

    rng = np.random.default_rng(0)
    broad = rng.normal(size=(5000, 2)) * [10, 1]
    labels = (rng.random(5000) < 1 / (1 + np.exp(-broad.sum(axis=1)))).astype(float)
    kappa = {}
    for name, scaled in (
        ("raw", broad),
        ("whitened", scaling.ZCAWhitening.fit(broad).apply(broad)),
    ):
        _, H = experiments.logistic_optimum(_with_intercept(scaled), labels)
        kappa[name] = experiments.condition(H)
    yield under("least squares, full batch")
    yield at_most(
        1e-20, one_step[1] / one_step[0], "diabetes: share of the excess loss left after one step"
    )
    yield otherwise("logistic loss, a broad feature that saturates the sigmoid")
    yield at_most(
        1,
        kappa["whitened"] / kappa["raw"],
        "5000 samples, standard deviations 10 and 1: $\\kappa$ of the Hessian at the "
        "minimum, whitened over raw",
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


@claim("ioffe2015, Section 3", "depends")
def whitening_differentiable():
    """Full whitening of a layer's inputs is not everywhere differentiable."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(100, 2))
    round_cloud = scaling.PCAWhitening.fit(Z).apply(Z)
    across = round_cloud * [1, 1 + 1e-7]
    along = round_cloud * [1 + 1e-7, 1]

    def jump(kind):
        difference = kind.fit(across).apply(across) - kind.fit(along).apply(along)
        return np.abs(difference).max() / np.abs(across - along).max()

    what = "change of the output over change of the input, equal variances, inputs $10^{-7}$ apart"
    yield under("PCA whitening, where two variances are equal and the axes jump")
    yield at_least(1e4, jump(scaling.PCAWhitening), what)
    yield otherwise("ZCA whitening of the same batch, whose covariance is positive definite")
    yield at_least(1e4, jump(scaling.ZCAWhitening), what)


@claim("readingnotes, Tips for using batch normalization", "depends")
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

    what = "breast cancer in four batches: root mean square distance from the standardised table"
    yield under("batches drawn at random")
    yield at_most(
        0.3,
        max(error(rng.permutation(len(X))) for _ in range(10)),
        f"{what}, largest of 10 shuffles",
    )
    yield otherwise("batches cut from the table sorted by its first feature")
    yield at_most(0.3, error(np.argsort(X[:, 0])), what)


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

    def drift(trained):
        rng = np.random.default_rng(0)
        first, second = rng.normal(size=(10, 8)) / 3, rng.normal(size=(8, 1))
        fitted = scaling.Standardization.fit(np.tanh(inputs @ first))
        for _ in range(300):
            hidden = np.tanh(inputs @ first)
            error = (hidden @ second - target) / len(target)
            slope = (error @ second.T) * (1 - hidden**2)
            second = second - 0.3 * hidden.T @ error
            if trained:
                first = first - 0.3 * inputs.T @ slope
        scaled = fitted.apply(np.tanh(inputs @ first))
        return max(np.abs(scaled.mean(axis=0)).max(), np.abs(scaled.std(axis=0) - 1).max())

    what = (
        "diabetes, one hidden layer of 8: largest distance from mean 0 and standard deviation 1 of "
        "hidden features scaled once, before 300 training steps"
    )
    yield under("the layers below stand still")
    yield at_most(1e-3, drift(False), what)
    yield otherwise("the layers below learn")
    yield at_most(1e-3, drift(True), what)


@claim("sharad, slides 5 and 6", "holds")
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
