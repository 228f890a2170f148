"""The experiments of the halfspaces chapter: losses, problems with known answers, and real data."""

import numpy as np
from scipy import optimize, special
from sklearn.datasets import load_breast_cancer, load_digits

from bncore.convergence import (
    EmpiricalHalfspace,
    accelerated_gradient_descent,
    bounds,
    gdnp,
    gradient_descent,
)
from bncore.convergence.losses import Loss
from bncore.convergence.yardsticks import lbfgs, logistic_regression
from bncore.lab import studies

SINE = Loss(np.sin, np.cos, lambda a: -np.sin(a), 1.0, 1.0, "sine")


def hinge(u, S, w):
    """E max(0, 1 + q) and the probability that q exceeds -1, for the Gaussian score q = z'w."""
    mean = u @ w
    deviation = np.sqrt(w @ S @ w - mean**2)
    t = (1 + mean) / deviation
    density = np.exp(-t * t / 2) / np.sqrt(2 * np.pi)
    return (1 + mean) * special.ndtr(t) + deviation * density, special.ndtr(t)


def huber(sharpness=2.0):
    """A smooth |1 + a|: slope at most 1, smallest at a = -1, as sharp as asked."""

    def root(a):
        return np.sqrt(1 + (sharpness * (1 + a)) ** 2)

    return Loss(
        lambda a: root(a) / sharpness,
        lambda a: sharpness * (1 + a) / root(a),
        lambda a: sharpness / root(a) ** 3,
        1.0,
        sharpness,
        "huber",
    )


def scaled(loss, factor):
    """The loss times a positive factor."""
    return Loss(
        lambda a: factor * loss.phi(a),
        lambda a: factor * loss.dphi(a),
        lambda a: factor * loss.d2phi(a),
        factor * loss.slope_bound,
        factor * loss.curvature_bound,
        f"{factor} x {loss.name}",
    )


def two_waves(variance):
    """The loss cos a + b cos 2a, with b chosen so that E phi' = E phi'' = 0 at one w.

    Parameters
    ----------
    variance : float
        Variance of z'w at the weights w, where the mean of z'w has to be -pi.
    """
    b = np.exp(1.5 * variance) / 4
    return Loss(
        lambda a: np.cos(a) + b * np.cos(2 * a),
        lambda a: -np.sin(a) - 2 * b * np.sin(2 * a),
        lambda a: -np.cos(a) - 4 * b * np.cos(2 * a),
        1 + 2 * b,
        1 + 4 * b,
        "two waves",
    )


def off_the_line(u, S, seed=0, apart=0.5):
    """Weights with u'w = -pi that are not a multiple of S^-1 u, and their score's variance.

    Parameters
    ----------
    apart : float
        What the part off the line adds to the variance.
    """
    best, covariance = np.linalg.solve(S, u), S - np.outer(u, u)
    side = np.random.default_rng(seed).normal(size=len(u))
    side -= (u @ side) / (u @ best) * best
    side *= np.sqrt(apart / (side @ covariance @ side))
    w = -np.pi / (u @ best) * best + side
    return w, float(w @ covariance @ w)


def moments(dimension, seed, condition=10.0, strength=0.7):
    """Random moments u and S with a given condition number of S and u'S^-1 u = strength.

    Parameters
    ----------
    dimension, seed : int
    condition : float
        Largest over smallest eigenvalue of S; the largest is 1.
    strength : float
        Between 0 and 1: how well a linear function predicts the label.
    """
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0]
    eigenvalues = np.geomspace(1 / condition, 1, dimension)
    S = (basis * eigenvalues) @ basis.T
    S = (S + S.T) / 2
    u = S @ rng.normal(size=dimension)
    return u * np.sqrt(strength / (u @ np.linalg.solve(S, u))), S


def start(u, S, seed):
    """A random start with a tenth of the best direction's mean at least, so that u'w is not 0."""
    w = np.random.default_rng(seed + 1000).normal(size=len(u))
    w /= np.sqrt(w @ S @ w)
    best = -np.linalg.solve(S, u)
    best /= np.sqrt(best @ S @ best)
    return w * (-np.sign(u @ w) or 1.0) + 0.1 * best


def differences(function, w, step=1e-4):
    """The gradient of a function by central differences of fourth order."""
    gradient = np.empty_like(w)
    for i, unit in enumerate(np.eye(len(w)) * step):
        near = function(w + unit) - function(w - unit)
        far = function(w + 2 * unit) - function(w - 2 * unit)
        gradient[i] = (8 * near - far) / (12 * step)
    return gradient


def angle(v, w):
    """The angle in degrees between the lines through 0 that v and w span, from 0 to 90."""
    v, w = v / np.linalg.norm(v), w / np.linalg.norm(w)
    return float(np.degrees(np.arctan2(np.linalg.norm(v - (v @ w) * w), abs(v @ w))))


def least_squares_steps(u, S, w0, steps):
    """Directions of gradient descent on the Rayleigh quotient with the step size of the theorem."""
    L, w, path = np.linalg.eigvalsh(S)[-1], w0, [w0]
    for _ in range(steps):
        w = w - (S @ w - (w @ S @ w) / (u @ w) * u) / L
        path.append(w)
    return np.array(path)


def printed_bounds(problem, trace):
    """The bounds of length, direction and both as reconstructed from what the encyclopaedia has left.

    Parameters
    ----------
    problem : GaussianHalfspace
    trace : Trace
        Of gdnp.

    Returns
    -------
    dict of str to ndarray
        Under "length", "direction" and "combined".
    """
    t, width = np.arange(len(trace.g)), np.abs(np.diff(trace.brackets, axis=1)[:, 0])
    slope = problem.loss.slope_bound
    shrunk = bounds.rate(problem) ** t * slope**2 * trace.rayleigh_gap[0]
    length = 0.5**trace.halvings * problem.smoothness * width / problem.smallest_eigenvalue**2
    return {
        "length": length,
        "direction": shrunk * trace.g**2,
        "combined": shrunk + length,
    }


def bounds_along_a_run(problem, w0, steps, bisection_steps):
    """Measured quantities, their printed and their corrected bounds along one run of gdnp.

    Returns
    -------
    dict of str to dict of str to ndarray
        For "length", "direction" and "combined": "measured", "printed" and "corrected".
    """
    trace = gdnp(problem, w0, steps=steps, bisection_steps=bisection_steps)
    printed = printed_bounds(problem, trace)
    found = {name: getattr(bounds, name)(problem, trace) for name in printed}
    return {
        name: {"measured": one.measured, "printed": printed[name], "corrected": one.bound}
        for name, one in found.items()
    }


def with_outliers(distance, samples=3000, share=0.1, seed=0):
    """A sample of z in the plane: a Gaussian cloud, a share of which is moved to the correct side.

    Parameters
    ----------
    distance : float
        How far the outliers are moved towards negative z_1, where their labels are easy to get.
    """
    rng = np.random.default_rng(seed)
    z = rng.multivariate_normal([-0.8, -0.3], [[1.0, 0.3], [0.3, 0.6]], size=samples)
    z[: int(share * samples)] += distance * np.array([-1.0, 0.0])
    return z


def sampling_angles(sizes, seeds, loss="softplus"):
    """Angles between the minimiser on a Gaussian sample and the direction of its own S^-1 u.

    Parameters
    ----------
    sizes : sequence of int
        Sample sizes.
    seeds : int
        Number of samples of each size.

    Returns
    -------
    ndarray of shape (sizes, seeds)
        In degrees.
    """
    u, S = moments(4, 0)

    def one(size, seed):
        rng = np.random.default_rng([size, seed])
        Z = rng.multivariate_normal(u, S - np.outer(u, u), size=size)
        problem = EmpiricalHalfspace(Z, loss)
        return {"angle": angle(newton(problem, Z), problem.solution_direction)}

    return studies.study(one, {"size": sizes}, range(seeds)).angle.values


def newton(problem, Z, steps=60):
    """The minimiser of an empirical problem with a convex loss, by damped Newton steps."""
    w, loss = np.zeros(Z.shape[1]), problem.loss
    for _ in range(steps):
        a = Z @ w
        gradient = Z.T @ loss.dphi(a) / len(Z)
        hessian = (Z * loss.d2phi(a)[:, None]).T @ Z / len(Z)
        move = -np.linalg.solve(hessian, gradient)
        here, t = loss.phi(a).mean(), 1.0
        while t > 1e-9 and loss.phi(Z @ (w + t * move)).mean() > here + 0.1 * t * (gradient @ move):
            t /= 2
        if t <= 1e-9:
            break
        w = w + t * move
    return w


def real_data(name, threshold=False):
    """Rows z_i = -y_i x_i of a data set with two classes, features standardised.

    Parameters
    ----------
    name : {"breast cancer", "digits"}
        Digits: even against odd; pixels that are the same in every image are left out.
    threshold : bool
        Whether to add a feature that is 1 in every row.
    """
    if name == "breast cancer":
        x, target = load_breast_cancer(return_X_y=True)
        y = 2.0 * target - 1
    else:
        x, target = load_digits(return_X_y=True)
        y = 1 - 2.0 * (target % 2)
    x = x[:, x.std(axis=0) > 0]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    if threshold:
        x = np.column_stack([x, np.ones(len(x))])
    return -y[:, None] * x


def separating(Z):
    """Weights that give every row of Z a score of -1 or less, by linear programming, or None."""
    found = optimize.linprog(
        np.zeros(Z.shape[1]), A_ub=Z, b_ub=-np.ones(len(Z)), bounds=(None, None)
    )
    return found.x if found.status == 0 else None


def race(Z, steps):
    """Minimise the mean softplus loss over the rows of Z with five methods.

    Parameters
    ----------
    Z : ndarray
        Rows z_i.
    steps : int
        Iterations of each method of the package.

    Returns
    -------
    dict
        "traces": a Trace by the method's name; "least": the least value, by Newton's method;
        "problem"; "minimiser".
    """
    problem = EmpiricalHalfspace(Z, "softplus")
    w0 = -problem.u
    traces = {
        "GDNP": gdnp(problem, w0, steps=steps),
        "GDNP, Brent": gdnp(problem, w0, steps=steps, length_search="brentq"),
        "gradient descent": gradient_descent(problem, w0, steps=steps),
        "accelerated": accelerated_gradient_descent(problem, w0, steps=steps),
        "lbfgs": lbfgs(problem, w0, steps=steps),
        "scikit-learn": logistic_regression(problem),
    }
    minimiser = newton(problem, Z)
    least = min(problem.value(minimiser), *(trace.value.min() for trace in traces.values()))
    return {"traces": traces, "least": least, "problem": problem, "minimiser": minimiser}
