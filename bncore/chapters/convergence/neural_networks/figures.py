"""The figures of the neural networks chapter."""

from functools import cache

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from scipy.optimize import minimize_scalar

from bncore.chapters.convergence.neural_networks import deep, experiments
from bncore.page import style
from bncore.page.labels import value_text

HELD = 1.5
TURNED = np.arange(0, 181, 5)
ANGLES = TURNED[::3]
SPLAYS = np.linspace(0, 12, 25)
FLOOR = 1e-12
"""What counts as 0 on a logarithmic axis, where rounding decides."""
SIZES = [
    f"{value_text(rate)} or {value_text(100 * move)} %"
    for rate, move in zip(deep.LEARNING_RATES, deep.MOVES, strict=True)
]


@cache
def best_answers(theta=3.0):
    """Best weights of the first of two units, for each of ``TURNED`` at which the second is held."""
    plane = experiments.Plane(experiments.U, experiments.S, [theta, theta])
    held = np.array([experiments.turned(angle, HELD) for angle in TURNED])
    start, answers = experiments.line(), []
    for other in held:
        start = plane.best_first(start, other)
        answers.append(start)
    return plane, held, np.array(answers)


def held_elsewhere(angle):
    """Draw f over the first unit's weights while the second is held at `angle` degrees to the line.

    Parameters
    ----------
    angle : int
        One of ``ANGLES``.
    """
    plane, held, answers = best_answers()
    chosen = list(TURNED).index(angle)
    fig, (above, below) = style.axes(rows=2, height=6.6, gridspec_kw={"height_ratios": [2.2, 1]})
    x, y = np.linspace(-4.2, 2.6, 82), np.linspace(-2.2, 6.2, 102)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    heights = plane.values(grid, held[chosen], every=2).reshape(len(y), len(x))
    least = plane.value(np.vstack([answers[chosen], held[chosen]]))
    levels = least + (heights.max() - least) * np.linspace(0.1, 0.95, 11) ** 2
    above.contour(x, y, heights, levels=levels, colors=style.MUTED, linewidths=0.8)
    along = np.outer([-6, 6], experiments.line())
    above.plot(*along.T, color=style.INK, linestyle="--", label=r"the line $S^{-1}u$")
    above.plot(*answers.T, color=style.COLOR["measured"], linewidth=1, alpha=0.6)
    above.annotate(
        "",
        held[chosen],
        (0, 0),
        arrowprops={"arrowstyle": "-|>", "color": style.COLOR["highlight"], "linewidth": 2.5},
    )
    above.plot([], [], color=style.COLOR["highlight"], label="$w_2$, held")
    above.plot(
        *answers[chosen], "o", markersize=10, color=style.COLOR["measured"], label="best $w_1$"
    )
    above.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    above.set_xlabel("first weight of unit 1")
    above.set_ylabel("second weight of unit 1")
    style.legend_above(above, columns=3)
    off = experiments.off_line(answers)
    below.plot(TURNED, off, color=style.COLOR["measured"])
    below.plot(angle, off[chosen], "o", markersize=10, color=style.COLOR["measured"])
    below.axhline(0, color=style.INK, linestyle="--")
    below.set(ylim=(-3, 40), xticks=ANGLES[::2])
    below.set_xlabel("angle of $w_2$ to the line, degrees")
    below.set_ylabel("angle of best $w_1$")
    return fig


@cache
def splaying(theta, strength):
    """Best value of two equal units at each of ``SPLAYS`` degrees, over the line's; and B's eigenvalue."""
    plane, on, off = experiments.splayed(theta, strength)
    base, values, eigenvalues = plane.value(on), [], []
    for splay in np.radians(SPLAYS):
        pair = np.array([[-np.cos(splay), np.sin(splay)], [-np.cos(splay), -np.sin(splay)]])
        found = minimize_scalar(
            lambda g, pair=pair: plane.value(g * pair),
            bracket=(0.9 * abs(on[0, 0]), 1.1 * abs(on[0, 0])),
            options={"xtol": 1e-6},
        )
        values.append(found.fun - base)
        B = plane.second_order(found.x * pair)[1]
        eigenvalues.append(B[0, 0] - B[0, 1])
    return np.array(values), np.array(eigenvalues), experiments.off_line(off, plane.u, plane.S)[0]


def splay(theta, strength):
    """Draw what two equal units gain when they leave the line, to either side of it.

    Parameters
    ----------
    theta : float
        Output weight of either unit.
    strength : float
        |rho*|.
    """
    values, eigenvalues, best = splaying(theta, strength)
    gain = -values.min()
    fig, (above, below) = style.axes(rows=2, height=5.6, sharex=True)
    above.axhline(0, color=style.INK, linestyle="--", label="the pair on the line")
    above.plot(SPLAYS, values / gain, color=style.COLOR["measured"], label="the pair, turned apart")
    style.legend_above(above)
    above.set(ylim=(-1.3, 2.6), ylabel="$f$ above the line's")
    above.text(0.3, 2.1, f"1 is {value_text(float(f'{gain:.1g}'))}", color=style.MUTED)
    below.axhline(0, color=style.INK, linestyle="--")
    below.plot(SPLAYS, eigenvalues / abs(eigenvalues[0]), color=style.COLOR["measured"])
    below.set(ylim=(-1.6, 2.6), ylabel="$B_{11}-B_{12}$")
    unit = value_text(float(f"{abs(eigenvalues[0]):.1g}"))
    below.text(0.3, 2.1, f"1 is {unit}", color=style.MUTED)
    below.set_xlabel("angle of either unit to the line, degrees")
    for ax in (above, below):
        ax.axvline(best, color=style.COLOR["highlight"], linestyle=":")
    return fig


def searched(thetas=((3, 2), (5, 2)), strength=0.25):
    """Draw the critical points of a layer that searches from random starts find, and B there.

    Parameters
    ----------
    thetas : sequence of (float, float)
        Output weights; a mark for each.
    strength : float
        |rho*|.
    """
    fig, ax = style.axes(height=3.6)
    for theta, mark in zip(thetas, "os", strict=True):
        angles, conditions = experiments.critical_points(theta, strength)
        ax.semilogy(
            angles,
            np.maximum(conditions, FLOOR),
            mark,
            markersize=12 if mark == "o" else 8,
            fillstyle="none",
            markeredgewidth=2,
            color=style.COLOR["measured"],
            label=f"θ = {theta[0]} and {theta[1]}",
        )
    ax.set(xlim=(-0.5, 8), ylim=(FLOOR / 5, 1), yticks=[FLOOR, 1e-8, 1e-4, 1])
    ax.set_yticklabels(["0", "$10^{-8}$", "$10^{-4}$", "1"])
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("largest angle of a unit to the line, degrees")
    ax.set_ylabel("least over largest\nsingular value of $B$")
    style.legend_above(ax)
    return fig


def turns(condition, judged, after, factor):
    """Draw the squared gradient of each unit while it has its turn, and of all units after each turn.

    Parameters
    ----------
    condition : float
        L / mu.
    judged, after
        From ``experiments.unit_by_unit``.
    factor : float
        Predicted, of the squared gradient from pass to pass; see ``experiments.on_the_line``.
    """
    units = after.shape[1]
    colours = [style.COLOR["measured"], style.COLOR["mean"]]
    fig, (above, below) = style.axes(rows=2, height=6.2)
    for i, (turn, colour) in enumerate(zip(judged[:units], colours, strict=True)):
        steps = np.arange(len(turn.measured))
        above.semilogy(steps, np.maximum(turn.measured, 1e-20), color=colour, label=f"unit {i + 1}")
        above.semilogy(
            steps,
            np.maximum(turn.bound, 1e-20),
            color=colour,
            linestyle="--",
            label=f"bound {i + 1}",
        )
    above.set(ylim=(1e-20, 1e2))
    above.set_xlabel(f"direction steps in its turn, L/μ = {condition:g}")
    above.set_ylabel("squared gradient")
    style.legend_above(above)
    rounds = np.arange(len(after))
    for i, colour in enumerate(colours):
        below.semilogy(
            rounds, np.maximum(after[:, i], 1e-20), "o-", color=colour, label=f"unit {i + 1}"
        )
    ends = rounds[units::units]
    law = after[-1].sum() * factor ** ((ends - ends[-1]) / units)
    label = f"a pass leaves {factor:.2f}, predicted"
    below.semilogy(ends, law, "--", color=style.COLOR["predicted"], label=label)
    left = after[-1].sum() / after[-1 - units].sum()
    below.set_title(f"the last pass left {left:.2f}", fontsize=12)
    below.set(ylim=(3e-7, 3), xticks=rounds[::units])
    below.set_xlabel("turns taken, unit 1 first")
    below.set_ylabel("squared gradient")
    handles, labels = below.get_legend_handles_labels()
    below.legend(handles[-1:], labels[-1:], loc="upper right")
    for ax in (above, below):
        ax.yaxis.set_major_locator(LogLocator(numticks=5))
    return fig


def _band(ax, steps, values, normalization):
    name = "no batch norm" if normalization is None else "batch norm"
    colour = style.COLOR[name]
    ax.fill_between(steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, lw=0)
    ax.plot(
        steps,
        values.mean(axis=0),
        color=colour,
        label=name,
        linestyle="-" if normalization else (0, (4, 1.5)),
    )


def moved_below(measured, kind, size):
    """Draw how the gradient of the middle layer changes when the layers below it take a step.

    Parameters
    ----------
    measured : dict of {None, "batch"} to Dependence
    kind : {"same learning rate", "same relative move"}
        What is equal in both networks.
    size : int
        Index into ``deep.LEARNING_RATES`` or ``deep.MOVES``, and into ``SIZES``, which names both.
    """
    fig, (above, below) = style.axes(rows=2, height=5.6, sharex=True)
    for normalization, kept in measured.items():
        _band(above, kept.steps, kept.change[kind][:, :, size], normalization)
        _band(below, kept.steps, kept.cosine[kind][:, :, size], normalization)
    above.set(yscale="log", ylim=(3e-3, 100), ylabel="relative change")
    style.legend_above(above)
    below.set(ylim=(-1.05, 1.08), ylabel="cosine")
    below.set_xlabel("training steps")
    return fig


def second_derivatives(measured, kind, layer):
    """Draw the size of the mixed second derivatives of the middle and another layer.

    Parameters
    ----------
    measured : dict of {None, "batch"} to Dependence
    kind : {"as it is", "free of scale"}
        The Frobenius norm, or the same times the other layer's weights over the gradient.
    layer : int
        One of ``deep.OTHERS``.
    """
    fig, ax = style.axes(height=3.6)
    for normalization, kept in measured.items():
        values = kept.blocks if kind == "as it is" else kept.relative_blocks
        _band(ax, kept.steps, values[:, :, deep.OTHERS.index(layer)], normalization)
    ax.set(yscale="log", ylim=(0.15, 60) if kind == "as it is" else (10, 1000))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylabel("size" if kind == "as it is" else "size, free of scale")
    ax.set_xlabel("training steps")
    style.legend_above(ax)
    return fig


def ratios(found):
    """Draw what is measured with batch norm over that without, at the start and later, in fresh seeds.

    Parameters
    ----------
    found : xarray.Dataset
        Of the recorded run; see ``deep.recorded_ratio``.
    """
    fig, ax = style.axes(height=4.4)
    places = np.arange(len(deep.ROWS))[::-1]
    for when, words, colour, shift in (
        ("start", "at the start", style.MUTED, 0.15),
        ("later", f"from step {deep.EVERY} on", style.COLOR["measured"], -0.15),
    ):
        low, mean, high = np.exp(
            [
                (one.low, one.mean, one.high)
                for one in (deep.recorded_ratio(found, name, when, at) for _, name, at in deep.ROWS)
            ]
        ).T
        ax.errorbar(
            mean,
            places + shift,
            xerr=(mean - low, high - mean),
            fmt="o" if when == "later" else "s",
            color=colour,
            label=words,
        )
    ax.axvline(1, color=style.INK, linestyle=":")
    ax.set(xscale="log", xlim=(0.3, 8), ylim=(-0.5, places[0] + 0.5))
    ax.xaxis.set_major_locator(FixedLocator([0.5, 1, 2, 4]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_yticks(places, [words for words, _, _ in deep.ROWS])
    ax.set_xlabel("with batch norm over without")
    style.legend_above(ax)
    return fig
