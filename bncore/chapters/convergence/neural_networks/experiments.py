"""The experiments of the neural networks chapter: one hidden layer in the plane, and unit by unit.

In the plane every expectation is a sum over one fixed grid, fast enough for pictures; the tests
hold it against ``bncore.convergence.GaussianNetwork``, which serves any dimension.
"""

from functools import cache

import numpy as np
from scipy.optimize import minimize, root

from bncore.convergence import EmpiricalNetwork, GaussianNetwork, bounds, gdnp_network

S = np.array([[2.0, 0.9], [0.9, 1.0]])
U = np.array([0.3, -0.45])
XI = np.arange(-42, 43) / 6


class Plane(GaussianNetwork):
    """A Gaussian network with tanh units in two dimensions, on a grid of steps of 1/6 deviation.

    The trapezoidal rule is exact to 1e-9 while scores deviate by at most 2.

    Parameters
    ----------
    u, S, theta, loss
        As for ``GaussianNetwork``.
    """

    def __init__(self, u, S, theta, loss="softplus"):
        super().__init__(np.asarray(u), np.asarray(S), np.asarray(theta, dtype=float), loss)
        grid = np.stack(np.meshgrid(XI, XI), axis=-1).reshape(-1, 2)
        self.z = self.u + grid @ np.linalg.cholesky(self.halfspace.covariance).T
        density = np.exp(-(XI**2) / 2)
        self.weights = np.outer(density, density).reshape(-1) / density.sum() ** 2

    def _scores(self, W, derivatives):
        def back(q, v=None):
            return (q if v is None else q * (self.z @ v)) @ self.z

        return W @ self.z.T, self.weights, back

    def values(self, first, others, every=1):
        """f for each row of `first` as the first unit, with the other units held.

        With every node of the grid, or with every second of either axis: good enough for a picture.
        """
        size = len(XI)
        z = self.z.reshape(size, size, 2)[::every, ::every].reshape(-1, 2)
        weights = self.weights.reshape(size, size)[::every, ::every].reshape(-1)
        rest = self.theta[1:] @ np.tanh(np.atleast_2d(others) @ z.T)
        own = self.theta[0] * np.tanh(first @ z.T)
        return self.loss.phi(own + rest) @ weights / weights.sum()

    def solve(self, W):
        """A critical point of all units near W, where the search for one ends well."""
        found = root(
            lambda flat: self.gradient(flat.reshape(-1, 2)).reshape(-1),
            np.reshape(W, -1),
            tol=1e-14,
            options={"maxfev": 150},
        )
        return found.x.reshape(-1, 2)

    def best_first(self, start, others):
        """The minimiser of f over the first unit from `start`, with the other units held."""

        def value_and_slope(w):
            W = np.vstack([w, others])
            return self.value(W), self.gradient(W)[0]

        found = minimize(value_and_slope, start, jac=True, method="BFGS", options={"gtol": 1e-9})
        return found.x


def line(u=U, S=S):
    """The direction -S^-1 u, of length 1 in the norm of S."""
    solution = -np.linalg.solve(S, u)
    return solution / np.sqrt(solution @ S @ solution)


def off_line(W, u=U, S=S):
    """Angle in degrees of each row of W with the line S^-1 u, in the norm of S; 0 for a row of 0."""
    along = W @ S @ line(u, S)
    lengths = np.sqrt(np.einsum("ij,jk,ik->i", W, S, W))
    across = np.sqrt(np.maximum(lengths**2 - along**2, 0))
    return np.degrees(np.arctan2(across, np.abs(along)))


def turned(angle, length=1.0, u=U, S=S):
    """A vector at `angle` degrees to the line, of the given length, in the norm of S."""
    along = line(u, S)
    across = np.array([-(S @ along)[1], (S @ along)[0]])
    across = across / np.sqrt(across @ S @ across)
    radians = np.radians(angle)
    return length * (np.cos(radians) * along + np.sin(radians) * across)


def splayed(theta, strength, spread=0.3):
    """The best pair of equal units on the line, and the best symmetric pair, for one Gaussian problem.

    Parameters
    ----------
    theta : float
        Output weight of either unit.
    strength : float
        |rho*| = u'S^-1 u, strictly between 0 and 1.
    spread : float
        Where the search for the pair off the line starts.

    Returns
    -------
    plane : Plane
        The problem, with S the identity and u along the first axis.
    on, off : ndarray of shape (2, 2)
        The two pairs.
    """
    plane = Plane([np.sqrt(strength), 0.0], np.eye(2), [theta, theta])

    def pair(flat):
        return np.array([[flat[0], flat[-1]], [flat[0], -flat[-1]]])

    def search(start, make):
        result = minimize(
            lambda flat: plane.value(make(flat)),
            start,
            method="Nelder-Mead",
            options={"xatol": 1e-9, "fatol": 1e-16, "maxiter": 2000},
        )
        return make(result.x)

    on = search([-0.5], lambda flat: pair([flat[0], 0.0]))
    return plane, plane.solve(on), plane.solve(search([on[0, 0], spread], pair))


def stretched(condition, strength=0.5, turn=0.6):
    """u and S in the plane with L / mu = `condition`, |rho*| = `strength` and S turned by `turn`."""
    turned_by = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    moments = turned_by @ np.diag([condition, 1.0]) @ turned_by.T / np.sqrt(condition)
    u = np.linalg.cholesky(moments) @ np.array([0.6, 0.8]) * np.sqrt(strength)
    return u, moments


def unit_by_unit(
    condition, theta=(3.0, 2.0), steps=30, halvings=30, sweeps=1, others="zero", seed=0
):
    """Run GDNP unit by unit, and judge each unit's gradient while the unit has its turn.

    Parameters
    ----------
    condition : float
        L / mu.
    theta : sequence of float
        Output weights.
    steps, halvings, sweeps, others
        As for ``gdnp_network``.
    seed : int
        Of the starts.

    Returns
    -------
    plane : Plane
    judged : list of Bound
        For each turn the squared gradient in the norm of S^-1 and its bound, a row a step.
    after : ndarray of shape (turns + 1, units)
        Squared gradient of every unit, in the norm of S^-1, after each turn; first at the start.
    layers : ndarray of shape (turns + 1, units, 2)
        The weights after each turn.
    """
    plane = Plane(*stretched(condition), theta)
    start = np.random.default_rng(seed).normal(size=(len(theta), 2))
    run = gdnp_network(
        plane, start, steps=steps, bisection_steps=halvings, sweeps=sweeps, others=others
    )
    W = np.zeros_like(start) if others == "zero" else start.copy()
    judged, layers = [], [W.copy()]
    for turn, trace in enumerate(run.traces):
        i = turn % len(theta)
        judged.append(bounds.network(plane.unit(i, W), trace))
        W[i] = trace.weights[-1]
        layers.append(W.copy())
    after = [
        [plane.halfspace.dual_square(row) for row in plane.gradient(layer)] for layer in layers
    ]
    return plane, judged, np.array(after), np.array(layers)


CONDITIONS = (2, 5, 20)


@cache
def passes(condition):
    """Ten passes of ``unit_by_unit`` at L / mu = `condition`, each turn of 12 direction steps."""
    return unit_by_unit(float(condition), steps=12, halvings=20, sweeps=10)


def totals(after, units=2):
    """Squared gradient of all units after each pass, from ``unit_by_unit``."""
    return after.sum(axis=1)[units::units]


def _hessian(plane, W, directions):
    """The Hessian of f at W along each two of some directions, each of the shape of W."""
    products = [plane.hessian_product(W, V) for V in directions]
    return np.array([[np.sum(V * product) for product in products] for V in directions])


def on_the_line(plane):
    """The best layer of two units on the line, and what a late pass leaves of the squared gradient.

    On the line a pass is descent on one length after the other. With their Hessian H at the end,
    it leaves H12^2 / (H11 H22) of the error, and the square of that of the squared gradient.
    """
    along = line(plane.u, plane.S)

    def value_and_slope(lengths):
        W = np.outer(lengths, along)
        return plane.value(W), plane.gradient(W) @ along

    found = minimize(value_and_slope, [1.0, 1.0], jac=True, method="BFGS", options={"gtol": 1e-10})
    W = np.outer(found.x, along)
    H = _hessian(plane, W, [np.outer(unit, along) for unit in np.eye(2)])
    return W, (H[0, 1] ** 2 / (H[0, 0] * H[1, 1])) ** 2


def beside_the_line(plane, W):
    """The least curvature of f at W, and the minimum that is found by leaving W along it.

    Returns
    -------
    curvature : float
        Smallest eigenvalue of the Hessian in all weights.
    layer : ndarray of shape (2, 2)
    """
    corners = np.eye(W.size).reshape(-1, *W.shape)
    values, vectors = np.linalg.eigh(_hessian(plane, W, corners))
    start = W.reshape(-1) + 0.2 * vectors[:, 0]

    def value_and_slope(flat):
        layer = flat.reshape(W.shape)
        return plane.value(layer), plane.gradient(layer).reshape(-1)

    found = minimize(value_and_slope, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    return values[0], found.x.reshape(W.shape)


def critical_points(theta, strength, starts=12, seed=0, largest=5.0):
    """Critical points of all units of moderate size, from random starts.

    Parameters
    ----------
    theta : sequence of float
        Output weights.
    strength : float
        |rho*|.
    starts, seed : int
        Number of starts, and their seed.
    largest : float
        Points with a weight beyond it are dropped: there tanh is flat and every gradient small.

    Returns
    -------
    angles, conditions : ndarray
        For each point the largest angle of a unit to the line in degrees, and the smallest over
        the largest singular value of B.
    """
    plane = Plane([np.sqrt(strength), 0.0], np.eye(2), theta)
    rng, angles, conditions = np.random.default_rng(seed), [], []
    for _ in range(starts):
        W = plane.solve(0.5 * rng.normal(size=(len(theta), 2)))
        if np.abs(plane.gradient(W)).max() < 1e-13 and np.abs(W).max() < largest:
            sizes = np.linalg.svd(plane.second_order(W)[1], compute_uv=False)
            angles.append(off_line(W, plane.u, plane.S).max())
            conditions.append(sizes[-1] / sizes[0])
    return np.array(angles), np.array(conditions)


def skewed(theta=(3.0, 3.0)):
    """A network on four examples in the plane, one of which counts twice: anything but Gaussian."""
    z = np.array([[1.0, 0.5], [1.0, 0.5], [-2.0, 0.3], [0.4, -1.5], [-0.6, -0.2]])
    return EmpiricalNetwork(z, np.array(theta))
