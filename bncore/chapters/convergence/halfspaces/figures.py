"""The longer figures of the halfspaces chapter: landscapes, a walk, bounds, outliers and a race."""

import itertools
from functools import cache

import numpy as np
from scipy import interpolate, optimize

from bncore.chapters.convergence.halfspaces import acceleration, experiments
from bncore.convergence import EmpiricalHalfspace, GaussianHalfspace, gdnp
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
    """All t in (-reach, reach) where f(t w) is level along the solution direction, except 0."""
    line = problem.line(problem.solution_direction)
    grid = np.linspace(-reach, reach, cells)
    slopes = np.array([line.slope(t) for t in grid])
    change = np.flatnonzero(slopes[:-1] * slopes[1:] < 0)
    return [optimize.brentq(line.slope, grid[i], grid[i + 1]) for i in change]


@cache
def _values(loss, correlation, points=33):
    problem = GaussianHalfspace(*plane(correlation), LOSSES[loss])
    grid = np.linspace(-REACH, REACH, points)
    values = np.array([[problem.value(np.array([a, b])) for a in grid] for b in grid])
    fine = np.linspace(-REACH, REACH, 4 * points - 3)
    return fine, interpolate.RectBivariateSpline(grid, grid, values)(fine, fine)


def _contours(ax, loss, correlation):
    grid, values = _values(loss, correlation)
    centre = values[len(grid) // 2, len(grid) // 2]
    low, high = values.min(), values.max()
    below = np.linspace(low, centre, 9)[1:-1]
    above = centre + (high - centre) * np.linspace(0, 1, 9)[1:-1] ** (2 if loss != "sine" else 1)
    ax.contour(
        grid, grid, values, levels=below, colors=style.BLUE, linewidths=1.2, linestyles="solid"
    )
    ax.contour(
        grid, grid, values, levels=above, colors=style.MUTED, linewidths=0.9, linestyles="dashed"
    )
    ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
    ax.set_xlabel("weight $w_1$")
    ax.set_ylabel("weight $w_2$")


def _line(ax, direction, **kwargs):
    ends = np.outer([-1, 1], 3 * REACH * direction / np.linalg.norm(direction))
    ax.plot(*ends.T, **kwargs)


def landscape(loss, correlation):
    """Draw the level curves of f in the plane, the line of S^-1 u and the critical points.

    Parameters
    ----------
    loss : str
        One of ``LOSSES``.
    correlation : float
        Of the two coordinates of z.
    """
    problem = GaussianHalfspace(*plane(correlation), LOSSES[loss])
    fig, ax = style.axes(height=5.3)
    _contours(ax, loss, correlation)
    _line(
        ax,
        problem.solution_direction,
        color=style.COLOR["highlight"],
        linestyle=":",
        linewidth=3,
        label=r"the line of $S^{-1}u$",
    )
    points = np.array([t * problem.solution_direction for t in critical_lengths(problem, 15)])
    points = points.reshape(-1, 2)
    inside = np.abs(points).max(axis=1) < REACH
    ax.plot(
        *points[inside].T,
        "o",
        color=style.VERMILLION,
        markersize=9,
        label="critical points" if inside.any() else "no critical point here",
    )
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=2, fontsize=11)
    ax.set_title(FORMULAS[loss])
    return fig


@cache
def _walk(loss, correlation, steps):
    problem = GaussianHalfspace(*plane(correlation), LOSSES[loss])
    trace = gdnp(
        problem, np.array([0.5, 3.0]) * -np.sign(MEAN @ [0.5, 3.0]), steps=steps, bisection_steps=50
    )
    return problem, trace


STEPS = [0, 1, 2, 4, 8, 12]


def walk(loss, step, correlation=0.3, steps=STEPS[-1]):
    """Draw the first steps of gdnp in the plane, and the angle to the line beside its prediction.

    Parameters
    ----------
    loss : str
        One of ``LOSSES`` whose optimal length is finite.
    step : int
        How many steps to show, one of ``STEPS``.
    """
    problem, trace = _walk(loss, correlation, steps)
    best = problem.solution_direction
    fig, (above, below) = style.axes(rows=2, height=7.2, gridspec_kw={"height_ratios": [2.4, 1]})
    _contours(above, loss, correlation)
    _line(above, best, color=style.COLOR["highlight"], linestyle=":", linewidth=3)
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


def three_bounds(runs, steps):
    """Draw measured quantity, reconstructed and corrected bound of length, direction and both.

    Parameters
    ----------
    runs : dict of str to dict of str to ndarray
        As ``experiments.bounds_along_a_run`` returns them.
    steps : int
        How many steps to draw.
    """
    titles = {
        "length": r"length: $(\partial_g f)^2$",
        "direction": r"direction: $\|w\|_S^2\;\|\nabla_w f\|_{S^{-1}}^2$",
        "combined": r"both: $\|\nabla f(\tilde w)\|_{S^{-1}}^2$",
    }
    fig, panels = style.axes(rows=3, height=8.4, sharex=True)
    for ax, (name, parts) in zip(panels, runs.items(), strict=True):
        t = np.arange(steps + 1)
        ax.semilogy(
            t,
            parts["corrected"][: steps + 1],
            "--",
            color=style.COLOR["predicted"],
            label="corrected bound",
        )
        ax.semilogy(
            t, parts["printed"][: steps + 1], ":", color=style.VERMILLION, label="as reconstructed"
        )
        ax.semilogy(
            t,
            parts["measured"][: steps + 1],
            "s",
            color=style.COLOR["measured"],
            markersize=6,
            label="measured",
        )
        ax.text(0.02, 0.05, titles[name], transform=ax.transAxes)
        ax.set_ylabel("squared gradient")
    style.legend_above(panels[0])
    panels[-1].set_xlabel("direction step $t$")
    return fig


DISTANCES = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


@cache
def _deviations():
    found = {}
    for distance in DISTANCES:
        Z = experiments.with_outliers(distance)
        for loss in ("softplus", "huber", "squared"):
            problem = EmpiricalHalfspace(Z, LOSSES[loss])
            w = experiments.newton(problem, Z)
            found[loss, distance] = experiments.angle(w, problem.solution_direction)
    return found


def outliers(distance):
    """Draw a sample of z with outliers, and how far three losses' minimisers turn off the line.

    Parameters
    ----------
    distance : float
        One of ``DISTANCES``.
    """
    Z = experiments.with_outliers(distance)
    moved = len(Z) // 10  # the share that with_outliers moves
    found = _deviations()
    fig, (above, below) = style.axes(rows=2, height=6.4, gridspec_kw={"height_ratios": [1.3, 1]})
    above.plot(*Z[moved::6].T, ".", color=style.COLOR["data"], markersize=4, label="Gaussian part")
    above.plot(*Z[:moved:2].T, ".", color=style.VERMILLION, markersize=4, label="outliers")
    above.set(xlim=(-10, 4), ylim=(-3.5, 3))
    above.set_xlabel("$z_1$")
    above.set_ylabel("$z_2$")
    style.legend_above(above)
    marks = {
        "softplus": ("o-", style.BLUE),
        "huber": ("^-", style.GREEN),
        "squared": ("s-", style.INK),
    }
    for loss, (mark, colour) in marks.items():
        below.plot(DISTANCES, [found[loss, d] for d in DISTANCES], mark, color=colour, label=loss)
    below.axvline(distance, color=style.COLOR["highlight"], linestyle=":", linewidth=3)
    below.set_ylabel("angle to the line (°)")
    below.set_xlabel("distance of the outliers")
    below.legend(loc="upper left")
    return fig


def sampling(sizes, angles):
    """Draw the angles of ``experiments.sampling_angles`` over the sample size, on a line of slope -1/2."""
    fig, ax = style.axes()
    ax.loglog(
        np.repeat(sizes, angles.shape[1]),
        angles.ravel(),
        ".",
        color=style.COLOR["data"],
        label="one sample",
    )
    middle = np.median(angles, axis=1)
    ax.loglog(sizes, middle, "s", color=style.COLOR["measured"], markersize=8, label="median")
    ax.loglog(
        sizes,
        middle[0] * np.sqrt(sizes[0] / np.asarray(sizes)),
        "--",
        color=style.COLOR["predicted"],
        label=r"$\propto n^{-1/2}$",
    )
    ax.set_ylabel("angle to the line (°)")
    ax.set_xlabel("sample size $n$")
    ax.legend(loc="lower left")
    return fig


METHODS = {
    "gdnp": ("gdnp", style.BLUE, "-"),
    "gdnp, Brent": ("gdnp, Brent", style.BLUE, ":"),
    "gradient descent": ("gradient descent", style.VERMILLION, "--"),
    "accelerated": ("accelerated", style.GREEN, "-."),
    "lbfgs": ("L-BFGS", style.INK, ":"),
    "scikit-learn": ("scikit-learn", style.PURPLE, ""),
}


def race(races, by="iterations"):
    """Draw the excess of the mean loss over its least value, for each data set and method.

    Parameters
    ----------
    races : dict of str to dict
        As ``experiments.race`` returns them, by the data set's name.
    by : {"iterations", "seconds"}
        The horizontal axis.
    """
    fig, panels = style.axes(rows=len(races), height=6.6)
    for ax, (name, found) in zip(panels, races.items(), strict=True):
        for method, (label, colour, line) in METHODS.items():
            trace = found["traces"][method]
            excess = np.maximum(trace.value - found["least"], 1e-14)
            x = np.arange(len(excess)) if by == "iterations" else trace.seconds
            if method in ("scikit-learn", "gdnp, Brent") and by == "iterations":
                continue
            if method == "scikit-learn":
                ax.loglog(x[-1:], excess[-1:], "D", color=colour, label=label, markersize=8)
            else:
                ax.loglog(x[1:], excess[1:], line, color=colour, label=label)
        ax.set_ylim(3e-15, 3)
        ax.set_ylabel("excess of the loss")
        ax.text(0.02, 0.06, name, transform=ax.transAxes)
    style.legend_above(panels[0], columns=2)
    panels[-1].set_xlabel("iterations" if by == "iterations" else "seconds")
    return fig


def accelerated(record):
    """Draw GDNP's iterations over those of its yardsticks, each method at its own best step.

    Parameters
    ----------
    record : dict of str to dict
        By accuracy, as ``full_size.run`` returns it.
    """
    rows = [len(_cases(found)) for found in record.values()]
    fig, panels = style.axes(rows=len(record), height=9.0, sharex=True, height_ratios=rows)
    looks = {
        "gradient descent": (style.VERMILLION, "o", -0.15),
        "Nesterov": (style.GREEN, "^", 0.15),
    }
    for ax, (accuracy, found) in zip(panels, record.items(), strict=True):
        cases = _cases(found)
        for other, (colour, mark, shift) in looks.items():
            ratios = [acceleration.against(found["fresh"], *case, other) for case in cases]
            places = [place + shift for place, ratio in enumerate(ratios) if ratio is not None]
            mean, low, high = np.exp([ratio for ratio in ratios if ratio is not None]).T
            reach = [mean - low, high - mean]
            label = f"over {other}"
            ax.errorbar(mean, places, xerr=reach, fmt=mark, color=colour, capsize=3, label=label)
        ax.axvline(1, color=style.MUTED, linestyle=":")
        ax.set(xscale="log", yticks=range(len(cases)), yticklabels=[", ".join(c) for c in cases])
        ax.set(xticks=[0.2, 0.5, 1, 2, 5], xticklabels=["0.2", "0.5", "1", "2", "5"])
        ax.invert_yaxis()
        ax.text(0.98, 0.02, f"to {accuracy}", transform=ax.transAxes, ha="right")
    style.legend_above(panels[0], columns=1)
    panels[-1].set_xlabel("ratio of iterations")
    return fig


def _cases(found):
    """Data set and loss of each comparison."""
    fresh = found["fresh"]
    return list(itertools.product(fresh.data.values.tolist(), fresh.loss.values.tolist()))
