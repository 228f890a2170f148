"""Feature scaling: put the columns of a data matrix on one scale before learning from it.

Each scaling is fitted on training data, keeps its statistics and applies them to any other data.
Statistics are in double precision, results in the dtype and memory order of the data. Lists and
integers count as float64. Sources: LeCun et al. (1998), "Efficient BackProp", section 4.3; on
whitening Kessy et al. (2018), "Optimal whitening and decorrelation".
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Real
from scipy.linalg import lapack

from bncore import arguments as check
from bncore.mechanics import rank

__all__ = [
    "MinMax",
    "PCAWhitening",
    "Standardization",
    "ZCAWhitening",
    "condition_number",
    "gradient_descent_rate",
]

Data = Real[np.ndarray, "samples features"] | check.Listed
Scaled = Float[np.ndarray, "samples features"]
Vector = Float[np.ndarray, "features"]
TINY = float(np.finfo(np.float64).tiny)


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

    minimum: Vector
    maximum: Vector

    @classmethod
    def fit(cls, X: Data) -> "MinMax":
        """Keep the extremes of X.

        Raises
        ------
        TypeError
            If X is not an array of real numbers.
        ValueError
            If X is empty, not a matrix or not finite, or one of its features is constant: its
            range is 0, and the formula divides by it; or if the range is beyond float64.
        """
        X = _matrix("X", X)
        minimum, maximum = (end(axis=0).astype(np.float64) for end in (X.min, X.max))
        with np.errstate(over="ignore"):
            spread = maximum - minimum
        _refuse_wide(X, spread)
        _refuse_flat(X, spread, "min-max scaling divides by the range; drop it")
        return cls(minimum, maximum)

    def apply(self, X: Data) -> Scaled:
        """Scale X by the training range."""
        X = _matrix("X", X, like=self.minimum)
        return _result("Z", lambda: (X - self.minimum) / (self.maximum - self.minimum), X)

    def invert(self, Z: Data) -> Scaled:
        """Undo ``apply``."""
        Z = _matrix("Z", Z, like=self.minimum)
        return _result("X", lambda: Z * (self.maximum - self.minimum) + self.minimum, Z)


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
    rest : Float[ndarray, "features"] or float
        What the mean is above ``mean``. One float64 cannot hold the mean of data that lie far from
        0 to a small fraction of their deviation; two can.
    """

    mean: Vector
    scale: Vector
    rest: Vector | float = 0.0

    @classmethod
    def fit(cls, X: Data, eps: float | int = 0.0) -> "Standardization":
        """Keep the mean and the standard deviation of each feature of X.

        Raises
        ------
        TypeError
            If X is not an array of real numbers.
        ValueError
            If X is empty, not a matrix or not finite, if eps < 0, or if eps = 0 and a feature is
            constant: the formula would divide by 0. With eps > 0 a constant feature becomes 0.
            Also if the deviations of X are beyond float64.
        """
        eps = check.nonnegative("eps", eps)
        X = _matrix("X", X)
        mean, rest, centred = _centre(X)
        deviation = _root_mean_square(centred)
        if eps == 0:
            reason = "standardisation divides by its deviation; drop it or set eps > 0"
            _refuse_flat(X, deviation, reason)
        return cls(mean, np.hypot(deviation, np.sqrt(eps)), rest)

    def apply(self, X: Data) -> Scaled:
        """Standardise X with the training statistics."""
        X = _matrix("X", X, like=self.mean)
        return _result("Z", lambda: (X - self.mean - self.rest) / self.scale, X)

    def invert(self, Z: Data) -> Scaled:
        """Undo ``apply``."""
        Z = _matrix("Z", Z, like=self.mean)
        return _result("X", lambda: Z * self.scale + self.rest + self.mean, Z)


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
        that its entry of largest magnitude is positive, the first of several that are as large.
    scale : Float[ndarray, "features"]
        Standard deviation along each axis, eps included.
    rest : Float[ndarray, "features"] or float
        What the mean is above ``mean``; see ``Standardization``.
    """

    mean: Vector
    axes: Float[np.ndarray, "features features"]
    scale: Vector
    rest: Vector | float = 0.0

    @classmethod
    def fit(cls, X: Data, eps: float | int = 0.0) -> "PCAWhitening":
        """Keep the mean and the principal axes of X.

        Raises
        ------
        TypeError
            If X is not an array of real numbers.
        ValueError
            If X is empty, not a matrix or not finite, if eps < 0, or if eps = 0 and the covariance
            is singular to working precision: no more samples than features, a constant feature,
            or features that depend linearly on each other, as ``rank.of_data`` finds whatever
            their scales. With eps > 0 the directions in which the data do not vary become 0.
            Also if the deviations of X are beyond float64.
        """
        eps = check.nonnegative("eps", eps)
        X = _matrix("X", X)
        mean, rest, centred = _centre(X)
        deviations, axes = _principal_axes(centred)
        if eps == 0:
            _refuse_dependent(X, deviations)
        return cls(mean, axes, np.hypot(deviations, np.sqrt(eps)), rest)

    def apply(self, X: Data) -> Scaled:
        """Whiten X with the training statistics."""
        X = _matrix("X", X, like=self.mean)
        return _result("Z", lambda: self._forward(X), X)

    def invert(self, Z: Data) -> Scaled:
        """Undo ``apply``."""
        Z = _matrix("Z", Z, like=self.mean)
        return _result("X", lambda: self._backward(Z), Z)

    def _forward(self, X):
        return (X - self.mean - self.rest) @ self.axes / self.scale

    def _backward(self, Z):
        return Z * self.scale @ self.axes.T + self.rest + self.mean


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
        At least 1; infinite when X'X / n is singular to working precision, that is when columns
        depend on each other (``rank.of_data``), as they do with fewer samples than features, and
        where the ratio is beyond float64. A factor on a feature changes kappa, but never whether
        it is finite.

    Raises
    ------
    TypeError
        If X is not an array of real numbers.
    ValueError
        If X is empty, not a matrix or not finite.

    References
    ----------
    LeCun et al. (1998), "Efficient BackProp", sections 4.3 and 5.
    """
    X = _matrix("X", X)
    if rank.of_data(X).dependent:
        return float("inf")
    singular, _, _ = _singular_values(X)
    with np.errstate(over="ignore", divide="ignore"):
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


def _matrix(name, X, like=None):
    """X as an array. Statistics of fit, given in ``like``, allow it to be empty."""
    X = check.array(name, X, 2)
    if like is None and X.size == 0:
        raise ValueError(f"{name} has shape {X.shape}, expected at least one sample and feature")
    if like is not None and X.shape[1] != len(like):
        raise ValueError(
            f"{name} has {X.shape[1]} features, expected {len(like)}: as many as the data of fit"
        )
    check.finite(name, X)
    return X


def _result(name, compute, like):
    with np.errstate(over="ignore", invalid="ignore"):
        value = compute()
    return check.result(name, value, like)


def _centre(X):
    """Both parts of the mean, and the deviations. Those of a constant are 0 exactly."""
    X = X.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = X.mean(axis=0)
        mean = mean + (X - mean).mean(axis=0)
        rest = (X - mean).mean(axis=0)
        centred = X - mean - rest
    _refuse_wide(X, centred.sum(axis=0))
    return mean, rest, centred


def _root_mean_square(centred):
    """Of each column, by way of its largest entry, whose square may be beyond float64."""
    largest = np.abs(centred).max(axis=0)
    unit = np.where(largest > 0, largest, 1)
    return largest * np.sqrt(np.square(centred / unit).mean(axis=0))


def _principal_axes(centred):
    """Root mean squares along the principal axes, descending, and the axes as columns."""
    singular, exponent, axes = _singular_values(centred)
    with np.errstate(over="ignore"):
        deviations = np.ldexp(singular / np.sqrt(len(centred)), exponent)
    size = np.abs(axes)
    first = (size > (1 - 1e-6) * size.max(axis=0)).argmax(axis=0)
    signs = np.sign(axes[first, np.arange(len(axes))])
    return check.narrowed("the deviation along axis", deviations, np.float64), axes * signs


def _singular_values(X):
    """Singular values, descending, as numbers times 2 to an exponent, and right singular vectors.

    Jacobi's rotations find them to a relative error that depends on how the scaled columns depend
    on each other, and not on their scales: Drmač and Veselić (2008), "New fast and accurate Jacobi
    SVD algorithm".
    """
    exponent = np.frexp(np.abs(X).max())[1]
    found = np.linalg.qr(np.ldexp(X.astype(np.float64), -exponent), mode="r")
    triangle = np.zeros((X.shape[1], X.shape[1]))
    triangle[: len(found)] = found
    values, _, axes, work, _, info = lapack.dgejsv(triangle, joba=0, jobr=0, jobp=0)
    if info:
        raise np.linalg.LinAlgError("the rotations for the singular values did not converge")
    return values * (work[0] / work[1]), exponent, axes


def _refuse_wide(X, spread):
    wide = np.flatnonzero(~np.isfinite(spread))
    if wide.size:
        j = wide[0]
        raise ValueError(
            f"feature {j} of X runs from {X[:, j].min():.3g} to {X[:, j].max():.3g}, expected "
            "values whose sums and differences float64 can hold: divide it by a constant"
        )


def _refuse_flat(X, spread, reason):
    flat = np.flatnonzero(spread < TINY)
    if flat.size:
        j = flat[0]
        what = f"varies by {spread[j]:.3g} only" if spread[j] > 0 else "is constant"
        raise ValueError(
            f"feature {j} of X {what} at {X[0, j]:g}, expected values that differ: {reason}"
        )


def _refuse_dependent(X, deviations):
    """A constant feature depends on a column of ones, and so does what sums to a constant."""
    ones = np.ones((len(X), 1))
    directions = rank.of_data(np.hstack([ones, X]), X.dtype).rank - 1
    directions = min(directions, int((deviations >= TINY).sum()))
    if directions < X.shape[1]:
        raise ValueError(
            f"X, of shape {X.shape}, varies in {directions} directions only, expected all "
            f"{X.shape[1]}: whitening divides by the deviation along each; set eps > 0, "
            "drop dependent features or bring more samples"
        )
