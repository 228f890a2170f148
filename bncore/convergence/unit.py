"""One hidden unit of a network as a problem of its own, with the other units held.

Kohler et al. (2019), section 5.
"""

from functools import cached_property

import numpy as np
from jaxtyping import Float

from bncore.convergence.problem import Line, Problem, Weights

Layer = Float[np.ndarray, "units dimension"]


class _UnitLine(Line):
    def __init__(self, problem, w):
        self.problem, self.w = problem, w
        self.mean = float(problem.u @ w)
        self.norm = float(np.sqrt(max(w @ self.Sw, 0.0)))
        self._at = problem.network._along(problem, w)
        self._last = None

    def _point(self, t, derivatives):
        """Scores, weights, the sensitivity of this unit and the way back to z at t w; kept."""
        if self._last is None or self._last[0] != t or self._last[1] < derivatives:
            i = self.problem.i
            scores, weights, back = self._at(t, derivatives)
            q = self.problem.network._sensitivity(slice(i, i + 1), scores, weights)
            self._last = t, derivatives, (scores, weights, q, back)
        return self._last[2]

    def value(self, t):
        scores, weights, _, _ = self._point(t, 0)
        return self.problem.network._value(scores, weights)

    def gradient(self, t):
        _, _, q, back = self._point(t, 1)
        return back(q)[0]

    def slope(self, t):
        if t == 0:
            return float(self.w @ self.gradient(t))
        scores, _, q, _ = self._point(t, 1)
        return float(q[0] @ scores[self.problem.i]) / t

    def coefficients(self, t):
        scores, weights, _, _ = self._point(t, 2)
        W, i = self.problem.layer(t * self.w), self.problem.i
        alpha, B = self.problem.network._second_order(W, scores, weights)
        others = np.delete(B[i] * (W @ self.problem.u), i).sum()
        return float(alpha[i] - others / self.problem.rayleigh_optimum), float(B[i, i])


class Unit(Problem):
    """The weights of one hidden unit, with the others held at rows of W.

    If the others are 0 or on the line S^-1 u and z is Gaussian, the gradient is c1 u + c2 S w, as
    for a halfspace, and GDNP converges to the line; ``coefficients`` assumes that they are.
    """

    def __init__(self, network, i: int, W: Layer):
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
        return self.network._scores(self.W, 0)[0]

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

    def _turn(self, w, v):
        """The Hessian of f at w, with the other units held, times v."""
        V = np.zeros_like(self.W)
        V[self.i] = v
        return self.network.hessian_product(self.layer(w), V)[self.i]
