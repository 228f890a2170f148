"""What the literature says about length and direction."""

import itertools

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from bncore.chapters.convergence.decoupling import experiments
from bncore.convergence import (
    EmpiricalHalfspace,
    LeastSquares,
    batch_norm_gradient_descent,
    weight_normalization,
)
from bncore.convergence.reparametrization import couple, gradients
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
    rng = np.random.default_rng(2)
    scale, triangle, shortest, blind = [], [], [], []
    for X, w, g in _cases(100, 2):

        def length(v, X=X):
            return np.sqrt(v @ (X.T @ X / len(X)) @ v)

        # A vector, the same turned round, and two near it: the triangle is nearly flat there.
        for v in (rng.normal(size=len(w)), -w, 2 * w + 1e-3 * rng.normal(size=len(w)), w):
            triangle.append((length(v + w) - length(v) - length(w)) / length(w))
        scale.append(abs(length(g * w) / (abs(g) * length(w)) - 1))
        flat = np.linalg.svd(X)[2][-1]
        shortest.append(length(flat) / length(w / np.linalg.norm(w)))
        twice = np.column_stack([X, X[:, 0]])
        unseen = np.eye(len(w) + 1)[0] - np.eye(len(w) + 1)[-1]
        blind.append(np.abs(twice @ unseen).max())
    what = "largest relative violation of {}, 100 data sets"
    scaled = "$\\lVert gw\\rVert_S = |g|\\lVert w\\rVert_S$"
    yield at_most(1e-12, max(scale), what.format(scaled))
    yield at_most(1e-12, max(triangle), what.format("the triangle inequality, four vectors each"))
    yield at_least(
        1e-6,
        min(shortest),
        "length along the flattest axis over that of a random vector, both of Euclidean length 1",
    )
    yield at_most(
        0, max(blind), "the same where an input is repeated, so that $S$ is not positive definite"
    )


@claim("encyclopaedia, Decoupling", "holds", lost=True)
def length_and_direction():
    r"""With $\tilde w = \gamma\,w/\lVert w\rVert_S$, $\gamma$ accounts for the length of the
    weights and $w$ for their direction, each by itself. (Length is that of the norm induced by $S$;
    a negative $\gamma$ turns the direction round.)
    """
    rng = np.random.default_rng(3)
    of_length, of_direction = [], []
    for X, w, g in _cases(100, 3):

        def weights(w, g, X=X):
            """Those of the linear unit whose outputs are what batch norm returns."""
            return np.linalg.lstsq(X, experiments.batch_norm(X, w, g))[0]

        acting = weights(w, g)
        turned, stretched = weights(rng.normal(size=len(w)), g), weights(w, 3 * g)
        of_length.append(abs((X @ turned).std() / (X @ acting).std() - 1))
        of_length.append(abs((X @ acting).std() / abs(g) - 1))
        for seen in (acting, stretched):
            cosine = seen @ w / np.linalg.norm(seen) / np.linalg.norm(w)
            of_direction.append(1 - np.sign(g) * cosine)
    yield at_most(
        1e-9,
        max(of_length),
        "largest relative change of the length with another $w$, and difference to $|\\gamma|$; weights "
        "read off the outputs of batch norm, 100 batches",
    )
    yield at_most(
        1e-9,
        max(of_direction),
        "largest 1 − |cosine| between $w$ and them, for $\\gamma$ and $3\\gamma$",
    )


def _in_turns(problem, w, turns):
    """Excess after turns of the direction alone and the length alone, over that at the start."""

    def value(w, g):
        return problem.value(couple(w, g, problem.S))

    def by_direction(w, g):
        acting = couple(w, g, problem.S)
        return problem.value(acting), gradients(w, g, problem.S, problem.gradient(acting))[0]

    least = minimize(
        problem.value, problem.solution_direction, jac=problem.gradient, method="BFGS", tol=1e-10
    ).fun
    g = 0.1
    first = value(w, g) - least
    for _ in range(turns):
        w = minimize(by_direction, couple(w, 1.0, problem.S), (g,), "BFGS", jac=True).x
        g = minimize_scalar(lambda length, w=w: value(w, length)).x
    return (value(w, g) - least) / first


@claim("encyclopaedia, Decoupling", "holds")
def trained_separately():
    """Read as a reparametrization, batch norm separates the length and the direction of the weights,
    which can then be trained each by itself.
    """
    left = {"least squares": [], "logistic regression": []}
    for seed, dimension in enumerate((2, 5, 10)):
        rng = np.random.default_rng(seed)
        x = rng.exponential(size=(400, dimension)) ** 1.5 @ rng.normal(size=(dimension, dimension))
        x -= x.mean(axis=0)
        score = x @ rng.normal(size=dimension)
        labels = np.where(score + 0.5 * score.std() * rng.normal(size=400) > 0, 1.0, -1.0)
        start = rng.normal(size=dimension)
        squares = LeastSquares.from_data(x, labels)
        logistic = EmpiricalHalfspace.from_data(x, labels, "softplus")
        left["least squares"].append(_in_turns(squares, start, 10))
        left["logistic regression"].append(_in_turns(logistic, start, 10))
    for name, excess in left.items():
        yield at_most(
            1e-6,
            max(excess),
            "excess loss over the first one after ten turns of direction and length, the other one held, "
            f"largest of three skewed data sets with 2, 5 and 10 inputs: {name}",
        )


@claim("salimans2016, Section 2.1", "holds")
def norm_growth():
    """Without momentum, gradient descent on a normalised weight vector never shortens it."""
    ratios = []
    problems = experiments.random_problems(10, seed=6)
    for u, S, start in zip(problems.u, problems.S, problems.start, strict=True):
        problem = LeastSquares(u, S)
        for solver, rate in itertools.product(
            (batch_norm_gradient_descent, weight_normalization), (0.001, 0.03, 0.9)
        ):
            w = solver(problem, start, g0=1.0, steps=50, learning_rate=rate).w
            lengths = np.linalg.norm(w, axis=1)
            ratios.append((lengths[1:] / lengths[:-1]).min())
    yield at_least(
        1 - 1e-12,
        min(ratios),
        "least ratio of the Euclidean length after a step to that before, 60 runs of 50 steps with "
        "batch norm and with weight normalization, rates 0.001, 0.03 and 0.9",
    )


@claim("cai2019, Abstract", "holds")
def any_rate():
    """On least squares, unlike gradient descent, gradient descent with batch norm converges for
    arbitrary learning rates for the weights.
    """
    rates = 10.0 ** np.arange(-2, 2.1, 0.5)

    def missed(method):
        return sum(
            float(np.isinf(experiments.steps_to_target(problems, rates, method, 30_000)).sum())
            for problems in (
                experiments.random_problems(3, dimension=3, kappa=4.0, seed=7),
                experiments.random_problems(3, dimension=6, kappa=12.0, seed=7),
            )
        )

    what = (
        "runs, of 54 on problems with 3 and 6 weights, at rates from 0.01 to 100, that miss a millionth "
        "of the excess in 30 000 steps: "
    )
    yield at_most(
        0,
        missed("two rates"),
        what + "with batch norm, where the rate is that of $w$ and $g$ has the rate 1/2",
    )
    yield at_least(1, missed("plain"), what + "gradient descent on the weights")


@claim("arora2019, Abstract", "holds")
def square_root_rate():
    r"""With any fixed learning rate $\eta$ of the scale-invariant weights, gradient descent approaches
    a stationary point at the rate $T^{-1/2}$. (Judged on the loss of least squares at the best length,
    with the constant of the chapter's theorem, which depends on the rate:
    $\min_{t<T}\lVert\nabla\rho\rVert^2\le R(R-1)/(\eta^2T)$ at length 1.)
    """
    shares = []
    for kappa, power in itertools.product((4.0, 10.0, 100.0), (-2, -1, 0, 1, 2)):
        problems = experiments.random_problems(5, kappa=kappa, seed=8)
        run = experiments.descend_direction(problems, 10.0**power, steps=3000)
        shares.append((run.least_gradient / run.gradient_bound).max())
    yield at_most(
        1,
        max(shares),
        "least squared gradient at length 1 so far, over the bound: largest of $T\\le3000$, 15 problems with "
        "condition numbers of 4 to 100, 5 rates from 0.01 to 100",
    )
