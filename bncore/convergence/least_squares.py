"""Least squares, where batch normalization turns the search for a direction into a Rayleigh quotient.

Kohler et al. (2019), section 3.
"""

import numpy as np

from bncore import arguments as check
from bncore.convergence import data
from bncore.convergence.problem import Line, Problem, Weights, WeightsLike, silent, vector
from bncore.convergence.second_moment import MatrixLike, second_moment
from bncore.mechanics.rank import of_second_moments


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
        with silent():
            if not np.isfinite(self.rayleigh_optimum):
                raise ValueError("u'S^-1 u leaves the range of float64: scale u")

    @classmethod
    def from_data(
        cls,
        X: object,
        y: data.Targets,
    ) -> "LeastSquares":
        """The problem of a data set, with means over its samples for expectations.

        Parameters
        ----------
        X : Real[ndarray, "samples dimension"] or scipy.sparse matrix or array
            One example a row.
        y : Real[ndarray, "samples"]
            What to predict.

        Raises
        ------
        TypeError, ValueError
            If X or y is not made of finite real numbers, their lengths differ, or X has dependent
            columns or fewer rows than columns: S is then singular.
        """
        precision, X = data.precision(X), data.rows("X", X)
        y = data.targets(y, X.shape[0])
        S = data.second_moments(X)
        rank = of_second_moments(S, precision).rank
        if rank < X.shape[1]:
            raise ValueError(
                f"X, of shape {X.shape}, has {rank} independent columns, expected all "
                f"{X.shape[1]}: E[xx'] is singular and has no unique solution; drop dependent "
                "columns or bring more samples"
            )
        problem = cls(-(X.T @ y) / len(y), S, float(y @ y / len(y)))
        size = np.sqrt(problem.constant) * np.sqrt(S.diagonal())
        problem.mean_error = data.mean_error(len(y)) * size
        return problem

    curvature_bound = 2.0

    @property
    def closed_form(self) -> Weights:
        """The minimiser, -S^-1 u."""
        return -self.metric.solve(self.u)

    def line(self, w: Weights) -> Line:
        """f along the multiples of w, unchecked."""
        return _QuadraticLine(self, w)

    def _turn(self, w, v):
        return 2 * self.S @ v
