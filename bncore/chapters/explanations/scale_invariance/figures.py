"""The figures of the scale invariance chapter."""

from functools import cache

import numpy as np
from matplotlib.ticker import NullFormatter

from bncore.chapters.explanations.scale_invariance import experiments, rates
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
FELT = {1: style.BLUE, 10: style.GREEN, 100: style.VERMILLION}
"""The learning rates whose effective rates come close, or overtake; all others stay apart."""


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
    fig, (above, below) = style.axes(rows=2, height=7.2, gridspec_kw={"height_ratios": [1.9, 1]})
    # No grid line through the origin, where eps = 0 divides by 0.
    side = np.linspace(-2.6, 2.6, 212)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    values = unit.value_and_gradient(grid, eps)[0].reshape(len(side), -1)
    above.contour(side, side, values, levels=12, colors=style.MUTED, linewidths=0.9)
    direction = np.array([np.cos(ANGLE), np.sin(ANGLE)])
    around = np.linspace(0, 2 * np.pi, 200)
    circle = length * np.array([np.cos(around), np.sin(around)])
    above.plot(*circle, color=style.INK, linestyle="--", linewidth=1.2, label="equal length")
    above.plot(*np.outer([0, 4], direction).T, color=style.COLOR["highlight"], linewidth=1.2)
    w = length * direction
    downhill = -unit.value_and_gradient(w[np.newaxis], eps)[1][0]
    tip = w + 0.6 * downhill
    arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 20}
    above.annotate(
        "", tip, w, arrowprops={**arrow, "color": style.COLOR["measured"], "linewidth": 3}
    )
    above.plot([], [], color=style.COLOR["measured"], linewidth=3, label="downhill")
    above.plot(*w, "o", markersize=9, color=style.COLOR["highlight"], label="$w$")
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
    below.plot(length, np.linalg.norm(downhill), "o", markersize=9, color=style.COLOR["highlight"])
    if eps:
        variance = (unit.inputs @ direction).var()
        breaks = scale_invariance.breaking_scale(variance, eps)
        below.axvline(breaks, color=style.INK, linestyle=":")
        below.text(breaks * 1.08, 0.09, r"$\sqrt{\varepsilon}/\sigma$")
    below.set(ylim=(0.06, 80))
    below.set_xlabel("length of $w$")
    below.set_ylabel("length of gradient")
    style.legend_above(below)
    return fig


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
    fig, (above, below) = style.axes(rows=2, height=5.8, sharex=True)
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
    for ax in (above, below):
        ax.yaxis.set_minor_formatter(NullFormatter())
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
    below.yaxis.set_minor_formatter(NullFormatter())
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
    below.set_ylim(0.4, 10)
    below.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
    below.yaxis.set_minor_formatter(NullFormatter())
    style.legend_above(above, columns=3)
    return fig


def _band(ax, x, values, look=None, **line):
    """The median of a recorded array over seeds as a line, and the range of the seeds behind it."""
    low, high = values.min("seed"), values.max("seed")
    ax.fill_between(x, low, high, color=line["color"], alpha=0.2, linewidth=0)
    return ax.plot(x, values.median("seed"), look or "-", **line)


def learning_rates(record, which, steps):
    """Draw training loss and test accuracy over the learning rate, with and without batch norm.

    Parameters
    ----------
    record : dict
        From ``full_size.run``.
    which : {"all parameters", "hidden weights only"}
        What the learning rate is that of.
    steps : int
        After so many.
    """
    hidden = which != "all parameters"
    found = record["hidden rate" if hidden else "one rate"].sel(steps=steps)
    frozen, found = found.sel(learning_rate=slice(0, 0)), found.sel(learning_rate=slice(1e-9, None))
    fig, panels = style.axes(rows=2, height=6.0, sharex=True)
    for name, dash in (("batch norm", "-"), ("no batch norm", (0, (4, 1.5)))):
        arm = found.sel(arm=f"{name}, hidden rate" if hidden else name)
        for ax, kind in zip(panels, ("loss", "accuracy"), strict=True):
            values = arm[kind].clip(max=HIGHEST)
            look = {"linestyle": dash, "markersize": 4, "color": style.COLOR[name], "label": name}
            _band(ax, arm.learning_rate, values, "o", **look)
            if hidden and name == "batch norm":
                level = float(frozen[kind].sel(arm=f"{name}, hidden rate").median())
                ax.axhline(level, linestyle=":", color=look["color"], label="batch norm, frozen")
    above, below = panels
    above.axhline(np.log(10), color=style.INK, linestyle=":")
    above.set(xscale="log", yscale="log", ylim=(1e-4, HIGHEST), ylabel="training loss")
    above.text(found.learning_rate[0], 3.2, "chance")
    below.set(ylim=(0, 1.04), ylabel="test accuracy")
    below.set_xlabel(f"learning rate of {which}")
    style.legend_above(above)
    return fig


def felt_rates(record):
    """Draw the effective rates of hidden units over the steps, for learning rates of five decades.

    Parameters
    ----------
    record : dict
        From ``full_size.run``.
    """
    found = record["felt"].felt
    moments = found.steps + 1
    fig, ax = style.axes(height=4.4)
    for rate, felt in zip(found.learning_rate.values, found, strict=True):
        color = FELT.get(rate, style.MUTED)
        (line,) = _band(ax, moments, felt, color=color)
        start = (moments[0], line.get_ydata()[0])
        ax.annotate(
            f"{rate:g}",
            start,
            (-5, 0),
            ha="right",
            va="center",
            textcoords="offset points",
            color=color,
        )
    ax.set(xscale="log", yscale="log", xlim=(0.25, moments[-1]), ylim=(1e-4, 1e3))
    decades = np.logspace(-4, 3, 8)
    ax.set_yticks(decades, [value_text(decade) for decade in decades])
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.text(0.27, 700, "learning rate", va="top", color=style.MUTED)
    ax.set_xticks([1, 2, 11, 101], ["0", "1", "10", "100"])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("steps")
    ax.set_ylabel("effective rate")
    return fig


def spans(found):
    """Lines of text, one for each arm: from which to which rate every seed ends below a loss.

    Parameters
    ----------
    found : xarray.Dataset
        A study of ``full_size.run``; the two losses are those of ``rates.LEVELS``.
    """
    worst = found.loss.isel(steps=-1).sel(learning_rate=slice(1e-9, None)).max("seed")
    for arm in worst.arm.values:
        row = f"  {arm.split(',')[0]:13}"
        for level in rates.LEVELS:
            good = worst.learning_rate.values[worst.sel(arm=arm) < level]
            span = f"{good[0]:.2g}–{float(f'{good[-1]:.2g}'):g}" if len(good) else "none"
            row += f"{span:>13}"
        yield row


def times(record):
    """Lines of text, one for each arm: steps to each loss at the arm's best rate, on fresh seeds.

    Parameters
    ----------
    record : dict
        From ``full_size.run``.
    """
    arms = [(study, arm) for study in ("one rate", "split") for arm in record[study].arm.values]
    for start in ("", ", normalised start"):
        yield start[2:] or "weights as drawn"
        for study, arm in arms:
            name, comma, rest = arm.partition(",")
            if comma + rest != start:
                continue
            row = f"  {name.replace('no batch norm', 'plain').removesuffix(' only'):12} "
            for level in (f"to {level:g}" for level in rates.LEVELS):
                steps = record[f"{study}, fresh {level}"][level].sel(arm=arm)
                low, middle, high = steps.quantile([0, 0.5, 1]).values
                row += f"{f'{middle:.0f} ({low:.0f}–{high:.0f})':>13} "
            yield row.rstrip()
