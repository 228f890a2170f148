"""A network with one hidden layer of odd units.

f(W) = E loss(sum_i theta_i act(z'w_i)), with output weights theta held fixed. For labels of -1 and 1
and an odd activation the label moves into z = -y x. Kohler et al. (2019), section 5.
"""

from functools import cached_property

import numpy as np
from jaxtyping import Float, Real
from scipy import linalg

from bncore import arguments as check
from bncore.convergence import losses
from bncore.convergence.halfspace import EmpiricalHalfspace, GaussianHalfspace
from bncore.convergence.problem import WeightsLike, within_range
from bncore.convergence.quadrature import standard
from bncore.convergence.second_moment import MatrixLike
from bncore.convergence.unit import Unit

Layer = Float[np.ndarray, "units dimension"]
LayerLike = Real[np.ndarray, "units dimension"] | list | tuple
Units = Real[np.ndarray, "units"] | list | tuple


class _Network:
    """What the Gaussian and the empirical network share: everything but where the scores come from."""

    def _settle(self, theta, loss, activation, smooth):
        theta = check.array("theta", theta, 1).astype(np.float64)
        check.finite("theta", theta)
        if theta.size == 0:
            raise ValueError("theta is empty, expected one output weight for each unit")
        self.theta, self.loss = theta, losses.checked(loss, smooth)
        self.activation = losses.checked(activation, smooth)
        a = 2.0 ** np.array([*range(6), *range(-1, -21, -1)])
        values = self.activation.phi(a)
        sums = np.abs(values + self.activation.phi(-a))
        wrong = sums > 1e-9 * np.abs(values).max()
        if wrong.any():
            first = wrong.argmax()
            raise ValueError(
                f"activation({a[first]:.3g}) and activation({-a[first]:.3g}) add up to "
                f"{sums[first]:.3g}, expected 0: the label moves into z for odd functions only"
            )

    def value(self, W: LayerLike) -> float:
        """f(W)."""
        W = self._layer(W)
        return within_range("f at W", lambda: self._value(*self._scores(W, 0)[:2]))

    def gradient(self, W: LayerLike) -> Layer:
        """The gradient of f at W, one row a unit."""
        W = self._layer(W)
        return within_range("the gradient of f at W", lambda: self._gradient(W))

    def hessian_product(self, W: LayerLike, V: LayerLike) -> Layer:
        """The Hessian of f at W, as a function of all units, times V: one row a unit.

        Row i is sum_j E[q_ij (z'v_j) z], where E q_ij = B_ij as in ``second_order``.
        """
        W, V = self._layer(W), self._layer(V, "V")
        return within_range("the product of the Hessian at W with V", lambda: self._turn(W, V))

    def _gradient(self, W):
        scores, weights, back = self._scores(W, 1)
        return back(self._sensitivity(slice(None), scores, weights))

    def _turn(self, W, V):
        scores, weights, back = self._scores(W, 2)
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
        return within_range(
            "a coefficient of the gradient at W",
            lambda: self._second_order(W, *self._scores(W, 2)[:2]),
        )

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
        self._settle(theta, loss, activation, smooth=True)
        self.halfspace = GaussianHalfspace(u, S, loss)
        self.u, self.S = self.halfspace.u, self.halfspace.S
        values, vectors = np.linalg.eigh(self.halfspace.covariance)
        self._root = vectors * np.sqrt(np.maximum(values, 0.0))

    def _scores(self, W, derivatives):
        """Scores and weights for f and its derivatives up to this one, and the way back to z.

        The scores are those of W at z = u + root xi; xi is turned so that one unit sees its first
        component only, and all see two at most.
        """
        turn, factors, order = linalg.qr((W @ self._root).T, mode="economic", pivoting=True)
        kept = np.abs(np.diag(factors)) > 1e-13 * np.abs(factors[0, 0])
        if (rank := int(np.count_nonzero(kept))) > 2:
            raise ValueError(
                f"W spans {rank} dimensions of scores, expected at most 2 for quadrature; use an "
                "EmpiricalNetwork of a sample"
            )
        factors, directions = factors[:rank, np.argsort(order)].T, (self._root @ turn[:, :rank]).T
        means = W @ self.u
        if rank == 0:
            xi, weights = np.zeros((0, 1)), np.ones(1)
        else:
            lengths = np.hypot(means, np.linalg.norm(factors, axis=1))
            xi, weights = standard(
                lambda xi: self._watched(means[:, np.newaxis] + factors @ xi, derivatives),
                rank,
                self._rounding(lengths, derivatives),
                np.abs(means).max() / np.abs(factors).max(),
            )
        scores = means[:, np.newaxis] + factors @ xi

        def back(q, v=None):
            """E[q z], or E[q z'v z], from weighted q, by the law of z given its scores."""
            if v is not None:
                part = directions @ v
                rest = self.halfspace.covariance @ v - part @ directions
                return back(q * (self.u @ v + part @ xi)) + np.outer(q.sum(axis=1), rest)
            return np.outer(q.sum(axis=1), self.u) + (q @ xi.T) @ directions

        return scores, weights, back

    def _watched(self, scores, derivatives):
        """What has to be integrated, and what it derives from; a row each."""
        output = self._output(scores)
        rows = [self.loss.phi(output), *self.activation.phi(scores)]
        if derivatives > 0:
            first = self.loss.dphi(output)
            slopes = self.activation.dphi(scores)
            rows += [*(first * slopes), *(first * slopes * scores)]
        if derivatives > 1:
            pairs = np.triu_indices(len(scores))
            rows += [*(first * self.activation.d2phi(scores))]
            rows += [*(self.loss.d2phi(output) * slopes[pairs[0]] * slopes[pairs[1]])]
        return np.array(rows)

    def _rounding(self, lengths, derivatives):
        """What each row of ``_watched`` is rounded by."""
        loss, activation, units = self.loss.sizes, self.activation.sizes, np.ones_like(lengths)
        sizes = [loss[:1], activation[0] * units]
        if derivatives > 0:
            sizes += [loss[1] * activation[1] * units, loss[1] * activation[1] * lengths]
        if derivatives > 1:
            pairs = len(units) * (len(units) + 1) // 2
            sizes += [loss[1] * activation[2] * units, np.full(pairs, loss[2] * activation[1] ** 2)]
        return 4 * np.finfo(np.float64).eps * np.concatenate(sizes)

    def _along(self, unit, w):
        return lambda t, derivatives: self._scores(unit.layer(t * w), derivatives)


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
        self._settle(theta, loss, activation, smooth=False)
        self.halfspace = EmpiricalHalfspace(Z, loss)
        self.u = self.halfspace.u

    @cached_property
    def S(self):
        """Z'Z / n."""
        return self.halfspace.S

    def _scores(self, W, derivatives):
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

        def at(t, derivatives):
            scores = held.copy()
            scores[unit.i] = t * own
            return (scores, *self._sample)

        return at
