"""The objective over two weights: its level curves, where it is level, and the way of gdnp through it."""

from functools import cache

import numpy as np
from scipy import optimize

from bncore.chapters.convergence.halfspaces import experiments
from bncore.convergence import GaussianHalfspace, gdnp
from bncore.page import style

LOSSES = {
    "softplus": "softplus",
    "squared": "squared",
    "huber": experiments.huber(),
    "sine": experiments.SINE,
    "sigmoid": "sigmoid",
}
FORMULAS = {
    "softplus": r"$\phi(a)=\log(1+e^a)$",
    "squared": r"$\phi(a)=(1+a)^2$",
    "huber": r"$\phi(a)=(1+4(1+a)^2)^{1/2}/2$",
    "sine": r"$\phi(a)=\sin a$",
    "sigmoid": r"$\phi(a)=1/(1+e^{-a})$",
}
MEAN = np.array([-0.7, -0.2])
REACH = 4.0


def plane(correlation):
    """Moments of Gaussian z in the plane with a given correlation and deviations 1 and 0.8."""
    off = 0.8 * correlation
    return MEAN, np.array([[1.0, off], [off, 0.64]]) + np.outer(MEAN, MEAN)


def critical_lengths(problem, reach, cells=400):
    """All t in (-reach, reach) where f(t w) turns along the solution direction, to rounding."""
    line = problem.line(problem.solution_direction)
    grid = np.linspace(-reach, reach, cells)
    slopes = np.array([line.slope(t) for t in grid])
    change = np.flatnonzero(slopes[:-1] * slopes[1:] < 0)
    return [optimize.brentq(line.slope, grid[i], grid[i + 1]) for i in change]


@cache
def _problem(loss, correlation):
    return GaussianHalfspace(*plane(correlation), LOSSES[loss])


@cache
def _critical_points(loss, correlation):
    problem = _problem(loss, correlation)
    points = [t * problem.solution_direction for t in critical_lengths(problem, 15)]
    points = np.array(points).reshape(-1, 2)
    return points[np.abs(points).max(axis=1) < REACH]


@cache
def values(loss, correlation, points=97):
    """f on a grid of the plane, by the trapezoidal rule: fast, and finer than any curve drawn."""
    problem = _problem(loss, correlation)
    grid = np.linspace(-REACH, REACH, points)
    w = np.stack(np.meshgrid(grid, grid), axis=-1)
    mean, deviation = _score(problem, w)
    xi = np.linspace(-8, 8, 321)
    weights = np.exp(-(xi**2) / 2)
    weights /= weights.sum()
    rows = zip(mean, deviation, strict=True)
    return grid, np.array(
        [problem.loss.phi(m[:, None] + s[:, None] * xi) @ weights for m, s in rows]
    )


def _score(problem, w):
    """Mean and deviation of z'w."""
    return w @ problem.u, np.sqrt(np.einsum("...i,ij,...j", w, problem.covariance, w))


def _levels(ax, grid, heights, between, bends):
    """Level curves: blue below a value, grey above; a bend over 1 draws them denser towards that value."""
    part = np.linspace(0, 1, 9)[1:-1]
    below = between + (heights.min() - between) * part[::-1] ** bends[0]
    above = between + (heights.max() - between) * part ** bends[1]
    for levels, colour, width in ((below, style.BLUE, 1.2), (above, style.MUTED, 0.9)):
        ax.contour(
            grid, grid, heights, levels=levels, colors=colour, linewidths=width, linestyles="solid"
        )
    reach = grid[-1]
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    ax.set_xlabel("weight $w_1$")
    ax.set_ylabel("weight $w_2$")


def _contours(ax, loss, correlation):
    grid, heights = values(loss, correlation)
    origin = heights[len(grid) // 2, len(grid) // 2]
    _levels(ax, grid, heights, origin, (1, 1 if loss == "sine" else 2))


def _line(ax, direction, **kwargs):
    ends = np.outer([-1, 1], 3 * REACH * direction / np.linalg.norm(direction))
    ax.plot(*ends.T, **kwargs)


def _solutions(ax, direction):
    _line(
        ax,
        direction,
        color=style.COLOR["highlight"],
        linestyle=":",
        linewidth=3,
        label=r"the line of $S^{-1}u$",
    )


def _legend(ax, columns):
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1.08), ncols=columns, fontsize=11)


def landscape(loss, correlation):
    """Draw the level curves of f in the plane, the line of S^-1 u and the critical points.

    Parameters
    ----------
    loss : str
        One of ``LOSSES``; the critical points of the others are drawn, too.
    correlation : float
        Of the two coordinates of z.
    """
    fig, ax = style.axes(height=5.3)
    _contours(ax, loss, correlation)
    _solutions(ax, _problem(loss, correlation).solution_direction)
    others = [_critical_points(other, correlation) for other in LOSSES if other != loss]
    points = _critical_points(loss, correlation)
    ax.plot(
        *np.concatenate(others).T, "o", color=style.MUTED, markersize=6, label="of the other losses"
    )
    ax.plot(
        *points.T,
        "o",
        color=style.VERMILLION,
        markersize=10,
        label="critical points" if len(points) else "no critical point",
    )
    _legend(ax, 2)
    ax.set_title(FORMULAS[loss])
    return fig


FAR = np.array([-2.0, -1.0]), np.array([[4.6, 1.8], [1.8, 1.8]])
"""Moments u and S of a Gaussian whose score at some weights off the line has mean pi and is not wide."""


def waves():
    """A problem with critical points off the line of S^-1 u, and two such points, one on either side."""
    w, variance = experiments.off_the_line(*FAR, apart=1.0)
    problem = GaussianHalfspace(*FAR, experiments.two_waves(variance))
    best = problem.solution_direction
    across = 2 * (problem.u @ w) / (problem.u @ best) * best - w
    return problem, np.array([w, across])


def off_the_line():
    """Draw the level curves of ``waves``, in closed form, its critical points and the line."""
    problem, pair = waves()
    grid = np.linspace(-3, 3, 241)
    w = np.stack(np.meshgrid(grid, grid), axis=-1)
    mean, deviation = _score(problem, w)
    b = (problem.loss.slope_bound - 1) / 2
    first, second = np.exp(-(deviation**2) / 2), np.exp(-2 * deviation**2)
    heights = first * np.cos(mean) + b * second * np.cos(2 * mean)
    fig, ax = style.axes(height=5.3)
    _levels(ax, grid, heights, 0.0, (2, 3))
    best = problem.solution_direction
    _solutions(ax, best)
    on = np.outer(critical_lengths(problem, 4), best)
    off = np.concatenate([pair, -pair])
    for points, mark, colour, size, label in (
        (on, "o", style.MUTED, 7, "critical, on the line"),
        (off, "D", style.VERMILLION, 9, "critical, off the line"),
    ):
        ax.plot(*points.T, mark, color=colour, markersize=size, label=label)
    _legend(ax, 2)
    ax.set_title(r"$\phi(a)=\cos a + b\,\cos 2a$")
    return fig


@cache
def _walk(loss, correlation, steps):
    w0 = np.array([0.5, 3.0])
    w0 = -np.sign(MEAN @ w0) * w0
    return gdnp(_problem(loss, correlation), w0, steps=steps, bisection_steps=50)


STEPS = [0, 1, 2, 3, 4, 6, 8, 12]


def walk(loss, step, correlation=0.3, steps=STEPS[-1]):
    """Draw the first steps of gdnp in the plane, and the angle to the line beside its prediction.

    Parameters
    ----------
    loss : str
        One of ``LOSSES`` whose optimal length is finite.
    step : int
        How many steps to show, one of ``STEPS``.
    """
    problem, trace = _problem(loss, correlation), _walk(loss, correlation, steps)
    best = problem.solution_direction
    fig, (above, below) = style.axes(rows=2, height=6.6, gridspec_kw={"height_ratios": [2.4, 1]})
    _contours(above, loss, correlation)
    _solutions(above, best)
    for t in range(step + 1):
        now = t == step
        _line(
            above,
            trace.w[t],
            color=style.INK if now else style.GRID,
            linewidth=1.6 if now else 1.2,
            zorder=1.5,
        )
    above.plot(*trace.weights[: step + 1].T, "o-", color=style.COLOR["measured"], markersize=6)
    above.plot(*trace.weights[step], "o", color=style.VERMILLION, markersize=10)
    above.set_title(f"{FORMULAS[loss]}, step {step}")
    expected = experiments.least_squares_steps(problem.u, problem.S, trace.w[0], steps)
    angles = [experiments.angle(w, best) for w in expected]
    found = [experiments.angle(w, best) for w in trace.w[: step + 1]]
    below.semilogy(
        range(steps + 1), angles, "--", color=style.COLOR["predicted"], label="least squares"
    )
    below.semilogy(range(step + 1), found, "s", color=style.COLOR["measured"], label="this loss")
    below.set(xlim=(-0.3, steps + 0.3), ylim=(min(angles) / 3, 120), ylabel="angle to the line (°)")
    below.set_xlabel("direction step")
    below.legend(loc="lower left")
    return fig
