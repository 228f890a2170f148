"""The methods of this wing as they are written on the board: no checks, no options, no traces.

``solvers`` records runs, checks starts and says why it stopped. A problem is anything that has u, S
and gradient(w), each method starts at w0 and returns its directions or weights, one row a step.
Kohler et al. (2019); Nesterov (2004); Salimans and Kingma (2016).
"""

import numpy as np
from jaxtyping import Float

from bncore.convergence.network import EmpiricalNetwork, GaussianNetwork, Layer
from bncore.convergence.problem import Problem

Weights = Float[np.ndarray, "dimension"]
Path = Float[np.ndarray, "iterates dimension"]


def rayleigh(u: Weights, S: Float[np.ndarray, "dimension dimension"], w: Weights) -> float:
    """Minus the squared mean of the score over its mean square: the same for all multiples of w."""
    return -((u @ w) ** 2) / (w @ S @ w)


def gradient_descent(problem: Problem, w0: Weights, rate: float, steps: int) -> Path:
    """Step against the gradient."""
    path = [w0]
    for _ in range(steps):
        w0 = w0 - rate * problem.gradient(w0)
        path.append(w0)
    return np.array(path)


def accelerated_gradient_descent(problem: Problem, w0: Weights, rate: float, steps: int) -> Path:
    """Step against the gradient, then on by a growing part of the last change."""
    path, before = [w0], w0
    for t in range(steps):
        after = path[-1] - rate * problem.gradient(path[-1])
        path.append(after + t / (t + 3) * (after - before))
        before = after
    return np.array(path)


def weight_normalization(problem: Problem, w0: Weights, g: float, rate: float, steps: int) -> Path:
    """Gradient descent on a direction w and a length g of the weights g w / ||w||."""
    w, path = w0, []
    for _ in range(steps + 1):
        norm = np.sqrt(w @ w)
        path.append(g * w / norm)
        gradient = problem.gradient(path[-1])
        along = w @ gradient / norm
        across = gradient - along * w / norm
        w, g = w - rate * g / norm * across, g - rate * along
    return np.array(path)


def batch_norm_gradient_descent(
    problem: Problem, w0: Weights, g: float, rate: float, steps: int
) -> Path:
    """The same with the norm of S: the deviation of the score, as batch normalization has it."""
    w, path = w0, []
    for _ in range(steps + 1):
        norm = np.sqrt(w @ problem.S @ w)
        path.append(g * w / norm)
        gradient = problem.gradient(path[-1])
        along = w @ gradient / norm
        across = gradient - along * problem.S @ w / norm
        w, g = w - rate * g / norm * across, g - rate * along
    return np.array(path)


def rayleigh_descent(problem: Problem, w: Weights, steps: int) -> Path:
    """Gradient descent on the Rayleigh quotient; each direction is kept at its best length for least squares."""
    u, S, path = problem.u, problem.S, []
    L = np.linalg.eigvalsh(S)[-1]
    for _ in range(steps + 1):
        ratio = (u @ w) / (w @ S @ w)
        path.append(-ratio * w)
        gradient = -2 * ratio * (u - ratio * S @ w)
        w = w - gradient / (2 * L * ratio**2)
    return np.array(path)


def gdnp(problem: Problem, w: Weights, steps: int) -> Path:
    """The best length for the direction, then a gradient step of the direction, in turns."""
    L, path = np.linalg.eigvalsh(problem.S)[-1], []
    for _ in range(steps + 1):
        t = best_multiple(problem, w)
        path.append(t * w)
        Sw, gradient = problem.S @ w, problem.gradient(t * w)
        h = problem.coefficients(t * w)[0] * (problem.u @ w)
        across = gradient - Sw * (w @ gradient) / (w @ Sw)
        w = w + (w @ Sw) / (L * h) * across
    return np.array(path)


def gdnp_network(
    network: GaussianNetwork | EmpiricalNetwork, W0: Layer, steps: int, passes: int
) -> Layer:
    """Unit after unit, with the others held; units that have not had a turn wait at 0."""
    W = np.zeros_like(W0)
    for turn in range(passes * len(W)):
        i = turn % len(W)
        start = W[i] if turn >= len(W) else W0[i]
        W[i] = gdnp(network.unit(i, W), start, steps)[-1]
    return W


def best_multiple(problem: Problem, w: Weights) -> float:
    """Where the slope of f along w vanishes, if it does: widen a bracket downhill, then halve it."""

    def slope(t):
        return w @ problem.gradient(t * w)

    start, end = 0.0, -np.copysign(1 / np.sqrt(w @ problem.S @ w), slope(0.0))
    while slope(end) * slope(0.0) > 0:
        start, end = end, 4 * end
    while (middle := (start + end) / 2) not in (start, end):
        start, end = (middle, end) if slope(middle) * slope(0.0) > 0 else (start, middle)
    return middle
