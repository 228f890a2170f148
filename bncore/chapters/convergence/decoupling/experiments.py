"""The experiments of the decoupling chapter: paths, the growth of the length, learning rates.

Every problem is least squares, f(w) = 2u'w + w'Sw, whose excess is f(w) - f* = ||w - w*||_S^2.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.integrate import solve_ivp

from bncore.convergence import LeastSquares
from bncore.lab.studies import difference
from bncore.mechanics import transform

TARGET = 1e-6


def plane():
    """A problem in two dimensions: condition number 9, and a solution of length 2 in the S-norm."""
    turn = np.deg2rad(30)
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    S = axes @ np.diag([3.0, 1 / 3]) @ axes.T
    solution = np.array([1.0, 1.0])
    solution *= 2 / np.sqrt(solution @ S @ solution)
    return LeastSquares(-S @ solution, S)


def at_angle(problem, degrees):
    """The vector of length 1 at this angle from the solution's direction, in a plane."""
    x, y = problem.solution_direction
    angle = np.arctan2(y, x) + np.deg2rad(degrees)
    return np.array([np.cos(angle), np.sin(angle)])


def turn(problem, w, g, rate, eps=0.0, steps=20):
    """Gradient descent on w alone, at a fixed length g, with epsilon under the root as in batch norm.

    Returns
    -------
    ndarray of shape (steps + 1, d)
        w after each step.
    """
    path = [w]
    for _ in range(steps):
        Sw = problem.S @ w
        norm = np.sqrt(w @ Sw + eps)
        gradient = problem.gradient(g / norm * w)
        w = w - rate * g / norm * (gradient - Sw * (w @ gradient) / norm**2)
        path.append(w)
    return np.array(path)


def stiffness(problem):
    """Largest curvature of rho at the solution, for w of Euclidean length 1.

    Gradient descent on the direction is stable there if rate / ||w||^2 < 2 / stiffness.
    """
    w = problem.solution_direction / np.linalg.norm(problem.solution_direction)
    Sw = problem.S @ w
    squared = w @ Sw
    across = problem.S - np.outer(Sw, Sw) / squared
    return 2 * -problem.rayleigh_optimum / squared * np.linalg.eigvalsh(across)[-1]


@dataclass(frozen=True)
class Problems:
    """Random problems, stacked: u (problems, d), S (problems, d, d), starts of length 1."""

    u: np.ndarray
    S: np.ndarray
    solution: np.ndarray
    start: np.ndarray


def random_problems(count, dimension=10, kappa=100.0, seed=0):
    """Problems with condition number kappa, largest eigenvalue sqrt(kappa) and ||w*||_S = 1."""
    rng = np.random.default_rng(seed)
    values = np.geomspace(kappa**-0.5, kappa**0.5, dimension)
    axes = np.linalg.qr(rng.normal(size=(count, dimension, dimension)))[0]
    S = axes * values @ axes.transpose(0, 2, 1)
    solution, start = rng.normal(size=(2, count, dimension))
    solution /= _norm(solution, S)
    start /= np.linalg.norm(start, axis=-1, keepdims=True)
    return Problems(-_times(S, solution), S, solution, start)


def steps_to_target(problems, rates, method, limit=20_000):
    """Steps of gradient descent until the excess is a millionth of what it was at the start.

    Parameters
    ----------
    problems : Problems
        Start from ``problems.start``, with g = 1.
    rates : ndarray
        Learning rates.
    method : {"plain", "one rate", "two rates"}
        Gradient descent on the weights; on (w, g) with one rate; on (w, g) with the rate for w and
        1/2 for g.
    limit : int
        Give up after so many steps.

    Returns
    -------
    ndarray of shape (rates, problems)
        Infinite where the target was not met.
    """
    u, S = problems.u, problems.S
    eta = np.asarray(rates, dtype=float)[:, None, None]
    w = np.broadcast_to(problems.start, (len(rates), *u.shape))
    if method == "plain":
        w = w / _norm(w, S)
    g = np.ones((len(rates), len(u), 1))
    rate_g = eta if method == "one rate" else 0.5
    steps = np.full((len(rates), len(u)), np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(limit + 1):
            Sw = _times(S, w)
            if method == "plain":
                excess = ((w - problems.solution) * (Sw + u)).sum(axis=-1)
                dw, dg = 2 * (u + Sw), 0.0
            else:
                norm = np.sqrt((w * Sw).sum(axis=-1, keepdims=True))
                best = -(u * w).sum(axis=-1, keepdims=True) / norm
                excess = ((g - best) ** 2 + 1 - best**2)[..., 0]
                dw, dg = 2 * g / norm * (u + best / norm * Sw), 2 * (g - best)
            if t == 0:
                first = excess
            steps[np.isinf(steps) & (excess <= TARGET * first)] = t
            if not (np.isinf(steps) & np.isfinite(excess)).any():
                break
            w, g = w - eta * dw, g - rate_g * dg
    return steps


GRIDS = {
    "plain": 10.0 ** np.arange(-1.3, -0.9, 0.025),
    "two rates": 10.0 ** np.arange(-1.0, 0.2, 0.025),
}


def steps_at_best_rates(problems, fresh):
    """Steps on direction and length over steps on the weights, each at its own best rate of ``GRIDS``.

    Parameters
    ----------
    problems, fresh : Problems
        Those whose median chooses the rates, and those that are counted.

    Returns
    -------
    rates : dict of str to float
        The best one of either method.
    ratio : Interval
        Mean logarithm over the fresh problems, and 95 % for two comparisons.
    """
    rates, logs = {}, {}
    for method, grid in GRIDS.items():
        medians = np.median(steps_to_target(problems, grid, method), axis=1)
        rates[method] = float(grid[medians.argmin()])
        steps = steps_to_target(fresh, [rates[method]], method)[0]
        logs[method] = xr.DataArray(np.log(steps), {"seed": np.arange(len(steps))}, ["seed"])
    return rates, difference(logs["two rates"], logs["plain"], looked_at=2)


def branches(problems):
    """What gradient flow predicts for very small and for very large rates.

    A step of size eta on w turns the direction like a step of eta / ||w||^2 at length 1. A small
    eta follows the flow and leaves ||w|| at 1. A large eta first jumps to the direction of the
    gradient, where ||w|| = eta G, and then follows the flow with the effective rate 1 / (eta G^2).

    Returns
    -------
    small, large : ndarray of shape (problems,)
        Steps are about small / eta on the left, and large * eta on the right.
    """
    small, large = [], []
    for u, S, start in zip(problems.u, problems.S, problems.start, strict=True):
        norm = np.sqrt(start @ S @ start)
        jump = 2 / norm * (u - u @ start / norm**2 * S @ start)
        first = 2 * u @ start / norm + 2
        length = np.linalg.norm(jump)
        small.append(_flow_time(u, S, start, first))
        large.append(_flow_time(u, S, -jump / length, first) * length**2)
    return np.array(small), np.array(large)


def _flow_time(u, S, start, first):
    """The time at which the flow of -grad rho from a direction meets the target."""

    def flow(_, w):
        ratio = u @ w / (w @ S @ w)
        return 2 * ratio * (u - ratio * (S @ w))

    def excess(_, w):
        return np.log((1 - (u @ w) ** 2 / (w @ S @ w)) / (TARGET * first))

    excess.terminal = True
    found = solve_ivp(flow, (0, 1e4), start, method="LSODA", events=excess, rtol=1e-6, atol=1e-9)
    return found.t_events[0][0]


def _times(S, w):
    return (S @ w[..., None])[..., 0]


def _norm(w, S):
    return np.sqrt((w * _times(S, w)).sum(axis=-1, keepdims=True))


@dataclass(frozen=True)
class DirectionRun:
    """Gradient descent on rho(w), and the bounds of the theorem on learning rates.

    Attributes
    ----------
    squared_length : ndarray of shape (steps + 1, problems)
        Of w, Euclidean.
    least_gradient : ndarray of shape (steps, problems)
        Least squared gradient so far, of rho at length 1.
    length_bound : ndarray of shape (problems,)
        Bounds squared_length.
    gradient_bound : ndarray of shape (steps, problems)
        Bounds least_gradient.
    """

    squared_length: np.ndarray
    least_gradient: np.ndarray
    length_bound: np.ndarray
    gradient_bound: np.ndarray


def descend_direction(problems, rate, steps):
    """Gradient descent on rho from ``problems.start``, where rho* = -1, with one rate for all."""
    u, S, w = problems.u, problems.S, problems.start
    squared, gradients = [(w**2).sum(axis=-1)], []
    for _ in range(steps):
        Sw = _times(S, w)
        ratio = (u * w).sum(axis=-1, keepdims=True) / (w * Sw).sum(axis=-1, keepdims=True)
        gradient = -2 * ratio * (u - ratio * Sw)
        gradients.append(squared[-1] * (gradient**2).sum(axis=-1))
        w = w - rate * gradient
        squared.append((w**2).sum(axis=-1))
    values = np.linalg.eigvalsh(S)
    kappa = values[:, -1] / values[:, 0]
    start = squared[0]
    jump = 2 * rate * kappa + rate**2 * kappa / start
    longest = np.maximum(start, jump) + 2 * rate
    count = np.arange(1, steps + 1)[:, None]
    return DirectionRun(
        np.array(squared),
        np.minimum.accumulate(np.array(gradients)),
        longest,
        longest * (longest - start) / (rate**2 * count),
    )


def off_centre(mean, count=150):
    """Data in a plane with standard deviation 1 along w and this mean along w, and w."""
    X = np.random.default_rng(9).normal(size=(count, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    X -= X.mean(axis=0)
    w = np.array([1.0, 0.5])
    w /= (X @ w).std()
    return X + mean * w / (w @ w), w


def batch_norm(X, w, g, eps=1e-300):
    """Batch norm of the outputs X @ w of one unit, with gamma = g, no beta, and a tiny epsilon."""
    return transform.forward((X @ w)[:, None], np.array([g]), eps=eps)[0][:, 0]


@dataclass(frozen=True)
class BatchRun:
    """Stochastic gradient descent through batch norm, several problems side by side.

    Attributes
    ----------
    length : ndarray of shape (steps + 1, problems)
        Of w, Euclidean.
    by_pythagoras : ndarray of shape (steps + 1, problems)
        The root of 1 plus the squared steps made so far.
    gap : ndarray of shape (steps + 1, problems)
        rho(w) - rho*.
    predicted : ndarray of shape (steps + 1, problems)
        Length: (1 + 2 rate^2 G^2 t)^(1/4), with G^2 the mean squared gradient over fresh batches at
        the solution, at length 1.
    limit : ndarray of shape (steps + 1, problems)
        Effective rate that the prediction tends to for every rate: 1 / (G sqrt(2t)).
    """

    length: np.ndarray
    by_pythagoras: np.ndarray
    gap: np.ndarray
    predicted: np.ndarray
    limit: np.ndarray


def minibatches(problems, rate, steps, batch=32, noise=1.0, seed=0):
    """Regress x'w* + noise on x ~ N(0, S) through batch norm, a fresh batch every step.

    The rate is that of w, which starts at length 1; gamma has the rate 0.1.
    """
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(problems.S)
    count, d = problems.start.shape

    def gradients(w, gamma):
        X = rng.normal(size=(batch, count, d))
        X = np.einsum("kij,bkj->bki", root, X)
        target = (X * problems.solution).sum(axis=-1) + noise * rng.normal(size=(batch, count))
        y, cache = transform.forward((X * w).sum(axis=-1), gamma, eps=1e-300)
        found = transform.backward(2 / batch * (y - target), cache)
        return (X * found.dx[..., None]).sum(axis=0), found.dgamma

    w, gamma = problems.start, np.ones(count)
    ws, squared = [w], [np.ones(count)]
    for _ in range(steps):
        dw, dgamma = gradients(w, gamma)
        w, gamma = w - rate * dw, gamma - 0.1 * dgamma
        ws.append(w)
        squared.append(squared[-1] + rate**2 * (dw**2).sum(axis=-1))
    ws = np.array(ws)
    unit = problems.solution / np.linalg.norm(problems.solution, axis=-1, keepdims=True)
    at_solution = [(gradients(unit, np.ones(count))[0] ** 2).sum(axis=-1) for _ in range(300)]
    mean, t = np.mean(at_solution, axis=0), np.arange(steps + 1)[:, None]
    return BatchRun(
        np.linalg.norm(ws, axis=-1),
        np.sqrt(squared),
        1 - ((problems.u * ws).sum(axis=-1) / _norm(ws, problems.S)[..., 0]) ** 2,
        (1 + 2 * rate**2 * mean * t) ** 0.25,
        (2 * mean * np.maximum(t, 0.5)) ** -0.5,
    )
