"""Learning a halfspace: the mean of a loss of the score, over Gaussian examples or over a sample.

Kohler et al. (2019), section 4.
"""

from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy import sparse

from bncore.convergence import data, losses
from bncore.convergence.problem import Line, Problem, Weights, WeightsLike, vector
from bncore.convergence.quadrature import nodes
from bncore.convergence.second_moment import MatrixLike, Metric, second_moment


class _Halfspace(Problem):
    loss: losses.Loss

    @property
    def curvature_bound(self) -> float:
        """sup abs(phi'')."""
        return self.loss.curvature_bound


class _GaussianLine(Line):
    def __init__(self, problem, w):
        self.problem, self.w = problem, w
        self.spread = problem.covariance @ w
        self.mean = float(problem.u @ w)
        self.std = float(np.sqrt(max(w @ self.spread, 0.0)))
        self.norm = float(np.hypot(self.mean, self.std))
        self.Sw = self.spread + self.mean * problem.u

    def _nodes(self, t, derivatives, factor=None):
        """Nodes for phi and its derivatives up to this one, and for the last of them times a factor."""
        functions = self.problem.loss.functions[: derivatives + 1]

        def values(a, xi):
            rows = [function(a) for function in functions]
            return np.array(rows if factor is None else [*rows, rows[-1] * factor(xi)])

        floor = self.problem.rounding[: derivatives + 1]
        if factor is not None:
            floor = np.append(floor, floor[-1] * np.abs(factor(np.array([-1.0, 1.0]))).max())
        return nodes(values, t * self.mean, abs(t) * self.std, floor, self.problem.loss.width)

    def value(self, t):
        a, _, weights = self._nodes(t, 0)
        return float(weights @ self.problem.loss.phi(a))

    def slope(self, t):
        def along(xi):
            return self.mean + np.copysign(self.std, t) * xi

        a, xi, weights = self._nodes(t, 1, along)
        return float((weights * self.problem.loss.dphi(a)) @ along(xi))

    def _means(self, t):
        """E phi' and E phi''."""
        a, _, weights = self._nodes(t, 2)
        return float(weights @ self.problem.loss.dphi(a)), float(
            weights @ self.problem.loss.d2phi(a)
        )

    def coefficients(self, t):
        first, c2 = self._means(t)
        return first - c2 * t * self.mean, c2

    def gradient(self, t):
        first, c2 = self._means(t)
        return first * self.problem.u + c2 * t * self.spread


class GaussianHalfspace(_Halfspace):
    r"""Minimise :math:`f(w) = E\,\phi(z^\top w)` for :math:`z \sim N(u,\ S - uu^\top)`, exactly.

    Expectations are one-dimensional integrals, see ``quadrature``. By Stein's lemma the gradient
    is c1 u + c2 S w: whatever the loss, every critical point is a multiple of S^-1 u, unless
    c1 = c2 = 0 there.

    Parameters
    ----------
    u : Real[ndarray, "dimension"]
        E[z].
    S : Real[ndarray, "dimension dimension"]
        E[zz'], symmetric and positive definite, as is S - uu'.
    loss : str, triple of callables or Loss
        "softplus", "sigmoid", "tanh", "squared", (phi, dphi, d2phi), or a ``losses.Loss``.

    Raises
    ------
    TypeError, ValueError
        If S or S - uu' is not positive definite, u has another dimension, anything is not finite,
        or there is no such loss.

    References
    ----------
    Kohler et al. (2019), section 4. Stein (1981).
    """

    def __init__(
        self,
        u: WeightsLike,
        S: MatrixLike,
        loss: object = "softplus",
    ):
        self.S = second_moment(S)
        self.u = vector("u", u, len(self.S), "S")
        self.loss = losses.checked(loss, smooth=True)
        self.rounding = 4 * np.finfo(np.float64).eps * self.loss.sizes
        explained = self.dual_square(self.u)
        if explained >= 1 - 1e-12:
            raise ValueError(
                f"u'S^-1 u is {explained:.6g}, expected below 1: S - uu' is the covariance of z "
                "and must be positive definite; shorten u"
            )
        self.covariance = self.S - np.outer(self.u, self.u)

    def line(self, w: Weights) -> Line:
        """f along the multiples of w, unchecked."""
        return _GaussianLine(self, w)

    def _turn(self, w, v):
        """E[phi''(z'w) z z'v], from the conditional law of z given its score."""
        line = self.line(w)
        a, xi, weights = line._nodes(1.0, 2, np.square)
        weights = weights * self.loss.d2phi(a)
        e0, e1, e2 = weights.sum(), weights @ xi, weights @ xi**2
        along = self.covariance @ w / line.std if line.std > 0 else np.zeros_like(w)
        spread, mean, part = self.covariance @ v, self.u @ v, along @ v
        return (
            e0 * (spread + mean * self.u - part * along)
            + e1 * (part * self.u + mean * along)
            + e2 * part * along
        )


def _product(matrix, v):
    """matrix @ v, computed in the precision of the matrix, in whose range v is scaled."""
    if matrix.dtype == v.dtype:
        return matrix @ v
    unit = 2.0 ** np.frexp(np.abs(v).max())[1]
    return (matrix @ (v / unit).astype(matrix.dtype)).astype(np.float64) * unit


class _EmpiricalLine(Line):
    def __init__(self, problem, w):
        self.problem, self.w = problem, w
        self.scores = problem.scores(w)
        self.mean = float(problem.u @ w)
        self.norm = float(np.sqrt(self.scores @ self.scores / len(self.scores)))
        self._last = None

    def _slopes(self, t):
        """phi' of the scores of t w; kept, because the gradient and c1 ask for the same."""
        if self._last is None or self._last[0] != t:
            self._last = t, self.problem.loss.dphi(t * self.scores)
        return self._last[1]

    def value(self, t):
        return float(self.problem.loss.phi(t * self.scores).mean())

    def slope(self, t):
        return float(self._slopes(t) @ self.scores / len(self.scores))

    def coefficients(self, t):
        c2 = float(self.problem.loss.d2phi(t * self.scores).mean())
        return float(self._slopes(t).mean()) - c2 * t * self.mean, c2

    def gradient(self, t):
        return self.problem.adjoint(self._slopes(t))

    @cached_property
    def Sw(self):
        if self.problem.dimension > len(self.scores):
            return self.problem.adjoint(self.scores)
        return self.problem.S @ self.w


class EmpiricalHalfspace(_Halfspace):
    r"""Minimise :math:`f(w) = \frac1n \sum_i \phi(z_i^\top w)` over a sample.

    Float32 data stay float32: only scores and sums are double. Data whose columns depend on each
    other are allowed: mu is then 0, the bounds say nothing, and S^-1 is an inverse over the range
    of S.

    Parameters
    ----------
    Z : Real[ndarray, "samples dimension"] or scipy.sparse matrix or array
        Rows z_i = -y_i x_i; refers to dense and to compressed rows, does not copy them.
    loss : str, triple of callables or Loss
        As for ``GaussianHalfspace``.

    Raises
    ------
    TypeError, ValueError
        If Z is empty, 0, not a matrix, not finite or out of range, or there is no such loss.

    References
    ----------
    Kohler et al. (2019), section 4.
    """

    def __init__(self, Z: object, loss: object = "softplus"):
        self._precision, self.Z = data.precision(Z), data.rows("Z", Z)
        if not data.largest(self.Z).any():
            raise ValueError("Z is 0, expected examples: f is then the same everywhere")
        self.loss = losses.checked(loss)
        self._adjoint = self.Z.T.tocsr() if sparse.issparse(self.Z) else self.Z.T

    @classmethod
    def from_data(
        cls, X: object, y: data.Targets, loss: object = "softplus"
    ) -> "EmpiricalHalfspace":
        """The problem of examples X, one a row, and labels y of -1 and 1.

        Raises
        ------
        ValueError
            If a label is neither -1 nor 1.
        """
        precision, X = data.precision(X), data.rows("X", X)
        y = data.targets(y, X.shape[0])
        wrong = np.abs(y) != 1
        if wrong.any():
            raise ValueError(f"y contains {y[wrong.argmax()]:g}, expected labels of -1 and 1 only")
        signs = -y.astype(X.dtype)
        signed = sparse.diags_array(signs) @ X if sparse.issparse(X) else signs[:, np.newaxis] * X
        problem = cls(signed, loss)
        problem._precision = precision
        return problem

    @cached_property
    def u(self) -> Weights:
        """The mean of the rows of Z."""
        return data.mean(self.Z)

    @cached_property
    def S(self) -> Float[np.ndarray, "dimension dimension"]:
        """Z'Z / n, computed once, in double precision."""
        return data.second_moments(self.Z)

    @cached_property
    def metric(self) -> Metric:
        """What is asked of S, to the precision of the data."""
        return Metric(self.S, self._precision)

    @cached_property
    def mean_error(self) -> Weights:
        """What rounding may have left of an entry of u that is 0."""
        return data.mean_error(self.Z.shape[0]) * self.metric.sizes

    def scores(self, w: Weights) -> Float[np.ndarray, "samples"]:
        """Z w: the forward product."""
        return _product(self.Z, w)

    def adjoint(self, r: Float[np.ndarray, "samples"]) -> Weights:
        """Z'r / n: the adjoint product."""
        return _product(self._adjoint, r) / self.Z.shape[0]

    def line(self, w: Weights) -> Line:
        """f along the multiples of w, unchecked."""
        return _EmpiricalLine(self, w)

    def _turn(self, w, v):
        """Z' diag(phi''(Z w)) Z v / n."""
        return self.adjoint(self.loss.d2phi(self.scores(w)) * self.scores(v))
