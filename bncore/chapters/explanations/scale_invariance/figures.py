"""The figures of the scale invariance chapter."""

from functools import cache

import numpy as np
from matplotlib.ticker import NullFormatter

from bncore.chapters.explanations.scale_invariance import experiments
from bncore.explanations import effective_rate, scale_invariance, weight_length
from bncore.page import style
from bncore.page.labels import value_text

ANGLE = np.deg2rad(150)
LENGTHS = [0.25, 0.5, 1.0, 2.0]
EPSILONS = [0.0, 0.1, 1.0]
RATES = [0.01, 0.1, 1.0, 10.0]
DECAYS = [0.0, 0.001, 0.01, 0.03]
ALONE = [0.0, 0.003, 0.01, 0.03, 0.1]
ALONE_RATE = 0.1
HIGHEST = 200.0
STEP = 0.6
GOAL = 0.1
FELT = {0.1: style.GREEN, 1: style.BLUE, 10: style.PURPLE, 100: style.OCHRE}
"""The learning rates whose effective rates are drawn: two that stay apart, two that come close."""
ARMS = {
    "batch norm": "batch norm",
    "no batch norm": "no batch norm",
    "weight norm": "weight norm",
    "deviation only": "deviation only",
    "no batch norm, normalised start": "normalised start",
    "weight norm, normalised start": "start, weight norm",
}
"""The arms whose steps are compared, and what each is called beside its line."""


def one_unit(length, eps):
    """Draw the loss over the two weights of one unit, and the gradient's length along one ray.

    Parameters
    ----------
    length : float
        Of the weights that are marked.
    eps : float
        Added to the variance.
    """
    unit = experiments.plane()
    fig, (above, below) = style.axes(rows=2, height=6.8, gridspec_kw={"height_ratios": [1.9, 1]})
    # No grid line through the origin, where eps = 0 divides by 0.
    side = np.linspace(-2.6, 2.6, 212)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    values = unit.value_and_gradient(grid, eps)[0].reshape(len(side), -1)
    above.contour(side, side, values, levels=12, colors=style.MUTED, linewidths=0.9)
    direction = np.array([np.cos(ANGLE), np.sin(ANGLE)])
    around = np.linspace(0, 2 * np.pi, 200)
    circle = length * np.array([np.cos(around), np.sin(around)])
    above.plot(*circle, color=style.INK, linestyle=":", linewidth=1.2, label="equal length")
    above.plot(*np.outer([0, 4], direction).T, color=style.COLOR["highlight"], linewidth=1.2)
    arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0}
    for other in LENGTHS:
        w, step = other * direction, _step(unit, other * direction, eps)
        look = {"color": style.MUTED, "linewidth": 1.4, "mutation_scale": 11}
        if other == length:
            look = {"color": style.COLOR["measured"], "linewidth": 3, "mutation_scale": 20}
        above.annotate("", w + step, w, arrowprops={**arrow, **look})
    w, step = length * direction, _step(unit, length * direction, eps)
    above.plot([], [], color=style.COLOR["measured"], linewidth=3, label="step")
    above.plot(*w, "o", markersize=9, color=style.COLOR["highlight"], label="$w$")
    cosine = w @ (w + step) / np.linalg.norm(w) / np.linalg.norm(w + step)
    turned = f"turned by {np.degrees(np.arccos(cosine)):.0f}°"
    above.text(0.97, 0.04, turned, ha="right", fontsize=13, transform=above.transAxes)
    above.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal")
    above.set_xlabel("first weight")
    above.set_ylabel("second weight")
    style.legend_above(above, columns=3)
    ray = np.logspace(-1.5, 1, 80)
    along = unit.value_and_gradient(ray[:, np.newaxis] * direction, eps)[1]
    at_one = np.linalg.norm(unit.value_and_gradient(direction[np.newaxis])[1])
    predicted = {"color": style.COLOR["predicted"], "linestyle": "--"}
    below.loglog(ray, at_one / ray, label="one over the length", **predicted)
    slopes = np.linalg.norm(along, axis=1)
    below.loglog(ray, slopes, color=style.COLOR["measured"], label="gradient, on the ray")
    slope = np.linalg.norm(step) / STEP
    below.plot(length, slope, "o", markersize=9, color=style.COLOR["highlight"])
    if eps:
        variance = (unit.inputs @ direction).var()
        breaks = scale_invariance.breaking_scale(variance, eps)
        below.axvline(breaks, color=style.INK, linestyle=":")
        below.text(breaks * 1.08, 0.09, r"$\sqrt{\varepsilon}/\sigma$")
    below.set(ylim=(0.06, 80))
    _plain(below.xaxis, below.yaxis)
    below.set_xlabel("length of $w$")
    below.set_ylabel("length of gradient")
    style.legend_above(below)
    return fig


def _plain(*axes):
    """Write the powers of ten of logarithmic axes as people do, and nothing between them."""
    for axis in axes:
        axis.set_major_formatter(lambda value, _: value_text(value))
        axis.set_minor_formatter(NullFormatter())


def _step(unit, w, eps):
    """A step of gradient descent from w at the rate ``STEP``."""
    return -STEP * unit.value_and_gradient(w[np.newaxis], eps)[1][0]


@cache
def balanced():
    """Runs of one unit for every pair of ``RATES`` and ``DECAYS``, and the rate-decay pairs."""
    pairs = [(rate, decay) for rate in RATES for decay in DECAYS]
    rates, decays = np.array(pairs).T
    return pairs, experiments.decayed(rates, decays, steps=3000)


def balance(rate, decay):
    """Draw how the weights of a unit grow or shrink to the predicted length.

    Parameters
    ----------
    rate : float
        One of ``RATES``.
    decay : float
        One of ``DECAYS``.
    """
    pairs, run = balanced()
    i = pairs.index((rate, decay))
    slope = np.sqrt((run.gradient[-1000:, i] ** 2).mean())
    steps = np.unique(np.geomspace(1, 3000, 400).round())
    length = run.length[steps.astype(int), i]
    smooth = np.sqrt(weight_length.smooth_squared_lengths(steps, rate, slope, 1.0, decay))
    fig, (above, below) = style.axes(rows=2, height=5.4, sharex=True)
    above.loglog(steps, length, color=style.COLOR["measured"], label="measured")
    above.loglog(steps, smooth, color=style.COLOR["predicted"], linestyle="--", label="predicted")
    above.set(ylim=(0.4, 40), ylabel="length of $w$")
    felt = rate / ((1 - rate * decay) * length**2)
    below.loglog(steps, felt, color=style.COLOR["measured"], label="effective rate")
    below.axhline(rate, color=style.COLOR["highlight"], linestyle="-.", label="learning rate")
    if decay:
        limit = effective_rate.equilibrium(rate, decay, slope)
        above.axhline(limit.length, color=style.INK, linestyle=":", label="equilibrium")
        below.axhline(limit.effective_rate, color=style.INK, linestyle=":", label="equilibrium")
    below.set(ylim=(3e-3, 20))
    below.set_ylabel("rate")
    below.set_xlabel("steps")
    _plain(above.yaxis, below.xaxis, below.yaxis)
    style.legend_above(above, columns=3)
    style.legend_above(below, columns=3)
    return fig


@cache
def alone():
    """Full-batch runs of one unit with targets that it can meet, one for each of ``ALONE``."""
    decays = np.array(ALONE)
    run = experiments.decayed(np.full(len(decays), ALONE_RATE), decays, 3000, noise=0, batch=64)
    return run, experiments.curvature_at_the_goal(batch=64)


def decay_alone(decay):
    """Draw loss and effective rate of full-batch descent with weight decay.

    Parameters
    ----------
    decay : float
        One of ``ALONE``.
    """
    run, curvature = alone()
    i = ALONE.index(decay)
    fig, (above, below) = style.axes(rows=2, height=5.8, sharex=True)
    above.semilogy(
        np.maximum(run.loss[:, i], 1e-18), color=style.COLOR["measured"], label="measured"
    )
    if decay:
        floor = ALONE_RATE * decay * curvature / 4
        predicted = {"color": style.COLOR["predicted"], "linestyle": "--"}
        above.axhline(floor, label="estimated floor", **predicted)
    above.set(ylim=(1e-18, 10), ylabel="loss")
    style.legend_above(above)
    felt = ALONE_RATE / ((1 - ALONE_RATE * decay) * run.length[:, i] ** 2)
    below.semilogy(felt, color=style.COLOR["measured"], label="effective rate")
    below.axhline(
        2 / curvature, color=style.COLOR["predicted"], linestyle="--", label="stable below"
    )
    below.set(ylim=(0.05, 5))
    below.set_ylabel("rate")
    below.set_xlabel("steps")
    _plain(below.yaxis)
    style.legend_above(below)
    return fig


def on_digits(runs):
    """Draw lengths and angles of the hidden units of a network on the digits.

    Parameters
    ----------
    runs : dict of str to (Decayed, rate, decay, momentum)
        One network with one label each.
    """
    fig, (above, below) = style.axes(rows=2, height=6.2)
    looks = [(style.COLOR["measured"], "o"), (style.COLOR["highlight"], "s")]
    for (name, (run, rate, decay, momentum)), look in zip(runs.items(), looks, strict=True):
        colour, marker = look
        steps = len(run.gradient)
        measured = run.length[-(steps // 3) :].mean(axis=0)
        ratios, _ = experiments.settled(run, rate, decay, momentum)
        dots = {"linestyle": "", "markersize": 4, "alpha": 0.6}
        above.plot(measured / ratios, measured, marker, color=colour, label=name, **dots)
        angles = np.degrees(np.arccos(np.clip(run.cosine, -1, 1)))
        window = 50
        root = np.sqrt((angles**2).mean(axis=1)[: steps // window * window].reshape(-1, window))
        middles = np.arange(len(root)) * window + window / 2
        below.semilogy(middles, np.sqrt((root**2).mean(axis=1)), color=colour, label=name)
        expected = np.degrees(effective_rate.equilibrium(rate, decay, 1.0, momentum).angle)
        below.axhline(expected, color=colour, linestyle="--")
    ends = np.array(above.get_xlim())
    above.plot(ends, ends, color=style.INK, linestyle="--", label="predicted")
    above.set_xlabel("predicted length of a unit's weights")
    above.set_ylabel("measured length")
    below.set_xlabel("steps")
    below.set_ylabel("angle of a step, degrees")
    below.set_ylim(min(0.4, 0.8 * below.dataLim.ymin), 10)
    below.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
    below.yaxis.set_minor_formatter(NullFormatter())
    style.legend_above(above, columns=3)
    return fig


def _band(ax, x, values, look=None, **line):
    """The median of a recorded array over seeds as a line, and the range of the seeds behind it."""
    low, high = values.min("seed"), values.max("seed")
    ax.fill_between(x, low, high, color=line["color"], alpha=0.2, linewidth=0)
    return ax.plot(x, values.median("seed"), look or "-", **line)


def learning_rates(record, which, when):
    """Draw training loss and test accuracy over the learning rate, with and without batch norm.

    Parameters
    ----------
    record : dict
        From ``full_size.run``.
    which : {"all parameters", "hidden weights only"}
        What the learning rate is that of.
    when : {"early", "in the end"}
        After the fewest recorded steps, or after the most.
    """
    hidden = which != "all parameters"
    found = record["hidden rate" if hidden else "one rate"]
    found = found.isel(steps=0 if when == "early" else -1)
    frozen, found = found.sel(learning_rate=slice(0, 0)), found.sel(learning_rate=slice(1e-9, None))
    fig, panels = style.axes(rows=2, height=5.5, sharex=True)
    for name, mark in (("batch norm", "o"), ("no batch norm", "s")):
        arm = found.sel(arm=f"{name}, hidden rate" if hidden else name)
        for ax, kind in zip(panels, ("loss", "accuracy"), strict=True):
            values = arm[kind].clip(max=HIGHEST)
            look = {"markersize": 4, "color": style.COLOR[name], "label": name}
            _band(ax, arm.learning_rate, values, f"{mark}-", **look)
            if hidden and name == "batch norm":
                level = float(frozen[kind].sel(arm=f"{name}, hidden rate").median())
                ax.axhline(level, linestyle=":", color=look["color"], label="batch norm, frozen")
    above, below = panels
    for level, name, va in ((np.log(10), "chance", "bottom"), (GOAL, "goal", "top")):
        above.axhline(level, color=style.INK, linestyle=":")
        above.text(0.02, level, name, va=va, transform=above.get_yaxis_transform())
    above.set(xscale="log", yscale="log", ylim=(1e-5, HIGHEST), ylabel="training loss")
    above.set_yticks([1e-5, 1e-3, 0.1, 10])
    below.set(ylim=(0, 1.04), ylabel="test accuracy")
    below.set_xlabel(f"learning rate of {which}")
    _plain(above.yaxis, below.xaxis)
    below.text(0.97, 0.7, f"{int(found.steps)} steps", ha="right", transform=below.transAxes)
    style.legend_above(above)
    return fig


def felt_rates(record):
    """Draw the effective rates of hidden units over the steps, for the learning rates of ``FELT``.

    Parameters
    ----------
    record : dict
        From ``full_size.run``.
    """
    found = record["felt"].felt
    moments = found.steps + 1
    fig, ax = style.axes(height=3.6)
    for rate, color in FELT.items():
        (line,) = _band(ax, moments, found.sel(learning_rate=rate), color=color)
        look = {"va": "center", "textcoords": "offset points", "color": color}
        felt = line.get_ydata()
        start, end = (moments[0], felt[0]), (moments[-1], felt[-1])
        ax.annotate(f"rate {value_text(rate)}", start, (-6, 0), ha="right", **look)
        # The ends of two lines are too close for labels beside them.
        side = {1: -9, 100: 9}.get(rate, 0)
        ax.annotate(f"{felt[-1]:.2g}", end, (6, side), ha="left", **look)
    ax.set(xscale="log", yscale="log", xlim=(0.17, 2 * moments[-1]), ylim=(0.02, 200))
    _plain(ax.xaxis, ax.yaxis)
    ax.set_xticks([1, 2, 11, 101, 501], ["0", "1", "10", "100", "500"])
    ax.set_xlabel("steps")
    ax.set_ylabel("effective rate")
    return fig


def split(record):
    """Draw the steps to a loss of 0.01 of each of ``ARMS`` at its best rate, on fresh seeds.

    Parameters
    ----------
    record : dict
        From ``full_size.run``.
    """
    fig, ax = style.axes(height=3.3)
    for row, arm in enumerate(ARMS):
        part = "one rate" if arm in record["one rate"].arm else "split"
        steps = record[f"{part}, fresh to 0.01"]["to 0.01"].sel(arm=arm)
        low, middle, high = steps.quantile([0, 0.5, 1]).values
        color = style.COLOR.get(arm, style.MUTED)
        ax.plot([low, high], [row, row], color=color, linewidth=2)
        ax.plot(middle, row, "o", color=color, markersize=8)
        ax.text(middle, row - 0.42, f"{middle:.0f}", ha="center", color=color)
    ax.set(xscale="log", xlim=(70, 1100), ylim=(len(ARMS) - 0.5, -0.8))
    ax.set_yticks(range(len(ARMS)), ARMS.values())
    _plain(ax.xaxis)
    ax.set_xticks([100, 200, 500, 1000])
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("steps to a training loss of 0.01")
    return fig
