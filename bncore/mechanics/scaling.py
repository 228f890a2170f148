"""Feature scaling: put the columns of a data matrix on one scale before learning from it.

Each scaling is fitted on training data, keeps its statistics and applies them to any other data.
Sources: LeCun et al. (1998), "Efficient BackProp", section 4.3; on whitening Kessy et al. (2018),
"Optimal whitening and decorrelation".
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from bncore import arguments as check

__all__ = [
    "MinMax",
    "PCAWhitening",
    "Standardization",
    "ZCAWhitening",
    "condition_number",
    "gradient_descent_rate",
]

Data = Float[np.ndarray, "samples features"]


@dataclass(frozen=True, eq=False)
class MinMax:
    """Map each feature's training range onto [0, 1].

    z = (x - minimum) / (maximum - minimum)

    Data outside the training range lands outside [0, 1]: nothing is clipped.

    Attributes
    ----------
    minimum, maximum : Float[ndarray, "features"]
        Extremes of the training data, in the units of each feature.
    """

    minimum: Float[np.ndarray, "features"]
    maximum: Float[np.ndarray, "features"]

    @classmethod
    def fit(cls, X: Data) -> "MinMax":
        """Keep the extremes of X.

        Raises
        ------
        TypeError
            If X is not an array of floating-point numbers.
        ValueError
            If X is empty, not a matrix or not finite, or one of its features is constant: its
            range is 0, and the formula divides by it.
        """
        X = _matrix(X)
        minimum, maximum = X.min(axis=0), X.max(axis=0)
        _refuse_flat(X, maximum - minimum, "min-max scaling divides by the range; drop it")
        return cls(minimum, maximum)

    def apply(self, X: Data) -> Data:
        """Scale X by the training range."""
        Z = (_matrix(X, len(self.minimum)) - self.minimum) / (self.maximum - self.minimum)
        return Z.astype(X.dtype)

    def invert(self, Z: Data) -> Data:
        """Undo ``apply``."""
        X = _matrix(Z, len(self.minimum), "Z") * (self.maximum - self.minimum) + self.minimum
        return X.astype(Z.dtype)


@dataclass(frozen=True, eq=False)
class Standardization:
    """Give each feature mean 0 and variance 1 on the training data.

    z = (x - mean) / scale,    scale = sqrt(var + eps)

    The variance is the mean squared deviation (divisor n), as in batch normalization. With
    batch normalization's ``eps`` this is what it does to one batch before gamma and beta.

    Attributes
    ----------
    mean, scale : Float[ndarray, "features"]
        Statistics of the training data, in the units of each feature.
    """

    mean: Float[np.ndarray, "features"]
    scale: Float[np.ndarray, "features"]

    @classmethod
    def fit(cls, X: Data, eps: float | int = 0.0) -> "Standardization":
        """Keep the mean and the standard deviation of each feature of X.

        Raises
        ------
        TypeError
            If X is not an array of floating-point numbers.
        ValueError
            If X is empty, not a matrix or not finite, if eps < 0, or if eps = 0 and a feature is
            constant: the formula would divide by 0. With eps > 0 a constant feature becomes 0.
        """
        check.nonnegative("eps", eps)
        X = _matrix(X)
        mean, centred = _centre(X)
        scale = np.sqrt(np.square(centred).mean(axis=0) + eps)
        if eps == 0:
            _refuse_flat(
                X, scale, "standardisation divides by its deviation; drop it or set eps > 0"
            )
        return cls(mean, scale)

    def apply(self, X: Data) -> Data:
        """Standardise X with the training statistics."""
        return ((_matrix(X, len(self.mean)) - self.mean) / self.scale).astype(X.dtype)

    def invert(self, Z: Data) -> Data:
        """Undo ``apply``."""
        return (_matrix(Z, len(self.mean), "Z") * self.scale + self.mean).astype(Z.dtype)


@dataclass(frozen=True, eq=False)
class PCAWhitening:
    """Rotate to the principal axes, then give each axis variance 1.

    Z = (X - mean) V diag(1 / scale),    scale = sqrt(variance + eps),
    Cov(X) = V diag(variance) V'

    On the training data Cov(Z) = I when eps = 0. Standardising each feature only makes the
    diagonal of the covariance 1; whitening removes the correlations too.

    Attributes
    ----------
    mean : Float[ndarray, "features"]
        Mean of the training data.
    axes : Float[ndarray, "features features"]
        V: one principal axis a column, the axis of largest variance first. Each axis points so
        that its entry of largest magnitude is positive.
    scale : Float[ndarray, "features"]
        Standard deviation along each axis, eps included.
    """

    mean: Float[np.ndarray, "features"]
    axes: Float[np.ndarray, "features features"]
    scale: Float[np.ndarray, "features"]

    @classmethod
    def fit(cls, X: Data, eps: float | int = 0.0) -> "PCAWhitening":
        """Keep the mean and the principal axes of X.

        Raises
        ------
        TypeError
            If X is not an array of floating-point numbers.
        ValueError
            If X is empty, not a matrix or not finite, if eps < 0, or if eps = 0 and the covariance
            is singular to working precision: no more samples than features, a constant feature,
            or features that depend linearly on each other. With eps > 0 the directions in which
            the data do not vary become 0.
        """
        check.nonnegative("eps", eps)
        mean, centred = _centre(_matrix(X))
        _, singular, axes_t = np.linalg.svd(np.linalg.qr(centred, mode="r"), full_matrices=True)
        samples, features = X.shape
        if eps == 0:
            rank = _rank(singular, X)
            if rank < features:
                raise ValueError(
                    f"X, of shape {X.shape}, varies in {rank} directions only, expected all "
                    f"{features}: whitening divides by the deviation along each; set eps > 0, "
                    "drop dependent features or bring more samples"
                )
        variance = np.zeros(features)
        variance[: len(singular)] = np.square(singular) / samples
        axes = axes_t.T
        signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(features)])
        return cls(mean, axes * signs, np.sqrt(variance + eps))

    def apply(self, X: Data) -> Data:
        """Whiten X with the training statistics."""
        return self._forward(_matrix(X, len(self.mean))).astype(X.dtype)

    def invert(self, Z: Data) -> Data:
        """Undo ``apply``."""
        return self._backward(_matrix(Z, len(self.mean), "Z")).astype(Z.dtype)

    def _forward(self, X):
        return (X - self.mean) @ self.axes / self.scale

    def _backward(self, Z):
        return Z * self.scale @ self.axes.T + self.mean


@dataclass(frozen=True, eq=False)
class ZCAWhitening(PCAWhitening):
    """Whiten, then rotate back to the axes of the features.

    Z = (X - mean) V diag(1 / scale) V'

    Of all whitenings this one changes the centred training data least in mean square (Kessy et
    al. 2018): each whitened feature still resembles the feature that it came from.
    The attributes and the rules of ``fit`` are those of ``PCAWhitening``.
    """

    def _forward(self, X):
        return super()._forward(X) @ self.axes.T

    def _backward(self, Z):
        return super()._backward(Z @ self.axes)


def condition_number(X: Data) -> float:
    """Condition number of the second-moment matrix of X.

    kappa = largest eigenvalue / smallest eigenvalue of X'X / n

    X'X / n is the Hessian of the least-squares loss ||Xw - y||² / 2n, so kappa says how much longer
    than wide its level sets are, squared. Singular values of X give it without forming X'X.

    Centring removes the rank-one part mean mean' from X'X / n. Neither eigenvalue can then grow, so
    without an intercept kappa may move either way. With an intercept, that is for the matrix
    [1, X], centring X never increases kappa.

    Returns
    -------
    float
        At least 1; infinite when X'X / n is singular to working precision, as it is with fewer
        samples than features.

    Raises
    ------
    TypeError
        If X is not an array of floating-point numbers.
    ValueError
        If X is empty, not a matrix or not finite.

    References
    ----------
    LeCun et al. (1998), "Efficient BackProp", sections 4.3 and 5.
    """
    singular = np.linalg.svd(_matrix(X), compute_uv=False)
    if _rank(singular, X) < X.shape[1]:
        return float("inf")
    return float(np.square(singular[0] / singular[-1]))


def gradient_descent_rate(
    condition_number: float | int, step: Literal["best", "1/lambda_max"] = "best"
) -> float:
    """Factor by which gradient descent shrinks the error at each step of least squares.

    ||w_{t+1} - w*|| <= rate ||w_t - w*||

    With the eigenvalues of the Hessian in [lambda_min, lambda_max] and kappa their ratio, the step
    2 / (lambda_min + lambda_max) attains (kappa - 1) / (kappa + 1), the best of any constant step,
    and the step 1 / lambda_max attains 1 - 1 / kappa. Both are reached from the worst start; the
    loss shrinks by the square.

    Raises
    ------
    TypeError
        If condition_number is not a real number.
    ValueError
        If condition_number < 1 or not a number, or step is neither "best" nor "1/lambda_max". An
        infinite condition number gives the rate 1: along a flat direction the error does not
        shrink.

    References
    ----------
    Nesterov (2018), "Lectures on Convex Optimization", theorem 2.1.15;
    Boyd and Vandenberghe (2004), "Convex Optimization", section 9.3.
    """
    kappa = check.number("condition_number", condition_number)
    if not kappa >= 1:
        raise ValueError(f"condition_number is {kappa}, expected at least 1")
    if step == "1/lambda_max":
        return 1 - 1 / kappa
    if step == "best":
        return 1 - 2 / (kappa + 1)
    raise ValueError(
        f'step is {step!r}, expected "best", 2 / (lambda_min + lambda_max), or "1/lambda_max"'
    )


def _matrix(X, features=None, name="X"):
    check.array(name, X)
    if X.ndim != 2:
        raise ValueError(f"{name} has shape {X.shape}, expected (samples, features)")
    if X.size == 0:
        raise ValueError(f"{name} has shape {X.shape}, expected at least one sample and feature")
    if features is not None and X.shape[1] != features:
        raise ValueError(
            f"{name} has {X.shape[1]} features, expected {features}: as many as the data of fit"
        )
    check.finite(name, X)
    return X.astype(np.float64)


def _centre(X):
    """Mean and deviations; a second pass removes the rounding error of the first mean.

    The deviations of a constant are then 0 exactly.
    """
    mean = X.mean(axis=0)
    mean = mean + (X - mean).mean(axis=0)
    return mean, X - mean


def _rank(singular, X):
    tolerance = singular[0] * max(X.shape) * np.finfo(X.dtype).eps
    return int((singular > tolerance).sum())


def _refuse_flat(X, spread, reason):
    flat = np.flatnonzero(spread == 0)
    if flat.size:
        j = flat[0]
        raise ValueError(
            f"feature {j} of X is constant at {X[0, j]:g}, expected values that differ: {reason}"
        )
