"""What the literature says about length and direction."""

import numpy as np
from scipy.optimize import minimize_scalar

from bncore.chapters.convergence.decoupling import experiments
from bncore.convergence import (
    EmpiricalHalfspace,
    LeastSquares,
    batch_norm_gradient_descent,
    weight_normalization,
)
from bncore.convergence.reparametrization import couple
from bncore.page.claims import Evidence, Measurement, claim


def _cases(count, seed):
    """Random centred data of any scale, a direction and a length."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        n, d = int(rng.integers(10, 40)), int(rng.integers(1, 6))
        X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
        X -= X.mean(axis=0)
        yield X, rng.normal(size=d), float(rng.normal())


@claim(
    id="decoupling-reparametrisation",
    source="encyclopaedia, Decoupling",
    statement=(
        "If $E\\,x = 0$, $\\operatorname{var}_x[x^\\top w] = w^\\top S w$, so batch norm without "
        "$\\beta$ is $\\gamma\\,x^\\top w/(w^\\top S w)^{1/2} = x^\\top\\tilde w$. (The text has lost "
        "its formulas; they are reconstructed.)"
    ),
    chapter="convergence/decoupling",
    verdict="holds",
)
def reparametrisation() -> Evidence:
    errors, variances = [], []
    for X, w, g in _cases(100, 0):
        S, y = X.T @ X / len(X), experiments.batch_norm(X, w, g)
        errors.append(np.abs(y - X @ couple(w, g, S)).max() / np.abs(y).max())
        variances.append(abs((X @ w).var() / (w @ S @ w) - 1))
    return Evidence(
        printed=[
            Measurement(
                "largest relative difference of the variances over 100 random batches of mean 0",
                max(variances),
                at_most=1e-12,
            ),
            Measurement(
                "the same between batch norm and $x^\\top\\tilde w$", max(errors), at_most=1e-12
            ),
        ]
    )


@claim(
    id="decoupling-norm",
    source="encyclopaedia, Decoupling",
    statement=(
        "For positive definite $S = E\\,xx^\\top$, $(w^\\top S w)^{1/2}$ is a norm, that induced "
        "by $S$. (Formula reconstructed.)"
    ),
    chapter="convergence/decoupling",
    verdict="holds",
)
def norm() -> Evidence:
    shortest, scale, triangle = [], [], []
    for X, w, g in _cases(100, 2):
        S = X.T @ X / len(X)
        v = np.random.default_rng(len(X)).normal(size=len(w))
        length = [np.sqrt(vector @ S @ vector) for vector in (v, w, v + w, g * w)]
        values = np.linalg.eigvalsh(S)
        shortest.append(values[0] / values[-1])
        scale.append(abs(length[3] / (abs(g) * length[1]) - 1))
        triangle.append((length[2] - length[0] - length[1]) / length[2])
    return Evidence(
        printed=[
            Measurement(
                "least $\\lVert w\\rVert_S^2$ over the largest, over $\\lVert w\\rVert = 1$, of 100 "
                "data sets",
                min(shortest),
                at_least=1e-12,
            ),
            Measurement(
                "largest relative violation of $\\lVert gw\\rVert_S = |g|\\lVert w\\rVert_S$",
                max(scale),
                at_most=1e-12,
            ),
            Measurement("the same of the triangle inequality", max(triangle), at_most=1e-12),
        ]
    )


@claim(
    id="decoupling-length-and-direction",
    source="encyclopaedia, Decoupling",
    statement=(
        "With $\\tilde w = \\gamma\\,w/\\lVert w\\rVert_S$, $\\gamma$ accounts for the length of "
        "the weights and $w$ for their direction. (Formula reconstructed.)"
    ),
    chapter="convergence/decoupling",
    verdict="depends",
)
def length_and_direction() -> Evidence:
    def errors(length, sign):
        of_length, of_direction = [], []
        for X, w, g in _cases(100, 3):
            S, g = X.T @ X / len(X), sign * abs(g)
            coupled = couple(w, g, S)
            metric = S if length == "S" else np.eye(len(w))
            of_length.append(abs(np.sqrt(coupled @ metric @ coupled) / abs(g) - 1))
            cosine = coupled @ w / np.linalg.norm(coupled) / np.linalg.norm(w)
            of_direction.append(1 - cosine)
        return max(of_length), max(of_direction)

    def measured(found):
        return [
            Measurement(
                "largest relative error of the length $|\\gamma|$ over 100 cases",
                found[0],
                at_most=1e-12,
            ),
            Measurement("largest 1 − cosine between $w$ and $\\tilde w$", found[1], at_most=1e-12),
        ]

    return Evidence(
        under=("length in the $S$-norm, $\\gamma > 0$", measured(errors("S", 1))),
        otherwise=("Euclidean length, $\\gamma < 0$", measured(errors("Euclid", -1))),
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
    return np.rad2deg(found.x)


@claim(
    id="decoupling-trained-separately",
    source="kohler2019, Abstract",
    statement=(
        "Batch norm splits the optimization task into optimizing length and direction separately."
    ),
    chapter="convergence/decoupling",
    verdict="depends",
)
def trained_separately() -> Evidence:
    rng = np.random.default_rng(5)
    x = rng.exponential(size=(400, 2)) ** 1.5
    x -= x.mean(axis=0)
    labels = np.where(x @ [1.0, 0.3] + 0.5 * rng.normal(size=400) > 0.2, 1.0, -1.0)
    squares = LeastSquares.from_data(x, labels)
    halfspace = EmpiricalHalfspace.from_data(x, labels, "softplus")

    def spread(problem):
        angles = [
            _best_angle(lambda w, g: problem.value(couple(w, g, problem.S)), g)
            for g in (0.1, 1.0, 10.0)
        ]
        return max(angles) - min(angles)

    what = "degrees between the best directions for the lengths 0.1, 1 and 10"
    return Evidence(
        under=("least squares", [Measurement(what, spread(squares), at_most=0.01)]),
        otherwise=(
            "logistic regression on the same data, 400 skewed points",
            [Measurement(what, spread(halfspace), at_most=0.01)],
        ),
    )


@claim(
    id="decoupling-norm-growth",
    source="salimans2016, Section 2.1",
    statement=(
        "Without momentum, gradient descent on a normalised weight vector never shortens it."
    ),
    chapter="convergence/decoupling",
    verdict="depends",
)
def norm_growth() -> Evidence:
    plain, in_S = [], []
    problems = experiments.random_problems(10, seed=6)
    for u, S, start in zip(problems.u, problems.S, problems.start, strict=True):
        problem = LeastSquares(u, S)
        for solver in (batch_norm_gradient_descent, weight_normalization):
            w = solver(problem, start, g0=1.0, steps=50, learning_rate=0.1).w
            lengths = np.linalg.norm(w, axis=1)
            plain.append((lengths[1:] / lengths[:-1]).min())
            lengths = np.sqrt((w @ S * w).sum(axis=1))
            in_S.append((lengths[1:] / lengths[:-1]).min())
    what = "least ratio of the length after a step to that before, 20 runs of 50 steps"
    return Evidence(
        under=("Euclidean length", [Measurement(what, min(plain), at_least=1 - 1e-12)]),
        otherwise=(
            "length in the $S$-norm, by which batch norm divides",
            [Measurement(what, min(in_S), at_least=1 - 1e-12)],
        ),
    )


@claim(
    id="decoupling-any-rate",
    source="cai2019, Abstract",
    statement=(
        "On least squares, unlike gradient descent, gradient descent with batch norm converges "
        "for arbitrary learning rates for the weights."
    ),
    chapter="convergence/decoupling",
    verdict="holds",
)
def any_rate() -> Evidence:
    problems = experiments.random_problems(5, dimension=3, kappa=4.0, seed=7)
    rates = 10.0 ** np.arange(-2, 2.1, 0.5)

    def missed(method):
        steps = experiments.steps_to_target(problems, rates, method, limit=10_000)
        return float(np.isinf(steps).sum())

    what = (
        "runs, of 45 with rates from 0.01 to 100, that miss a millionth of the excess in 10 000 "
        "steps: "
    )
    return Evidence(
        printed=[
            Measurement(
                what + "with batch norm, where the rate is that of $w$ and $g$ has the rate 1/2",
                missed("two rates"),
                at_most=0,
            ),
            Measurement(what + "gradient descent on the weights", missed("plain"), at_least=1),
        ]
    )


@claim(
    id="decoupling-square-root-rate",
    source="arora2019, Abstract",
    statement=(
        "With any fixed learning rate of the scale-invariant weights, gradient descent approaches "
        "a stationary point at the rate $T^{-1/2}$."
    ),
    chapter="convergence/decoupling",
    verdict="holds",
)
def square_root_rate() -> Evidence:
    problems = experiments.random_problems(10, seed=8)
    lengths, gradients = [], []
    for rate in 10.0 ** np.arange(-4, 5):
        run = experiments.descend_direction(problems, rate, steps=1000)
        lengths.append((run.squared_length[-1] / run.length_bound).max())
        gradients.append((run.least_gradient / run.gradient_bound).max())
    return Evidence(
        printed=[
            Measurement(
                "final $\\lVert w\\rVert^2$ over its bound, the largest of 10 problems at each of "
                "9 rates from $10^{-4}$ to $10^4$",
                max(lengths),
                at_most=1,
            ),
            Measurement(
                "$\\min_{t<T}\\lVert\\nabla\\rho\\rVert^2$ at length 1, over its bound, which is a "
                "constant over $T$, the largest over these runs and $T \\le 1000$",
                max(gradients),
                at_most=1,
            ),
        ]
    )
