"""What the literature says about whitening, and how much of it batch norm does."""

import numpy as np

from bncore.chapters.mechanics.scaling import experiments, full_size
from bncore.chapters.mechanics.scaling.experiments import tables
from bncore.lab import data, networks, probes, recorded, studies, training
from bncore.mechanics import scaling, transform
from bncore.page.claims import at_least, at_most, claim, otherwise, under, untestable


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


def _far_from_white(seed):
    """Distances from mean 0 and variance 1, median over the units, on held-out digits.

    Of the normalised values, and of what the next layer receives, in a network with two hidden layers
    after 100 steps; the larger of the two layers.
    """
    split = data.digits(seed)
    model = networks.mlp((64, 50, 50, 10), "relu", "batch", gain=2**0.5, seed=seed)
    training.train(model, split, 100, 64, 0.3, seed)
    names = ["activation1", "linear2", "activation2", "output"]
    seen = probes.inputs_of(model, names, split.x_test)
    found = {"normalised": [], "received": []}
    for norm, after, received in ((model.norm1, *names[:2]), (model.norm2, *names[2:])):
        gamma, beta = (value.detach().numpy() for value in (norm.weight, norm.bias))
        found["normalised"].append((seen[after] - beta) / gamma)
        found["received"].append(seen[received])
    return {
        name: [
            max(np.median(np.abs(x.mean(axis=0))) for x in values),
            max(np.median(np.abs(x.var(axis=0) - 1)) for x in values),
        ]
        for name, values in found.items()
    }


@claim("cs682slides, Batch Normalization", "depends")
def batch_norm_whitens():
    """Batch norm in essence whitens the intermediate layers of a network, where whitening, as
    earlier in the talk, means zero mean and unit variance of each variable.
    """
    far = [_far_from_white(seed) for seed in range(3)]
    for heading, name in (
        (
            under("it means the values before the learned scale and shift and the non-linearity"),
            "normalised",
        ),
        (otherwise("it means the values that the next layer receives"), "received"),
    ):
        yield heading
        for k, moment in enumerate(("mean from 0", "variance from 1")):
            yield at_most(
                0.2,
                float(max(one[name][k] for one in far)),
                f"held-out digits, ReLU network after 100 steps, saved statistics: distance of a unit's "
                f"{moment}, median over the units, larger of two layers, largest of three seeds",
            )


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
    features are not decorrelated (after LeCun et al.). (On tables as one meets them, to a hundredth of
    the first loss or less: the chapter has a covariance for which it slows.)
    """
    for name, X in tables().items():
        left = experiments.off_diagonal(experiments.correlation(X))
        for level in (0.01, 0.001):
            raw, scaled = (
                experiments.fewest_steps(Z, experiments.targets()[name], level)
                for Z in (X, experiments.standardised(X))
            )
            yield at_least(
                1,
                raw / scaled,
                f"{name}, largest correlation {left:.2f}: steps of gradient descent on least squares "
                f"to {level:g} of the first excess loss, raw over standardised, each with its own best "
                "step",
            )
    accuracy = recorded.load(full_size.PATH)["full"]["first"]["fresh"].accuracy
    for steps in accuracy.steps.values:
        one = accuracy.sel(source="breast cancer", steps=steps)
        yield at_least(
            0,
            studies.difference(
                one.sel(first="z-score"), one.sel(first="nothing"), looked_at=accuracy.steps.size
            ),
            f"breast cancer: test accuracy of a ReLU network after {steps} steps on standardised "
            "features, less that on raw ones, each at its own best rate, 8 fresh seeds",
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
    Z = np.random.default_rng(0).normal(size=(100, 2))
    round_cloud = scaling.PCAWhitening.fit(Z).apply(Z)

    def change(kind, one, other):
        return np.abs(kind.fit(one).apply(one) - kind.fit(other).apply(other)).max()

    for h in (1e-3, 1e-6):
        what = f"change of the output for inputs about {h:g} apart (with a slope it would shrink with them)"
        turned = (scale * round_cloud for scale in ([1, 1 + h], [1 + h, 1]))
        yield at_least(
            0.1, change(scaling.PCAWhitening, *turned), f"PCA whitening at equal variances: {what}"
        )
        flattened = (Z * [1, h], Z * [1, -h])
        yield at_least(
            0.1,
            change(scaling.ZCAWhitening, *flattened),
            f"ZCA whitening at a singular covariance: {what}",
        )
