"""The figures of the least-squares chapter: paths, the proof's triangle, bounds, races and what breaks."""

import numpy as np
from matplotlib.patches import Circle

from bncore.chapters.convergence.least_squares import experiments
from bncore.convergence import LeastSquares, bounds, gdnp, gradient_descent
from bncore.convergence.trace import held
from bncore.page import labels, style

# Gradient descent is the wider line, and may lie under another.
METHODS = {
    "gradient descent": {"color": style.COLOR["no batch norm"], "linewidth": 3.5},
    "normalised, best length": {"color": style.COLOR["batch norm"]},
    "normalised, one rate": {"color": style.OCHRE, "linewidth": 1.5},
    "normalised, length's rate capped": {"color": style.COLOR["batch norm"]},
    "accelerated": {"color": style.GREEN},
    "conjugate gradients": {"color": style.PURPLE},
}


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
    fig, (above, below) = style.axes(rows=2, height=5.3, height_ratios=[1.2, 1])
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
    fig, ax = style.axes(height=4.5)
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
        (r"$v_+$", (moved[0] + 0.8 * scale, moved[1] - 2.4 * scale)),
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
        measured, _ = bounds.least_squares(problem, trace)
        relative.append(held(measured / measured[0], steps))
    relative = np.maximum(relative, 1e-13)
    fig, ax = style.axes(height=3.5)
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
    ax.semilogy(at, bounds.rate(problem) ** at, "--", color=style.COLOR["predicted"], label="bound")
    ax.set(xlabel="steps t", ylabel="gap, relative to the start", ylim=(1e-9, 2), xlim=(0, steps))
    style.legend_above(ax)
    return fig


def late(tilts, measured, condition=20):
    """Draw the late factors of ``experiments.late_factors`` beside the predicted curve and the bound."""
    fine = np.linspace(0, 90, 91)
    dimension = 6
    predicted = [
        experiments.final_factor(experiments.random_problem(condition, 0, dimension, tilt)[0])
        for tilt in fine
    ]
    fig, ax = style.axes(height=3.4)
    ax.plot(fine, predicted, "--", color=style.COLOR["predicted"], label="predicted")
    bound = (1 - 1 / condition) ** 2
    ax.axhline(bound, color=style.COLOR["predicted"], linestyle=":", label="bound of both")
    for column, marker, name in ((1, "s", "gradient descent"), (0, "o", "normalised, best length")):
        values = measured[..., column]
        middle = np.median(values, axis=1)
        spread = np.abs([values.min(axis=1) - middle, values.max(axis=1) - middle])
        colour = METHODS[name]["color"]
        ax.errorbar(tilts, middle, spread, fmt=marker, color=colour, capsize=3, label=name)
    ax.set(ylabel="late factor of a step", xticks=np.arange(0, 91, 15), ylim=(0.79, 0.92))
    ax.set_xlabel("degrees between solution and flattest axis")
    style.legend_above(ax)
    return fig


def race(runs, by="step"):
    """Draw the excess of ``experiments.compared`` by step, or by the median time of a step."""
    fig, ax = style.axes(height=3.5)
    for name, (excess, seconds) in runs.items():
        at = np.arange(len(excess)) * (1 if by == "step" else 1e3 * seconds)
        ax.semilogy(at, excess, **METHODS[name], label=name)
    ax.set(ylim=(1e-9, 3), ylabel="loss above its minimum")
    ax.set(xlabel="steps" if by == "step" else "milliseconds")
    style.legend_above(ax)
    return fig


def every_rate(rates, reached):
    """Draw what ``experiments.every_rate`` found: medians over the seeds in bands of their range."""
    fig, ax = style.axes(height=3.5)
    for name, values in reached.items():
        values = np.clip(values, 1e-12, 1e4)
        look = METHODS[name]
        colour = look["color"]
        ax.fill_between(rates, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2)
        ax.loglog(rates, np.median(values, axis=0), **look, label=name)
    ax.axhline(1, color=style.MUTED, linestyle=":")
    ax.text(1.3e-4, 1.5, "zero weights", color=style.MUTED, va="bottom", fontsize=11)
    ax.set(xlabel="learning rate, where L = 1", ylabel="loss above its minimum")
    ax.set(ylim=(1e-12, 1e4), xticks=10.0 ** np.arange(-4, 5, 2))
    ax.xaxis.set_major_formatter(lambda value, _: labels.value_text(value))
    style.legend_above(ax, columns=1)
    return fig


def on_data(problem, starts, steps=3000):
    """Draw the least excess so far, over the first, of the methods of ``experiments.compared``."""
    runs = [experiments.compared(problem, w0, steps) for w0 in starts]
    fig, ax = style.axes(height=3.5)
    for name in runs[0]:
        relative = np.array([run[name][0] / run[name][0][0] for run in runs])
        values = np.maximum(np.minimum.accumulate(relative, axis=1), 1e-16)
        at, look = np.arange(values.shape[1]), METHODS[name]
        colour = look["color"]
        ax.fill_between(at, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15)
        ax.semilogy(np.median(values, axis=0), **look, label=name)
    ax.semilogy(bounds.rate(problem) ** at, "--", color=style.COLOR["predicted"], label="bound")
    ax.set(ylim=(1e-10, 2), xlabel="steps", ylabel="excess loss over the first")
    style.legend_above(ax)
    return fig


def broken(problem, w0, X, y):
    """Draw the gap that steps of too large a size leave, and the excess of steps on small batches.

    Parameters
    ----------
    problem, w0
        The problem of the steps, with L = 1, and their start.
    X, y : ndarray
        The data that batches are drawn from.
    """
    sizes = np.linspace(0.1, 3, 59)
    paths = [experiments.normalised_path(problem, w0, 300, size)[-50:] for size in sizes]
    ends = [experiments.excess(problem, path).max() for path in paths]
    fig, (above, below) = style.axes(rows=2, height=4.9)
    above.semilogy(
        sizes, np.maximum(ends, 1e-15), "o-", color=style.COLOR["measured"], markersize=4
    )
    above.axvline(2, linestyle="--", color=style.COLOR["predicted"], label="proved below 2")
    above.set(xlabel="step size, times L", ylabel="gap in the end", ylim=(3e-16, 5))
    style.legend_above(above)
    batches = {"batches of 32": 32, "of 128": 128, f"all {len(X)}": len(X)}
    hues = (style.GREEN, style.OCHRE, style.BLUE)
    for (name, size), colour in zip(batches.items(), hues, strict=True):
        excess = experiments.small_batches(X, y, size, 0, 1000)
        below.semilogy(np.arange(1, len(excess) + 1), excess, color=colour, lw=1.2, label=name)
    below.set(xlabel="steps", ylabel="loss above its minimum")
    style.legend_above(below, columns=3)
    return fig
