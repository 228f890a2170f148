"""Gradient descent on least squares: as it runs, and as the eigenvalues of X'X / n foretell it.

The loss is f(w) = ||Xw - y||² / 2n, with Hessian X'X / n.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import expit


def with_intercept(
    X: Float[np.ndarray, "samples features"],
) -> Float[np.ndarray, "samples columns"]:
    """The design [1, X] of a linear model with an intercept."""
    return np.column_stack([np.ones(len(X)), X])


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


def network_losses(
    X: Float[np.ndarray, "samples features"],
    labels: Float[np.ndarray, "samples"],
    rates: Sequence[float],
    seeds: int = 3,
    steps: int = 300,
    hidden: int = 16,
) -> Float[np.ndarray, "rates seeds"]:
    """Logistic loss of a tanh network with one hidden layer after full-batch gradient descent.

    The weights that a seed draws have variance 1 over the number of inputs; what is not finite is
    infinite.
    """
    losses = np.full((len(rates), seeds), np.inf)
    for i, rate in enumerate(rates):
        for seed in range(seeds):
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
            loss = (np.logaddexp(0, scores) - labels * scores).mean()
            losses[i, seed] = loss if np.isfinite(loss) else np.inf
    return losses
