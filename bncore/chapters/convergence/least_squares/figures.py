"""The longer figures of the least-squares chapter: paths, the triangle of the proof, the bound."""

import numpy as np
from matplotlib.patches import Circle

from bncore.chapters.convergence.least_squares import experiments
from bncore.convergence import LeastSquares, bounds, gdnp, gradient_descent
from bncore.page import style


def plane(condition, tilt):
    """Return a problem of two weights, with S diagonal, and a start 60 degrees off the solution."""
    S = np.diag([1 / condition, 1.0])
    angle = np.radians(tilt)
    p = np.array([np.cos(angle), np.sin(angle)])
    start = angle + np.radians(60)
    w = np.array([np.cos(start), np.sin(start)]) / np.sqrt(np.diag(S))
    return LeastSquares(-np.sqrt(np.diag(S)) * p, S), w


def descent(condition, tilt, steps=12):
    """Draw two descents among the contours of a loss of two weights, and their excess by step.

    Parameters
    ----------
    condition : float
        Condition number of S.
    tilt : float
        Angle in degrees between the solution, in the inner product of S, and the flattest axis.
    steps : int
        Number of steps of each.
    """
    problem, w = plane(condition, tilt)
    solution = problem.closed_form
    paths = {
        "normalised": experiments.normalised_path(problem, w, steps),
        "gradient descent": gradient_descent(
            problem, experiments.best_length(problem, w), steps=steps
        ).weights,
    }
    fig, (above, below) = style.axes(rows=2, height=6.2, height_ratios=[1.2, 1])
    wide = np.sqrt(condition)
    x, y = np.meshgrid(np.linspace(-2 * wide, 3 * wide, 301), np.linspace(-3.5, 4, 241))
    values = experiments.excess(problem, np.column_stack([x.ravel(), y.ravel()]))
    above.contour(
        x,
        y,
        values.reshape(x.shape),
        levels=[0.03, 0.1, 0.25, 0.5, 1, 2],
        colors=style.MUTED,
        linewidths=0.8,
    )
    turn = np.linspace(0, 2 * np.pi, 200)
    circle = np.array([np.cos(turn), np.sin(turn)]) / np.sqrt(np.diag(problem.S))[:, None] / 2
    above.plot(
        *(circle + solution[:, None] / 2), ":", color=style.COLOR["highlight"], label="best lengths"
    )
    looks = {
        "normalised": ("o", style.COLOR["batch norm"]),
        "gradient descent": ("s", style.COLOR["no batch norm"]),
    }
    for name, path in paths.items():
        marker, colour = looks[name]
        above.plot(
            *path.T, marker, linestyle="-", linewidth=1.2, markersize=5, color=colour, label=name
        )
        gap = np.maximum(experiments.excess(problem, path), 2e-12)
        below.semilogy(gap, marker, linestyle="-", linewidth=1.2, markersize=5, color=colour)
    above.plot(*solution, "*", color=style.INK, markersize=13, label="solution")
    reach = max(1.75 * wide, 3.2)
    above.set(xlim=(-0.35 * reach, 0.65 * reach), ylim=(0.22 - 0.28 * reach, 0.22 + 0.28 * reach))
    above.set_aspect("equal")
    above.set(xlabel="weight on the flat axis", ylabel="on the steep axis")
    style.legend_above(above)
    shrink = 1 - 1 / condition
    below.semilogy(
        shrink ** (2 * np.arange(steps + 1)) * 0.75,
        "--",
        color=style.INK,
        label=r"bound, $(1-\mu/L)^{2t}$",
    )
    below.set(xlabel="steps t", ylabel="loss above its minimum", ylim=(1e-12, 3))
    style.legend_above(below)
    return fig


def triangle(angle, ratio):
    """Draw one step in the proof's picture: v, the point q of the line, and where v goes.

    Parameters
    ----------
    angle : float
        The angle in degrees between v and the line.
    ratio : float
        The smallest eigenvalue over the largest.
    """
    v = np.array([1.0, 0.0])
    t = np.tan(np.radians(angle))
    q, r = np.array([1.0, t]), np.array([0.0, t])
    axis = np.radians(115)  # the flattest axis of S, measured from v
    flat = np.array([np.cos(axis), np.sin(axis)])
    S = np.eye(2) - (1 - ratio) * np.outer(flat, flat)
    moved = v + S @ r
    foot = (moved @ q) / (moved @ moved) * moved
    fig, ax = style.axes(height=5.0)
    ax.plot(*np.outer([-9, 9], q).T, color=style.MUTED, linewidth=1.5)
    ax.plot(*np.outer([0, 9], moved).T, color=style.COLOR["batch norm"], linewidth=1, alpha=0.7)
    ax.add_patch(
        Circle(
            q,
            (1 - ratio) * t,
            fill=False,
            linestyle="--",
            edgecolor=style.INK,
            linewidth=1.5,
            label=r"radius $(1-\mu/L)\,\|r\|$",
        )
    )
    arrow = {"arrowstyle": "-|>", "mutation_scale": 16, "shrinkA": 0, "shrinkB": 0, "linewidth": 2}
    for end, start, colour in (
        (v, (0, 0), style.MUTED),
        (q, v, style.COLOR["no batch norm"]),
        (moved, v, style.COLOR["batch norm"]),
    ):
        ax.annotate("", xy=end, xytext=start, arrowprops={**arrow, "color": colour})
    ax.plot(
        *np.array([q, foot]).T,
        ":",
        color=style.COLOR["highlight"],
        linewidth=3,
        label="new distance from q",
    )
    ax.plot(*q, "o", color=style.INK)
    scale = 0.05 * max(t, 1)
    for text, at in (
        (r"$v$", (0.5, -2.2 * scale)),
        (r"$q$", (1 - 1.4 * scale, t + 0.8 * scale)),
        (r"$r$", (1 - 1.2 * scale, 0.6 * t)),
        (r"$v_+$", (moved[0] + 0.4 * scale, moved[1] - 1.6 * scale)),
    ):
        ax.annotate(text, at, fontsize=16)
    before, after = t / np.hypot(1, t), np.linalg.norm(q - foot) / np.linalg.norm(q)
    numbers = f"sine {before:.2f}, then {after:.2f}; bound {(1 - ratio) * before:.2f}"
    high = max(1.15, 1.35 * t)
    ax.set(xlim=(-0.1, 1.1 * high), ylim=(-0.15 * high, high))
    ax.set_aspect("equal")
    ax.set(xlabel=f"along v\n{numbers}", ylabel="across v")
    style.legend_above(ax)
    return fig


def bound_and_run(condition, seeds=8):
    """Draw the Rayleigh gap of random problems beside the bound, and the predicted late slope.

    Parameters
    ----------
    condition : float
        Condition number of S.
    seeds : int
        Number of random problems of ten weights.
    """
    steps = int(np.ceil(6 * condition))
    relative = []
    for seed in range(seeds):
        problem, w = experiments.random_problem(condition, seed)
        trace = gdnp(problem, w, steps=steps, bisection_steps=1)
        measured, bound = bounds.least_squares(problem, trace)
        relative.append(measured / measured[0])
        limit = bound / bound[0]
    relative = np.maximum(relative, 1e-13)
    fig, ax = style.axes(height=3.8)
    at = np.arange(steps + 1)
    ax.fill_between(
        at, relative.min(axis=0), relative.max(axis=0), color=style.COLOR["measured"], alpha=0.25
    )
    ax.semilogy(
        at,
        np.median(relative, axis=0),
        color=style.COLOR["measured"],
        label=f"measured, {seeds} problems",
    )
    ax.semilogy(at, limit, "--", color=style.COLOR["predicted"], label="bound")
    ax.set(xlabel="steps t", ylabel="gap, relative to the start", ylim=(1e-9, 2), xlim=(0, steps))
    style.legend_above(ax)
    return fig
