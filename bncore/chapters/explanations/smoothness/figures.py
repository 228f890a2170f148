"""The figures of the smoothness chapter."""

from functools import cache

import numpy as np
from matplotlib.ticker import NullFormatter

from bncore.chapters.explanations.smoothness import experiments, records, single
from bncore.explanations import smoothness
from bncore.page import style

COLOURS = {
    "no batch norm": style.COLOR["no batch norm"],
    "batch norm": style.COLOR["batch norm"],
    "mean only": style.COLOR["mean"],
    "variance only": style.COLOR["variance"],
}
DASHES = {
    "no batch norm": (0, (4, 1.5)),
    "batch norm": "-",
    "mean only": (0, (1, 1)),
    "variance only": (0, (4, 1, 1, 1)),
}


def band(ax, x, values, kind, marker=None):
    """Mean and range over the seeds, the first axis of values."""
    values = np.asarray(values)
    ax.fill_between(
        x, values.min(axis=0), values.max(axis=0), color=COLOURS[kind], alpha=0.18, linewidth=0
    )
    line = {"color": COLOURS[kind], "linestyle": DASHES[kind]}
    ax.plot(x, values.mean(axis=0), **line, label=kind, marker=marker, markersize=5)


MEASURES = {
    "absolute": "smoothness",
    "relative": "smoothness,\nrelative",
    "change": "change after\na 0.3 % step",
    "range": "range of\nthe loss",
}


def valley(shift):
    """Draw descent on a unit's squared loss over two weights, as it is and with the mean subtracted.

    Parameters
    ----------
    shift : float
        The mean of both inputs.
    """
    X = np.random.default_rng(5).normal(size=(40, 2))
    X = X - X.mean(axis=0) + shift
    grid = [np.linspace(-3.3, 3.3, 301), np.linspace(-1.8, 1.8, 181)]
    points = np.stack(np.meshgrid(*grid), axis=-1)
    fig, axes = style.axes(rows=2, height=5.8, sharex=True)
    inputs = {"no batch norm": X, "mean only": X - X.mean(axis=0)}
    for ax, (kind, Z) in zip(axes, inputs.items(), strict=True):
        H = Z.T @ Z / len(Z)
        soft, stiff = np.linalg.eigvalsh(H)
        path = [np.array([-2.4, 1.4])]
        for _ in range(10):
            path.append(path[-1] - 2 / (soft + stiff) * H @ path[-1])
        values = np.einsum("...i,ij,...j->...", points, H, points) / 2
        levels = [0.1, 0.4, 1, 2, 4, 8, 16]
        ax.contour(*grid, values, levels=levels, colors=style.MUTED, linewidths=0.9)
        ax.plot(*np.transpose(path), "o-", color=COLOURS[kind], markersize=5)
        ax.plot(0, 0, "+", color=style.INK, markersize=13, markeredgewidth=2)
        name = "mean subtracted" if kind == "mean only" else kind
        ax.set_title(f"{name}: curvatures {soft:.1f} and {stiff:.1f}", color=COLOURS[kind])
        ax.set(xlim=(-3.3, 3.3), ylim=(-1.8, 1.8), aspect="equal", ylabel="second weight")
        ax.grid(visible=False)
    axes[1].set_xlabel("first weight")
    return fig


def mean_direction():
    """Draw the largest curvature over independent ReLU units, measured and predicted."""
    counts = np.array([5, 10, 20, 50, 100, 200])
    measured = np.array([single.mean_direction(int(n), m=20000) for n in counts])
    rest = 1 / 2 - 1 / (2 * np.pi)
    fine = np.geomspace(counts[0], counts[-1], 100)
    fig, ax = style.axes(height=3.2)
    ax.plot(counts, measured[:, 0], "o", color=COLOURS["no batch norm"], label="as they are")
    ax.plot(counts, measured[:, 1], "s", color=COLOURS["mean only"], label="mean subtracted")
    ax.plot(fine, rest + fine / (2 * np.pi), "--", color=style.INK, label="predicted")
    ax.plot(fine, 0 * fine + rest, "--", color=style.INK)
    ax.set(xscale="log", yscale="log", ylim=(0.2, 60), ylabel="largest curvature")
    ax.set_xlabel("units in the layer below")
    for axis, ticks in ((ax.xaxis, counts), (ax.yaxis, [0.3, 1, 3, 10, 30])):
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_minor_formatter(NullFormatter())
    style.legend_above(ax, columns=3)
    return fig


def gains(depth, kind):
    """Draw what the recorded networks without batch norm measure over what those of one kind do.

    Parameters
    ----------
    depth : int
        One of the recorded depths.
    kind : str
        With batch norm or with one half of it.
    """
    fig, ax = style.axes(height=3.9)
    moments = {"at the start": "o", "from step 50 on": "s", "at equal loss": "D"}
    for i, measure in enumerate(MEASURES):
        found = records.ratios(depth, measure, kinds=("no batch norm", kind))
        equal = records.ratios(depth, measure, True, kinds=("no batch norm", kind))
        parts = (
            found.sel(record=0),
            found.sel(record=records.LATE),
            equal.sel(record=slice(25, None)),
        )
        for j, (values, (name, mark)) in enumerate(zip(parts, moments.items(), strict=True)):
            known = values.values[np.isfinite(values.values)]
            if not known.size:
                continue
            at, filled = 3 - i + 0.25 * (1 - j), COLOURS[kind] if j == 1 else style.PAPER
            ax.plot([known.min(), known.max()], [at, at], color=COLOURS[kind], linewidth=1.5)
            look = {"color": COLOURS[kind], "markerfacecolor": filled, "markersize": 8}
            label = name if i == 1 else None
            ax.plot(np.median(known), at, mark, linestyle="", label=label, **look)
    ax.axvline(1, color=style.MUTED, linewidth=1)
    ax.set(xscale="log", xlim=(0.005, 9000), ylim=(-0.6, 3.6))
    ax.set_xticks([0.01, 0.1, 1, 10, 100, 1000], ["0.01", "0.1", "1", "10", "100", "1000"])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(range(4), list(MEASURES.values())[::-1])
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"no batch norm over {kind}")
    style.legend_above(ax)
    return fig


def along(kept, step, units):
    """Draw the loss and the gradient's change along the gradient, at one time of training.

    Parameters
    ----------
    kept : dict of str to Walks
        By kind.
    step : int
        One of the steps of the walks.
    units : {"learning rate", "share of weights"}
    """
    absolute = units == "learning rate"
    sizes = np.array(experiments.RATES if absolute else experiments.MOVES)
    unit = "absolute" if absolute else "relative"
    fig, (above, below) = style.axes(rows=2, height=5.6, sharex=True)
    for kind, walks in kept.items():
        at = list(walks.steps).index(step)
        loss = walks.row(unit, "loss")[:, at] / walks.row(unit, "before")[:, at]
        band(above, sizes, loss, kind, marker="o")
        band(below, sizes, walks.relative_change(unit)[:, at], kind, marker="o")
    above.axhline(1, color=style.MUTED, linewidth=1)
    above.set(xscale="log", yscale="log", ylim=(0.2, 60), ylabel="loss after / before")
    style.legend_above(above)
    below.set(yscale="log", ylim=(0.01, 60), ylabel="gradient's change / length")
    below.set_xlabel("learning rate of the step" if absolute else "length of step / of weights")
    below.set_xticks(sizes, [f"{size:g}" for size in sizes])
    below.xaxis.set_minor_formatter(NullFormatter())
    return fig


def units(parts):
    """Draw, for each hidden unit, the factor of the first theorem and the cosine of g and y_hat.

    Parameters
    ----------
    parts : list of ndarray
        For each layer, as ``experiments.removed_share`` has them.
    """
    fig, ax = style.axes(height=3.3)
    looks = ((style.COLOR["batch norm"], "o"), (style.COLOR["highlight"], "s"))
    for i, ((_, cosine, factor), (colour, mark)) in enumerate(zip(parts, looks, strict=True)):
        look = {"color": colour, "alpha": 0.7, "linestyle": ""}
        ax.plot(factor, cosine, mark, label=f"layer {i + 1}", markersize=6, **look)
    ax.axvline(1, color=style.MUTED, linewidth=1)
    ax.axhline(0, color=style.MUTED, linewidth=1)
    ax.set(xscale="log", xlim=(0.3, 40), ylim=(-1, 1), ylabel=r"cosine of $g$ and $\hat y$")
    ax.set_xticks([0.3, 1, 3, 10, 30], ["0.3", "1", "3", "10", "30"])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(r"factor $\gamma^2/\sigma^2$")
    style.legend_above(ax)
    return fig


def leads(other, steps):
    """Draw the loss of the kinds that subtract the mean over that of another kind, with intervals.

    Parameters
    ----------
    other : str
        No batch norm, or the variance only.
    steps : int
        Of training, one of the recorded moments.
    """
    fig, ax = style.axes(height=3.2)
    for j, kind in enumerate(experiments.KINDS[1:3]):
        for i, depth in enumerate((2, 6, 10)):
            middle, low, high = records.tuned_ratio(kind, other, depth, steps)
            at, look = 2 - i + 0.15 - 0.3 * j, {"color": COLOURS[kind]}
            ax.plot([low, high], [at, at], **look)
            ax.plot(middle, at, "os"[j], markersize=8, label=None if i else kind, **look)
    ax.axvline(1, color=style.MUTED, linewidth=1)
    ax.set(xscale="log", xlim=(0.001, 100), ylim=(-0.5, 2.5), xlabel=f"loss over that of {other}")
    ax.set_xticks([0.001, 0.01, 0.1, 1, 10, 100], ["0.001", "0.01", "0.1", "1", "10", "100"])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(range(3), ["10 layers", "6 layers", "2 layers"])
    ax.grid(axis="y", visible=False)
    style.legend_above(ax)
    return fig


@cache
def _batch():
    rng = np.random.default_rng(3)
    y_hat = smoothness.normalise(rng.normal(size=(8, 1)))[0][:, 0]
    rest = rng.normal(size=8)
    rest = rest - rest.mean() - y_hat * (rest @ y_hat) / 8
    return y_hat, rest / np.linalg.norm(rest)


def removed(sigma, tilt):
    """Draw the squared gradient of a batch of eight before and after batch norm, part by part.

    Parameters
    ----------
    sigma : float
        Deviation of the batch; gamma is 1.
    tilt : float
        Length of the gradient's part along the normalised batch; the level has half of it and the
        rest has length 1.
    """
    y_hat, rest = _batch()
    g = rest + tilt * y_hat / 8**0.5 + tilt / 2 / 8**0.5
    terms = smoothness.squared_gradient((sigma * y_hat)[:, None], g[:, None], np.ones(1))
    whole, level, tilted = (t[0] for t in (terms.whole, terms.level, terms.tilt))
    fig, ax = style.axes(height=3.1)
    left = 0.0
    for size, colour, label in (
        (whole - level - tilted, style.COLOR["data"], "rest"),
        (level, style.COLOR["mean"], "level"),
        (tilted, style.COLOR["variance"], "tilt"),
    ):
        ax.barh(2, size, left=left, color=colour, label=label, height=0.55)
        left += size
    ax.barh(1, whole - level - tilted, color=style.COLOR["data"], height=0.55)
    ax.barh(0, terms.passed[0], color=style.COLOR["batch norm"], height=0.55)
    ax.axvline(whole, color=style.INK, linestyle="--", linewidth=1)
    ax.set(xlim=(0, 6), xlabel="squared length", ylim=(-0.5, 2.6))
    ax.set_yticks([2, 1, 0], [r"$\|g\|^2$", "rest alone", r"$\|d\|^2$"])
    ax.grid(axis="y", visible=False)
    if terms.passed[0] > 6:
        ax.text(5.9, 0, f"{terms.passed[0]:.0f} →", ha="right", va="center", color=style.PAPER)
    style.legend_above(ax, columns=3)
    return fig


@cache
def _plane():
    """Two directions of a batch of three values without mean, and a convex loss of it."""
    basis = np.array([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]])
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    H = basis.T @ np.array([[1.0, 0.3], [0.3, 0.5]]) @ basis
    target = np.array([1.6, 0.9]) @ basis
    return basis, H, target


def _through(y, g):
    """The gradient in front of a batch norm with scale 1."""
    return smoothness.gradient(y[:, None], g[:, None], np.ones(1))[:, 0]


def bowl_and_fan(sigma):
    """Draw a convex loss of a batch of three values, and the same loss behind a batch norm.

    Parameters
    ----------
    sigma : float
        Deviation of the batch at the marked point.
    """
    basis, H, target = _plane()
    grid = np.linspace(-3.4, 3.4, 241)
    points = np.stack(np.meshgrid(grid, grid), axis=-1) @ basis
    lengths = np.linalg.norm(points, axis=-1, keepdims=True)
    fanned = points / np.where(lengths > 0, lengths, 1) * 3**0.5
    angle = np.radians(115)
    here = sigma * 3**0.5 * np.array([np.cos(angle), np.sin(angle)])
    y = here @ basis
    y_hat = y / sigma
    slopes = {
        "no batch norm": H @ (y - target),
        "batch norm": _through(y, H @ (y_hat - target)),
    }
    fig, axes = style.axes(rows=2, height=7.4, sharex=True)
    for ax, z, kind in zip(axes, (points, fanned), slopes, strict=True):
        values = np.einsum("...i,ij,...j->...", z - target, H, z - target) / 2
        if kind == "batch norm":
            values[lengths[..., 0] < 0.12] = np.nan
        levels = np.arange(0.1, 8, 0.35)
        ax.contour(grid, grid, values, levels=levels, colors=COLOURS[kind], linewidths=0.9)
        slope = basis @ slopes[kind]
        arrow = {"arrowstyle": "-|>", "color": style.COLOR["highlight"], "linewidth": 3}
        ax.annotate("", here - 0.45 * slope, here, arrowprops=arrow)
        ax.plot(*here, "o", color=style.INK, markersize=8)
        ax.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), aspect="equal")
        ax.set_title(f"{kind}: gradient of length {np.linalg.norm(slope):.1f}")
        ax.set_ylabel("second direction")
        ax.grid(visible=False)
    axes[1].set_xlabel("first direction of the batch")
    return fig


def over_training(depth, units):
    """Draw the recorded effective smoothness of four kinds of network while they train.

    Parameters
    ----------
    depth : int
        One of the recorded depths.
    units : {"absolute", "relative"}
    """
    fig, ax = style.axes(height=3.6)
    for kind, kept in records.of("walks", depth):
        band(ax, kept.record, kept[units], kind)
    ax.set(yscale="log", ylim=(0.05, 3000), ylabel="effective smoothness")
    ax.set_xlabel("training steps")
    style.legend_above(ax)
    return fig


def loss_ranges(depth, part="walks"):
    """Draw the recorded range of the loss along the gradient, with and without batch norm.

    Parameters
    ----------
    depth : int
        One of the recorded depths.
    part : {"walks", "common"}
        Each at its own best rate, or both at one rate.
    """
    fig, ax = style.axes(height=3.6)
    for kind, kept in records.of(part, depth, experiments.KINDS[:2]):
        band(ax, kept.record, kept["range"], kind, marker="o")
    ax.set(yscale="log", ylim=(1e-5, 100), ylabel="range of the loss")
    ax.set_xlabel("training steps")
    style.legend_above(ax)
    return fig


def tuned(depth):
    """Draw the recorded loss of each kind at its own best learning rate, on fresh seeds.

    Parameters
    ----------
    depth : int
        One of the recorded depths.
    """
    curves = records.record()["full"]["tuned"]["curves"].sel(depth=depth)
    fig, ax = style.axes(height=3.7)
    for kind in experiments.KINDS:
        found = curves.sel(kind=kind)
        low, middle, high = (found.loss.quantile(q, "seed") for q in (0, 0.5, 1))
        colour, steps = COLOURS[kind], curves.steps
        ax.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        label = f"{kind}, rate {found.learning_rate:g}"
        ax.plot(steps, middle, color=colour, linestyle=DASHES[kind], label=label)
    ax.set(yscale="log", ylim=(3e-5, 20), ylabel="training loss", xlabel="training steps")
    style.legend_above(ax)
    return fig
