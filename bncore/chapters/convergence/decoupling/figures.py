"""The figures of the decoupling chapter."""

from functools import cache

import numpy as np

from bncore.chapters.convergence.decoupling import experiments
from bncore.convergence import LeastSquares, batch_norm_gradient_descent, gradient_descent
from bncore.convergence.reparametrization import couple, decouple
from bncore.convergence.trace import held
from bncore.page import style
from bncore.page.labels import value_text

RATE = 0.25
STEPS = 40
LEVELS = np.array([0.25, 0.75, 1.5, 2.5, 3.5, 4.5])
TURNING = 0.1
TOO_LONG = 3.0
RATES = [0.001, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 100, 1000]


def _written_out(*axes):
    """Write the numbers at these axes as people do."""
    for axis in axes:
        axis.set_major_formatter(lambda value, _: value_text(value))


@cache
def _grids():
    """The distance to the solution in the S-norm, over the weights and over angle and length."""
    problem = experiments.plane()
    S, solution = problem.S, problem.closed_form
    side = np.linspace(-5, 5, 201)
    a, b = np.meshgrid(side, side)
    away = np.stack([a, b], axis=-1) - solution
    plain = np.sqrt(np.einsum("...i,ij,...j", away, S, away))
    angles, lengths = np.linspace(-200, 200, 241), np.linspace(-3.6, 3.6, 145)
    units = np.array([experiments.at_angle(problem, angle) for angle in angles])
    cosine = units @ S @ solution / np.sqrt(np.einsum("ai,ij,aj->a", units, S, units))
    g = lengths[:, None]
    split = np.sqrt(np.maximum(g**2 - 2 * g * cosine + solution @ S @ solution, 0))
    return (side, plain), (angles, lengths, split)


def _angles(problem, w):
    """Angles of the rows of w from the solution's direction, in degrees, continuous along rows."""
    x, y = problem.solution_direction
    turned = np.arctan2(x * w[:, 1] - y * w[:, 0], w @ np.array([x, y]))
    return np.rad2deg(np.unwrap(turned))


def two_planes(angle, length):
    """Draw one problem over the weights, and over angle and length, with two descents on it.

    Parameters
    ----------
    angle : float
        Of the first w from the solution's direction, in degrees.
    length : float
        The first g.
    """
    problem = experiments.plane()
    w0 = experiments.at_angle(problem, angle)
    normed = batch_norm_gradient_descent(problem, w0, g0=length, steps=STEPS, learning_rate=RATE)
    plain = gradient_descent(problem, couple(w0, length, problem.S), steps=STEPS)
    (side, over_weights), (angles, lengths, over_polar) = _grids()

    fig, (above, below) = style.axes(rows=2, height=6.7, height_ratios=[1.5, 1])
    above.contour(side, side, over_weights, LEVELS, colors=style.MUTED, linewidths=0.7)
    below.contour(angles, lengths, over_polar, LEVELS, colors=style.MUTED, linewidths=0.7)
    path = np.array([decouple(weights, problem.S) for weights in plain.weights], dtype=object)
    for trace, polar, colour, marker, label in (
        (
            plain,
            (_angles(problem, np.stack(path[:, 0])), path[:, 1].astype(float)),
            style.COLOR["no batch norm"],
            "^",
            "on the weights",
        ),
        (
            normed,
            (_angles(problem, normed.w), normed.g),
            style.COLOR["batch norm"],
            "o",
            "on direction and length",
        ),
    ):
        look = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.5}
        above.plot(*trace.weights.T, **look, label=label)
        below.plot(*polar, **look)
    g = problem.norm(problem.closed_form)
    above.plot(*problem.closed_form, "x", color=style.INK, markersize=9, markeredgewidth=2)
    for place in ((0, g), (-180, -g), (180, -g)):
        below.plot(*place, "x", color=style.INK, markersize=9, markeredgewidth=2)
    above.plot(*plain.weights[0], "s", color=style.INK, markersize=8, fillstyle="none")
    below.plot(angle, length, "s", color=style.INK, markersize=8, fillstyle="none")
    above.set(xlim=(-5, 5), ylim=(-5, 5), aspect="equal", xlabel="weight 1", ylabel="weight 2")
    style.legend_above(above)
    below.set(xlim=(-200, 200), ylim=(-3.6, 3.6), xticks=range(-180, 181, 90))
    below.set(xlabel="angle of w from the solution, degrees", ylabel="length g")
    return fig


def rays(length, eps):
    """Draw w turning at a fixed length g, one half longer than the solution, on the levels of its loss.

    Parameters
    ----------
    length : float
        Euclidean, of the first w.
    eps : float
        Added to the mean square of the output before the root is taken.
    """
    problem = experiments.plane()
    start = length * experiments.at_angle(problem, 100)
    path = experiments.turn(problem, start, TOO_LONG, TURNING, eps)
    across, up = np.linspace(-2.5, 3.1, 281), np.linspace(-1.1, 2.9, 201)
    w = np.stack(np.meshgrid(across, up), axis=-1)
    squared = np.einsum("...i,ij,...j", w, problem.S, w)
    share = TOO_LONG / np.sqrt(np.maximum(squared + eps, 1e-12))
    values = share**2 * squared + 2 * share * (w @ problem.u)

    fig, ax = style.axes(height=4.1)
    ax.contour(
        across, up, values, np.arange(-3.5, 20, 1.5), colors=style.MUTED, linewidths=0.7,
        linestyles="-",
    )  # fmt: skip
    best = problem.solution_direction / np.linalg.norm(problem.solution_direction)
    ink = style.COLOR["predicted"]
    ax.plot(*np.outer(best, [0, 5]), "--", color=ink, linewidth=1.3, label="best direction")
    angle = np.linspace(0, 2 * np.pi, 181)
    ax.plot(length * np.cos(angle), length * np.sin(angle), ":", color=ink, label="first length")
    ax.plot(*path.T, "o-", color=style.COLOR["batch norm"], markersize=4, linewidth=1.5)
    ax.plot(*path[0], "s", color=style.INK, markersize=8, fillstyle="none")
    ax.set(xlim=across[[0, -1]], ylim=up[[0, -1]], aspect="equal")
    ax.set(xlabel="first entry of w", ylabel="second entry of w")
    style.legend_above(ax)
    return fig


@cache
def _ten():
    problems = experiments.random_problems(1, kappa=10.0, seed=3)
    return LeastSquares(problems.u[0], problems.S[0]), problems.start[0]


def growing(rate, steps=300):
    """Draw the effective rate while the direction converges, and the excess.

    Parameters
    ----------
    rate : float
        Learning rate of w when it starts at length 1; g has the rate 1/2.
    steps : int
        Number of steps.
    """
    problem, start = _ten()
    scale = np.sqrt(0.5 / rate)
    run = batch_norm_gradient_descent(problem, start * scale, steps=steps, learning_rate=0.5)
    length = held(np.linalg.norm(run.w, axis=1), steps) / scale
    best = problem.rayleigh_optimum
    excess = np.maximum(held(run.value, steps) - best, 1e-16)
    t = np.arange(steps + 1)

    fig, (above, below) = style.axes(rows=2, height=4.9, sharex=True)
    above.plot(t, rate / length**2, color=style.COLOR["batch norm"], label="effective rate")
    stable = 2 / experiments.stiffness(problem)
    above.axhline(stable, color=style.COLOR["predicted"], linestyle="--", label="predicted limit")
    above.set(yscale="log", ylim=(1e-4, 2e3), ylabel="rate / length²")
    _written_out(above.yaxis)
    style.legend_above(above)
    below.plot(t, excess / excess[0], color=style.COLOR["batch norm"], label="direction, length")
    weights = couple(start, 1.0, problem.S) - problem.closed_form
    values, vectors = np.linalg.eigh(problem.S)
    along = vectors.T @ weights
    with np.errstate(over="ignore"):
        plain = ((1 - 2 * rate * values) ** (2 * t[:, None]) * values * along**2).sum(axis=1)
    shown = plain < 1e8
    below.plot(
        t[shown],
        np.maximum(plain / plain[0], 1e-16)[shown],
        color=style.COLOR["no batch norm"],
        label="weights",
    )
    below.set(yscale="log", ylim=(1e-13, 1e3), ylabel="excess, relative", xlabel="step")
    below.set_xscale("symlog", linthresh=1)
    below.set(xlim=(-0.05, steps), xticks=[0, 1, 10, 100], xticklabels=["0", "1", "10", "100"])
    style.legend_above(below)
    return fig


def off_centre(mean):
    """Draw batch norm of a unit's outputs over the coupled weights' outputs, for data off centre.

    Parameters
    ----------
    mean : float
        Mean of the outputs x'w, in standard deviations.
    """
    X, w = experiments.off_centre(mean)
    coupled = X @ couple(w, 1.0, X.T @ X / len(X))
    y = experiments.batch_norm(X, w, 1.0)
    fig, ax = style.axes(height=4.4)
    ends = np.array([-4.5, 4.5])
    ax.plot(ends, ends, color=style.MUTED, linewidth=1, label="equal")
    stretch = np.sqrt(1 + mean**2)
    ax.plot(ends, stretch * ends - mean, "--", color=style.COLOR["predicted"], label="predicted")
    ax.plot(
        coupled, y, "o", color=style.COLOR["measured"], markersize=4, alpha=0.6, label="measured"
    )
    ax.set(xlim=(-3, 3), ylim=(-3.5, 3.5))
    ax.set(xlabel=r"coupled weights, $x^\top\tilde w$", ylabel=r"batch norm of $x^\top w$")
    style.legend_above(ax, columns=3)
    return fig


def rates(problems, learning_rates, limit=10_000):
    """Draw steps to a millionth of the excess, and the final length of w, over learning rates.

    Returns
    -------
    fig : matplotlib.figure.Figure
    steps : dict of str to ndarray of shape (rates, problems)
        By method, as in ``experiments.steps_to_target``.
    """
    steps = {
        method: experiments.steps_to_target(problems, learning_rates, method, limit)
        for method in ("plain", "one rate", "two rates")
    }
    small, large = experiments.branches(problems)
    fig, (above, below) = style.axes(rows=2, height=5.5, sharex=True, height_ratios=[1.6, 1])
    looks = {
        "plain": ("weights", style.COLOR["no batch norm"], "^"),
        "one rate": ("w and g, one rate", style.COLOR["highlight"], "s"),
        "two rates": ("w; g at 1/2", style.COLOR["batch norm"], "o"),
    }
    for method, (label, colour, marker) in looks.items():
        met = np.isfinite(steps[method]).all(axis=1)
        at, values = learning_rates[met], steps[method][met]
        above.fill_between(at, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.18)
        above.plot(
            at,
            np.median(values, axis=1),
            marker,
            linestyle="-",
            color=colour,
            markersize=4,
            linewidth=1.5,
            label=label,
        )
    for law, name in (
        (np.median(small) / learning_rates, "predicted"),
        (np.median(large) * learning_rates, None),
    ):
        above.plot(
            learning_rates, law, "--", color=style.COLOR["predicted"], linewidth=1.3, label=name
        )
    above.set(xscale="log", yscale="log", ylim=(80, limit), ylabel="steps")
    style.legend_above(above)

    runs = [experiments.descend_direction(problems, rate, 1000) for rate in learning_rates]
    lengths = np.sqrt([run.squared_length[-1] for run in runs])
    bounds = np.sqrt([run.length_bound.max() for run in runs])
    below.fill_between(
        learning_rates,
        lengths.min(axis=1),
        lengths.max(axis=1),
        color=style.COLOR["measured"],
        alpha=0.25,
    )
    below.plot(
        learning_rates, np.median(lengths, axis=1), color=style.COLOR["measured"], label="measured"
    )
    below.plot(learning_rates, bounds, "--", color=style.COLOR["predicted"], label="bound")
    below.set(yscale="log", ylabel="final length of w", xlabel="learning rate of w at length 1")
    below.legend(loc="upper left")
    _written_out(above.yaxis, below.xaxis, below.yaxis)
    return fig, steps


def forgetting(runs):
    """Draw the effective rate and the gap of stochastic gradient descent over the steps.

    Parameters
    ----------
    runs : dict of float to BatchRun
        By learning rate.
    """
    fig, (above, below) = style.axes(rows=2, height=5.0, sharex=True)
    colours = (style.BLUE, style.GREEN, style.PURPLE, style.OCHRE)
    for (rate, run), colour, marker in zip(runs.items(), colours, "os^D", strict=True):
        t = np.unique(np.geomspace(1, len(run.length) - 1, 60).round().astype(int))
        for ax, values in ((above, rate / run.length**2), (below, run.gap)):
            chosen = values[t]
            ax.fill_between(t, chosen.min(axis=1), chosen.max(axis=1), color=colour, alpha=0.15)
            ax.plot(
                t,
                np.median(chosen, axis=1),
                marker,
                linestyle="-",
                color=colour,
                markersize=3,
                linewidth=1.5,
                markevery=6,
                label=f"rate {rate:g}",
            )
    law = np.median(run.limit, axis=1)[t]
    above.plot(t, law, "--", color=style.COLOR["predicted"], label="predicted")
    above.set(xscale="log", yscale="log", ylabel="rate / length²", ylim=(1e-4, 1))
    below.set(yscale="log", ylabel="gap of the direction", xlabel="step", ylim=(1e-4, 2))
    _written_out(above.yaxis, below.xaxis, below.yaxis)
    style.legend_above(above, columns=3)
    return fig
