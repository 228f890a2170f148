"""What the literature says about whitening, and how much of it batch norm does."""

import numpy as np
from sklearn.datasets import load_digits

from bncore.chapters.mechanics.scaling import experiments, full_size
from bncore.chapters.mechanics.scaling.experiments import tables
from bncore.lab import recorded, studies
from bncore.mechanics import scaling, transform
from bncore.page.claims import at_least, at_most, claim, untestable


def _name():
    return untestable(
        "It is about a name. Some use it so: TensorFlow once called the standardising of an image "
        "`per_image_whitening`. Ioffe and Szegedy mean that the features are decorrelated too."
    )


@claim("cs682slides, Normalization Techniques", "untestable")
def called_whitening():
    """Scaling each variable to mean 0 and variance 1 is what neural-network people call whitening."""
    yield _name()


@claim("readingnotes, Standardize Layer Inputs", "untestable")
def images_whitened():
    """Standardising each input variable is the process that computer vision calls whitening when
    it is applied to images.
    """
    yield _name()


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
    together, alone, left = [], [], []
    for _ in range(50):
        x = rng.normal(size=(20, 5)) @ rng.normal(size=(5, 5))
        x_hat, _ = transform.forward(x, np.ones(5), np.zeros(5))
        for k in range(5):
            other = rng.normal(size=x.shape)
            other[:, k] = x[:, k]
            column, _ = transform.forward(other, np.ones(5), np.zeros(5))
            together.append(np.abs(x_hat[:, k] - column[:, k]).max())
        alone.append(np.abs(np.diag(np.cov(x_hat.T, bias=True)) - 1).max())
        left.append(np.abs(np.corrcoef(x_hat.T) - np.corrcoef(x.T)).max())
    yield at_most(
        1e-12,
        max(together),
        "largest change of a normalised feature when all others are replaced, 250 cases",
    )
    yield at_most(
        1e-2, max(alone), "largest distance of a variance from 1, $\\varepsilon = 10^{-5}$"
    )
    yield at_most(1e-10, max(left), "largest change of a correlation, which whitening makes 0")


@claim("ioffe2015, Section 3", "holds")
def speeds_up_correlated():
    """Normalising each scalar feature to mean 0 and variance 1 speeds up convergence even when the
    features are not decorrelated (after LeCun et al.). (In general: the chapter has a covariance
    for which it slows.)
    """
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(200):
        d = int(rng.integers(2, 8))
        H = experiments.correlation(rng.normal(size=(2 * d, d)))
        scales = np.exp(3 * rng.normal(size=d))
        gains.append(experiments.condition(scales[:, None] * H * scales) / experiments.condition(H))
    for name, X in tables().items():
        H, raw = experiments.correlation(X), np.cov(X, rowvar=False)
        yield at_least(0.5, experiments.off_diagonal(H), f"{name}: largest correlation")
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
    losses = np.log10(recorded.load(full_size.PATH)["full"]["whitened"]["fresh"].loss)
    cases = [(table, steps) for table in losses.table.values for steps in losses.steps.values]
    for table, steps in cases:
        white, raw = (
            losses.sel(table=table, steps=steps, inputs=inputs) for inputs in ("whitened", "raw")
        )
        yield at_most(
            0,
            studies.difference(white, raw, looked_at=len(cases)),
            f"{table}: decimal logarithm of the loss of a tanh network of 16 units after {steps} "
            "steps, whitened less raw, each at its own best rate, 8 fresh seeds",
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
    """Full whitening of a layer's inputs is not everywhere differentiable. (That it is costly, as the
    sentence says too, the chapter counts in operations.)
    """
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
