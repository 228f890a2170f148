"""What the literature says about batch normalization and least squares."""

import numpy as np
from scipy.optimize import minimize_scalar

from bncore.chapters.convergence.least_squares import experiments
from bncore.convergence import bounds, gdnp, gradient_descent
from bncore.page.claims import at_least, at_most, claim, otherwise, under


def _problems(conditions=(2, 10, 100, 1000), count=10):
    for condition in conditions:
        for seed in range(count):
            yield experiments.random_problem(condition, seed, dimension=2 + seed)


@claim("encyclopaedia, Least-square problem", "holds", lost=True)
def quotient():
    r"""With $\tilde w = \gamma w/\|w\|_S$ the objective $2u^\top\tilde w + \tilde w^\top S\tilde
    w$, $u = E[-yx]$, is convex in $\gamma$; setting its derivative to zero leaves $\min_w
    \rho(w)$, $\rho(w) = -\frac{w^\top uu^\top w}{w^\top S w}$.
    """
    curvature, error, reached = [], [], []
    for problem, w in _problems():
        norm = np.sqrt(w @ problem.S @ w)

        def loss(g, problem=problem, w=w, norm=norm):
            return problem.value(g * w / norm)

        best = minimize_scalar(loss)
        curvature.append(loss(best.x + 1) + loss(best.x - 1) - 2 * best.fun)
        error.append(abs(best.fun - problem.rayleigh(w)))
        reached.append(
            abs(problem.rayleigh(problem.closed_form) - problem.value(problem.closed_form))
        )
    yield at_least(
        1e-3, min(curvature), "smallest second difference of the loss in γ over 40 random problems"
    )
    yield at_most(
        1e-9,
        max(error),
        "largest difference between a numerical minimum over γ and ρ(w), where ρ* = −1",
    )
    yield at_most(1e-9, max(reached), "largest difference between ρ and the loss at the solution")


@claim("encyclopaedia, Least-square problem", "holds", lost=True)
def linear_rate():
    r"""From $\rho(w_0) \neq 0$, steps $w_{t+1} = w_t - \eta_t\nabla\rho(w_t)$ with $\eta_t =
    \frac{w_t^\top S w_t}{2L|\rho(w_t)|}$ give $\rho(w_t) - \rho(w^*) \le
    (1-\frac{\mu}{L})^{2t}(\rho(w_0) - \rho(w^*))$.
    """
    ratio, difference = [], []
    for problem, w in _problems():
        measured, bound = bounds.least_squares(
            problem, gdnp(problem, w, steps=60, bisection_steps=1)
        )
        seen = measured > 1e-12
        seen[0] = False  # there both are the same number
        ratio.append(np.max(measured[seen] / bound[seen]))
        eta = w @ problem.S @ w / (2 * problem.largest_eigenvalue * abs(problem.rayleigh(w)))
        printed = w - eta * problem.rayleigh_gradient(w)
        short = experiments.step(problem, w)
        difference.append(np.abs(printed - short).max() / np.abs(short).max())
    nearly = []
    for problem, w in _problems():
        mean = problem.u @ w / (problem.u @ problem.u)
        w = w - (1 - 1e-6) * mean * problem.u  # a start within 1e-6 of the worst one
        before, after = problem.line(w), problem.line(experiments.step(problem, w))
        rate = bounds.rate(problem)
        nearly.append(after.rayleigh_gap / (rate * before.rayleigh_gap))
    yield at_most(
        1 + 1e-9,
        max(ratio),
        "largest ratio of the gap to the bound, over 60 steps of 40 random problems with "
        "condition numbers 2 to 1000",
    )
    yield at_most(
        1 + 1e-9, max(nearly), "the same over one step from starts where ρ is nearly zero"
    )
    yield at_most(
        1e-9,
        max(difference),
        "largest relative difference between the printed step and the short form of the proof",
    )


@claim("kohler2019, Theorem 1", "holds")
def gradient_norm():
    r"""The gradient measures the gap to the optimum exactly:
    $\|w\|_S^2\,\|\nabla\rho(w)\|_{S^{-1}}^2\,/\,|4\rho(w)| = \rho(w) - \rho(w^*)$.
    """
    errors = []
    for problem, w in _problems():
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
    bend, ratio = [], []
    for condition in (2, 10, 100):
        for seed in range(5):
            problem, w = experiments.random_problem(condition, seed)
            steps = 10 * condition
            start = experiments.best_length(problem, w)
            run = gradient_descent(problem, start, steps=steps)
            excess = experiments.excess(problem, run.weights)
            ratio.append(
                np.max(excess / excess[0] / bounds.rate(problem) ** np.arange(len(excess)))
            )
            third = steps // 3
            slopes = -np.diff(np.log(excess[third : 3 * third + 1 : third]))
            bend.append(slopes[1] / slopes[0])
    yield at_most(
        0.7,
        min(bend),
        "decrease of the log excess in the last third of the steps, relative to the middle "
        "third (0.59 for an excess of 1/t, 1 for a linear rate); smallest of 15 problems",
    )
    yield at_least(
        1 + 1e-6,
        max(ratio),
        "largest ratio of the excess to $(1-\\mu/L)^{2t}$ times the first, which "
        "sub-linear convergence must leave behind; 15 problems",
    )


@claim("encyclopaedia, Least-square problem", "depends")
def faster():
    """On least squares, gradient descent with batch normalization converges faster than regular
    gradient descent.
    """

    def measured(tilt):
        ratios = []
        for seed in range(5):
            problem, w = experiments.random_problem(20, seed, dimension=6, tilt=tilt)
            normalised, plain = experiments.measured_factors(problem, w, 600)
            ratios.append(np.log(plain) / np.log(normalised))
        return at_most(
            0.95,
            max(ratios),
            "late steps of the normalised descent for one of gradient descent, both at step size "
            "$1/L$ in the theorem's sense; largest of 5 random starts, condition number 20",
        )

    yield under(
        "the solution lies along the flattest axis of the loss, which normalisation then takes "
        "out of the race"
    )
    yield measured(0)
    yield otherwise("the solution is orthogonal to the flattest axis")
    yield measured(90)


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


def _worst_ratio(metric, pencil):
    """Largest ratio of a step's contraction to the printed factor, over random pairs B and A."""
    worst = 0.0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        root, other = rng.normal(size=(2, 4, 4))
        A, B = root @ root.T + 0.1 * np.eye(4), other + other.T
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
    r"""Gradient descent on the generalised Rayleigh quotient $w^\top Bw/w^\top Aw$ satisfies
    $\frac{\lambda_1-\rho(w_t)}{\rho(w_t)-\lambda_2} \le
    \bigl(1-\frac{\lambda_1-\lambda_2}{\lambda_1-\lambda_{\min}}\bigr)^{2t}\frac{\lambda_1-\rho(w_0)}{\rho(w_0)-\lambda_2}$
    with the eigenvalues of $B$; with $B = uu^\top$ it becomes the rate of least squares.
    """
    words = (
        "largest ratio of one step's contraction, at the best step size, to the printed factor, over "
        "40 random pairs of matrices; {}"
    )
    problem, w = experiments.random_problem(20, 0)
    gap = [problem.line(w).rayleigh_gap, problem.line(experiments.step(problem, w)).rayleigh_gap]
    yield under(
        "the gradient is taken in the inner product of $A$, and the eigenvalues are those of "
        "$A^{-1}B$"
    )
    yield at_most(
        1 + 1e-6,
        _worst_ratio("A", pencil=True),
        words.format("gradient $A^{-1}\\nabla\\rho$, eigenvalues of $A^{-1}B$"),
    )
    yield otherwise("the plain gradient, or the eigenvalues of $B$")
    yield at_most(
        1 + 1e-6,
        _worst_ratio("I", pencil=False),
        words.format("plain gradient, eigenvalues of $B$"),
    )
    yield at_most(
        1 + 1e-6,
        _worst_ratio("I", pencil=True),
        words.format("plain gradient, eigenvalues of $A^{-1}B$"),
    )
    yield at_most(
        1e-9,
        gap[1] / gap[0],
        "for $B = uu^\\top$ the printed factor is 0: the part of the gap that one step "
        "of the theorem leaves of a random least-squares problem",
    )
