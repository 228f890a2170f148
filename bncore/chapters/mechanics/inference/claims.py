"""What the literature says about batch normalization at inference."""

from functools import cache
from itertools import combinations, pairwise, product

import numpy as np
import torch

from bncore.lab import data, networks, training
from bncore.lab.inference import accuracy, refitted
from bncore.mechanics import transform
from bncore.mechanics.inference import (
    RunningStatistics,
    affine_map,
    exact_statistics,
    normalize,
    population_statistics,
)
from bncore.page.claims import Evidence, Measurement, claim

CHAPTER = "mechanics/inference"


@claim(
    id="inference-population-mean",
    source="encyclopaedia, Inference",
    statement=(
        "The population mean of a feature is the average of its mini-batch means, "
        "$\\mathrm{E}[x] = \\mathrm{E}_B[\\mu_B]$."
    ),
    chapter=CHAPTER,
    verdict="depends",
)
def population_mean() -> Evidence:
    x = np.random.default_rng(0).normal(3, 2, size=(100, 50))

    def error(size):
        batches = [x[i : i + size] for i in range(0, len(x), size)]
        return np.abs(population_statistics(batches)[0] - x.mean(axis=0)).max()

    return Evidence(
        under=(
            "batches of one size",
            [Measurement("error, 100 examples in batches of 25", error(25), at_most=1e-12)],
        ),
        otherwise=(
            "batches of several sizes: every batch then needs the weight of its size",
            [
                Measurement(
                    "error, the last of four batches has 4 examples", error(32), at_most=1e-12
                )
            ],
        ),
    )


@claim(
    id="inference-unbiased-variance",
    source="ioffe2015, Algorithm 2, line 10",
    statement=(
        "$\\frac{m}{m-1}\\,\\mathrm{E}_B[\\sigma_B^2]$, with $\\sigma_B^2$ the variances of training "
        "mini-batches of size $m$, is an unbiased estimate of the variance."
    ),
    chapter=CHAPTER,
    verdict="depends",
)
def unbiased_variance() -> Evidence:
    x = np.array([-3.0, 0.5, 1.0, 2.0, 7.0])

    def error(batches):
        estimate = np.mean([np.var(batch, ddof=1) for batch in batches])
        return abs(estimate / x.var() - 1)

    return Evidence(
        under=(
            "the $m$ values are independent draws from the population",
            [
                Measurement(
                    f"relative error over all {5**m} batches of {m} out of 5, with replacement",
                    error(product(x, repeat=m)),
                    at_most=1e-12,
                )
                for m in (2, 3, 4)
            ],
        ),
        otherwise=(
            "they depend on each other",
            [
                Measurement(
                    "the same over all batches of 3 out of 5 without replacement, which is 1/4",
                    error(combinations(x, 3)),
                    at_most=1e-12,
                ),
                Measurement(
                    "the same over the batches of 2 neighbours in sorted order",
                    error(pairwise(x)),
                    at_most=1e-12,
                ),
            ],
        ),
    )


@claim(
    id="inference-lost-factor",
    source="encyclopaedia, Inference",
    statement=(
        "The population variance is a constant times $\\mathrm{E}_B[\\sigma_B^2]$. The text lost the "
        "constant; for independent draws it is $\\frac{m}{m-1}$."
    ),
    chapter=CHAPTER,
    verdict="holds",
)
def lost_factor() -> Evidence:
    x = np.array([-3.0, 0.5, 1.0, 2.0, 7.0])
    errors = []
    for m in (2, 3, 4, 5):
        variances = np.var(np.array(list(product(x, repeat=m))), axis=1)
        errors.append(abs(x.var() / variances.mean() - m / (m - 1)))
    return Evidence(
        printed=[
            Measurement(
                "largest difference between the constant and $m/(m-1)$, over all batches of "
                "2, 3, 4 and 5 draws from five values",
                max(errors),
                at_most=1e-12,
            )
        ]
    )


@claim(
    id="inference-complete-representation",
    source="encyclopaedia, Inference",
    statement="The population statistics are a complete representation of the mini-batches.",
    chapter=CHAPTER,
    verdict="fails",
)
def complete_representation() -> Evidence:
    rng = np.random.default_rng(0)
    centred = rng.normal(size=(2, 16, 4))
    centred -= centred.mean(axis=1, keepdims=True)
    apart = centred + np.array([-1.0, 1.0])[:, None, None]
    one, other = population_statistics(centred), population_statistics(apart)
    difference = max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))
    spread = np.abs(exact_statistics(centred)[1] - exact_statistics(apart)[1]).max()
    return Evidence(
        printed=[
            Measurement(
                "largest difference in the population statistics of two sets of mini-batches",
                difference,
                at_most=1e-12,
            ),
            Measurement(
                "difference in the variance of all their examples",
                spread,
                at_most=1e-12,
            ),
        ]
    )


@claim(
    id="inference-deterministic",
    source="encyclopaedia, Inference",
    statement=(
        "With population statistics the output depends on the input in a deterministic manner, and "
        "not on the mini-batch."
    ),
    chapter=CHAPTER,
    verdict="holds",
)
def deterministic() -> Evidence:
    rng = np.random.default_rng(0)
    mean, var = rng.normal(size=8), np.exp(rng.normal(size=8))
    example = rng.normal(size=(1, 8))
    alone = normalize(example, mean, var)
    fixed, batch = [], []
    for _ in range(100):
        company = np.concatenate([example, rng.normal(size=(7, 8))])
        fixed.append(np.abs(normalize(company, mean, var)[0] - alone).max())
        batch.append(transform.forward(company)[0][0])
    return Evidence(
        printed=[
            Measurement(
                "largest change of one example's output over 100 batches, population statistics",
                max(fixed),
                at_most=1e-14,
            ),
            Measurement(
                "standard deviation of the same output with the batch's statistics",
                np.std(batch, axis=0).min(),
                at_least=0.1,
            ),
        ]
    )


@claim(
    id="inference-linear-transform",
    source="encyclopaedia, Inference",
    statement=(
        "With fixed parameters, batch normalization applies a linear transform to the activation."
    ),
    chapter=CHAPTER,
    verdict="misprinted",
)
def linear_transform() -> Evidence:
    rng = np.random.default_rng(0)
    mean, gamma, beta = rng.normal(size=(3, 6))
    var = np.exp(rng.normal(size=6))
    a, b = rng.normal(size=(2, 50, 6))

    def f(x):
        return normalize(x, mean, var, gamma, beta)

    return Evidence(
        printed=[
            Measurement(
                "largest $|f(a+b) - f(a) - f(b)|$ over random $a$, $b$",
                np.abs(f(a + b) - f(a) - f(b)).max(),
                at_most=1e-12,
            )
        ],
        corrected=[
            Measurement(
                "largest $|f(ta+(1-t)b) - tf(a) - (1-t)f(b)|$, $t$ = −2, 0.3, 5",
                max(
                    np.abs(f(t * a + (1 - t) * b) - t * f(a) - (1 - t) * f(b)).max()
                    for t in (-2, 0.3, 5)
                ),
                at_most=1e-12,
            )
        ],
        correction="an affine transform: a linear one plus the constant $f(0)$.",
    )


@claim(
    id="inference-single-transform",
    source="ioffe2015, Algorithm 2, line 11",
    statement=(
        "At inference $\\mathrm{BN}(x)$ is $\\frac{\\gamma}{\\sqrt{\\mathrm{Var}[x]+\\varepsilon}}\\,x + "
        "\\left(\\beta - \\frac{\\gamma\\,\\mathrm{E}[x]}{\\sqrt{\\mathrm{Var}[x]+\\varepsilon}}\\right)$: "
        "one transform replaces normalisation, scale and shift."
    ),
    chapter=CHAPTER,
    verdict="holds",
)
def single_transform() -> Evidence:
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(100):
        layer = torch.nn.BatchNorm1d(5, dtype=torch.float64).eval()
        with torch.no_grad():
            for tensor in (layer.weight, layer.bias, layer.running_mean):
                tensor.copy_(torch.tensor(rng.normal(size=5)))
            layer.running_var.copy_(torch.tensor(np.exp(rng.normal(size=5))))
            x = rng.normal(size=(20, 5))
            expected = layer(torch.tensor(x)).numpy()
        scale, shift = affine_map(
            *(
                tensor.detach().numpy()
                for tensor in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
            ),
            eps=layer.eps,
        )
        worst = max(worst, np.abs(scale * x + shift - expected).max())
    return Evidence(
        printed=[
            Measurement(
                "largest difference from torch in evaluation mode, 100 random layers",
                worst,
                at_most=1e-12,
            )
        ]
    )


@claim(
    id="inference-normalized-values",
    source="sharad, slide 11",
    statement=(
        "Batch norm keeps track of the mean and variance of the *normalised* values during training."
    ),
    chapter=CHAPTER,
    verdict="misprinted",
)
def normalized_values() -> Evidence:
    torch.manual_seed(0)
    layer = torch.nn.BatchNorm1d(4, affine=False, momentum=None)
    x = 5 + 3 * torch.randn(50, 64, 4)
    x_hat = torch.stack([layer(batch) for batch in x])
    tracked = layer.running_mean, layer.running_var

    def error(values):
        batches = [batch.numpy() for batch in values]
        expected = population_statistics(batches)
        return max(
            np.abs(ours.numpy() - theirs).max()
            for ours, theirs in zip(tracked, expected, strict=True)
        )

    return Evidence(
        printed=[
            Measurement(
                "largest difference between torch's averages and the statistics of the normalised "
                "values, which are 0 and 1 in every batch",
                error(x_hat),
                at_most=1e-3,
            )
        ],
        corrected=[
            Measurement(
                "the same for the statistics of the values before they are normalised",
                error(x),
                at_most=1e-3,
            )
        ],
        correction="it keeps track of the values *before* they are normalised.",
    )


@claim(
    id="inference-changed-input",
    source="sharad, slide 11",
    statement=(
        "The saved mean and variance normalise the input at inference even if its distribution has "
        "changed since training."
    ),
    chapter=CHAPTER,
    verdict="depends",
)
def changed_input() -> Evidence:
    rng = np.random.default_rng(0)
    saved = exact_statistics([rng.normal(2, 3, size=(20_000, 1))])

    def error(x):
        y = normalize(x, *saved)
        return max(abs(y.mean()), abs(y.var() - 1))

    same, other = rng.normal(2, 3, size=(20_000, 1)), rng.normal(5, 6, size=(20_000, 1))
    what = (
        "how far the mean is from 0 or the variance from 1 after normalisation, whichever is more"
    )
    return Evidence(
        under=(
            "the mean and variance are as in training",
            [Measurement(what, error(same), at_most=0.1)],
        ),
        otherwise=("they have changed", [Measurement(what, error(other), at_most=0.1)]),
    )


@claim(
    id="inference-single-sample",
    source="sharad, slide 12",
    statement=(
        "At inference there is a single sample and not a mini-batch, so there is no batch mean and "
        "variance to normalise with."
    ),
    chapter=CHAPTER,
    verdict="depends",
)
def single_sample() -> Evidence:
    rng = np.random.default_rng(0)

    def response(shape):
        x = rng.normal(size=(200, *shape))
        axes = tuple(range(2, x.ndim))
        centred = x - x.mean(axis=axes, keepdims=True)
        y = centred / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + 1e-5)
        return np.abs(y).max()

    what = "largest normalised output of 200 samples, each normalised by itself"
    return Evidence(
        under=(
            "the layer is fully connected: one value of each feature, normalised to 0 whatever it is",
            [Measurement(what, response((4,)), at_most=1e-12)],
        ),
        otherwise=(
            "the layer is convolutional: a sample has one value at each position",
            [Measurement(f"{what}, 8 × 8 positions", response((4, 8, 8)), at_most=1e-12)],
        ),
    )


@claim(
    id="inference-memory",
    source="sharad, slide 12",
    statement=(
        "Keeping the mean and variance of the full data is expensive; the moving average is cheaper "
        "because only its most recent value needs to be remembered."
    ),
    chapter=CHAPTER,
    verdict="fails",
)
def memory() -> Evidence:
    features = 512
    moving = 2 * features
    exact = 1 + 2 * features
    x = np.random.default_rng(0).normal(size=(50, 20, features))
    mean, var = exact_statistics(iter(x))
    error = max(np.abs(mean - x.mean(axis=(0, 1))).max(), np.abs(var - x.var(axis=(0, 1))).max())
    return Evidence(
        printed=[
            Measurement(
                "numbers remembered between two batches for 512 features: a count, means and squared "
                "deviations of all data so far, as a multiple of moving means and variances",
                exact / moving,
                at_least=2,
            ),
            Measurement(
                "error of the statistics of all the data computed that way", error, at_most=1e-12
            ),
        ]
    )


@claim(
    id="inference-small-batches",
    source="sharad, slide 20",
    statement="If the batch size is small, the moving average is inaccurate.",
    chapter=CHAPTER,
    verdict="depends",
)
def small_batches() -> Evidence:
    rng = np.random.default_rng(0)

    def error(m, momentum):
        statistics = RunningStatistics(300, momentum)
        for _ in range(round(5 / momentum)):
            statistics.update(rng.normal(size=(m, 300)))
        return np.sqrt(np.square(statistics.mean).mean())

    what = "error of the moving mean with batches of 4 over that with batches of 128"
    large = error(128, 0.1)
    return Evidence(
        under=(
            "the momentum is the same: the average looks back over fewer examples",
            [Measurement(f"{what}, momentum 0.1", error(4, 0.1) / large, at_least=3)],
        ),
        otherwise=(
            "the momentum shrinks with the batch: the average looks back over as many examples",
            [Measurement(f"{what}, momentum 0.1 · 4/128", error(4, 0.1 / 32) / large, at_least=3)],
        ),
    )


@claim(
    id="inference-average-deviation",
    source="readingnotes, Tips for using batch normalization, 7",
    statement=(
        "At test time the exponentially weighted average across mini-batches serves as the final "
        "mean and standard deviation."
    ),
    chapter=CHAPTER,
    verdict="depends",
)
def average_deviation() -> Evidence:
    rng = np.random.default_rng(0)

    def shortfall(m):
        averaged = rng.normal(size=(20_000, m)).std(axis=1).mean()
        return 1 - averaged

    what = "how much too small the averaged standard deviation is, as a fraction"
    return Evidence(
        under=(
            "batches are large",
            [Measurement(f"{what}, normal data, $m = 64$", shortfall(64), at_most=0.03)],
        ),
        otherwise=(
            "batches are small: average variances, with divisor $m-1$, and take the root at the end",
            [Measurement(f"{what}, $m = 2$", shortfall(2), at_most=0.03)],
        ),
    )


@claim(
    id="inference-renormalization",
    source="readingnotes, Improvement",
    statement=(
        "Batch renormalization's correction for each feature makes the activations of training and "
        "inference match."
    ),
    chapter=CHAPTER,
    verdict="depends",
)
def renormalization() -> Evidence:
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=6), np.exp(rng.normal(size=6))

    def mismatch(x):
        batch_mean, batch_std = x.mean(axis=0), x.std(axis=0)
        r = np.clip(batch_std / std, 1 / 3, 3)
        d = np.clip((batch_mean - mean) / std, -5, 5)
        trained = (x - batch_mean) / batch_std * r + d
        return np.abs(trained - (x - mean) / std).max()

    x = mean + std * rng.normal(size=(64, 6))
    what = "largest difference between the training and the inference activation, batch of 64"
    return Evidence(
        under=(
            "the corrections stay within their limits, $1/3 \\le r \\le 3$ and $|d| \\le 5$",
            [Measurement(what, mismatch(x), at_most=1e-12)],
        ),
        otherwise=(
            "a batch lies so far from the moving average that they are cut off",
            [
                Measurement(
                    f"{what} from a population four times as wide",
                    mismatch(mean + 4 * (x - mean)),
                    at_most=1e-12,
                )
            ],
        ),
    )


@claim(
    id="inference-batch-noise",
    source="readingnotes, Tips for using batch normalization, 6",
    statement=(
        "Normalising with a batch's statistics adds noise to the values, and the larger the batch "
        "the less noise."
    ),
    chapter=CHAPTER,
    verdict="holds",
)
def batch_noise() -> Evidence:
    rng = np.random.default_rng(0)
    sizes = np.array([8, 16, 32, 64, 128])
    spreads = []
    for m in sizes:
        batches = rng.normal(size=(4000, m))
        batches[:, 0] = 1.0
        x_hat = (1 - batches.mean(axis=1)) / batches.std(axis=1)
        spreads.append(x_hat.std())
    slope = np.polyfit(np.log(sizes), np.log(spreads), 1)[0]
    return Evidence(
        printed=[
            Measurement(
                "largest ratio of one example's spread to that in batches half as large",
                max(b / a for a, b in pairwise(spreads)),
                at_most=0.9,
            ),
            Measurement(
                "distance of the exponent of $m$ from −1/2, batches of 8 to 128",
                abs(slope + 0.5),
                at_most=0.1,
            ),
        ]
    )


@cache
def _digits():
    return data.digits()


@cache
def _trained(momentum):
    model = networks.mlp((64, 64, 64, 10), "relu", "batch", momentum=momentum)
    training.train(model, _digits(), steps=200, batch_size=32, learning_rate=0.1)
    return model


@claim(
    id="inference-dependence-useless",
    source="encyclopaedia, Inference",
    statement="At inference the dependence on the mini-batch is not useful any more.",
    chapter=CHAPTER,
    verdict="depends",
)
def dependence_useless() -> Evidence:
    split, model = _digits(), _trained(0.1)

    def advantage(x):
        fixed = accuracy(model, x, split.y_test)
        return accuracy(model, x, split.y_test, "batch") - fixed

    what = "accuracy with the statistics of the test batch, minus accuracy with the saved ones"
    return Evidence(
        under=(
            "the test data are distributed like the training data",
            [Measurement(f"{what}, digits", advantage(split.x_test), at_most=0.05)],
        ),
        otherwise=(
            "they are not",
            [
                Measurement(
                    f"{what}, digits with 30 % of the contrast",
                    advantage(0.3 * split.x_test + 0.35),
                    at_most=0.05,
                )
            ],
        ),
    )


@claim(
    id="inference-track-accuracy",
    source="ioffe2015, Section 3.1",
    statement="With moving averages one can track the accuracy of a model as it trains.",
    chapter=CHAPTER,
    verdict="depends",
)
def track_accuracy() -> Evidence:
    split = _digits()

    def error(momentum):
        model = _trained(momentum)
        fitted = refitted(model, split.x_train)
        return accuracy(fitted, split.x_test, split.y_test) - accuracy(
            model, split.x_test, split.y_test
        )

    what = "test accuracy with exact statistics, minus that with moving averages"
    return Evidence(
        under=(
            "many more than 1/momentum batches were seen",
            [Measurement(f"{what}, 200 steps, momentum 0.1", error(0.1), at_most=0.03)],
        ),
        otherwise=(
            "the average still remembers its initial value",
            [Measurement(f"{what}, 200 steps, momentum 0.001", error(0.001), at_most=0.03)],
        ),
    )


@claim(
    id="inference-same-moments",
    source="ioffe2015, Section 3.1",
    statement=(
        "Neglecting $\\varepsilon$, activations normalised with population statistics have the same "
        "mean 0 and variance 1 as during training."
    ),
    chapter=CHAPTER,
    verdict="depends",
)
def same_moments() -> Evidence:
    rng = np.random.default_rng(0)
    pairs = rng.normal(1, 2, size=(10_000, 2, 32))
    weight = rng.normal(size=(32, 32)) / np.sqrt(32)
    trained = (pairs - pairs.mean(axis=1, keepdims=True)) / pairs.std(axis=1, keepdims=True)
    hidden = np.maximum(trained, 0) @ weight

    def algorithm_2(batches):
        return batches.mean(axis=(0, 1)), batches.var(axis=1, ddof=1).mean(axis=0)

    x, first, second = pairs.reshape(-1, 32), algorithm_2(pairs), algorithm_2(hidden)
    normalised = normalize(x, *first, eps=1e-12)
    deeper = normalize(np.maximum(normalised, 0) @ weight, *second, eps=1e-12)
    what = "distance of the variance of the normalised activations from 1, mean over 32 features"
    return Evidence(
        under=(
            "the inputs of the layer are the same as during training, as in the first layer",
            [Measurement(what, abs(normalised.var(axis=0) - 1).mean(), at_most=0.1)],
        ),
        otherwise=(
            "layers before it normalise too: with batches of 2 their outputs are others in training",
            [Measurement(f"{what}, second layer", abs(deeper.var(axis=0) - 1).mean(), at_most=0.1)],
        ),
    )


@claim(
    id="inference-epsilon-variance",
    source="whatisbn, Normalizing output values",
    statement=(
        "A population's variance is typically higher than a sample's, and adding a small constant "
        "such as $\\varepsilon = 0.001$ to the variance of each batch takes that into account."
    ),
    chapter=CHAPTER,
    verdict="fails",
)
def epsilon_variance() -> Evidence:
    rng = np.random.default_rng(0)
    m, eps = 32, 0.001
    variances = rng.normal(size=(20_000, m)).var(axis=1)

    def made_up(scale):
        return eps / (scale * (1 - variances.mean()))

    return Evidence(
        printed=[
            Measurement(
                "share of batches of 32 whose variance is below the population's",
                (variances < 1).mean(),
                at_least=0.5,
            ),
            Measurement(
                "$\\varepsilon$ as a fraction of what is missing, population variance 100",
                made_up(100),
                at_least=0.5,
            ),
            Measurement(
                "the same, population variance 0.0001",
                made_up(1e-4),
                at_most=2,
            ),
        ]
    )
