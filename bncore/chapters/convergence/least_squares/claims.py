"""What the literature says about batch normalization and least squares."""

import itertools

import numpy as np
import xarray as xr
from scipy import linalg

from bncore.chapters.convergence.least_squares import experiments
from bncore.convergence import LeastSquares, bounds, gradient_descent
from bncore.lab.studies import difference
from bncore.page.claims import at_least, at_most, claim, otherwise, under


@claim("encyclopaedia, Least-square problem", "holds", lost=True)
def quotient():
    r"""Up to a constant the mean of $(y-x^\top\tilde w)^2$ is $2u^\top\tilde w + \tilde w^\top
    S\tilde w$ with $u = E[-yx]$. With $\tilde w = \gamma w/\|w\|_S$ it is convex in $\gamma$;
    setting that derivative to zero leaves $\min_w \rho(w)$, $\rho(w) = -\frac{w^\top
    uu^\top w}{w^\top S w}$.
    """
    found = []
    for X, y, w in experiments.skewed_data(40):
        u, S = -(X.T @ y) / len(y), X.T @ X / len(y)

        def form(weights, u=u, S=S):
            return 2 * u @ weights + weights @ S @ weights

        def rho(weights, u=u, S=S):
            return -((u @ weights) ** 2) / (weights @ S @ weights)

        found.append(experiments.beside_the_error(X, y, w, form, rho))
    form, curvature, best, least = np.transpose(found)
    what = "largest difference of {}, relative to the mean squared error of zero, 40 data sets"
    yield at_most(
        1e-9, max(form), what.format("the form to the mean squared error less that of zero")
    )
    yield at_least(1e-3, min(curvature), "smallest second difference of that error in γ")
    yield at_most(1e-9, max(best), what.format("ρ to a numerical minimum over γ"))
    yield at_most(1e-9, max(least), what.format("the least ρ to the least error of all weights"))


@claim("encyclopaedia, Least-square problem", "holds", lost=True)
def linear_rate():
    r"""From $\rho(w_0) \neq 0$, steps $w_{t+1} = w_t - \eta_t\nabla\rho(w_t)$ with $\eta_t =
    \frac{w_t^\top S w_t}{2L|\rho(w_t)|}$ give $\rho(w_t) - \rho(w^*) \le
    (1-\frac{\mu}{L})^{2t}(\rho(w_0) - \rho(w^*))$.
    """

    def eta(problem, w):
        return w @ problem.S @ w / (2 * problem.largest_eigenvalue * abs(problem.rayleigh(w)))

    ratio, nearly = [], []
    for problem, w in experiments.random_problems():
        ratio.append(experiments.gap_over_bound(problem, w, eta, 60))
        mean = problem.u @ w / (problem.u @ problem.u)
        w = w - (1 - 1e-6) * mean * problem.u  # a start within 1e-6 of the worst one
        nearly.append(experiments.gap_over_bound(problem, w, eta, 1))
    what = (
        "largest ratio of the gap to the bound, 40 random problems, condition numbers 2 to 1000: {}"
    )
    yield at_most(1 + 1e-9, max(ratio), what.format("over 60 steps"))
    yield at_most(1 + 1e-9, max(nearly), what.format("over one step from where ρ is nearly zero"))


@claim("kohler2019, Theorem 1", "holds")
def gradient_norm():
    r"""The gradient measures the gap to the optimum exactly:
    $\|w\|_S^2\,\|\nabla\rho(w)\|_{S^{-1}}^2\,/\,|4\rho(w)| = \rho(w) - \rho(w^*)$.
    """
    errors = []
    for problem, w in experiments.random_problems():
        slope = problem.rayleigh_gradient(w)
        left = (w @ problem.S @ w) * (slope @ np.linalg.solve(problem.S, slope))
        left /= 4 * abs(problem.rayleigh(w))
        errors.append(abs(left - (problem.rayleigh(w) - problem.rayleigh_optimum)))
    yield at_most(
        1e-9,
        max(errors),
        "largest difference of the two sides over 40 random problems with ρ* = −1",
    )


@claim("encyclopaedia, Least-square problem", "fails", aliases=["scaling-plain-descent-sublinear"])
def sublinear():
    """Regular gradient descent on least squares converges only sub-linearly."""
    slower, ratio = [], []
    for condition, seed in itertools.product((2, 10, 100), range(5)):
        problem, w = experiments.random_problem(condition, seed)
        start = experiments.best_length(problem, w)
        run = gradient_descent(problem, start, steps=10 * condition)
        excess = experiments.excess(problem, run.weights)
        slower.append(bounds.late_decrease(excess))
        bound = excess[0] * bounds.rate(problem) ** np.arange(len(excess))
        ratio.append(np.max(excess / bound))
    yield at_most(
        0.7,
        min(slower),
        "decrease of the log excess in the last third of the steps, relative to the middle "
        "third (0.59 for an excess of 1/t, 1 for a linear rate); smallest of 15 problems",
    )
    yield at_least(
        1 + 1e-6,
        max(ratio),
        "largest ratio of the excess to $(1-\\mu/L)^{2t}$ times the first, which "
        "sub-linear convergence must leave behind; 15 problems",
    )


SIZES = np.array([0.7, 1.0, 1.4, 1.6, 1.8, 1.9, 1.95, 1.98, 2.0, 2.2, 2.6, 3.0, 3.2, 3.4, 3.7, 4.0])
"""Step sizes, times L. Gradient descent needs one below 2; the normalised descent may take a longer one."""


def _steps_by_size(problem, w, limit):
    """Steps of the normalised descent and of gradient descent, a row each, at every one of ``SIZES``.

    Counted to a millionth of the first excess, which is that of the best length along w. The count ends
    when either has arrived with one of the sizes, and is infinite for those that have not.
    """
    sizes = SIZES[:, np.newaxis] / problem.largest_eigenvalue
    u, S, least = problem.u, problem.S, problem.rayleigh_optimum
    W = np.tile(w / np.linalg.norm(w), (len(sizes), 1))
    V = np.tile(experiments.best_length(problem, w), (len(sizes), 1))
    needed = np.full((2, len(sizes)), np.inf)
    target = 1e-6 * experiments.excess(problem, V[0])[0]
    for t in range(limit + 1):
        SW, score = W @ S, W @ u
        squared = (W * SW).sum(axis=1)
        excess = np.stack([-(score**2) / squared - least, experiments.excess(problem, V)])
        needed[(excess <= target) & np.isinf(needed)] = t
        if np.isfinite(needed).any(axis=1).all():
            break
        W = W - sizes * (SW - (squared / score)[:, np.newaxis] * u)  # experiments.step
        W = W / np.linalg.norm(W, axis=1, keepdims=True)
        with np.errstate(over="ignore", invalid="ignore"):
            V = V - sizes * (u + V @ S)
    return needed


def _for_one(steps):
    """Steps of the normalised descent for one of gradient descent, either at its own best size."""
    normalised, plain = steps.min(axis=1)
    return normalised / plain


@claim("encyclopaedia, Least-square problem", "holds")
def faster():
    """On least squares, gradient descent with batch normalization converges faster than regular
    gradient descent. (Judged on the mean of random problems, with the steps that the source goes on to
    give, each at the best length.)
    """
    logs = {
        f"mean over 16 random problems with 10 and 50 weights, {kind}": [
            np.log(_for_one(_steps_by_size(problem, w, round(5 * problem.condition_number))))
            for problem, w in problems
        ]
        for kind, problems in (
            ("normal solutions", experiments.with_normal_solutions()),
            ("solutions of any steepness", experiments.with_any_solutions()),
        )
    }
    X, y = experiments.diabetes()
    on_data = _for_one(_steps_by_size(LeastSquares.from_data(X, y), np.ones(X.shape[1]), 1500))
    steps = (
        "steps to a millionth of the first excess for one of gradient descent, each at its own best "
        "step size"
    )
    for where, found in logs.items():
        values = xr.DataArray(found, {"seed": np.arange(len(found))}, ["seed"])
        interval = difference(values, xr.zeros_like(values), looked_at=12)
        yield at_most(0, tuple(interval), f"logarithm of the {steps}: {where}")
    yield at_most(1, on_data, f"{steps}: diabetes data")


def _ascend(B, A, v):
    """One step of gradient ascent on v'Bv / v'Av, at the best step size."""
    quotient = (v @ B @ v) / (v @ A @ v)
    gradient = B @ v - quotient * (A @ v)
    # The best step of a gradient: the larger Ritz value in the plane of v and the gradient.
    basis = np.column_stack([v, gradient / np.linalg.norm(gradient)])
    new = basis @ linalg.eigh(basis.T @ B @ basis, basis.T @ A @ basis)[1][:, -1]
    return new / np.linalg.norm(new)


def _worst_ratio(identity):
    """Largest ratio of a step's contraction to the printed factor, over random pairs B and A."""
    worst = 0.0
    for dimension, seed in itertools.product((3, 4, 8), range(20)):
        rng = np.random.default_rng(seed)
        root, other = rng.normal(size=(2, dimension, dimension))
        A, B = root @ root.T + 0.1 * np.eye(dimension), other + other.T
        A = np.eye(dimension) if identity else A
        last, *_, second, first = np.linalg.eigvalsh(B)
        factor = (1 - (first - second) / (first - last)) ** 2
        values, vectors = linalg.eigh(B, A)
        v = vectors[:, -1] / np.linalg.norm(vectors[:, -1]) + 0.03 * rng.normal(size=dimension)
        # The distance to the true optimum is measured alike for all A; the factor is as printed.
        distance = []
        for _ in range(4):
            rho = (v @ B @ v) / (v @ A @ v)
            distance.append((values[-1] - rho) / (rho - values[-2]))
            v = _ascend(B, A, v)
        for before, after in itertools.pairwise(distance):
            worst = max(worst, after / before / factor) if before > 1e-9 else worst
    return worst


@claim("encyclopaedia, Least-square problem", "depends", lost=True)
def generalised_quotient():
    r"""For symmetric $B$ and positive definite $A$, gradient descent on the generalised Rayleigh
    quotient $w^\top Bw/w^\top Aw$ converges by $\frac{\lambda_1-\rho(w_t)}{\rho(w_t)-\lambda_2} \le
    \bigl(1-\frac{\lambda_1-\lambda_2}{\lambda_1-\lambda_{\min}}\bigr)^{2t}\frac{\lambda_1-\rho(w_0)}{\rho(w_0)-\lambda_2}$
    with the largest, the second and the smallest eigenvalue of $B$.
    """
    what = (
        "largest ratio of a step's contraction, at its best size, to the printed factor; three steps, "
        "60 pairs of 3, 4 and 8 dimensions"
    )
    yield under("$A$ is the identity")
    yield at_most(1 + 1e-6, _worst_ratio(identity=True), what)
    yield otherwise("$A$ is another matrix, as the $S$ of least squares is")
    yield at_most(1 + 1e-6, _worst_ratio(identity=False), what)
