"""What the solvers ask of an objective f of weights w in d dimensions.

z = -y x is a labelled example, u = E[z], S = E[zz'] = E[xx'], and ||w||_S = sqrt(w'Sw) is the root
mean square of the score z'w. Kohler et al. (2019), sections 3 and 4.
"""

from abc import ABC, abstractmethod
from functools import cached_property, partial

import numpy as np
from jaxtyping import Float, Real

from bncore import arguments as check
from bncore.convergence.second_moment import Metric

Weights = Float[np.ndarray, "dimension"]
WeightsLike = Real[np.ndarray, "dimension"] | list | tuple


silent = partial(
    np.errstate, over="ignore", invalid="ignore"
)  # what leaves the range is refused in words


def vector(name, value, dimension, of="the problem"):
    """The value as float64, a copy: one finite number for each of the dimensions of the problem."""
    return check.vector(name, value, dimension, of).astype(np.float64)


def within_range(name, compute):
    """The result, numbers or a tuple of them. Refuse what leaves the range of float64 on the way."""
    with silent():
        result = compute()
    parts = result if isinstance(result, tuple) else (result,)
    if not all(np.isfinite(part).all() for part in parts):
        raise ValueError(f"{name} leaves the range of float64: take smaller weights")
    return result


class Line(ABC):
    """f along the multiples t w of one w. Making it is one product of the data with w.

    Attributes
    ----------
    w : Float[ndarray, "dimension"]
        The direction, of any length.
    mean : float
        u'w, the mean score.
    norm : float
        ||w||_S, the root mean square of the score.
    """

    problem: "Problem"
    w: Weights
    mean: float
    norm: float

    @abstractmethod
    def value(self, t: float) -> float:
        """f(t w)."""

    @abstractmethod
    def slope(self, t: float) -> float:
        """The derivative of f(t w) in t."""

    @abstractmethod
    def coefficients(self, t: float) -> tuple[float, float]:
        """c1, c2 of the gradient c1 u + c2 S w at the weights t w; see ``Problem.coefficients``."""

    def gradient(self, t: float) -> Weights:
        """The gradient of f at t w."""
        c1, c2 = self.coefficients(t)
        return c1 * self.problem.u + c2 * t * self.Sw

    @cached_property
    def Sw(self) -> Weights:
        """S w."""
        return self.problem.S @ self.w

    @property
    def rayleigh(self) -> float:
        """rho(w) = -(u'w)^2 / (w'Sw)."""
        return -((self.mean / self.norm) ** 2)

    @property
    def rayleigh_gap(self) -> float:
        """rho(w) - rho*, computed as ||u - (u'w / w'Sw) S w||^2 in the norm of S^-1: it does not cancel."""
        return self.problem.dual_square(self.problem.u - self.mean / self.norm**2 * self.Sw)

    def direction_gradient(self, t: float) -> Weights:
        """(||w||_S / g) times the gradient in w of f(g w / ||w||_S), at g = t ||w||_S.

        It is the gradient at t w without its part along S w, hence orthogonal to w.
        """
        gradient = self.gradient(t)
        return gradient - self.Sw * (self.w @ gradient / self.norm**2)


class Problem(ABC):
    """An objective f(w) that depends on w through scores z'w.

    Attributes
    ----------
    u : Float[ndarray, "dimension"]
        E[z] = E[-y x].
    S : Float[ndarray, "dimension dimension"]
        E[zz'] = E[xx'].
    curvature_bound : float
        A bound of the second derivative of f in the score z'w; infinite where the loss names none.
    mean_error : float or Float[ndarray, "dimension"]
        What rounding may have left of an entry of u that is 0; none where u is given.
    """

    u: Weights
    S: Float[np.ndarray, "dimension dimension"]
    curvature_bound: float
    mean_error: float | Weights = 0.0

    @abstractmethod
    def line(self, w: Weights) -> Line:
        """f along the multiples of w, unchecked; what the solvers use."""

    @property
    def dimension(self) -> int:
        """d, the number of weights."""
        return len(self.u)

    @cached_property
    def metric(self) -> Metric:
        """What is asked of S."""
        return Metric(self.S)

    @property
    def smallest_eigenvalue(self) -> float:
        """mu, the smallest eigenvalue of S; 0 if S is singular to working precision."""
        return self.metric.smallest

    @property
    def largest_eigenvalue(self) -> float:
        """L, the largest eigenvalue of S."""
        return self.metric.largest

    @property
    def smoothness(self) -> float:
        """``curvature_bound`` times L: a Lipschitz constant of the gradient, zeta in the theorems.

        Infinite where the loss names no curvature bound.
        """
        return self.curvature_bound * self.largest_eigenvalue

    @property
    def condition_number(self) -> float:
        """L / mu; infinite if S is singular."""
        mu = self.smallest_eigenvalue
        return self.largest_eigenvalue / mu if mu > 0 else np.inf

    def dual_square(self, v: Weights) -> float:
        """v'S^-1 v, over the range of S where S is singular."""
        return self.metric.square(v)

    @property
    def rayleigh_optimum(self) -> float:
        """rho* = -u'S^-1 u, the least value of rho."""
        return -self.dual_square(self.u)

    @cached_property
    def solution_direction(self) -> Weights:
        """-S^-1 u, scaled to ||.||_S = 1.

        With Gaussian z every critical point is a multiple of it, unless c1 = c2 = 0 there. One of
        several where S is singular.

        Raises
        ------
        ValueError
            If u is 0: no direction is then better than another.
        """
        self.expect_mean()
        return -self.metric.solve(self.u) / np.sqrt(-self.rayleigh_optimum)

    def expect_mean(self) -> None:
        """Refuse u = 0, to the accuracy of u."""
        if (np.abs(self.u) <= self.mean_error).all():
            raise ValueError(
                "u is 0, expected a mean of z that is not: rho is 0 in every direction, and no "
                "direction is better than another"
            )

    def expect_direction(self, name: str, line: Line) -> None:
        """Refuse weights without a direction: 0, along which the data do not move, or out of range."""
        size = float(self.metric.sizes @ np.abs(line.w))
        if not line.w.any():
            raise ValueError(f"{name} is 0, expected a direction: 0 has none")
        if 0 < size < 1e-150 or size > 1e150:
            raise ValueError(
                f"{name} makes scores of size {size:.3g}, expected between 1e-150 and 1e150, "
                "beyond which their squares leave the range of float64: scale it"
            )
        if line.norm <= self.metric.floor * size:
            raise ValueError(
                f"{name} has length 0 in the norm of S, expected a direction along which the data move"
            )

    def value(self, w: WeightsLike) -> float:
        """f(w)."""
        return within_range("f at w", lambda: self._line(w).value(1.0))

    def gradient(self, w: WeightsLike) -> Weights:
        """The gradient of f at w."""
        return within_range("the gradient of f at w", lambda: self._line(w).gradient(1.0))

    def hessian_product(self, w: WeightsLike, v: WeightsLike) -> Weights:
        """The Hessian of f at w, times v."""
        w, v = vector("w", w, self.dimension), vector("v", v, self.dimension)
        return within_range("the product of the Hessian at w with v", lambda: self._turn(w, v))

    @abstractmethod
    def _turn(self, w, v):
        """The Hessian of f at w, times v, unchecked."""

    def coefficients(self, w: WeightsLike) -> tuple[float, float]:
        """c1 = E phi'(z'w) - E phi''(z'w) u'w and c2 = E phi''(z'w).

        For Gaussian z, and for least squares, the gradient of f at w is c1 u + c2 S w: Stein's lemma.
        """
        return within_range(
            "a coefficient of the gradient at w", lambda: self._line(w).coefficients(1.0)
        )

    def norm(self, w: WeightsLike) -> float:
        """||w||_S = sqrt(w'Sw)."""
        return within_range("||w||_S at w", lambda: self._line(w).norm)

    def rayleigh(self, w: WeightsLike) -> float:
        """rho(w) = -(u'w)^2 / (w'Sw).

        Raises
        ------
        ValueError
            If w is 0, or has length 0 in the norm of S.
        """
        return self._direction(w).rayleigh

    def rayleigh_gradient(self, w: WeightsLike) -> Weights:
        """The gradient of rho at w: -2 (u'w / w'Sw) (u - (u'w / w'Sw) S w).

        Raises
        ------
        ValueError
            If w is 0, or has length 0 in the norm of S.
        """
        line = self._direction(w)
        ratio = line.mean / line.norm**2
        return -2 * ratio * (self.u - ratio * line.Sw)

    def _line(self, w):
        return self.line(vector("w", w, self.dimension))

    def _direction(self, w):
        with silent():
            line = self._line(w)
            self.expect_direction("w", line)
        return line


def of_kind(problem, *kinds):
    """Refuse whatever is no problem of these kinds, of any kind if none is named."""
    if isinstance(problem, kinds or Problem):
        return
    expected = " or a ".join(kind.__name__ for kind in kinds) or (
        "problem: LeastSquares, GaussianHalfspace, EmpiricalHalfspace, or a unit of a network"
    )
    hint = ", such as network.unit(i, W)" if hasattr(problem, "unit") else ""
    raise TypeError(f"problem is a {check.type_name(problem)}, expected a {expected}{hint}")
