"""What the literature says about length and direction."""

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from bncore.chapters.convergence.decoupling import experiments
from bncore.convergence import (
    EmpiricalHalfspace,
    LeastSquares,
    batch_norm_gradient_descent,
    weight_normalization,
)
from bncore.convergence.reparametrization import couple
from bncore.page.claims import at_least, at_most, claim


def _cases(count, seed):
    """Random centred data of any scale, a direction and a length."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        n, d = int(rng.integers(10, 40)), int(rng.integers(1, 6))
        X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
        X -= X.mean(axis=0)
        yield X, rng.normal(size=d), float(rng.normal())


@claim("encyclopaedia, Decoupling", "holds", lost=True)
def reparametrisation():
    r"""If $E\,x = 0$, $\operatorname{var}_x[x^\top w] = w^\top S w$, so batch norm without $\beta$
    is $\gamma\,x^\top w/(w^\top S w)^{1/2} = x^\top\tilde w$.
    """
    errors, variances = [], []
    for X, w, g in _cases(100, 0):
        S, y = X.T @ X / len(X), experiments.batch_norm(X, w, g)
        errors.append(np.abs(y - X @ couple(w, g, S)).max() / np.abs(y).max())
        variances.append(abs((X @ w).var() / (w @ S @ w) - 1))
    what = "largest relative difference {} over 100 random batches of mean 0"
    yield at_most(1e-12, max(variances), what.format("of the variances"))
    yield at_most(1e-12, max(errors), what.format("between batch norm and $x^\\top\\tilde w$"))


@claim("encyclopaedia, Decoupling", "holds", lost=True)
def norm():
    r"""For positive definite $S = E\,xx^\top$, $(w^\top S w)^{1/2}$ is a norm, that induced by $S$."""
    shortest, scale, triangle = [], [], []
    for X, w, g in _cases(100, 2):
        S = X.T @ X / len(X)
        v = np.random.default_rng(len(X)).normal(size=len(w))
        length = [np.sqrt(vector @ S @ vector) for vector in (v, w, v + w, g * w)]
        values = np.linalg.eigvalsh(S)
        shortest.append(values[0] / values[-1])
        scale.append(abs(length[3] / (abs(g) * length[1]) - 1))
        triangle.append((length[2] - length[0] - length[1]) / length[2])
    least = (
        "least $\\lVert w\\rVert_S^2$ over the largest, over $\\lVert w\\rVert = 1$, 100 data sets"
    )
    what = "largest relative violation of {}, 100 data sets"
    scaled = "$\\lVert gw\\rVert_S = |g|\\lVert w\\rVert_S$"
    yield at_least(1e-12, min(shortest), least)
    yield at_most(1e-12, max(scale), what.format(scaled))
    yield at_most(1e-12, max(triangle), what.format("the triangle inequality"))


@claim("encyclopaedia, Decoupling", "holds", lost=True)
def length_and_direction():
    r"""With $\tilde w = \gamma\,w/\lVert w\rVert_S$, $\gamma$ accounts for the length of the
    weights and $w$ for their direction, each by itself. (Length is that of the norm induced by $S$.)
    """
    of_length, of_direction = [], []
    for X, w, g in _cases(100, 3):
        S, other = X.T @ X / len(X), np.random.default_rng(len(X)).normal(size=len(w))
        for direction in (w, other):
            coupled = couple(direction, g, S)
            of_length.append(abs(np.sqrt(coupled @ S @ coupled) / abs(g) - 1))
        for length in (g, 3 * g):
            coupled = couple(w, length, S)
            cosine = coupled @ w / np.linalg.norm(coupled) / np.linalg.norm(w)
            of_direction.append(1 - np.sign(g) * cosine)
    yield at_most(
        1e-12,
        max(of_length),
        "largest relative error of the length $|\\gamma|$ over 100 cases, two directions each",
    )
    yield at_most(
        1e-12,
        max(of_direction),
        "largest 1 − |cosine| between $w$ and $\\tilde w$, two lengths each",
    )


def _best_angle(value, g):
    """The angle that minimises value(w, g) over unit w in the plane, by grid and refinement."""
    grid = np.linspace(-np.pi, np.pi, 361)

    def at(angle):
        return value(np.array([np.cos(angle), np.sin(angle)]), g)

    start = grid[np.argmin([at(angle) for angle in grid])]
    found = minimize_scalar(
        at, bounds=(start - 0.02, start + 0.02), method="bounded", options={"xatol": 1e-10}
    )
    return found.x


def _in_turns(problem, turns):
    """Excess after turns of the direction alone and the length alone, over that at the start."""

    def value(w, g):
        return problem.value(couple(w, g, problem.S))

    least = minimize(
        problem.value, problem.solution_direction, jac=problem.gradient, method="BFGS", tol=1e-10
    ).fun
    w, g = np.array([0.0, 1.0]), 1.0
    first = value(w, g) - least
    for _ in range(turns):
        angle = _best_angle(value, g)
        w = np.array([np.cos(angle), np.sin(angle)])
        g = minimize_scalar(lambda length, w=w: value(w, length), bounds=(0.01, 100)).x
    return (value(w, g) - least) / first


@claim("encyclopaedia, Decoupling", "holds")
def trained_separately():
    """Read as a reparametrization, batch norm separates the length and the direction of the weights,
    which can then be trained each by itself.
    """
    rng = np.random.default_rng(5)
    x = rng.exponential(size=(400, 2)) ** 1.5
    x -= x.mean(axis=0)
    labels = np.where(x @ [1.0, 0.3] + 0.5 * rng.normal(size=400) > 0.2, 1.0, -1.0)
    what = (
        "excess loss over the first one after three turns of the direction and the length, the other one "
        "held, on 400 skewed points: {}"
    )
    for problem, name in (
        (LeastSquares.from_data(x, labels), "least squares"),
        (EmpiricalHalfspace.from_data(x, labels, "softplus"), "logistic regression"),
    ):
        yield at_most(1e-6, _in_turns(problem, 3), what.format(name))


@claim("salimans2016, Section 2.1", "holds")
def norm_growth():
    """Without momentum, gradient descent on a normalised weight vector never shortens it."""
    ratios = []
    problems = experiments.random_problems(10, seed=6)
    for u, S, start in zip(problems.u, problems.S, problems.start, strict=True):
        problem = LeastSquares(u, S)
        for solver in (batch_norm_gradient_descent, weight_normalization):
            w = solver(problem, start, g0=1.0, steps=50, learning_rate=0.1).w
            lengths = np.linalg.norm(w, axis=1)
            ratios.append((lengths[1:] / lengths[:-1]).min())
    yield at_least(
        1 - 1e-12,
        min(ratios),
        "least ratio of the Euclidean length after a step to that before, 20 runs of 50 steps",
    )


@claim("cai2019, Abstract", "holds")
def any_rate():
    """On least squares, unlike gradient descent, gradient descent with batch norm converges for
    arbitrary learning rates for the weights.
    """
    problems = experiments.random_problems(5, dimension=3, kappa=4.0, seed=7)
    rates = 10.0 ** np.arange(-2, 2.1, 0.5)

    def missed(method):
        steps = experiments.steps_to_target(problems, rates, method, limit=10_000)
        return float(np.isinf(steps).sum())

    what = (
        "runs, of 45 with rates from 0.01 to 100, that miss a millionth of the excess in 10 000 "
        "steps: "
    )
    yield at_most(
        0,
        missed("two rates"),
        what + "with batch norm, where the rate is that of $w$ and $g$ has the rate 1/2",
    )
    yield at_least(1, missed("plain"), what + "gradient descent on the weights")


@claim("arora2019, Abstract", "holds")
def square_root_rate():
    """With any fixed learning rate of the scale-invariant weights, gradient descent approaches a
    stationary point at the rate $T^{-1/2}$. (The constant depends on the rate: the slow phase lasts
    longer the smaller or the larger it is, so rates are judged at which it ends in 1000 steps.)
    """
    problems = experiments.random_problems(10, seed=8)
    steps = np.arange(1, 10_001)[:, np.newaxis]
    grown = []
    for rate in 10.0 ** np.arange(-2, 3):
        run = experiments.descend_direction(problems, rate, steps=len(steps))
        constant = steps * run.least_gradient
        grown.append((constant[1000:].max(axis=0) / constant[:1000].max(axis=0)).max())
    yield at_most(
        1,
        max(grown),
        "$T\\min_{t<T}\\lVert\\nabla\\rho\\rVert^2$ at length 1: largest of $1000<T\\le10\\,000$ over "
        "largest of $T\\le1000$, greatest of 10 problems at 5 rates from 0.01 to 100 (10 where nothing moves)",
    )
