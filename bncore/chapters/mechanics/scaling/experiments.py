"""Gradient descent on least squares: as it runs, and as the eigenvalues of X'X / n foretell it.

The loss is f(w) = ||Xw - y||² / 2n, with Hessian X'X / n. And small networks on scaled inputs.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

from bncore.lab import data, networks, probes, training
from bncore.mechanics import scaling


def with_intercept(
    X: Float[np.ndarray, "samples features"],
) -> Float[np.ndarray, "samples columns"]:
    """The design [1, X] of a linear model with an intercept."""
    return np.column_stack([np.ones(len(X)), X])


@cache
def tables() -> dict[str, Float[np.ndarray, "samples features"]]:
    """Tables of scikit-learn, in the units in which they come."""
    pixels = load_digits().data / 16
    return {
        "diabetes": load_diabetes(scaled=False).data,
        "breast cancer": load_breast_cancer().data,
        "wine": load_wine().data,
        "iris": load_iris().data,
        "digits": pixels[:, pixels.std(axis=0) > 0],
    }


def standardised(X: Float[np.ndarray, "samples features"]) -> Float[np.ndarray, "samples features"]:
    """Each feature with mean 0 and variance 1."""
    return scaling.Standardization.fit(X).apply(X)


def min_max(X: Float[np.ndarray, "samples features"]) -> Float[np.ndarray, "samples features"]:
    """Each feature from 0 to 1."""
    return scaling.MinMax.fit(X).apply(X)


def correlation(X: Float[np.ndarray, "samples d"]) -> Float[np.ndarray, "d d"]:
    """The correlation matrix of the features."""
    return np.corrcoef(X, rowvar=False)


def off_diagonal(matrix: Float[np.ndarray, "d d"]) -> float:
    """The largest absolute entry off the diagonal."""
    return float(np.abs(matrix - np.diag(np.diag(matrix))).max())


def largest_step(X: Float[np.ndarray, "samples features"]) -> float:
    """The step 2 / lambda_max, beyond which gradient descent on the design X diverges."""
    return 2 / (np.linalg.norm(X, 2) ** 2 / len(X))


def growth(
    X: Float[np.ndarray, "samples features"], y: Float[np.ndarray, "samples"], step: float
) -> float:
    """Factor of the excess loss in 20 steps on centred targets, from weights of 0.001."""
    y = y - y.mean()
    loss = excess_loss(X, y, descend(X, y, step, 20, np.full(X.shape[1], 1e-3)))
    return loss[-1] / loss[0]


def extreme_eigenvalues(H: Float[np.ndarray, "d d"]) -> tuple[float, float]:
    """Smallest and largest eigenvalue of a symmetric matrix."""
    values = np.linalg.eigvalsh(H)
    return float(values[0]), float(values[-1])


def condition(H: Float[np.ndarray, "d d"]) -> float:
    """Largest eigenvalue over smallest of a symmetric positive definite matrix."""
    smallest, largest = extreme_eigenvalues(H)
    return largest / smallest


def best_step(X: Float[np.ndarray, "samples features"]) -> float:
    """The constant step 2 / (lambda_min + lambda_max) for the design X."""
    return 2 / sum(extreme_eigenvalues(X.T @ X / len(X)))


def descend(
    X: Float[np.ndarray, "samples features"],
    y: Float[np.ndarray, "samples"],
    step: float,
    steps: int,
    start: Float[np.ndarray, "features"] | None = None,
) -> Float[np.ndarray, "times features"]:
    """Run gradient descent on f from `start` (by default 0) and return every iterate.

    w_{t+1} = w_t - step X'(X w_t - y) / n
    """
    W = np.empty((steps + 1, X.shape[1]))
    W[0] = 0 if start is None else start
    for t in range(steps):
        W[t + 1] = W[t] - step * (X.T @ (X @ W[t] - y) / len(X))
    return W


def excess_loss(
    X: Float[np.ndarray, "samples features"],
    y: Float[np.ndarray, "samples"],
    W: Float[np.ndarray, "times features"],
) -> Float[np.ndarray, "times"]:
    """Return f(w) - min f for each row w of W, as ||X(w - w*)||² / 2n."""
    optimum = np.linalg.lstsq(X, y)[0]
    return np.square((W - optimum) @ X.T).mean(axis=1) / 2


def foretold_excess_loss(
    X: Float[np.ndarray, "samples features"],
    y: Float[np.ndarray, "samples"],
    step: float,
    times: Float[np.ndarray, "times"],
) -> Float[np.ndarray, "times"]:
    """Return f(w_t) - min f for gradient descent from 0, without running it.

    f(w_t) - min f = sum_i lambda_i (1 - step lambda_i)^{2t} c_i² / 2,    c_i = v_i' w*
    """
    values, vectors = np.linalg.eigh(X.T @ X / len(X))
    along = vectors.T @ np.linalg.lstsq(X, y)[0]
    factors = np.abs(1 - step * values) ** (2 * times[:, None])
    return factors @ (values * np.square(along)) / 2


@cache
def targets() -> dict[str, Float[np.ndarray, "samples"]]:
    """What the tables are there to predict: a number, or the class as a number."""
    loaders = load_diabetes, load_breast_cancer, load_wine, load_iris, load_digits
    return {name: load().target.astype(float) for name, load in zip(tables(), loaders, strict=True)}


def fewest_steps(
    X: Float[np.ndarray, "samples features"], y: Float[np.ndarray, "samples"], level: float
) -> float:
    """Steps to a share `level` of the first excess loss, from weights 0 and with the best constant step.

    The best of 40 steps up to 2 / lambda_max, intercept included; see ``foretold_excess_loss``. Counts
    above 1000 are right to one part in 1000.
    """
    design = with_intercept(X)
    left, sizes, _ = np.linalg.svd(design, full_matrices=False)
    values = sizes**2 / sizes[0] ** 2
    weights = np.square(left.T @ y)
    weights /= weights.sum()

    def enough(factors, steps):
        return factors ** (2.0 * steps) @ weights <= level

    def steps(share):
        factors, most = np.abs(1 - share * values), 1.0
        while not enough(factors, most):
            most *= 2
        least = most // 2
        while most - least > max(1, most / 1000):
            middle = (least + most) // 2
            least, most = (least, middle) if enough(factors, middle) else (middle, most)
        return most

    return min(steps(share) for share in np.linspace(0.05, 1.999, 40))


def steps_to_shrink(rate: float, factor: float) -> float:
    """Number of steps after which an error that shrinks by `rate` a step is `factor` smaller."""
    return float(np.log(factor) / -np.log(rate))


def best_diagonal_scaling(
    H: Float[np.ndarray, "d d"], starts: int = 3
) -> tuple[float, Float[np.ndarray, "d"]]:
    """Search the diagonal D > 0 for which D H D has the smallest condition number.

    A derivative-free search over log D from several starts, for small matrices: what it finds is
    an upper bound on the smallest condition number, in practice a tight one.

    Returns
    -------
    condition number, diagonal of D
        The diagonal has geometric mean 1.
    """
    scales = 1 / np.sqrt(np.diag(H))
    rng = np.random.default_rng(0)

    def objective(logs):
        d = scales * np.exp(logs)
        return np.log(condition(d[:, None] * H * d))

    found = min(
        (
            minimize(
                objective,
                rng.normal(scale=0.5, size=len(H)) * (trial > 0),
                method="Nelder-Mead",
                options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 4000, "adaptive": True},
            )
            for trial in range(starts)
        ),
        key=lambda result: result.fun,
    )
    logs = np.log(scales) + found.x
    return float(np.exp(found.fun)), np.exp(logs - logs.mean())


def idle_features(
    features: int, gap: float = 0.01, loose: float = 0.2, scale: float = 0.25
) -> Float[np.ndarray, "features features"]:
    """Covariance of a case in which standardising harms: all features follow one factor.

    Features 1 and 2 have variance 1 and the correlation 1 - gap, so that the smallest eigenvalue is
    gap, along their difference. The other features are small: each is `scale` times the factor plus
    noise of its own, with the correlation 1 - loose to all others. Enlarging them to variance 1
    raises the largest eigenvalue and leaves the smallest where it was.
    """
    H = np.full((features, features), 1 - loose) + loose * np.eye(features)
    H[0, 1] = H[1, 0] = 1 - gap
    sizes = np.r_[1.0, 1.0, np.full(features - 2, scale)]
    return sizes[:, None] * H * sizes


def logistic_optimum(
    X: Float[np.ndarray, "samples features"], labels: Float[np.ndarray, "samples"]
) -> tuple[Float[np.ndarray, "features"], Float[np.ndarray, "features features"]]:
    """Minimiser of the mean logistic loss, and the Hessian there, by Newton's method.

    Labels are 0 or 1. The classes must overlap: a minimiser of separable data is at infinity.

    Raises
    ------
    ValueError
        If Newton's method does not settle within 50 steps.
    """
    w = np.zeros(X.shape[1])
    for _ in range(50):
        p = expit(X @ w)
        H = (X * (p * (1 - p))[:, None]).T @ X / len(X)
        change = np.linalg.lstsq(H, X.T @ (p - labels) / len(X))[0]
        w = w - change
        if np.abs(change).max() < 1e-10 * (1 + np.abs(w).max()):
            return w, H
    raise ValueError(
        "labels are separable by X, or nearly so: the logistic loss has no finite minimiser, "
        "expected classes that overlap"
    )


def logistic_descent(
    X: Float[np.ndarray, "samples features"],
    labels: Float[np.ndarray, "samples"],
    step: float,
    steps: int,
) -> Float[np.ndarray, "times features"]:
    """Run gradient descent on the mean logistic loss from 0 and return every iterate."""
    W = np.zeros((steps + 1, X.shape[1]))
    for t in range(steps):
        W[t + 1] = W[t] - step * (X.T @ (expit(X @ W[t]) - labels) / len(X))
    return W


def moved_hidden(
    trained: bool, seed: int, steps: int = 300, *, held_out: bool = True
) -> dict[str, float]:
    """How far hidden features are from mean 0 and deviation 1, scaled as they were some steps before.

    One hidden layer of 8 tanh units on the diabetes table, by gradient descent on 300 patients; the
    largest distances over the units, on the others or on these. Without `trained` the first layer
    stands still.
    """
    X, y = load_diabetes(return_X_y=True, scaled=False)
    inputs, target = standardised(X), ((y - y.mean()) / y.std())[:, None]
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(10, 8)) / 3, rng.normal(size=(8, 1))
    order = rng.permutation(len(inputs))
    seen, others = order[:300], order[300:]
    fitted = scaling.Standardization.fit(np.tanh(inputs[seen] @ first))
    for _ in range(steps):
        hidden = np.tanh(inputs[seen] @ first)
        error = (hidden @ second - target[seen]) / len(seen)
        slope = (error @ second.T) * (1 - hidden**2)
        second = second - 0.3 * hidden.T @ error
        if trained:
            first = first - 0.3 * inputs[seen].T @ slope
    scaled = fitted.apply(np.tanh(inputs[others if held_out else seen] @ first))
    return {
        "mean": float(np.abs(scaled.mean(axis=0)).max()),
        "deviation": float(np.abs(scaled.std(axis=0) - 1).max()),
    }


def network_loss(
    X: Float[np.ndarray, "samples features"],
    labels: Float[np.ndarray, "samples"],
    rate: float,
    seed: int,
    steps: int = 300,
    hidden: int = 16,
) -> float:
    """Logistic loss of a tanh network with one hidden layer after full-batch gradient descent.

    The weights that a seed draws have variance 1 over the number of inputs; what is not finite is
    infinite.
    """
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(X.shape[1], hidden)) / np.sqrt(X.shape[1])
    v, a, b = rng.normal(size=hidden) / np.sqrt(hidden), np.zeros(hidden), 0.0
    for _ in range(steps):
        h = np.tanh(X @ W + a)
        error = (expit(h @ v + b) - labels) / len(X)
        slope = np.outer(error, v) * (1 - h**2)
        W, a = W - rate * X.T @ slope, a - rate * slope.sum(axis=0)
        v, b = v - rate * h.T @ error, b - rate * error.sum()
    scores = np.tanh(X @ W + a) @ v + b
    loss = float((np.logaddexp(0, scores) - labels * scores).mean())
    return loss if np.isfinite(loss) else np.inf


def whitened_or_not(
    table: str, inputs: str, steps: int, learning_rate: float, seed: int
) -> dict[str, float]:
    """Loss of ``network_loss`` on a table of two classes, its inputs "raw" or "whitened".

    The tables are breast cancer, and wine with one class of three against the others.
    """
    if table == "breast cancer":
        X, labels = load_breast_cancer(return_X_y=True)
    else:
        X, labels = load_wine(return_X_y=True)
        labels = labels == 1
    if inputs == "whitened":
        X = scaling.ZCAWhitening.fit(X).apply(X)
    return {"loss": network_loss(X, labels.astype(float), learning_rate, seed, steps)}


def skewed_table(source: str, seed: int) -> data.Split:
    """Raw inputs far from normal, in two classes.

    "breast cancer" is the table of scikit-learn, split by the seed. The others are 3000 rows of ten
    independent log-normal features exp(2z), of which the seed draws the classes: by whether a
    weighted "product" of them exceeds 1, with exponents from N(0, 1), or a weighted "sum" its median,
    with weights from (0, 1).
    """
    rng = np.random.default_rng(seed)
    if source == "breast cancer":
        X, y = load_breast_cancer(return_X_y=True)
        order = rng.permutation(len(X))
        X, y, train = X[order], y[order], 426
    else:
        z, train = rng.normal(size=(3000, 10)), 1000
        X = np.exp(2 * z)
        if source == "product":
            y = z @ rng.normal(size=10) > 0
        else:
            total = X @ rng.random(10)
            y = total > np.median(total)
    x, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y, dtype=torch.int64)
    return data.Split(x[:train], y[:train], x[train:], y[train:])


def scaled_first(
    source: str, first: str, learning_rate: float, seed: int, *, moments: Sequence[int]
) -> dict[str, Any]:
    """Train a network on a ``skewed_table`` that is scaled in one of four ways before.

    "nothing"; "batch norm" as the network's first layer; "z-score"; and "logarithm", of each feature
    plus its smallest positive value, and then the z-score. Two hidden layers of 32 ReLU units, He's
    weights, batches of 64.

    Returns
    -------
    dict
        "accuracy" on the test rows after each number of steps in `moments`, and "last" of them.
    """
    split = skewed_table(source, seed)
    x_train, x_test = split.x_train.double().numpy(), split.x_test.double().numpy()
    if first == "logarithm":
        least = np.min(x_train, axis=0, where=x_train > 0, initial=np.inf)
        x_train, x_test = np.log(x_train + least), np.log(x_test + least)
    if first in ("logarithm", "z-score"):
        fitted = scaling.Standardization.fit(x_train)
        x_train, x_test = fitted.apply(x_train), fitted.apply(x_test)
    split = split._replace(
        x_train=torch.tensor(x_train, dtype=torch.float32),
        x_test=torch.tensor(x_test, dtype=torch.float32),
    )
    features = x_train.shape[1]
    model = networks.mlp((features, 32, 32, 2), "relu", gain=2**0.5, seed=seed)
    if first == "batch norm":
        model = torch.nn.Sequential(torch.nn.BatchNorm1d(features), *model)
    record, every = {"accuracy": probes.test_accuracy}, math.gcd(*moments)
    history = training.train(
        model, split, max(moments), 64, learning_rate, seed, record, every=every
    )
    found = dict(zip(history.steps.tolist(), history.records["accuracy"], strict=True))
    return {"accuracy": np.array([found[step] for step in moments]), "last": found[max(moments)]}
