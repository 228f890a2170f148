"""What the solvers ask of an objective f of weights w in d dimensions.

z = -y x is a labelled example, u = E[z], S = E[zz'] = E[xx'], and ||w||_S = sqrt(w'Sw) is the root
mean square of the score z'w. Kohler et al. (2019), sections 3 and 4.
"""

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
from jaxtyping import Float, Real
from scipy import linalg

from bncore import arguments as check

Weights = Float[np.ndarray, "dimension"]
WeightsLike = Real[np.ndarray, "dimension"] | list | tuple


def vector(name, value, dimension, of="the problem"):
    """The value as float64, a copy: one finite number for each of the dimensions of the problem."""
    return check.vector(name, value, dimension, of).astype(np.float64)


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
    """

    u: Weights
    S: Float[np.ndarray, "dimension dimension"]
    curvature_bound: float

    @abstractmethod
    def line(self, w: Weights) -> Line:
        """f along the multiples of w, unchecked; what the solvers use."""

    @property
    def dimension(self) -> int:
        """d, the number of weights."""
        return len(self.u)

    @cached_property
    def _spectrum(self):
        """Eigenvalues, ascending, and eigenvectors of S; what rounding leaves of a 0 is 0."""
        values, vectors = linalg.eigh(self.S)
        floor = len(values) * np.finfo(np.float64).eps * values[-1]
        return np.where(values > floor, values, 0.0), vectors

    @property
    def smallest_eigenvalue(self) -> float:
        """mu, the smallest eigenvalue of S; 0 if S is singular to working precision."""
        return float(self._spectrum[0][0])

    @property
    def largest_eigenvalue(self) -> float:
        """L, the largest eigenvalue of S."""
        return float(self._spectrum[0][-1])

    @property
    def smoothness(self) -> float:
        """``curvature_bound`` times L: a Lipschitz constant of the gradient, zeta in the theorems."""
        return self.curvature_bound * self.largest_eigenvalue

    @property
    def condition_number(self) -> float:
        """L / mu; infinite if S is singular."""
        mu = self.smallest_eigenvalue
        return self.largest_eigenvalue / mu if mu > 0 else np.inf

    def dual_square(self, v: Weights) -> float:
        """v'S^-1 v, over the range of S where S is singular."""
        values, vectors = self._spectrum
        kept = values > 0
        return float(np.sum((v @ vectors[:, kept]) ** 2 / values[kept]))

    @property
    def rayleigh_optimum(self) -> float:
        """rho* = -u'S^-1 u, the least value of rho."""
        return -self.dual_square(self.u)

    @cached_property
    def solution_direction(self) -> Weights:
        """-S^-1 u, scaled to ||.||_S = 1.

        With Gaussian z every critical point is a multiple of it, unless c1 = c2 = 0 there.
        """
        values, vectors = self._spectrum
        kept = values > 0
        solution = -vectors[:, kept] @ ((self.u @ vectors[:, kept]) / values[kept])
        return solution / np.sqrt(-self.rayleigh_optimum)

    def value(self, w: WeightsLike) -> float:
        """f(w)."""
        return self._checked_line("w", w).value(1.0)

    def gradient(self, w: WeightsLike) -> Weights:
        """The gradient of f at w."""
        return self._checked_line("w", w).gradient(1.0)

    @abstractmethod
    def hessian_product(self, w: WeightsLike, v: WeightsLike) -> Weights:
        """The Hessian of f at w, times v."""

    def coefficients(self, w: WeightsLike) -> tuple[float, float]:
        """c1 = E phi'(z'w) - E phi''(z'w) u'w and c2 = E phi''(z'w).

        For Gaussian z, and for least squares, the gradient of f at w is c1 u + c2 S w: Stein's lemma.
        """
        return self._checked_line("w", w).coefficients(1.0)

    def norm(self, w: WeightsLike) -> float:
        """||w||_S = sqrt(w'Sw)."""
        return self._checked_line("w", w).norm

    def rayleigh(self, w: WeightsLike) -> float:
        """rho(w) = -(u'w)^2 / (w'Sw).

        Raises
        ------
        ValueError
            If w has length 0 in the norm of S.
        """
        return self._direction(w).rayleigh

    def rayleigh_gradient(self, w: WeightsLike) -> Weights:
        """The gradient of rho at w: -2 (u'w / w'Sw) (u - (u'w / w'Sw) S w).

        Raises
        ------
        ValueError
            If w has length 0 in the norm of S.
        """
        line = self._direction(w)
        ratio = line.mean / line.norm**2
        return -2 * ratio * (self.u - ratio * line.Sw)

    def _checked_line(self, name, w):
        return self.line(vector(name, w, self.dimension))

    def _direction(self, w):
        line = self._checked_line("w", w)
        if not line.norm > 0:
            raise ValueError("w has length 0 in the norm of S, expected a direction: 0 has none")
        return line
