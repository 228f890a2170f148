"""The experiments of the least-squares chapter: problems, rates, learning rates and diabetes."""

import itertools
import time

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.sparse import linalg
from sklearn.datasets import load_diabetes

from bncore.convergence import (
    LeastSquares,
    accelerated_gradient_descent,
    batch_norm_gradient_descent,
    bounds,
    gdnp,
    gradient_descent,
)
from bncore.convergence.trace import held


def random_problem(condition, seed, dimension=10, tilt=None):
    """Return a least-squares problem with rho* = -1 and L = 1, and a random start.

    The eigenvalues of S are evenly spaced on a logarithmic axis, so the smallest is 1/condition.

    Parameters
    ----------
    condition : float
        Condition number of S.
    seed : int
        Of the rotation, the solution and the start.
    dimension : int
        Number of weights.
    tilt : float, optional
        Angle in degrees between S^(-1/2) u and the eigenvector of the smallest eigenvalue; the
        rest lies evenly along the others. By default S^(-1/2) u is uniform on the sphere.
    """
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0]
    spectrum = np.logspace(-np.log10(condition), 0, dimension)
    p = rng.normal(size=dimension)
    if tilt is not None:
        p[:] = np.sin(np.radians(tilt)) / np.sqrt(dimension - 1)
        p[0] = np.cos(np.radians(tilt))
    p /= np.linalg.norm(p)
    S = (rotation * spectrum) @ rotation.T
    u = rotation @ (np.sqrt(spectrum) * p)
    return LeastSquares(u, (S + S.T) / 2), rng.normal(size=dimension)


def random_problems(conditions=(2, 10, 100, 1000), count=10):
    """Ten problems of each condition number, in 2 to 11 dimensions, each with its start."""
    for condition, seed in itertools.product(conditions, range(count)):
        yield random_problem(condition, seed, dimension=2 + seed)


def with_normal_solutions(conditions=(20, 100), dimensions=(10, 50), count=4):
    """Problems whose solution is normal, so that its flat and its steep parts are alike."""
    for condition, dimension, seed in itertools.product(conditions, dimensions, range(count)):
        problem, w = random_problem(condition, seed, dimension=dimension)
        solution = np.random.default_rng(1000 + seed).normal(size=dimension)
        yield LeastSquares(-problem.S @ solution, problem.S), w


def with_any_solutions(conditions=(20, 100), dimensions=(10, 50), count=4):
    """The same problems, with S^(-1/2) u uniform on the sphere."""
    for condition, dimension, seed in itertools.product(conditions, dimensions, range(count)):
        yield random_problem(condition, seed, dimension=dimension)


def skewed_data(count, examples=60):
    """Data X and y with skewed features, and weights w."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        d = 1 + seed % 8
        X = rng.exponential(size=(examples, d)) @ rng.normal(size=(d, d))
        y, w = X @ rng.normal(size=d) + rng.normal(size=examples), rng.normal(size=d)
        yield X, y, w


def beside_the_error(X, y, w, form, rho):
    """Compare two functions of weights with the mean squared error of data, less that of zero.

    Returns
    -------
    form, curvature, best, least : float
        Of the error's mean square of y: the difference of the form at w; the second difference of the
        error in the length of w; the difference of rho(w) to the least error along w, and of rho at
        the least-squares solution to the error there.
    """
    spread = np.mean(y**2)

    def error(weights):
        return np.mean((y - X @ weights) ** 2) / spread - 1

    unit, wide = w / np.sqrt(np.mean((X @ w) ** 2)), np.sqrt(spread)
    best = minimize_scalar(lambda g: error(g * unit))
    sides = error((best.x + wide) * unit) + error((best.x - wide) * unit)
    solution = np.linalg.lstsq(X, y)[0]
    return (
        abs(form(w) / spread - error(w)) / (1 + abs(error(w))),
        sides - 2 * best.fun,
        abs(best.fun - rho(w) / spread),
        abs(error(solution) - rho(solution) / spread),
    )


def gap_over_bound(problem, w, eta, steps, floor=1e-12):
    """Largest ratio of the Rayleigh gap to (1 - mu/L)^(2t) of the first one, for gaps above the floor.

    Parameters
    ----------
    eta : callable
        From the problem and w to the size of a step w - eta grad rho(w).
    """
    first = problem.line(w).rayleigh_gap
    largest = 0.0
    for t in range(1, steps + 1):
        w = w - eta(problem, w) * problem.rayleigh_gradient(w)
        w = w / np.linalg.norm(w)
        gap = problem.line(w).rayleigh_gap
        if gap < floor:
            break
        largest = max(largest, gap / (bounds.rate(problem) ** t * first))
    return largest


def root(S):
    """Return the symmetric square root of S."""
    values, vectors = np.linalg.eigh(S)
    return (vectors * np.sqrt(values)) @ vectors.T


def sine(problem, w):
    """Sine of the angle between w and S^(-1) u in the inner product of S, free of cancellation."""
    half = root(problem.S)
    v, p = half @ w, np.linalg.solve(half, problem.u)
    p = p / np.linalg.norm(p)
    return np.linalg.norm(v - (p @ v) * p) / np.linalg.norm(v)


def step(problem, w, size=None):
    """Take one step of the theorem in its short form, of size 1/L unless told otherwise."""
    size = 1 / problem.largest_eigenvalue if size is None else size
    Sw = problem.S @ w
    return w - size * (Sw - (w @ Sw) / (problem.u @ w) * problem.u)


def inequalities(problem, w):
    """Return, for one step from w, each side of the proof's three inequalities as a ratio.

    All are at most 1: the distance that is left to q, beside (1 - mu/L) ||r||; the sine of the new
    angle, beside that distance over ||q||; the new Rayleigh gap, beside (1 - mu/L)^2 times the old.
    """
    half = root(problem.S)
    v, p, moved = half @ w, np.linalg.solve(half, problem.u), half @ step(problem, w)
    q = (v @ v) / (p @ v) * p
    shrink = 1 - problem.smallest_eigenvalue / problem.largest_eigenvalue
    left, length = np.linalg.norm(moved - q), np.linalg.norm(q)
    after = step(problem, w)
    return (
        left / (shrink * np.linalg.norm(q - v)),
        sine(problem, after) / (left / length),
        (sine(problem, after) / (shrink * sine(problem, w))) ** 2,
    )


def final_factor(problem):
    """Return the factor by which the Rayleigh gap shrinks in a late step.

    It is (1 - nu/L)^2, where nu is the smallest eigenvalue of S restricted to the vectors
    orthogonal to S^(-1/2) u.
    """
    p = np.linalg.solve(root(problem.S), problem.u)
    complement = np.linalg.svd(p[None, :])[2][1:]
    nu = np.linalg.eigvalsh(complement @ problem.S @ complement.T)[0]
    return (1 - nu / problem.largest_eigenvalue) ** 2


def best_length(problem, w):
    """Stretch w to the length at which the loss is least along its line."""
    return -(problem.u @ w) / (w @ problem.S @ w) * w


def excess(problem, weights):
    """Loss above its minimum, for one weight vector a row, free of cancellation."""
    error = np.atleast_2d(weights) - problem.closed_form
    return np.einsum("ti,ij,tj->t", error, problem.S, error)


def steps_to(values, target):
    """Return the first step at which values fall to the target, or infinity."""
    below = np.flatnonzero(np.asarray(values) <= target)
    return float(below[0]) if len(below) else np.inf


def measured_factors(problem, w, steps, target=1e-22):
    """Measure the late factors per step: of the Rayleigh gap, and of gradient descent's excess.

    Gradient descent takes the step 1/(2L) and starts at the best length along w.  Each factor is
    the geometric mean over the last quarter of the steps before the target is reached.
    """
    late = []
    start = best_length(problem, w)
    runs = (
        excess(problem, normalised_path(problem, w, steps)),
        excess(problem, gradient_descent(problem, start, steps=steps).weights),
    )
    for values in runs:
        end = int(min(steps_to(values, target), len(values) - 1))
        begin = end - max(1, end // 4)
        late.append((values[end] / values[begin]) ** (1 / (end - begin)))
    return late


def late_factors(tilts, condition=20, dimension=6, seeds=5):
    """Measure the late factors of random problems whose solution lies off the flattest axis.

    Returns
    -------
    ndarray, shape (tilts, seeds, 2)
        For each angle in degrees and each seed what ``measured_factors`` returns.
    """
    problems = [
        [random_problem(condition, seed, dimension, tilt) for seed in range(seeds)]
        for tilt in tilts
    ]
    return np.array([[measured_factors(*one, steps=600) for one in row] for row in problems])


def normalised_path(problem, w, steps, size=None):
    """Return the effective weights of `steps` steps of the theorem, each at its best length."""
    path = [best_length(problem, w)]
    for _ in range(steps):
        w = step(problem, w, size)
        w = w / np.linalg.norm(w)  # the direction is free of the scale; this keeps w finite
        path.append(best_length(problem, w))
    return np.array(path)


def learning_rates(problem, w, rates, steps, length_rates=np.inf):
    """Descend at many constant learning rates at once, with and without normalisation.

    Parameters
    ----------
    problem : LeastSquares
        The problem.
    w : ndarray
        The start; the length starts at 1.
    rates : ndarray
        The learning rates.
    steps : int
        Number of steps.
    length_rates : float or ndarray
        The learning rate of the length g is the smaller of this and the rate.

    Returns
    -------
    normalised, plain : ndarray
        Loss above its minimum at the end, for each rate; infinite where it overflowed.
    """
    u, S = problem.u, problem.S
    w = w / np.linalg.norm(w)
    W, V = np.tile(w, (len(rates), 1)), np.tile(w / np.sqrt(w @ S @ w), (len(rates), 1))
    g, own = np.ones(len(rates)), np.minimum(rates, length_rates)
    with np.errstate(all="ignore"):
        for _ in range(steps):
            SW, a = W @ S, W @ u
            norm = np.sqrt((W * SW).sum(axis=1))
            by_length = 2 * (a / norm + g)
            by_direction = (2 * g / norm)[:, None] * (u - (a / norm**2)[:, None] * SW)
            W, g = W - rates[:, None] * by_direction, g - own * by_length
            V = V - 2 * rates[:, None] * (u + V @ S)
        norm = np.sqrt(((W @ S) * W).sum(axis=1))
        ends = [excess(problem, W * (g / norm)[:, None]), excess(problem, V)]
    return [np.where(np.isfinite(values), values, np.inf) for values in ends]


def every_rate(rates, condition=10, seeds=5, steps=1000, cap=0.5):
    """Loss above its minimum in the end, of random problems, at every learning rate and three ways to use it.

    Returns
    -------
    dict of str to ndarray, shape (seeds, rates)
        For gradient descent, for direction and length with one rate, and with the length's rate capped.
    """
    both, caps = np.tile(rates, 2), np.repeat([np.inf, cap], len(rates))
    found = []
    for seed in range(seeds):
        normalised, plain = learning_rates(*random_problem(condition, seed), both, steps, caps)
        found.append((plain[: len(rates)], *np.split(normalised, 2)))
    names = ("gradient descent", "normalised, one rate", "normalised, length's rate capped")
    return dict(zip(names, np.swapaxes(found, 0, 1), strict=True))


def compared(problem, w, steps):
    """Run every method from the best length along w.

    Returns
    -------
    dict of str to (excess, seconds)
        For each method the loss above its minimum at each of steps + 1 points, and the median seconds
        of a step, NaN where none is made. A run that ends early stays where it is.
    """
    start = best_length(problem, w)
    rate = 1 / problem.smoothness
    traces = {
        "gradient descent": gradient_descent(problem, start, steps=steps),
        "normalised, best length": gdnp(problem, w, steps=steps),
        "normalised, one rate": batch_norm_gradient_descent(
            problem, start, g0=np.sqrt(start @ problem.S @ start), learning_rate=rate, steps=steps
        ),
        "accelerated": accelerated_gradient_descent(problem, start, steps=steps),
    }
    return {
        name: (
            held(excess(problem, trace.weights), steps),
            float(np.median(np.diff(trace.seconds))) if trace.steps else np.nan,
        )
        for name, trace in traces.items()
    }


def conjugate_gradients(problem, w, steps):
    """Run SciPy's conjugate gradients from the same start; return what ``compared`` has for a method."""
    path, seconds = [best_length(problem, w)], [time.perf_counter()]

    def keep(weights):
        path.append(weights.copy())
        seconds.append(time.perf_counter())

    linalg.cg(problem.S, -problem.u, path[0], rtol=1e-14, maxiter=steps, callback=keep)
    return excess(problem, np.array(path)), float(np.median(np.diff(seconds)))


def diabetes():
    """Return the diabetes data, 442 patients with ten measurements each, with all standardised."""
    X, y = load_diabetes(return_X_y=True, scaled=False)
    return [(a - a.mean(axis=0)) / a.std(axis=0) for a in (X, y)]


def small_batches(X, y, size, seed, steps):
    """Take the theorem's steps, each with S, u and L of its own random batch.

    Returns
    -------
    ndarray
        Loss on all the data above its minimum after each step, at the best length.
    """
    rng = np.random.default_rng(seed)
    w, path = X.T @ y, []
    for _ in range(steps):
        picks = rng.choice(len(X), size, replace=False)
        batch, target = X[picks], y[picks]
        score = batch @ w
        rest = score - (score @ score) / (target @ score) * target
        w = w - batch.T @ rest / np.linalg.norm(batch, 2) ** 2
        w = w / np.linalg.norm(w)
        path.append(w)
    problem = LeastSquares.from_data(X, y)
    return excess(problem, np.array([best_length(problem, w) for w in path]))
