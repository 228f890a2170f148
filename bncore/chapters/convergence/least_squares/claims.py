"""What the literature says about batch normalization and least squares."""

import itertools

import numpy as np
import xarray as xr

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


def _fewest(run, problem, sizes):
    """Fewest steps of a run to a millionth of its first excess, over its step sizes."""
    paths = [experiments.excess(problem, run(size)) for size in sizes]
    return min(experiments.steps_to(path, 1e-6 * path[0]) for path in paths)


def _steps_for_one(problem, w, limit):
    """Steps of the normalised descent for one of gradient descent, either at its own best size."""
    sizes = np.array([0.7, 1.0, 1.4, 1.6, 1.8, 2.0, 2.4, 3.2]) / problem.largest_eigenvalue
    start = experiments.best_length(problem, w)

    def normalised(size):
        return experiments.normalised_path(problem, w, limit, size)

    def plain(size):
        return gradient_descent(problem, start, steps=limit, learning_rate=size / 2).weights

    with np.errstate(over="ignore", invalid="ignore"):
        return _fewest(normalised, problem, sizes) / _fewest(plain, problem, sizes)


def _speed_at_constant_rates(problem, w, steps):
    """How fast gradient descent is for one of the normalised one, with constant rates for w and g.

    Speed is the logarithm of what is left of the excess, each at its own best rate.
    """
    rates = np.append(10.0 ** np.arange(-2.5, 2.6, 0.125), [0.8, 0.85, 0.9, 0.95, 0.98])
    solution = problem.closed_form
    scaled = LeastSquares(problem.u / np.sqrt(solution @ problem.S @ solution), problem.S)
    first = experiments.excess(scaled, w / np.sqrt(w @ problem.S @ w))[0]
    normalised, plain = experiments.learning_rates(scaled, w, rates, steps, 0.5)
    return np.log(plain.min() / first) / np.log(normalised.min() / first)


def _against_none(logs):
    """Mean of logarithms over random problems, with its interval for twelve that were looked at."""
    seeds = {"seed": np.arange(len(logs))}
    found = xr.DataArray(logs, seeds, ["seed"])
    return tuple(difference(found, xr.zeros_like(found), looked_at=12))


@claim("encyclopaedia, Least-square problem", "depends")
def faster():
    """On least squares, gradient descent with batch normalization converges faster than regular
    gradient descent.
    """
    by_theorem, constant = [], []
    for problem, w in experiments.with_normal_solutions():
        by_theorem.append(_steps_for_one(problem, w, round(5 * problem.condition_number)))
        constant.append(_speed_at_constant_rates(problem, w, round(3 * problem.condition_number)))
    X, y = experiments.diabetes()
    on_data = _steps_for_one(LeastSquares.from_data(X, y), np.ones(X.shape[1]), 1500)
    many = f"mean over {len(constant)} random problems with 10 and 50 weights"
    steps = (
        "steps to a millionth of the first excess for one of gradient descent, each at its own best "
        "step size"
    )
    yield under("the steps are those of the theorem, each at the best length")
    yield at_most(0, _against_none(np.log(by_theorem)), f"logarithm of the {steps}: {many}")
    yield at_most(1, on_data, f"{steps}: diabetes data")
    yield otherwise("$w$ and $\\gamma$ have a constant learning rate each")
    told = "the same, told by the logarithms of what is left of the excess"
    yield at_most(0, _against_none(np.log(constant)), f"{told}: {many}")


def _ascend(B, A, v, metric):
    """One step of ascent on v'Bv / v'Av at the best step size, with the gradient of a metric."""
    quotient = (v @ B @ v) / (v @ A @ v)
    gradient = np.linalg.solve(metric, B @ v - quotient * (A @ v))
    # The best step of a gradient: the larger Ritz value in the plane of v and the gradient.
    basis = np.column_stack([v, gradient / np.linalg.norm(gradient)])
    small, mass = basis.T @ B @ basis, basis.T @ A @ basis
    values, vectors = np.linalg.eig(np.linalg.solve(mass, small))
    new = basis @ np.real(vectors[:, np.argmax(np.real(values))])
    return new / np.linalg.norm(new)


def _worst_ratio(metric, pencil, A_is_identity=False):
    """Largest ratio of a step's contraction to the printed factor, over random pairs B and A."""
    worst = 0.0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        root, other = rng.normal(size=(2, 4, 4))
        A, B = root @ root.T + 0.1 * np.eye(4), other + other.T
        A = np.eye(4) if A_is_identity else A
        relative = np.sort(np.real(np.linalg.eigvals(np.linalg.solve(A, B))))
        spectrum = relative if pencil else np.linalg.eigvalsh(B)
        first, second, last = spectrum[-1], spectrum[-2], spectrum[0]
        factor = (1 - (first - second) / (first - last)) ** 2
        top, vectors = np.linalg.eig(np.linalg.solve(A, B))
        v = np.real(vectors[:, np.argmax(np.real(top))]) + 0.03 * rng.normal(size=4)
        # The distance to the true optimum is measured alike for all; only the factor differs.
        distance = []
        for _ in range(2):
            rho = (v @ B @ v) / (v @ A @ v)
            distance.append((relative[-1] - rho) / (rho - relative[-2]))
            v = _ascend(B, A, v, A if metric == "A" else np.eye(4))
        worst = max(worst, distance[1] / distance[0] / factor) if distance[0] > 1e-9 else worst
    return worst


@claim("encyclopaedia, Least-square problem", "depends", lost=True)
def generalised_quotient():
    r"""For symmetric $B$ and positive definite $A$, gradient descent on the generalised Rayleigh
    quotient $w^\top Bw/w^\top Aw$ converges by $\frac{\lambda_1-\rho(w_t)}{\rho(w_t)-\lambda_2} \le
    \bigl(1-\frac{\lambda_1-\lambda_2}{\lambda_1-\lambda_{\min}}\bigr)^{2t}\frac{\lambda_1-\rho(w_0)}{\rho(w_0)-\lambda_2}$
    with the largest, the second and the smallest eigenvalue of $B$.
    """
    what = "largest ratio of a step's contraction, at its best size, to the printed factor, 40 pairs: {}"
    plain = "gradient and eigenvalues of $B$ as printed"
    relative = "gradient $A^{-1}\\nabla\\rho$, eigenvalues of $A^{-1}B$"
    yield under("gradient and eigenvalues are taken relative to $A$, as where $A = I$")
    identity = _worst_ratio("I", pencil=False, A_is_identity=True)
    yield at_most(1 + 1e-6, identity, what.format(f"$A = I$, {plain}"))
    yield at_most(1 + 1e-6, _worst_ratio("A", pencil=True), what.format(relative))
    yield otherwise("they are taken as printed, for other $A$, such as the $S$ of least squares")
    yield at_most(1 + 1e-6, _worst_ratio("I", pencil=False), what.format(plain))
