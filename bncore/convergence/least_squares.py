"""Least squares, where batch normalization turns the search for a direction into a Rayleigh quotient.

Kohler et al. (2019), section 3.
"""

import numpy as np
from jaxtyping import Real

from bncore import arguments as check
from bncore.convergence.data import targets
from bncore.convergence.problem import Line, Problem, Weights, WeightsLike, vector
from bncore.convergence.second_moment import MatrixLike, second_moment


class _QuadraticLine(Line):
    def __init__(self, problem, w):
        self.problem, self.w = problem, w
        self.mean = float(problem.u @ w)
        self.norm = float(np.sqrt(max(w @ self.Sw, 0.0)))

    def value(self, t):
        return self.problem.constant + 2 * t * self.mean + (t * self.norm) * (t * self.norm)

    def slope(self, t):
        return 2 * self.mean + 2 * t * self.norm**2

    def coefficients(self, t):
        return 2.0, 2.0


class LeastSquares(Problem):
    r"""Minimise :math:`f(w) = E(y - x^\top w)^2 = E y^2 + 2u^\top w + w^\top S w`.

    The minimiser is -S^-1 u. Over the length g of w = g v, ||v||_S = 1, the least value is
    E y^2 + rho(v).

    Parameters
    ----------
    u : Real[ndarray, "dimension"]
        E[-y x].
    S : Real[ndarray, "dimension dimension"]
        E[xx'], symmetric and positive definite.
    constant : float
        E y^2; it shifts the values of f only.

    Raises
    ------
    TypeError, ValueError
        If S is not symmetric positive definite, u has another dimension, or anything is not finite.

    References
    ----------
    Kohler et al. (2019), section 3.
    """

    def __init__(
        self,
        u: WeightsLike,
        S: MatrixLike,
        constant: float | int = 0.0,
    ):
        self.S = second_moment(S)
        self.u = vector("u", u, len(self.S), "S")
        self.constant = check.finite_number("constant", constant)

    @classmethod
    def from_data(
        cls,
        X: Real[np.ndarray, "samples dimension"] | list | tuple,
        y: Real[np.ndarray, "samples"] | list | tuple,
    ) -> "LeastSquares":
        """The problem of a data set, with means over its samples for expectations.

        Raises
        ------
        ValueError
            If X has no more than d independent rows or dependent columns: S is then singular.
        """
        X = check.array("X", X, 2).astype(np.float64)
        check.finite("X", X)
        y = targets(y, len(X))
        if X.size == 0:
            raise ValueError(f"X has shape {X.shape}, expected at least one sample and one column")
        rank = int(np.linalg.matrix_rank(X))
        if rank < X.shape[1]:
            raise ValueError(
                f"X, of shape {X.shape}, has {rank} independent columns, expected all "
                f"{X.shape[1]}: E[xx'] is singular and has no unique solution; drop dependent "
                "columns or bring more samples"
            )
        return cls(-(y @ X) / len(X), X.T @ X / len(X), float(y @ y / len(y)))

    curvature_bound = 2.0

    @property
    def closed_form(self) -> Weights:
        """The minimiser, -S^-1 u."""
        return -np.linalg.solve(self.S, self.u)

    def line(self, w: Weights) -> Line:
        """f along the multiples of w, unchecked."""
        return _QuadraticLine(self, w)

    def hessian_product(self, w: WeightsLike, v: WeightsLike) -> Weights:
        """2 S v, whatever w."""
        vector("w", w, self.dimension)
        return 2 * self.S @ vector("v", v, self.dimension)
