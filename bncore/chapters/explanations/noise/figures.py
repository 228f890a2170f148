"""Figures of the noise chapter, drawn from what its experiments computed."""

import numpy as np
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter
from matplotlib.transforms import Affine2D

from bncore.chapters.explanations.noise import overfitting, sampling, scatter
from bncore.explanations import noise, variance_shift
from bncore.page import style

POPULATIONS = {
    "normal": "normal values",
    "heavy tails": "heavy tails: Student's t,\n4 degrees of freedom",
    "digits": "a unit of the first layer, digits",
}
WAYS = {
    "running": "running statistics",
    "temperature": "with a temperature",
    "sampled 32": "sampled batches of 32",
}
REGIMES = {"as they are": ("0.0", 0), "turned by 30°": ("0.0", 2), "noisy": ("0.3", 0)}


def log_sizes(ax, values, label):
    """A logarithmic x-axis with a tick at each of the values."""
    ax.set_xscale("log")
    ax.set_xticks(values, [f"{value:g}" for value in values])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
    ax.set_xlabel(label)


def company(z, m, outputs):
    """Histogram of one example's output over companies, under its exact density."""
    fig, ax = style.axes(height=3.7)
    edges, reach = np.linspace(-2.5, 5, 76), (-2.5, 5)
    counts, _ = np.histogram(outputs, edges)
    density = counts / (len(outputs) * np.diff(edges))
    looks = {"fill": True, "color": style.COLOR["measured"], "alpha": 0.45}
    ax.stairs(density, edges, label="in random batches", **looks)
    grid = np.linspace(*reach, 401)
    exact = noise.GaussianOutput(z, m).pdf(grid)
    ax.plot(grid, exact, color=style.COLOR["predicted"], label="exact density")
    color = style.COLOR["eval"]
    ax.axvline(z, color=color, linestyle="--", label="with running statistics")
    for side in (-1, 1):
        bound = {"color": style.MUTED, "linestyle": ":"}
        ax.axvline(side * np.sqrt(m - 1), label="bounds" if side > 0 else None, **bound)
    top = 1.1 * max(density.max(), exact.max(), 0.6)
    ax.set(xlabel="normalised output of the one example", ylabel="density", xlim=reach)
    ax.set(ylim=(0, top), yticks=[])
    style.legend_above(ax)
    return fig


def share(normal):
    """The share of noise against the batch size: drawn, exact, to first order, and of digits.

    ``normal`` has measured shares of drawn normal values, at ``scatter.SIZES``.
    """
    sizes, layers = scatter.SIZES, scatter.first_layers()
    pixels = layers["convolution"].shape[2]
    fig, ax = style.axes(height=4.2)
    ends = np.array([sizes[0] / 1.2, sizes[-1] * 1.2])
    ax.plot(sizes, [scatter.exact_share(m) for m in sizes], color=style.INK, label="exact, normal")
    for count, label in ((1, "first order"), (pixels, None)):
        ax.plot(ends, 1.5 / (ends * count), color=style.INK, linestyle=":", label=label)
    ax.plot(sizes, normal, "o", color=style.BLUE, label="drawn, normal")
    looks = {"dense": (style.OCHRE, "s"), "convolution": (style.PURPLE, "^")}
    for layer, (color, mark) in looks.items():
        ax.plot(
            sizes,
            [scatter.share_of_noise(layers[layer], m, 200, 30) for m in sizes],
            mark,
            color=color,
            markersize=9,
            markerfacecolor="none",
            label=f"digits, {layer}",
        )
    ax.set(ylabel="share of noise", yscale="log", xlim=ends, ylim=(5e-5, 1))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    log_sizes(ax, sizes, "batch size m")
    style.legend_above(ax)
    return fig


def statistics(name, values, sizes=(2, 4, 8, 16, 32, 64, 128, 256)):
    """Variances of a batch's mean and variance against batch size, times the batch size."""
    measured, curves = scatter.batch_statistics(values, sizes)
    fig, panels = style.axes(rows=2, height=6, sharex=True)
    every = np.arange(sizes[0], sizes[-1] + 1)
    looks = {
        "independent": (style.BLUE, "o", "independent draws"),
        "without replacement": (style.GREEN, "s", "draws without replacement"),
    }
    for row, (ax, what) in enumerate(zip(panels, ("mean", "variance"), strict=True)):
        for way, (color, marker, label) in looks.items():
            ax.plot(every, curves[way][row], color=style.COLOR["predicted"], linewidth=1.2)
            ax.plot(sizes, measured[way][row], marker, color=color, markersize=6, label=label)
        power = "V" if what == "mean" else "V²"
        ax.set(ylabel=f"m × variance of\nthe {what}, over {power}", ylim=(0, None))
    panels[0].plot([], [], color=style.COLOR["predicted"], linewidth=1.2, label="exact")
    panels[0].set_ylim(0, 1.2)
    log_sizes(panels[1], sizes, f"batch size m, out of {len(values)} values")
    style.legend_above(panels[0], columns=1)
    fig.suptitle(POPULATIONS[name], fontsize=12)
    return fig


def shift(mean, pull, keeps=(0.1, 0.3, 0.5, 0.7, 0.9)):
    """The variance shift against the keep probability, directly behind dropout and behind weights."""
    measured = np.array([scatter.measured_shift(p, mean, pull) for p in keeps]).T
    fig, ax = style.axes(height=3.9)
    grid = np.linspace(0.05, 1, 96)
    direct = [variance_shift.direct(p, mean, 1.0) for p in grid]
    ax.plot(grid, grid, color=style.MUTED, linestyle=":", label="p, at mean 0")
    ax.plot(grid, direct, color=style.COLOR["predicted"], label="directly behind dropout")
    ax.plot(
        grid,
        [scatter.alike(p, mean, pull) for p in grid],
        color=style.COLOR["predicted"],
        linestyle="--",
        label="behind weights",
    )
    ax.plot(keeps, measured[0], "o", color=style.COLOR["measured"], label="measured")
    ax.plot(keeps, measured[1], "s", color=style.COLOR["measured"])
    ax.set(
        xlabel="probability p of keeping a value",
        ylabel="variance at test\nover that in training",
        xlim=(0, 1.02),
        ylim=(0, 1.05),
    )
    style.legend_above(ax)
    return fig


def gained(found, level, again=None):
    """Test accuracy against that of the whole batch, by network: seeds, median, and interval.

    ``again`` has differences of runs made in the chapter, in points, by network.
    """
    names = [network for network in overfitting.LABELS if network != overfitting.BASE]
    fig, ax = _rows([overfitting.LABELS[network] for network in names])
    last = 100 * found["last"].sel(pixel_noise=level)
    for row, network in enumerate(names):
        color = style.COLOR["no batch norm" if "no batch" in network else "batch norm"]
        apart = last.sel(network=network) - last.sel(network=overfitting.BASE)
        aside = np.full(apart.size, row + 0.27)
        ax.plot(apart.values, aside, ".", color=color, markersize=4, alpha=0.6)
        _interval(ax, row, overfitting.gained(found, level, network), color)
        mine = (again or {}).get(network, ())
        look = {"color": style.COLOR["highlight"], "markersize": 6, "markerfacecolor": "none"}
        ax.plot(mine, np.full(len(mine), row - 0.3), "D", **look)
    ax.set_xlabel("points of test accuracy\nabove the whole batch")
    return fig


def added(found, level):
    """What one thing adds to another, in points of test accuracy: median and interval."""
    fig, ax = _rows(list(overfitting.COMPARED))
    for row, pair in enumerate(overfitting.COMPARED.values()):
        _interval(ax, row, overfitting.gained(found, level, *pair), style.COLOR["measured"])
    ax.set_xlabel("points of test accuracy added")
    return fig


def _rows(labels):
    """A panel with a labelled row for each difference in points, and a line where there is none."""
    fig, ax = style.axes(height=1.2 + 0.36 * len(labels))
    ax.axvline(0, color=style.MUTED, linewidth=1)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xlim(-7, 5)  # a network that diverged would leave no room for the others
    return fig, ax


def _interval(ax, row, gain, color):
    median, low, high = gain
    reach = [[median - low], [high - median]]
    ax.errorbar(median, row, xerr=reach, color=color, fmt="o", capsize=4)


def overfitted(curves, level):
    """Training and test loss against the number of steps, means over the seeds."""
    fig, panels = style.axes(rows=2, height=6, sharex=True)
    looks = {
        "no batch norm": (style.VERMILLION, "x"),
        "whole batch": (style.BLUE, "o"),
        "ghost 8": (style.PURPLE, "s"),
        "whole batch, dropout": (style.GREEN, "^"),
        "whole batch, L2": (style.OCHRE, "D"),
    }
    at = curves.sel(pixel_noise=level).where(curves.steps > 0, drop=True)
    for network, (color, marker) in looks.items():
        for ax, loss in zip(panels, ("training loss", "test loss"), strict=True):
            ax.plot(
                at.steps.values,
                at[loss].sel(network=network).values,
                color=color,
                marker=marker,
                label=overfitting.LABELS[network],
            )
    panels[0].set(ylabel="training loss", yscale="log")
    panels[1].set(ylabel="test loss", xlabel="steps", ylim=(0, None))
    style.legend_above(panels[0], columns=1)
    return fig


def dropout(found, place):
    """Test accuracy and loss against the keep probability, less those without dropout, by seed."""
    fig, panels = style.axes(rows=2, height=6, sharex=True)
    here = found.sel(place=place)
    apart = here.where(here.keep < 1, drop=True) - here.sel(keep=1)
    rows = (
        ("accuracy", 100, "accuracy gained\n(percentage points)"),
        ("loss", 1, "test loss added\n(nats)"),
    )
    looks = (
        ("", style.COLOR["eval"], "s", "running statistics", -0.006),
        ("fitted ", style.COLOR["train"], "o", "fitted again without dropout", 0.006),
    )
    for ax, (measure, unit, label) in zip(panels, rows, strict=True):
        ax.axhline(0, color=style.MUTED, linewidth=1)
        for kind, color, marker, name, aside in looks:
            one = unit * apart[kind + measure]
            ax.errorbar(
                apart.keep.values + aside,
                one.mean("seed").values,
                yerr=2 * one.std("seed", ddof=1).values / np.sqrt(one.sizes["seed"]),
                color=color,
                marker=marker,
                capsize=3,
                label=name,
            )
        ax.set_ylabel(label)
    panels[1].set_xlabel("probability p of keeping a value")
    style.legend_above(panels[0], columns=1)
    fig.suptitle(f"dropout {place}", fontsize=12)
    return fig


def likelihoods(found, regime):
    """What sampled batches add to the negative log-likelihood, by their size; and a temperature.

    ``found`` is "sampling" of the recorded run; the intervals allow for ``sampling.LOOKED_AT``.
    """
    level, condition = REGIMES[regime]
    numbers = {way: n[:, condition, 1] for way, n in found[level]["numbers"].items()}
    sizes = [int(way.split()[1]) for way in numbers if way.startswith("sampled")]
    fig, ax = style.axes(height=3.9)
    ax.axhline(0, color=style.COLOR["eval"], linewidth=1.5, label="running statistics")
    looks = {"capsize": 4, "fmt": "o", "color": style.COLOR["train"]}
    for m in sizes:
        apart = numbers[f"sampled {m}"] - numbers["running"]
        mean, low, high = sampling.interval(apart)
        label = "sampled batches" if m == sizes[0] else None
        ax.errorbar(m, mean, yerr=[[mean - low], [high - mean]], label=label, **looks)
        ax.plot(np.full(len(apart), m * 1.12), apart, ".", color=looks["color"], alpha=0.5)
    cooled = (numbers["temperature"] - numbers["running"]).mean()
    ax.axhline(cooled, color=style.OCHRE, linestyle="-.", label="a temperature")
    ax.set(ylabel="log-likelihood lost (nats)", xlim=(6.5, 340))
    log_sizes(ax, sizes, "size of the sampled batches")
    style.legend_above(ax)
    return fig


def reliability(bins, way):
    """How often the network is right, against how sure it is, above the number of such answers."""
    fig, (top, bottom) = style.axes(rows=2, height=5.4, sharex=True, height_ratios=[2.4, 1])
    confidence, frequency, count = bins
    edges = np.linspace(0, 1, len(count) + 1)
    top.plot([0, 1], [0, 1], color=style.COLOR["predicted"], linestyle="--", label="calibrated")
    enough = count >= 20
    error = np.sqrt(frequency * (1 - frequency) / np.maximum(count, 1))
    top.errorbar(
        confidence[enough],
        frequency[enough],
        yerr=2 * error[enough],
        color=style.COLOR["measured"],
        marker="o",
        capsize=3,
        label=WAYS[way],
    )
    top.set(ylabel="fraction right", ylim=(0, 1.03), xlim=(0, 1.02))
    bottom.stairs(count / count.sum(), edges, fill=True, color=style.COLOR["measured"], alpha=0.6)
    bottom.set(xlabel="confidence", ylabel="share", ylim=(0, 1))
    bottom.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    style.legend_above(top)
    return fig


def turned(digit, degrees, size):
    """A turned digit and its probabilities: fixed, and of every sampled batch; the label is marked.

    ``digit`` is a ``sampling.Turned``, which is read rightly at the first of its angles.
    """
    i, label = digit.angles.index(degrees), int(digit.fixed[0].argmax())
    fixed, draws = digit.fixed[i], digit.drawn[size][:, i]
    fig, (top, ax) = style.axes(rows=2, height=5.4, height_ratios=[1, 1.9])
    _draw_digit(top, digit.views[i].numpy())
    top.set_title(f"a {label}, turned by {degrees}°", fontsize=12)
    classes = np.arange(10)
    rng = np.random.default_rng(0)
    for k in classes:
        ax.plot(
            k + rng.uniform(-0.25, 0.25, len(draws)),
            draws[:, k],
            ".",
            color=style.COLOR["train"],
            alpha=0.35,
            markersize=5,
        )
    ax.plot([], [], ".", color=style.COLOR["train"], label=f"one batch of {size}")
    ax.plot(classes, draws.mean(axis=0), "o", color=style.COLOR["train"], label="their mean")
    ax.plot(
        classes,
        fixed,
        "_",
        color=style.COLOR["eval"],
        markersize=16,
        markeredgewidth=3,
        label="running statistics",
    )
    ax.plot(label, 1.06, "v", markersize=9, color=style.INK, label="right class")
    ax.set(xlabel="class", ylabel="probability", ylim=(-0.03, 1.12), xticks=classes)
    style.legend_above(ax)
    return fig


def _draw_digit(ax, pixels):
    """Draw 64 pixels as squares of ink, the more opaque the darker; one path for one darkness."""
    inks = np.round(16 * pixels) / 16
    for ink in np.unique(inks):
        squares = [
            Path.unit_rectangle().transformed(Affine2D().translate(i % 8, 7 - i // 8))
            for i in np.flatnonzero(inks == ink)
        ]
        whole = Path.make_compound_path(*squares)
        ax.add_patch(PathPatch(whole, facecolor=style.INK, linewidth=0, alpha=max(ink, 0.03)))
    ax.set(aspect="equal", xlim=(0, 8), ylim=(0, 8))
    ax.axis("off")
