"""What the literature says about feature scaling, and what batch norm does of it."""

import numpy as np
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from bncore.chapters.mechanics.scaling import experiments
from bncore.mechanics import scaling, transform
from bncore.page.claims import Evidence, Measurement, claim

CHAPTER = "mechanics/scaling"


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


@claim(
    id="scaling-distance-governed",
    source="cs682slides, Feature Scaling",
    statement=(
        "If one feature has a much broader range than the others, that feature governs the "
        "Euclidean distance between two samples."
    ),
    chapter=CHAPTER,
    verdict="holds",
)
def distance_governed() -> Evidence:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 10)) * np.r_[100.0, np.ones(9)]
    pairs = np.abs(X[:150] - X[150:])
    distances = np.linalg.norm(pairs, axis=1)
    table, _ = _breast_cancer()
    variances = table.var(axis=0)
    return Evidence(
        printed=[
            Measurement(
                "correlation of the distance with the difference in one feature that is 100 times "
                "as broad as nine others, 150 pairs",
                np.corrcoef(distances, pairs[:, 0])[0, 1],
                at_least=0.99,
            ),
            Measurement(
                "breast cancer: share of the mean squared distance that the 2 features in "
                "square units (of 30) hold",
                np.sort(variances)[-2:].sum() / variances.sum(),
                at_least=0.95,
            ),
        ]
    )


@claim(
    id="scaling-distance-shares",
    source="cs682slides, Feature Scaling",
    statement=(
        "After normalisation each feature contributes approximately proportionately to the "
        "distance."
    ),
    chapter=CHAPTER,
    verdict="depends",
)
def distance_shares() -> Evidence:
    def spread(Z):
        variances = Z.var(axis=0)
        return variances.max() / variances.min()

    tables = {"diabetes": _diabetes()[0], "breast cancer": _breast_cancer()[0]}
    what = "{}: largest share of the mean squared distance over the smallest"
    return Evidence(
        under=(
            "standardised to variance 1",
            [
                Measurement(what.format(name), spread(_standardised(X)), at_most=1.001)
                for name, X in tables.items()
            ],
        ),
        otherwise=(
            "min–max scaled to $[0, 1]$",
            [
                Measurement(what.format(name), spread(_min_max(X)), at_most=2)
                for name, X in tables.items()
            ],
        ),
    )


@claim(
    id="scaling-descent-faster",
    source="cs682slides, Feature Scaling",
    statement=(
        "In general, gradient descent converges much faster with feature scaling than without."
    ),
    chapter=CHAPTER,
    verdict="depends",
)
def descent_faster() -> Evidence:
    H = experiments.idle_features(20)
    what = "{}: raw steps for a digit of accuracy over standardised ones, best constant steps"
    return Evidence(
        under=(
            "the features are off-centre and of very different scales",
            [
                Measurement(what.format("diabetes"), _speed_up(_diabetes()[0]), at_least=100),
                Measurement(
                    what.format("breast cancer"), _speed_up(_breast_cancer()[0]), at_least=100
                ),
            ],
        ),
        otherwise=(
            "the features are centred, and the small ones carry nothing the others lack",
            [
                Measurement(
                    what.format("20 features, constructed"),
                    _speed_up(_spectral_sample(H)),
                    at_least=1,
                )
            ],
        ),
    )


@claim(
    id="scaling-learning-rate",
    source="cs682slides, Feature Scaling",
    statement=(
        "Normalisation ensures numerical stability, which lets one use higher learning rates."
    ),
    chapter=CHAPTER,
    verdict="depends",
)
def learning_rate() -> Evidence:
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
    return Evidence(
        under=(
            "one raw feature has a mean square above the number of features",
            [
                Measurement(f"diabetes: {what}", gain(X), at_least=10),
                Measurement(f"breast cancer: {what}", gain(_breast_cancer()[0]), at_least=10),
                Measurement(
                    "diabetes: growth of the excess loss in 20 steps, raw features, with nine "
                    "tenths of the step that is stable after standardising",
                    diverges(X, y, 0.9 * limit(_standardised(X))),
                    at_least=10,
                ),
            ],
        ),
        otherwise=(
            "the mean squares of the raw features sum to less than 1",
            [
                Measurement(
                    f"diabetes in units 1000 times as large: {what}", gain(X / 1000), at_least=1
                )
            ],
        ),
    )


@claim(
    id="scaling-min-max-range",
    source="cs682slides, Normalization Techniques",
    statement=(
        "$x_{new} = (x - x_{min}) / (x_{max} - x_{min})$ scales all numeric variables to the "
        "range $[0, 1]$."
    ),
    chapter=CHAPTER,
    verdict="depends",
)
def min_max_range() -> Evidence:
    X = np.random.default_rng(0).permutation(_breast_cancer()[0])
    train, test = X[:285], X[285:]
    fitted = scaling.MinMax.fit(train)

    def outside(Z):
        return np.maximum(-Z, Z - 1).max()

    what = "breast cancer: how far the farthest value lies outside the interval"
    return Evidence(
        under=(
            "on the data that gave the extremes",
            [Measurement(what, outside(fitted.apply(train)), at_most=1e-12)],
        ),
        otherwise=(
            "on held-out data",
            [Measurement(what, outside(fitted.apply(test)), at_most=1e-12)],
        ),
    )


@claim(
    id="scaling-called-whitening",
    source="cs682slides, Normalization Techniques",
    statement="Scaling each variable to mean 0 and variance 1 whitens the data.",
    chapter=CHAPTER,
    verdict="depends",
)
def called_whitening() -> Evidence:
    rng = np.random.default_rng(0)
    what = "{}: largest covariance between two standardised features"
    independent = rng.uniform(-1, 1, size=(20_000, 5)) * [1, 10, 100, 0.1, 5]
    return Evidence(
        under=(
            "uncorrelated features",
            [
                Measurement(
                    what.format("20 000 samples of 5 independent features"),
                    _off_diagonal(_correlation(_standardised(independent))),
                    at_most=0.05,
                )
            ],
        ),
        otherwise=(
            "correlated features",
            [
                Measurement(
                    what.format(name), _off_diagonal(_correlation(_standardised(X))), at_most=0.05
                )
                for name, X in (
                    ("diabetes", _diabetes()[0]),
                    ("breast cancer", _breast_cancer()[0]),
                )
            ],
        ),
    )


@claim(
    id="scaling-images-whitened",
    source="readingnotes, Standardize Layer Inputs",
    statement=(
        "Standardising each input variable is the process that computer vision calls whitening "
        "when it is applied to images."
    ),
    chapter=CHAPTER,
    verdict="fails",
)
def images_whitened() -> Evidence:
    pixels = load_digits().data
    pixels = pixels[:, pixels.std(axis=0) > 0]
    standardised, whitened = _standardised(pixels), scaling.ZCAWhitening.fit(pixels).apply(pixels)
    return Evidence(
        printed=[
            Measurement(
                "digits: condition number after whitening, 61 pixels that vary",
                scaling.condition_number(whitened),
                at_most=1.001,
            ),
            Measurement(
                "digits: condition number after standardising, were the two one process",
                scaling.condition_number(standardised),
                at_most=1.001,
            ),
            Measurement(
                "digits: largest correlation between two standardised pixels",
                _off_diagonal(_correlation(standardised)),
                at_most=0.05,
            ),
        ]
    )


@claim(
    id="scaling-batch-norm-whitens",
    source="cs682slides, Batch Normalization",
    statement="Batch norm in essence whitens the intermediate layers of a network.",
    chapter=CHAPTER,
    verdict="depends",
)
def batch_norm_whitens() -> Evidence:
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
    return Evidence(
        under=(
            "whitening means mean 0 and variance 1 of each unit, as earlier in the same talk",
            [
                Measurement(
                    f"{what}: largest distance from mean 0 and variance 1",
                    max(scalar),
                    at_most=0.01,
                )
            ],
        ),
        otherwise=(
            "it means decorrelating too, as for Ioffe and Szegedy",
            [
                Measurement(
                    f"{what}: least of the largest correlations between two units",
                    min(correlated),
                    at_most=0.1,
                )
            ],
        ),
    )


@claim(
    id="scaling-scalars-instead-of-whitening",
    source="cs682slides, Delve into details",
    statement="Instead of whitening, batch norm normalises each scalar element by itself.",
    chapter=CHAPTER,
    verdict="holds",
)
def scalars_instead() -> Evidence:
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
    return Evidence(
        printed=[
            Measurement(
                "largest change of a normalised feature when all others are replaced, 250 cases",
                max(together),
                at_most=1e-12,
            ),
            Measurement(
                "largest distance of a variance from 1, $\\varepsilon = 10^{-5}$",
                max(alone),
                at_most=1e-2,
            ),
        ]
    )


@claim(
    id="scaling-speeds-up-correlated",
    source="ioffe2015, Section 3",
    statement=(
        "Normalising each scalar feature to mean 0 and variance 1 speeds up convergence even when "
        "the features are not decorrelated (after LeCun et al.)."
    ),
    chapter=CHAPTER,
    verdict="depends",
)
def speeds_up_correlated() -> Evidence:
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
    return Evidence(
        under=(
            "scales that differ widely and have nothing to do with the correlations",
            [
                Measurement(
                    "factor by which standardising divides $\\kappa$, 200 random correlation "
                    "matrices of 2 to 7 features with log-normal scales, 5th percentile",
                    np.percentile(gains, 5),
                    at_least=2,
                ),
                Measurement(
                    "largest growth of $\\kappa$, in units of the number of features",
                    worst,
                    at_most=1,
                ),
            ],
        ),
        otherwise=(
            "small features that repeat what two large, nearly equal ones say",
            [
                Measurement(
                    "factor by which standardising divides $\\kappa$, 20 features, constructed",
                    experiments.condition(H) / experiments.condition(D[:, None] * H * D),
                    at_least=1,
                )
            ],
        ),
    )


@claim(
    id="scaling-whitened-faster",
    source="ioffe2015, Section 2",
    statement=(
        "Training converges faster if the inputs are whitened: mean 0, variance 1, decorrelated."
    ),
    chapter=CHAPTER,
    verdict="depends",
)
def whitened_faster() -> Evidence:
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
    return Evidence(
        under=(
            "least squares, full batch",
            [
                Measurement(
                    "diabetes: share of the excess loss left after one step",
                    one_step[1] / one_step[0],
                    at_most=1e-20,
                )
            ],
        ),
        otherwise=(
            "logistic loss, a broad feature that saturates the sigmoid",
            [
                Measurement(
                    "5000 samples, standard deviations 10 and 1: $\\kappa$ of the Hessian at the "
                    "minimum, whitened over raw",
                    kappa["whitened"] / kappa["raw"],
                    at_most=1,
                )
            ],
        ),
    )


@claim(
    id="scaling-joint-singular",
    source="ioffe2015, Section 3",
    statement=(
        "Whitening a mini-batch jointly would need regularisation, because a mini-batch no larger "
        "than the number of activations has a singular covariance matrix."
    ),
    chapter=CHAPTER,
    verdict="holds",
)
def joint_singular() -> Evidence:
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
    return Evidence(
        printed=[
            Measurement(
                "largest ratio of smallest to largest eigenvalue, 100 Gaussian batches with "
                "$m \\le d$",
                smallest,
                at_most=1e-12,
            ),
            Measurement("smallest such ratio with $m = d + 2$", min(margin), at_least=1e-9),
        ]
    )


@claim(
    id="scaling-whitening-differentiable",
    source="ioffe2015, Section 3",
    statement="Full whitening of a layer's inputs is not everywhere differentiable.",
    chapter=CHAPTER,
    verdict="depends",
)
def whitening_differentiable() -> Evidence:
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(100, 2))
    round_cloud = scaling.PCAWhitening.fit(Z).apply(Z)
    across = round_cloud * [1, 1 + 1e-7]
    along = round_cloud * [1 + 1e-7, 1]

    def jump(kind):
        difference = kind.fit(across).apply(across) - kind.fit(along).apply(along)
        return np.abs(difference).max() / np.abs(across - along).max()

    what = "change of the output over change of the input, equal variances, inputs $10^{-7}$ apart"
    return Evidence(
        under=(
            "PCA whitening, where two variances are equal and the axes jump",
            [Measurement(what, jump(scaling.PCAWhitening), at_least=1e4)],
        ),
        otherwise=(
            "ZCA whitening of the same batch, whose covariance is positive definite",
            [Measurement(what, jump(scaling.ZCAWhitening), at_least=1e4)],
        ),
    )


@claim(
    id="scaling-plain-descent-sublinear",
    source="encyclopaedia, Least-square problem",
    statement=(
        "Plain gradient descent on ordinary least squares converges only sub-linearly; batch norm "
        "makes it linear."
    ),
    chapter=CHAPTER,
    verdict="fails",
)
def plain_descent_sublinear() -> Evidence:
    rng = np.random.default_rng(0)
    ratios, excess = [], []
    for kappa in (2, 5, 10, 30):
        H = np.diag(np.geomspace(1, kappa, 6))
        X = _spectral_sample(H)
        target = X @ rng.normal(size=6)
        W = experiments.descend(X, target, experiments.best_step(X), 60)
        errors = np.linalg.norm(W - np.linalg.lstsq(X, target)[0], axis=1)
        rate = scaling.gradient_descent_rate(kappa)
        late = np.flatnonzero(errors > 1e-9 * errors[0])[-1]
        ratios.append(errors[late] / errors[late - 1])
        excess.append((errors[: late + 1] / rate ** np.arange(late + 1)).max() / errors[0])
    return Evidence(
        printed=[
            Measurement(
                "ratio of successive errors late in the run, least of four $\\kappa$ from 2 to 30 "
                "(sub-linear means that it tends to 1)",
                min(ratios),
                at_least=0.999,
            ),
            Measurement(
                "largest error over the linear bound $((\\kappa-1)/(\\kappa+1))^t$",
                max(excess),
                at_most=1 + 1e-6,
            ),
        ]
    )


@claim(
    id="scaling-raw-inputs-batch",
    source="readingnotes, Tips for using batch normalization",
    statement=(
        "Batch norm could standardise raw inputs of differing scales, if the batch is "
        "representative of the range of each variable."
    ),
    chapter=CHAPTER,
    verdict="depends",
)
def raw_inputs_batch() -> Evidence:
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
    return Evidence(
        under=(
            "batches drawn at random",
            [
                Measurement(
                    f"{what}, largest of 10 shuffles",
                    max(error(rng.permutation(len(X))) for _ in range(10)),
                    at_most=0.3,
                )
            ],
        ),
        otherwise=(
            "batches cut from the table sorted by its first feature",
            [Measurement(what, error(np.argsort(X[:, 0])), at_most=0.3)],
        ),
    )


@claim(
    id="scaling-non-gaussian-first",
    source="readingnotes, Tips for using batch normalization",
    statement=(
        "Highly non-Gaussian variables are better scaled beforehand than by batch norm during "
        "training."
    ),
    chapter=CHAPTER,
    verdict="holds",
)
def non_gaussian_first() -> Evidence:
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

    return Evidence(
        printed=[
            Measurement(
                "relative spread of the scale that batch norm divides by, over 400 batches of 64 "
                "log-normal values ($\\sigma = 2$), over that of Gaussian ones",
                wobble(heavy) / wobble(normal),
                at_least=5,
            ),
            Measurement(
                "breast cancer, the five most skewed positive features: that spread over batches "
                "of 64 after taking logarithms beforehand, over that of the raw features",
                wobble(np.log(skewed)[rows]).mean() / wobble(skewed[rows]).mean(),
                at_most=0.6,
            ),
        ]
    )


@claim(
    id="scaling-hidden-layers-alike",
    source="sharad, slide 7",
    statement=(
        "Blank out the layers below, and the activations that reach a hidden layer are no "
        "different from original inputs: the same logic asks us to normalise them."
    ),
    chapter=CHAPTER,
    verdict="depends",
)
def hidden_layers_alike() -> Evidence:
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
    return Evidence(
        under=("the layers below stand still", [Measurement(what, drift(False), at_most=1e-3)]),
        otherwise=("the layers below learn", [Measurement(what, drift(True), at_most=1e-3)]),
    )


@claim(
    id="scaling-same-scale",
    source="sharad, slides 5 and 6",
    statement=(
        "Normalising sets the mean of each feature to 0 and its variance to 1, so that all "
        "features are on the same scale."
    ),
    chapter=CHAPTER,
    verdict="holds",
)
def same_scale() -> Evidence:
    errors = []
    for X in (_diabetes()[0], _breast_cancer()[0]):
        Z = _standardised(X)
        errors.append(max(np.abs(Z.mean(axis=0)).max(), np.abs(Z.var(axis=0) - 1).max()))
    return Evidence(
        printed=[
            Measurement(
                "largest distance from mean 0 and variance 1, diabetes and breast cancer",
                max(errors),
                at_most=1e-10,
            )
        ]
    )
