"""What the literature says about learning halfspaces with batch normalization.

The encyclopaedia's formulas have lost fractions, exponents and brackets; they are derived anew.
"""

import itertools
from functools import cache

import numpy as np
from scipy import optimize

from bncore.chapters.convergence.halfspaces import acceleration as race
from bncore.chapters.convergence.halfspaces import experiments, full_size
from bncore.convergence import (
    EmpiricalHalfspace,
    GaussianHalfspace,
    bounds,
    gdnp,
    gradient_descent,
)
from bncore.convergence.losses import LOSSES
from bncore.lab import recorded
from bncore.page.claims import at_least, at_most, claim, corrected, otherwise, under

SMOOTH = {**LOSSES, "sine": experiments.SINE, "huber": experiments.huber()}


def _gaussian(loss, seed, dimension=4, **kwargs):
    u, S = experiments.moments(dimension, seed, **kwargs)
    return GaussianHalfspace(u, S, loss), experiments.start(u, S, seed)


def _gaussian_scores(problem, w):
    """Scores z'w on a grid of twelve deviations, and their weights."""
    grid = np.linspace(-12, 12, 4801)
    density = np.exp(-(grid**2) / 2)
    mean = problem.u @ w
    return mean + np.sqrt(w @ problem.S @ w - mean**2) * grid, density / density.sum()


def _formula_error(problem, w, scores, weights):
    """Distance of c1 u + c2 S w from the gradient by differences, relative to the latter."""
    slope, bend = weights @ problem.loss.dphi(scores), weights @ problem.loss.d2phi(scores)
    c1, c2 = slope - bend * (problem.u @ w), bend
    exact = experiments.differences(problem.value, w, 1e-3)
    return float(np.abs(c1 * problem.u + c2 * problem.S @ w - exact).max() / np.abs(exact).max())


@claim("encyclopaedia, Learning halfspace problem", "holds", lost=True)
def gradient():
    r"""For Gaussian $z$, on which the proof rests, and smooth $\phi$, $\nabla f(\tilde w) = c_1u +
    c_2S\tilde w$ with $c_2 = E\,\phi''(z^\top\tilde w)$ and $c_1 = E\,\phi'(z^\top\tilde w) -
    c_2\,u^\top\tilde w$.
    """
    errors = [
        _formula_error(problem, scale * w, *_gaussian_scores(problem, scale * w))
        for seed in range(10)
        for loss in SMOOTH.values()
        for problem, w in [_gaussian(loss, seed)]
        for scale in (0.5, 3.0)
    ]
    Z, w = experiments.with_outliers(6.0), np.array([0.5, 0.5])
    sample = EmpiricalHalfspace(Z, "softplus")
    yield at_most(
        1e-9,
        max(errors),
        f"largest relative error over {len(errors)} Gaussian cases with {len(SMOOTH)} losses, "
        "against differences of $f$",
    )
    yield at_least(
        1e-3,
        _formula_error(sample, w, Z @ w, np.full(len(Z), 1 / len(Z))),
        "the same without the Gaussian: softplus loss, a cloud with a tenth of outliers",
    )


def _critical_points(loss, seed, starts, **kwargs):
    """Angles to the line in degrees, and larger coefficients, of critical points found from starts."""
    problem, w = _gaussian(loss, seed, **kwargs)
    points = []
    for start in starts(problem, w):
        found = optimize.root(problem.gradient, start, tol=1e-13).x
        critical = np.linalg.norm(problem.gradient(found)) < 1e-9
        if critical and 0.1 < problem.norm(found) < 6:
            coefficients = problem.coefficients(found)
            angle = experiments.angle(found, problem.solution_direction)
            points.append((angle, max(abs(c) for c in coefficients)))
    return points


def _near(problem, w):
    return 0.3 * w, -w, 2 * w


def _around(problem, w):
    return [3.4 * v / problem.norm(v) for v in np.random.default_rng(0).normal(size=(4, 2))]


@claim("encyclopaedia, Learning halfspace problem", "depends", lost=True)
def one_line():
    r"""With Gaussian $z$ all bounded critical points lie on the line of $S^{-1}u$, whatever the loss
    $\phi$ is.
    """
    points = []
    for seed in (0, 2):
        for loss in ("softplus", experiments.huber(), experiments.SINE):
            points += _critical_points(loss, seed, _near, dimension=3)
        waves = experiments.two_waves(np.log(8) / 1.5)  # b = 2
        points += _critical_points(waves, seed, _around, dimension=2, strength=0.9)
    angles, sizes = np.transpose(points)
    vanish = sizes < 1e-6
    what = (
        "largest angle to the line in degrees, {} critical points found from random starts, losses "
        "softplus, huber, sine and $\\cos a + 2\\cos 2a$"
    )
    yield under("$c_1$ and $c_2$ do not both vanish there; for convex losses they do not")
    yield at_most(1e-4, max(angles[~vanish]), what.format(sum(~vanish)))
    yield otherwise("they both vanish, as they can for a loss with a valley and a hill")
    yield at_most(1e-4, max(angles[vanish]), what.format(sum(vanish)))


def _step(problem, w, g, printed):
    """w after a direction step of gdnp with the printed or the corrected h, at the length g."""
    norm, mean = problem.norm(w), problem.u @ w
    tilde = g * w / norm
    c1, c2 = problem.coefficients(tilde)
    slope = c1 + c2 * (problem.u @ tilde)  # E phi'
    h = slope * mean - c2 * (mean**2 if printed else (problem.u @ tilde) * mean)
    outer = problem.gradient(tilde)
    by_w = g / norm * (outer - problem.S @ w * (w @ outer) / norm**2)
    return w + norm**3 / (problem.largest_eigenvalue * g * h) * by_w


def _worst_step(printed, norms=None):
    """Largest part of the gap that a step leaves, over the bound; w is stored at norms, or as w~."""
    left = []
    for seed, loss in itertools.product(range(5), ("softplus", experiments.huber())):
        problem, w = _gaussian(loss, seed)
        found = gdnp(problem, w, steps=3, bisection_steps=40)
        for direction, g in zip(found.w, found.g, strict=True):
            for norm in [g] if norms is None else norms:
                w = direction * norm / problem.norm(direction)
                after = problem.line(_step(problem, w, g, printed)).rayleigh_gap
                left.append(after / problem.line(w).rayleigh_gap / bounds.rate(problem))
    return max(left)


@claim("encyclopaedia, Learning halfspace problem", "misprinted", lost=True)
def step_size():
    r"""With $h(w,\gamma) = E\,\phi'(z^\top\tilde w)\,u^\top w - E\,\phi''(z^\top\tilde w)\,(u^\top
    w)^2$ as stopping criterion and $s = -\|w\|_S^3/(L\,\gamma\,h)$ as step size the direction
    $w$ of GDNP converges linearly, by $(1-\mu/L)^2$ a step. (The fraction in $s$ is lost, $h$ is
    not, and no fraction free of $\phi$ mends it.)
    """
    norms = (0.5, 1.0, 2.0)
    what = (
        "gap $\\rho(w)-\\rho^*$ after a step over $(1-\\mu/L)^2$ times that before, largest of four "
        "steps on 10 problems, softplus and huber, at the best lengths; {}"
    )
    stored = what.format("$\\|w\\|_S$ of 0.5, 1 and 2")
    yield at_most(1 + 1e-6, _worst_step(True), what.format("$w = \\tilde w$"))
    yield at_most(1 + 1e-6, _worst_step(True, norms), stored)
    yield corrected(
        "$(u^\\top\\tilde w)(u^\\top w)$ in place of $(u^\\top w)^2$; they agree where $w = \\tilde w$."
    )
    yield at_most(1 + 1e-6, _worst_step(False, norms), stored)


CASES = [
    ("softplus", {}, 5),
    (experiments.scaled(LOSSES["softplus"], 1e4), {"condition": 2.0}, 5),
    (experiments.huber(5.0), {"strength": 0.95}, 10),
    (experiments.scaled(experiments.huber(5.0), 1e4), {"strength": 0.95, "condition": 2.0}, 5),
]
WORST = (
    "largest ratio of measured to bound over four losses (softplus, huber, and both times 10 000), "
    "4 problems each and 12 steps"
)

SHARPER = "$\\Phi = \\sup|\\phi'|/\\sqrt{1-|\\rho^*|}$"
BOUNDS_C1 = "$\\Phi$, which the text does not define, bounds $|c_1|$"
BOUNDS_SLOPE = "it bounds only $|\\phi'|$"


@cache
def _runs():
    """Problems and runs of gdnp on them."""
    return [
        (problem, gdnp(problem, w0, steps=12, bisection_steps=halvings))
        for loss, kwargs, halvings in CASES
        for seed in range(4)
        for problem, w0 in [_gaussian(loss, seed, **kwargs)]
    ]


def _largest(problem, measured, bound):
    """Largest ratio of what was measured to its bound, where it is more than rounding."""
    seen = measured > 1e-22 * max(1.0, problem.loss.slope_bound**2)
    return float(np.max(measured[seen] / bound[seen], initial=0.0))


def _length_part(problem, trace):
    left = 0.5**trace.halvings * np.abs(np.diff(trace.brackets, axis=1)[:, 0])
    return (problem.loss.curvature_bound * left) ** 2


def _direction_part(problem, trace, phi_squared):
    shrunk = bounds.rate(problem) ** np.arange(len(trace.g)) * trace.rayleigh_gap[0]
    return shrunk * phi_squared


def _for_c1(problem):
    """A bound of c1^2: sup |phi'|^2 over 1 - |rho*|."""
    return problem.loss.slope_bound**2 / (1 + problem.rayleigh_optimum)


def _slope_squared(problem):
    return problem.loss.slope_bound**2


def _worst(measure, bound, phi_squared, until=None):
    """Largest ratio of what was measured, in the first steps of all runs, to the bound with this Phi^2."""
    return max(
        _largest(
            problem,
            measure(problem, trace).measured[:until],
            bound(problem, trace, phi_squared(problem))[:until],
        )
        for problem, trace in _runs()
    )


def _by_what_phi_bounds(measure, bound, steps):
    """The two sides of a bound that does not define Phi."""
    yield under(BOUNDS_C1)
    yield at_most(1 + 1e-6, _worst(measure, bound, _for_c1), f"{WORST}, {SHARPER}")
    yield otherwise(BOUNDS_SLOPE)
    first = _worst(measure, bound, _slope_squared, 1)
    yield at_most(1 + 1e-6, first, f"the same at ${steps}=0$, $\\Phi = \\sup|\\phi'|$")


@claim("encyclopaedia, Learning halfspace problem", "holds", lost=True)
def length_bound():
    r"""In GDNP the squared derivative $(\partial_\gamma f)^2$ goes to zero linearly in the $T_s$
    halvings of the bracket $[a,b]$. (The bound is lost but for its left side; derived anew, it is
    $B^2\,4^{-T_s}\,|b-a|^2$ with $B = \sup|\phi''|$.)
    """
    deeper = [
        (problem, gdnp(problem, w0, steps=1, bisection_steps=halvings))
        for loss, kwargs, _ in CASES
        for problem, w0 in [_gaussian(loss, 0, **kwargs)]
        for halvings in (1, 4, 16)
    ]
    ratios = [
        _largest(problem, bounds.length(problem, trace).measured, _length_part(problem, trace))
        for problem, trace in (*_runs(), *deeper)
    ]
    yield at_most(1 + 1e-6, max(ratios), f"{WORST}; and 1, 4 and 16 halvings")


@claim("encyclopaedia, Learning halfspace problem", "depends", lost=True)
def direction_bound():
    r"""For the direction, $\|w_t\|_S^2\,\|\nabla_wf(w_t,\gamma_t)\|_{S^{-1}}^2$ is at most
    $(1-\mu/L)^{2t}\,\Phi^2\gamma_t^2\,(\rho(w_0)-\rho^*)$. (The exponent, the fraction and the norm
    are lost; at $t=0$ the right side does not need them.)
    """

    def bound(problem, trace, phi_squared):
        return trace.g**2 * _direction_part(problem, trace, phi_squared)

    yield from _by_what_phi_bounds(bounds.direction, bound, "t")


@claim("encyclopaedia, Learning halfspace problem", "depends", lost=True)
def combined_bound():
    r"""The bounds of direction and length together bound $\|\nabla f(\tilde w_T)\|^2$: by
    $(1-\mu/L)^{2T}\,\Phi^2\,(\rho(w_0)-\rho^*)$ plus a term for the length. (That term is lost, and the
    norm is not defined: here they are those of the two bounds.)
    """

    def bound(problem, trace, phi_squared):
        return _direction_part(problem, trace, phi_squared) + _length_part(problem, trace)

    yield from _by_what_phi_bounds(bounds.combined, bound, "T")


@claim("encyclopaedia, Learning halfspace problem", "holds")
def linear_convergence():
    r"""On halfspaces with Gaussian $z$ GDNP converges linearly. (At the rate of its bounds: the length
    of the gradient falls by $1-\mu/L$ a step or more.)
    """
    factors = []
    for loss, (condition, steps), seed in itertools.product(
        ("softplus", experiments.SINE), ((3.0, 42), (10.0, 60)), (1, 3)
    ):
        problem, w0 = _gaussian(loss, seed, condition=condition)
        sizes = gdnp(problem, w0, steps=steps, bisection_steps=40).gradient_norm
        late = len(sizes) // 3
        fall = (sizes[-1] / sizes[-1 - late]) ** (1 / late)
        factors.append(fall / (1 - 1 / condition))
    yield at_most(
        1,
        max(factors),
        "factor of a step on the length of the gradient, over $1-\\mu/L$, mean of the last third of a run: "
        "largest of 8 problems, softplus and sine, $L/\\mu=3$ (42 steps; there 1/t would have 1.46) and 10 "
        "(60 steps; 1.09), 40 halvings",
    )


FEWER = (
    "logarithm of GDNP's iterations to {} of the excess at $w = 0$, less that of gradient descent's, "
    "each at its own best step; {}, 10 fresh seeds, 95 % for all that was compared"
)


@claim("kohler2019, Section 3", "fails")
def acceleration():
    """On more complex objectives than least squares, such as this one, gradient descent achieves
    only a sub-linear rate in the original coordinates, but is provably accelerated by
    normalisation.
    """
    slower = []
    for loss, seed in itertools.product(("softplus", experiments.huber()), range(2)):
        run = gradient_descent(*_gaussian(loss, seed), steps=750, tolerance=1e-10)
        slower.append(bounds.late_decrease(run.gradient_norm))
    yield at_most(
        0.7,
        min(slower),
        "the rate is sub-linear: decrease of the log gradient of gradient descent in the "
        "last third of a run, relative to the middle third (0.59 for a gradient of 1/t, 1 "
        "for a linear rate); smallest of 4 Gaussian problems, softplus and huber",
    )
    fresh = recorded.load(full_size.PATH)["full"]["0.0001"]["fresh"]
    for loss in race.LOSSES:
        ratio = race.against(fresh, "Gaussian", loss, "gradient descent")
        yield at_most(0, tuple(ratio), FEWER.format("a ten-thousandth", f"Gaussian, {loss}"))


@claim("encyclopaedia, Learning halfspace problem", "holds")
def not_gaussian():
    """GDNP can speed up optimization, as experiments show, where the inputs are not Gaussian, too.
    (Told in iterations, as the theory does; one of GDNP costs several of gradient descent.)
    """
    record = recorded.load(full_size.PATH)["full"]["0.0001"]
    data, loss = race.largest_lead(record["tuning"])
    ratio = race.against(record["fresh"], data, loss, "gradient descent")
    yield at_most(0, tuple(ratio), FEWER.format("a ten-thousandth", f"{data}, {loss}"))


@claim("encyclopaedia, Learning halfspace problem", "depends", lost=True)
def finite_length():
    r"""For a smooth loss of bounded slope, Gaussian $z$ and a smooth $f$ there is an $\alpha^* =
    \operatorname{argmin}_\alpha\|\nabla f(\alpha w)\|^2$, and it is finite. (The source assumes it, for
    an arbitrary loss, and says neither which losses meet it nor what $w$ is.)
    """
    lengths = np.geomspace(1e-2, 1e3, 26)
    lengths = (*-lengths, *lengths)

    def at_an_end(problem, direction):
        sizes = [np.linalg.norm(problem.gradient(length * direction)) for length in lengths]
        return abs(lengths[np.argmin(sizes)]) == lengths[-1]

    def on_the_line(loss):
        problems = [_gaussian(loss, seed)[0] for seed in range(5)]
        return float(np.mean([at_an_end(one, one.solution_direction) for one in problems]))

    what = "share of 5 Gaussian problems with the least gradient at the longest of 52 lengths: {}"
    yield under(
        "the loss is convex, as softplus and huber are, and $w$ is on the line of $S^{-1}u$"
    )
    yield at_most(0, on_the_line("softplus"), what.format("softplus"))
    yield at_most(0, on_the_line(experiments.huber()), what.format("huber"))
    yield otherwise("the loss rises from one bound to another, or $w$ is another direction")
    yield at_most(0, on_the_line("sigmoid"), what.format("sigmoid, on the line"))
    yield at_most(0, on_the_line("tanh"), what.format("tanh, on the line"))
    elsewhere = [at_an_end(*_gaussian("softplus", seed)) for seed in range(5)]
    yield at_most(0, float(np.mean(elsewhere)), what.format("softplus, random directions"))
