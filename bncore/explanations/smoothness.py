"""How smooth batch norm makes a loss: its exact slope and curvature, by the batch's activations.

For one batch norm with eps = 0 the gradient and the second derivatives of the normalised loss are
known in closed form. ``landscape`` measures networks along their gradient, ``spectrum`` around it.
Source: Santurkar et al. (2018), section 4.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

from bncore import arguments as check

Batch = Float[np.ndarray, "batch features"]
Vector = Float[np.ndarray, "features"]
Column = Float[np.ndarray, "batch"]
Square = Float[np.ndarray, "batch batch"]
BatchLike = Real[np.ndarray, "batch features"] | check.Listed
ColumnLike = Real[np.ndarray, "batch"] | check.Listed
SquareLike = Real[np.ndarray, "batch batch"] | check.Listed


class SquaredGradient(NamedTuple):
    """The squared gradient that a batch norm passes on, term by term, for each feature.

    Attributes
    ----------
    factor : Float[ndarray, "features"]
        gamma^2 / sigma^2.
    whole : Float[ndarray, "features"]
        ||g||^2, the squared gradient at the output.
    level : Float[ndarray, "features"]
        <1, g>^2 / m, its part along the ones.
    tilt : Float[ndarray, "features"]
        <g, y_hat>^2 / m, its part along the normalised batch.
    """

    factor: Vector
    whole: Vector
    level: Vector
    tilt: Vector

    @property
    def passed(self) -> Vector:
        """||d||^2 = factor (whole - level - tilt)."""
        return self.factor * (self.whole - self.level - self.tilt)


class Curvature(NamedTuple):
    """Curvature of the normalised loss along its gradient: d' (second derivatives) d, two terms.

    Attributes
    ----------
    through : float
        (gamma^2/sigma^2) d'Hd, the curvature of the loss behind the batch norm.
    own : float
        -(gamma/(m sigma^2)) <g,y_hat> ||d||^2, that of the batch norm itself.
    squared : float
        ||d||^2; ``total / squared`` is a Rayleigh quotient.
    """

    through: float
    own: float
    squared: float

    @property
    def total(self) -> float:
        """The sum of both terms."""
        return self.through + self.own


class NormalisedLoss:
    """A loss behind a batch norm with eps = 0, at one batch: what its gradient becomes on the way back.

    Computed in single precision at least.

    Parameters
    ----------
    y : Float[ndarray, "batch features"]
        Input of the batch norm.
    g : Float[ndarray, "batch features"]
        Gradient of the loss at its output z = gamma y_hat + beta; in the dtype of y.
    gamma : Float[ndarray, "features"]

    Attributes
    ----------
    y_hat : Float[ndarray, "batch features"]
        (y - mean) / sigma.
    sigma : Float[ndarray, "features"]

    Raises
    ------
    TypeError
        If an argument is not an array of real numbers.
    ValueError
        If y has no two examples, a value is not finite, y is constant in a feature, g has another
        shape than y or entries that its dtype cannot hold, gamma has not one entry a feature, or
        gamma^2 / sigma^2 leaves the range of floats.
    """

    def __init__(self, y: BatchLike, g: BatchLike, gamma: check.VectorLike):
        y = _batch(y)
        self.y_hat, self.sigma = _normalised(y)
        g = check.exactly("g", g, y.dtype)
        if g.shape != y.shape:
            raise ValueError(f"g has shape {g.shape}, expected {y.shape}, that of y")
        self._dtype, self._g = y.dtype, _wide(g)
        self._gamma = check.vector("gamma", gamma, y.shape[1], "y", y.dtype).astype(self._g.dtype)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            self._slope = self._gamma / self.sigma
            lost = ~np.isfinite(self._slope**2)
        if lost.any():
            j = int(lost.argmax())
            raise ValueError(
                f"y[:, {j}] has the deviation {self.sigma[j]:.3g}, and gamma^2 / sigma^2 overflows "
                f"{self.sigma.dtype}, expected a batch that varies more"
            )

    @property
    @np.errstate(over="ignore", invalid="ignore")
    def gradient(self) -> Batch:
        """d = (gamma/sigma) P g with P = I - 11'/m - y_hat y_hat'/m, in the dtype of y.

        Raises
        ------
        ValueError
            If it leaves the range of that dtype.
        """
        g, y_hat = self._g, self.y_hat
        d = self._slope * (g - g.mean(axis=0) - y_hat * (g * y_hat).mean(axis=0))
        return self._in_range("the gradient", d.astype(self._dtype))

    @property
    @np.errstate(over="ignore", invalid="ignore")
    def squared_gradient(self) -> SquaredGradient:
        """The terms of ||d||^2 = (gamma^2/sigma^2) (||g||^2 - <1,g>^2/m - <g,y_hat>^2/m).

        Raises
        ------
        ValueError
            If a term leaves the range of floats, which in half precision is that of single.

        References
        ----------
        Santurkar et al. (2018), Theorem 4.1, where it is a bound.
        """
        g, m = self._g, len(self._g)
        terms = SquaredGradient(
            self._slope**2,
            (g**2).sum(axis=0),
            g.sum(axis=0) ** 2 / m,
            (g * self.y_hat).sum(axis=0) ** 2 / m,
        )
        self._in_range("the squared gradient", np.array([*terms, terms.passed]))
        return terms

    def _in_range(self, what, values):
        """The values. Refuse what has overflowed."""
        if not np.isfinite(values).all():
            raise ValueError(
                f"g is as large as {np.abs(self._g).max():.3g}, and {what} overflows "
                f"{values.dtype}, expected smaller arguments or a batch that varies more"
            )
        return values


class OneFeature(NormalisedLoss):
    """A loss behind the batch norm of a single feature, whose second derivatives are known too.

    Parameters
    ----------
    y, g : Float[ndarray, "batch"]
        As in ``NormalisedLoss``.
    H : Float[ndarray, "batch batch"]
        Second derivatives of the loss at z.
    gamma : float

    Raises
    ------
    TypeError, ValueError
        As ``NormalisedLoss``; or if H is not finite, far from symmetric or not square with the size
        of y.
    """

    def __init__(self, y: ColumnLike, g: ColumnLike, H: SquareLike, gamma: float | int):
        gamma = check.finite_number("gamma", gamma)
        y = _column("y", y)
        g = _column("g", g, y.dtype)
        super().__init__(y[:, None], g[:, None], np.array([gamma]))
        self._H = _symmetric(check.array("H", H, dtype=y.dtype), len(y)).astype(self._g.dtype)
        column, m = self.y_hat[:, 0], len(y)
        self._P = np.eye(m, dtype=self._g.dtype) - 1 / m - np.outer(column, column) / m

    @property
    @np.errstate(over="ignore", invalid="ignore")
    def hessian(self) -> Square:
        """All second derivatives of the normalised loss, in single precision at least.

        (gamma^2/sigma^2) P H P - (gamma/(m sigma^2)) (y_hat (Pg)' + (Pg) y_hat' + <g,y_hat> P)

        Raises
        ------
        ValueError
            If one leaves the range of floats.
        """
        P, g, y_hat = self._P, self._g[:, 0], self.y_hat[:, 0]
        slope, sigma, m = self._slope[0], self.sigma[0], len(g)
        bend = np.outer(y_hat, P @ g)
        own = slope / sigma / m * (bend + bend.T + (g @ y_hat) * P)
        return self._in_range("the second derivative", slope**2 * (P @ self._H @ P) - own)

    @property
    @np.errstate(over="ignore", invalid="ignore")
    def curvature_along_gradient(self) -> Curvature:
        """The two terms of the curvature along the gradient d of the normalised loss.

        d' (second derivatives) d = (gamma^2/sigma^2) d'Hd - (gamma/(m sigma^2)) <g,y_hat> ||d||^2

        Raises
        ------
        ValueError
            If a term leaves the range of floats.

        References
        ----------
        Santurkar et al. (2018), Theorem 4.2, where it is a bound.
        """
        g, y_hat = self._g[:, 0], self.y_hat[:, 0]
        slope, sigma, m = self._slope[0], self.sigma[0], len(g)
        d = slope * (self._P @ g)
        terms = Curvature(
            float(slope**2 * d @ self._H @ d),
            float(-slope / sigma / m * (g @ y_hat) * (d @ d)),
            float(d @ d),
        )
        self._in_range("the curvature", np.array([*terms, terms.total]))
        return terms


def normalise(y: BatchLike) -> tuple[Batch, Vector]:
    """The normalised batch (y - mean) / sigma and sigma, with eps = 0.

    Parameters
    ----------
    y : Float[ndarray, "batch features"]

    Raises
    ------
    TypeError
        If y is not an array of real numbers.
    ValueError
        If y has no two examples, is not finite, or is constant in a feature, where the transform is
        not defined, or varies so little that sigma is below the smallest number of its dtype.
    """
    y = _batch(y)
    y_hat, wide = _normalised(y)
    sigma = wide.astype(y.dtype)
    if not sigma.all():
        raise ValueError(
            f"y[:, {int((sigma == 0).argmax())}] varies so little that its deviation is below the "
            f"smallest {y.dtype}, expected a batch that varies more"
        )
    return y_hat.astype(y.dtype), sigma


def gradient(y: BatchLike, g: BatchLike, gamma: check.VectorLike) -> Batch:
    """The gradient of the normalised loss: ``NormalisedLoss.gradient``."""
    return NormalisedLoss(y, g, gamma).gradient


def squared_gradient(y: BatchLike, g: BatchLike, gamma: check.VectorLike) -> SquaredGradient:
    """The terms of the squared gradient: ``NormalisedLoss.squared_gradient``."""
    return NormalisedLoss(y, g, gamma).squared_gradient


def hessian(y: ColumnLike, g: ColumnLike, H: SquareLike, gamma: float | int) -> Square:
    """All second derivatives of the normalised loss of one feature: ``OneFeature.hessian``."""
    return OneFeature(y, g, H, gamma).hessian


def curvature_along_gradient(
    y: ColumnLike, g: ColumnLike, H: SquareLike, gamma: float | int
) -> Curvature:
    """Curvature along the gradient, in two terms: ``OneFeature.curvature_along_gradient``."""
    return OneFeature(y, g, H, gamma).curvature_along_gradient


def distance_to_ray(
    start: Real[np.ndarray, "inputs"] | check.Listed,
    optimum: Real[np.ndarray, "inputs"] | check.Listed,
) -> float:
    """Distance of weights from the nearest a * optimum with a > 0, or a = 0 in the limit.

    Where <start, optimum> > 0 its square is
    ||start - optimum||^2 - (||optimum||^2 - <optimum, start>)^2 / ||optimum||^2;
    otherwise the distance is ||start||.

    Parameters
    ----------
    start, optimum : Float[ndarray, "inputs"]

    Raises
    ------
    TypeError
        If an argument is not an array of real numbers.
    ValueError
        If the arguments are not vectors of one length, a value is not finite, optimum is zero, or the
        distance leaves the range of floats.

    References
    ----------
    Santurkar et al. (2018), Lemma 4.5.
    """
    start = check.array("start", start)
    if start.ndim != 1:
        raise ValueError(f"start has shape {start.shape}, expected (inputs,)")
    check.finite("start", start)
    optimum = check.vector("optimum", optimum, len(start), "start", start.dtype)
    if not optimum.any():
        raise ValueError("optimum is zero, expected weights with a direction")
    (start, exponent), (direction, _) = (_near_one(v.astype(np.float64)) for v in (start, optimum))
    direction = direction / np.linalg.norm(direction)
    rest = start - max(start @ direction, 0.0) * direction
    with np.errstate(over="ignore"):
        distance = float(np.ldexp(np.linalg.norm(rest), exponent))
    if not np.isfinite(distance):
        raise ValueError(
            f"start is as large as 2^{exponent}, and its distance from the ray leaves the range of "
            "floats, expected smaller weights"
        )
    return distance


def _near_one(values):
    """Columns times powers of two that bring their largest entry between 1/2 and 1; the exponents."""
    _, exponents = np.frexp(np.abs(values).max(axis=0))
    return np.ldexp(values, -exponents), exponents


def _batch(y):
    y = check.batch("y", y, least=2)
    if y.ndim != 2:
        raise ValueError(f"y has shape {y.shape}, expected (batch, features)")
    return y


def _normalised(y):
    """As ``normalise``, in single precision at least."""
    constant = (y == y[0]).all(axis=0)
    if constant.any():
        j = int(constant.argmax())
        raise ValueError(
            f"y[:, {j}] is constant, expected at least two different values: without eps there is "
            "nothing to divide by"
        )
    wide, exponents = _near_one(_wide(y))
    centred = wide - wide[0]
    centred, more = _near_one(centred - centred.mean(axis=0))
    sigma = np.sqrt((centred**2).mean(axis=0))
    return centred / sigma, np.ldexp(sigma, exponents + more)


def _wide(values):
    return values.astype(np.promote_types(values.dtype, np.float32))


def _column(name, value, dtype=None):
    value = check.array(name, value, dtype=dtype)
    if value.ndim != 1:
        raise ValueError(f"{name} has shape {value.shape}, expected (batch,): one feature")
    return value


def _symmetric(H, m):
    if H.shape != (m, m):
        raise ValueError(f"H has shape {H.shape}, expected {(m, m)}")
    check.finite("H", H)
    apart = np.abs(H - H.T)
    if apart.max() > 10 * np.finfo(H.dtype).eps ** 0.5 * np.abs(H).max():
        i, j = np.unravel_index(apart.argmax(), H.shape)
        raise ValueError(
            f"H[{i}, {j}] is {H[i, j]:.4g} and H[{j}, {i}] is {H[j, i]:.4g}, expected a symmetric "
            "matrix of second derivatives"
        )
    return H
