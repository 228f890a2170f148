"""A network with one hidden layer of odd units, trained unit by unit.

f(W) = E loss(sum_i theta_i act(z'w_i)), with output weights theta held fixed. For labels of -1 and 1
and an odd activation the label moves into z = -y x. Kohler et al. (2019), section 5.
"""

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

from bncore import arguments as check
from bncore.convergence import losses
from bncore.convergence.halfspace import EmpiricalHalfspace, GaussianHalfspace
from bncore.convergence.length import Unresolved
from bncore.convergence.problem import Line, Problem, Weights, WeightsLike, vector
from bncore.convergence.second_moment import MatrixLike
from bncore.convergence.solvers import gdnp
from bncore.convergence.trace import Trace

Layer = Float[np.ndarray, "units dimension"]
LayerLike = Real[np.ndarray, "units dimension"] | list | tuple
Units = Real[np.ndarray, "units"] | list | tuple

FAR, MOST = 8.5, 2_000_000
POLE = {"softplus": np.pi, "sigmoid": np.pi, "squared": np.inf}  # pi / 2 for tanh and any other


class _Network:
    """What the Gaussian and the empirical network share: everything but where the scores come from."""

    def _settle(self, theta, loss, activation):
        theta = check.array("theta", theta, 1).astype(np.float64)
        check.finite("theta", theta)
        if theta.size == 0:
            raise ValueError("theta is empty, expected one output weight for each unit")
        self.theta, self.loss = theta, losses.get(loss)
        self.activation = losses.get(activation)
        a = np.linspace(0.0, 10.0, 101)
        sums = np.abs(self.activation.phi(a) + self.activation.phi(-a))
        if sums.max() > 1e-9:
            raise ValueError(
                f"activation({a[sums.argmax()]:.3g}) and activation({-a[sums.argmax()]:.3g}) add up "
                f"to {sums.max():.3g}, expected 0: the label moves into z for odd functions only"
            )

    def value(self, W: LayerLike) -> float:
        """f(W)."""
        scores, weights, _ = self._scores(self._layer(W))
        return self._value(scores, weights)

    def gradient(self, W: LayerLike) -> Layer:
        """The gradient of f at W, one row a unit."""
        scores, weights, back = self._scores(self._layer(W))
        return back(self._sensitivity(slice(None), scores, weights))

    def hessian_product(self, W: LayerLike, V: LayerLike) -> Layer:
        """The Hessian of f at W, as a function of all units, times V: one row a unit.

        Row i is sum_j E[q_ij (z'v_j) z], where E q_ij = B_ij as in ``second_order``.
        """
        W, V = self._layer(W), self._layer(V, "V")
        scores, weights, back = self._scores(W)
        slopes, bends, first, second = self._derivatives(scores, weights)
        total = np.zeros_like(V)
        for j, v in enumerate(V):
            q = slopes * (second * slopes[j])
            q[j] += bends[j] * first
            total += back(q, v)
        return total

    def second_order(
        self, W: LayerLike
    ) -> tuple[Float[np.ndarray, "units"], Float[np.ndarray, "units units"]]:
        """alpha and B of the gradient alpha_i u + sum_j B_ij S w_j, exact for Gaussian z.

        B_ij = theta_i theta_j E[loss'' act'(a_i) act'(a_j)] + (i = j) theta_i E[loss' act''(a_i)],
        alpha_i = theta_i E[loss' act'(a_i)] - sum_j B_ij u'w_j. If B is invertible where the gradient
        is 0, every w_j lies on the line S^-1 u.
        """
        W = self._layer(W)
        scores, weights, _ = self._scores(W)
        return self._second_order(W, scores, weights)

    def _output(self, scores):
        return self.theta @ self.activation.phi(scores)

    def _value(self, scores, weights):
        return float(weights @ self.loss.phi(self._output(scores)))

    def _sensitivity(self, units, scores, weights):
        """Weighted derivatives of the loss in the scores of some units, one row each."""
        slopes = weights * self.loss.dphi(self._output(scores))
        return self.theta[units, np.newaxis] * self.activation.dphi(scores[units]) * slopes

    def _second_order(self, W, scores, weights):
        slopes, bends, first, second = self._derivatives(scores, weights)
        B = (slopes * second) @ slopes.T + np.diag(bends @ first)
        return slopes @ first - B @ (W @ self.u), B

    def _derivatives(self, scores, weights):
        """theta act', theta act'' of each unit, and the weighted derivatives of the loss."""
        output, theta = self._output(scores), self.theta[:, np.newaxis]
        return (
            theta * self.activation.dphi(scores),
            theta * self.activation.d2phi(scores),
            weights * self.loss.dphi(output),
            weights * self.loss.d2phi(output),
        )

    def unit(self, i: int, W: LayerLike) -> "Unit":
        """f as a problem in the weights of unit i, with the other units of W held."""
        i = check.integer("i", i, least=0)
        if i >= len(self.theta):
            raise ValueError(f"i is {i}, expected a unit from 0 to {len(self.theta) - 1}")
        return Unit(self, i, self._layer(W))

    def _layer(self, W, name="W"):
        W = check.array(name, W, 2).astype(np.float64)
        check.finite(name, W)
        if W.shape != (len(self.theta), len(self.u)):
            raise ValueError(
                f"{name} has shape {W.shape}, expected {(len(self.theta), len(self.u))}: one row a unit"
            )
        return W


class GaussianNetwork(_Network):
    """One hidden layer on z ~ N(u, S - uu'), with expectations by quadrature in the span of W.

    Parameters
    ----------
    u, S : Real[ndarray, "dimension"], Real[ndarray, "dimension dimension"]
        As for ``GaussianHalfspace``.
    theta : Real[ndarray, "units"]
        Output weights, fixed.
    loss, activation : str, triple of callables or Loss
        The activation must be odd.

    Raises
    ------
    TypeError, ValueError
        As ``GaussianHalfspace``; if the activation is not odd; and, in every method, if the scores
        of W span more than two dimensions. Use an ``EmpiricalNetwork`` of a sample then.

    References
    ----------
    Kohler et al. (2019), section 5.
    """

    def __init__(
        self,
        u: WeightsLike,
        S: MatrixLike,
        theta: Units,
        loss: object = "softplus",
        activation: object = "tanh",
    ):
        self._settle(theta, loss, activation)
        self.halfspace = GaussianHalfspace(u, S, loss)
        self.u, self.S = self.halfspace.u, self.halfspace.S

    def _scores(self, W):
        covariance = self.halfspace.covariance
        spread = W @ covariance
        values, vectors = np.linalg.eigh(spread @ W.T)
        kept = values > 1e-12 * max(values[-1], 0.0)
        if np.count_nonzero(kept) > 2:
            raise ValueError(
                f"W spans {np.count_nonzero(kept)} dimensions of scores, expected at most 2 for "
                "quadrature; use an EmpiricalNetwork of a sample"
            )
        factors = vectors[:, kept] * np.sqrt(values[kept])
        directions = (vectors[:, kept] / np.sqrt(values[kept])).T @ spread
        pole = POLE.get(self.loss.name, np.pi / 2)
        radius = np.arctan2(pole, np.abs(self.theta).sum())
        grids = [_standard(std, radius) for std in np.abs(factors).max(axis=0)]
        if (count := math.prod(len(points) for points, _ in grids)) > MOST:
            raise Unresolved(
                f"W has scores of deviations up to {np.abs(factors).max():.3g}, for which quadrature "
                f"needs {count} nodes, expected at most {MOST}; use an EmpiricalNetwork of a sample"
            )
        xi, weights = np.zeros((0, 1)), np.ones(1)
        for points, weight in grids:
            xi = np.vstack([np.repeat(xi, len(points), axis=1), np.tile(points, xi.shape[1])])
            weights = np.outer(weights, weight).reshape(-1)
        scores = (W @ self.u)[:, np.newaxis] + factors @ xi

        def back(q, v=None):
            """E[q z], or E[q z'v z], from weighted q, by the law of z given its scores."""
            if v is not None:
                part = directions @ v
                rest = covariance @ v - part @ directions
                return back(q * (self.u @ v + part @ xi)) + np.outer(q.sum(axis=1), rest)
            return np.outer(q.sum(axis=1), self.u) + (q @ xi.T) @ directions

        return scores, weights, back

    def _along(self, unit, w):
        return lambda t: self._scores(unit.layer(t * w))


def _standard(std, radius):
    """Trapezoidal nodes and weights for functions of std * xi, xi ~ N(0, 1).

    The rule converges like exp(-2 pi radius / (std step)) for a function analytic within ``radius``
    of the real axis: for a loss analytic within ``pole`` of a sum of theta_i tanh, that is
    arctan(pole / sum |theta_i|). The step makes it e^-27 or less.
    """
    step = min(2 * np.pi * radius / (27 * max(std, 1e-300)), 0.4)
    count = int(np.ceil(FAR / step))
    xi = np.linspace(-FAR, FAR, 2 * count + 1)
    return xi, np.exp(-xi * xi / 2) * (FAR / count / np.sqrt(2 * np.pi))


class EmpiricalNetwork(_Network):
    """One hidden layer on a sample of rows z_i = -y_i x_i.

    Parameters
    ----------
    Z : Real[ndarray, "samples dimension"] or sparse
        As for ``EmpiricalHalfspace``.
    theta, loss, activation
        As for ``GaussianNetwork``.
    """

    def __init__(
        self,
        Z: object,
        theta: Units,
        loss: object = "softplus",
        activation: object = "tanh",
    ):
        self._settle(theta, loss, activation)
        self.halfspace = EmpiricalHalfspace(Z, loss)
        self.u = self.halfspace.u

    @cached_property
    def S(self):
        """Z'Z / n."""
        return self.halfspace.S

    def _scores(self, W):
        return (np.stack([self.halfspace.scores(w) for w in W]), *self._sample)

    @cached_property
    def _sample(self):
        n = self.halfspace.Z.shape[0]

        def back(q, v=None):
            q = q if v is None else q * self.halfspace.scores(v)
            return np.stack([self.halfspace.adjoint(row * n) for row in q])

        return np.full(n, 1 / n), back

    def _along(self, unit, w):
        held, own = unit.held_scores, self.halfspace.scores(w)

        def at(t):
            scores = held.copy()
            scores[unit.i] = t * own
            return (scores, *self._sample)

        return at


class _UnitLine(Line):
    def __init__(self, problem, w):
        self.problem, self.w = problem, w
        self.mean = float(problem.u @ w)
        self.norm = float(np.sqrt(max(w @ self.Sw, 0.0)))
        self._at = problem.network._along(problem, w)
        self._last = None

    def _point(self, t):
        """Scores, weights, the sensitivity of this unit and the way back to z at t w; kept."""
        if self._last is None or self._last[0] != t:
            i = self.problem.i
            scores, weights, back = self._at(t)
            q = self.problem.network._sensitivity(slice(i, i + 1), scores, weights)
            self._last = t, (scores, weights, q, back)
        return self._last[1]

    def value(self, t):
        scores, weights, _, _ = self._point(t)
        return self.problem.network._value(scores, weights)

    def gradient(self, t):
        _, _, q, back = self._point(t)
        return back(q)[0]

    def slope(self, t):
        if t == 0:
            return float(self.w @ self.gradient(t))
        scores, _, q, _ = self._point(t)
        return float(q[0] @ scores[self.problem.i]) / t

    def coefficients(self, t):
        scores, weights, _, _ = self._point(t)
        W, i = self.problem.layer(t * self.w), self.problem.i
        alpha, B = self.problem.network._second_order(W, scores, weights)
        others = np.delete(B[i] * (W @ self.problem.u), i).sum()
        return float(alpha[i] - others / self.problem.rayleigh_optimum), float(B[i, i])


class Unit(Problem):
    """The weights of one hidden unit, with the others held at rows of W.

    If the others are 0 or on the line S^-1 u and z is Gaussian, the gradient is c1 u + c2 S w, as
    for a halfspace, and GDNP converges to the line; ``coefficients`` assumes that they are.
    """

    def __init__(self, network: _Network, i: int, W: LayerLike):
        self.network, self.i, self.W = network, i, W
        self.u = network.u

    def layer(self, w: Weights) -> Layer:
        """W with this unit's weights replaced."""
        W = self.W.copy()
        W[self.i] = w
        return W

    @cached_property
    def held_scores(self):
        """Scores of all units at W."""
        return self.network._scores(self.W)[0]

    @property
    def S(self):
        """E[zz']."""
        return self.network.S

    @property
    def metric(self):
        """That of the examples."""
        return self.network.halfspace.metric

    @property
    def mean_error(self):
        """That of the examples."""
        return self.network.halfspace.mean_error

    @property
    def curvature_bound(self) -> float:
        """abs(theta_i) (abs(theta_i) sup loss'' sup act'^2 + sup loss' sup act'')."""
        loss, act = self.network.loss, self.network.activation
        theta = abs(self.network.theta[self.i])
        return theta * (
            theta * loss.curvature_bound * act.slope_bound**2
            + loss.slope_bound * act.curvature_bound
        )

    def line(self, w: Weights) -> Line:
        """f along the multiples of w, unchecked."""
        return _UnitLine(self, w)

    def hessian_product(self, w: WeightsLike, v: WeightsLike) -> Weights:
        """The Hessian of f at w, with the other units held, times v."""
        w = vector("w", w, self.dimension)
        V = np.zeros_like(self.W)
        V[self.i] = vector("v", v, self.dimension)
        return self.network.hessian_product(self.layer(w), V)[self.i]


class NetworkTrace(NamedTuple):
    """The runs of ``gdnp_network``, unit by unit, and the weights that they end with."""

    traces: list[Trace]
    weights: Layer


def gdnp_network(
    network: GaussianNetwork | EmpiricalNetwork,
    W0: LayerLike,
    *,
    steps: int = 100,
    bisection_steps: int = 20,
    sweeps: int = 1,
    others: str = "zero",
) -> NetworkTrace:
    """Run GDNP on one unit after the other.

    Parameters
    ----------
    network : GaussianNetwork or EmpiricalNetwork
        What to train.
    W0 : Real[ndarray, "units dimension"]
        Where each unit starts, not orthogonal to u.
    steps, bisection_steps : int
        As for ``gdnp``, for each unit.
    sweeps : int
        How often each unit takes its turn.
    others : str
        Where units wait that have not had a turn: at "zero", as the theorem needs, or at the
        "start" in W0.

    Raises
    ------
    TypeError, ValueError
        As ``gdnp``; if ``others`` is neither.

    References
    ----------
    Kohler et al. (2019), section 5, theorem 3.
    """
    if not isinstance(network, _Network):
        raise TypeError(
            f"network is a {check.type_name(network)}, expected a GaussianNetwork or an "
            "EmpiricalNetwork; gdnp takes problems"
        )
    if others not in ("zero", "start"):
        raise ValueError(f"others is {others!r}, expected 'zero' or 'start'")
    check.positive_integer("sweeps", sweeps)
    W0 = network._layer(W0)
    W = np.zeros_like(W0) if others == "zero" else W0.copy()
    traces = []
    for sweep in range(sweeps):
        for i in range(len(W)):
            start = W0[i] if sweep == 0 else W[i]
            trace = gdnp(network.unit(i, W), start, steps=steps, bisection_steps=bisection_steps)
            traces.append(trace)
            W[i] = trace.weights[-1]
    return NetworkTrace(traces, W)
