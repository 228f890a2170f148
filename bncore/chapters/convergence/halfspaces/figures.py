"""Predicted beside measured in the halfspaces chapter: bounds, broken assumptions and races."""

import itertools
from functools import cache

import numpy as np

from bncore.chapters.convergence.halfspaces import acceleration, experiments
from bncore.chapters.convergence.halfspaces.landscapes import LOSSES
from bncore.convergence import EmpiricalHalfspace, GaussianHalfspace
from bncore.page import style


def kept_bound(gaps, bound):
    """Draw the gap to the optimum along runs, relative to the first, under the bound of the theorem.

    Parameters
    ----------
    gaps : list of ndarray
        The Rayleigh gap at each step of a run.
    bound : ndarray
        Of the gap relative to the first, at each step.
    """
    fig, ax = style.axes()
    for place, gap in enumerate(gaps):
        label = None if place else f"{len(gaps)} runs"
        ax.semilogy(gap / gap[0], color=style.COLOR["measured"], linewidth=1.2, label=label)
    ax.semilogy(bound, "--", color=style.COLOR["predicted"], label="bound")
    ax.set_xlabel("direction step")
    ax.set_ylabel("gap, over the first")
    ax.legend(loc="lower left")
    return fig


def descents(traces):
    """Draw the length of the gradient along runs, by the method's name."""
    fig, ax = style.axes()
    for name, colour in (("gradient descent", style.VERMILLION), ("GDNP", style.BLUE)):
        ax.semilogy(traces[name].gradient_norm, color=colour, label=name)
    ax.set_ylim(1e-8, 1)
    ax.set_xlabel("step")
    ax.set_ylabel("length of the gradient")
    ax.legend(loc="upper right")
    return fig


def lengths():
    """Draw f along a ray, as a part of f(0), for two losses on a Gaussian and softplus on separable data."""
    u, S = experiments.moments(4, seed=0)
    separable = experiments.real_data("breast cancer", threshold=True)
    rays = {
        "softplus": (GaussianHalfspace(u, S, "softplus"), -np.linalg.solve(S, u)),
        "sigmoid": (GaussianHalfspace(u, S, "sigmoid"), -np.linalg.solve(S, u)),
        "softplus, separable data": (
            EmpiricalHalfspace(separable),
            experiments.separating(separable),
        ),
    }
    colours = (style.BLUE, style.VERMILLION, style.GREEN)
    fig, ax = style.axes(height=3.6)
    g = np.linspace(0, 12, 121)
    for (name, (problem, w)), colour in zip(rays.items(), colours, strict=True):
        line = problem.line(w / problem.norm(w))
        values = np.array([line.value(length) for length in g]) / line.value(0.0)
        ax.plot(g, values, color=colour, label=name)
        least = np.argmin(values)
        if least < len(g) - 1:
            ax.plot(g[least], values[least], "o", color=colour, markersize=9)
    ax.set(ylim=(0, 1.05), xlabel="length $g$", ylabel="$f$, over $f(0)$")
    style.legend_above(ax)
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
    fig, (above, below) = style.axes(rows=2, height=5.8, gridspec_kw={"height_ratios": [1.3, 1]})
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
    "GDNP": ("GDNP", style.BLUE, "o"),
    "GDNP, Brent": ("GDNP, Brent", style.BLUE, "s"),
    "gradient descent": ("gradient descent", style.VERMILLION, "v"),
    "accelerated": ("Nesterov", style.GREEN, "^"),
    "lbfgs": ("L-BFGS", style.INK, "x"),
    "scikit-learn": ("Newton", style.PURPLE, "D"),
}


def race(found, by):
    """Draw the excess of the mean loss over its least value, for each method.

    Parameters
    ----------
    found : dict
        As ``experiments.race`` returns it.
    by : {"iterations", "seconds"}
        The horizontal axis. By seconds GDNP with Brent's search is drawn, too, and the end of
        scikit-learn's Newton solver.
    """
    fig, ax = style.axes(height=4.2)
    for method, (label, colour, mark) in METHODS.items():
        trace = found["traces"][method]
        excess = np.maximum(trace.value - found["least"], 1e-14)
        if by == "seconds":
            x = trace.seconds
        elif method in ("scikit-learn", "GDNP, Brent"):
            continue
        else:
            x = np.arange(len(excess))
        drawn = slice(-1, None) if method == "scikit-learn" else slice(1, None)
        some = np.unique(np.geomspace(1, len(x[drawn]), 8).astype(int) - 1)
        ax.loglog(x[drawn], excess[drawn], mark + "-", color=colour, label=label, markevery=some)
    ax.set_ylim(3e-15, 3)
    ax.set_ylabel("excess of the loss")
    ax.set_xlabel(by)
    style.legend_above(ax)
    return fig


def accelerated(record):
    """Draw GDNP's iterations over those of its yardsticks, each method at its own best step.

    Parameters
    ----------
    record : dict of str to dict
        By accuracy, as ``full_size.run`` returns it.
    """
    rows = [len(_cases(found)) for found in record.values()]
    fig, panels = style.axes(rows=len(record), height=7.4, sharex=True, height_ratios=rows)
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
