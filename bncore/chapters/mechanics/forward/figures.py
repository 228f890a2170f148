"""The forward chapter's longer figures."""

from collections.abc import Mapping, Sequence
from numbers import Real

import matplotlib.figure
import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.special import expit

from bncore.chapters.mechanics.forward import full_size
from bncore.chapters.mechanics.forward.benefits import EPOCH, LOSS
from bncore.lab import studies
from bncore.lab.training import History
from bncore.mechanics import transform
from bncore.page import labels, style

PLAIN, NORMALISED = style.COLOR["no batch norm"], style.COLOR["batch norm"]
APART = 1.3  # inputs of a sigmoid between two lines of type, in `percentiles`


def same_output(
    z: Float[np.ndarray, "batch"], scale: Real, shift: Real
) -> matplotlib.figure.Figure:
    """A batch as it is, above, and after batch norm, below. One value is marked in both."""
    x = scale * z + shift
    x_hat = transform.forward(x[:, None])[0][:, 0]
    fig, (before, after) = style.axes(2, height=4.0)
    height = np.linspace(0.15, 0.85, len(z))
    for ax, values, colour in ((before, x, PLAIN), (after, x_hat, NORMALISED)):
        ax.plot(values, height, "o", color=colour, markersize=4, alpha=0.6)
        ax.plot(values[7], height[7], "D", color=style.INK, markersize=8)
        ax.axvline(values.mean(), color=style.COLOR["mean"], linestyle="--")
        ax.set(ylim=(0, 1), yticks=[])
    before.set(xlim=(-9, 9), title=_moments(x), xlabel="before")
    after.set(xlim=(-3.5, 3.5), title=_moments(x_hat), xlabel="after batch norm")
    return fig


def on_the_sigmoid(
    x_hat: Float[np.ndarray, "batch"], gamma: Real, beta: Real
) -> matplotlib.figure.Figure:
    """The values y = gamma x_hat + beta on the curve of the sigmoid that they enter.

    The outputs at gamma = 1 and beta = 0, with which a layer begins, are there to compare.
    """
    y = gamma * x_hat + beta
    output = expit(y)
    fig, (curve, counts) = style.axes(2, height=4.3, height_ratios=(2, 1))
    line = np.linspace(-9, 9, 181)
    covered = np.linspace(y.min(), y.max(), 181)
    curve.plot(line, expit(line), color=style.MUTED)
    curve.plot(covered, expit(covered), color=NORMALISED, linewidth=7, alpha=0.25)
    curve.plot(y, output, "o", color=NORMALISED, markersize=5, alpha=0.5)
    slope = (output * (1 - output)).mean()
    curve.set(
        xticks=(-8, -4, 0, 4, 8),
        xlim=(-9, 9),
        xlabel="y = γ x̂ + β",
        ylabel="output",
        title=f"mean slope {slope:.3f} of 0.25",
    )
    tenths = np.linspace(0, 1, 11)
    counts.hist(output, tenths, color=NORMALISED, histtype="stepfilled")
    first, _ = np.histogram(expit(x_hat), tenths)
    counts.stairs(first, tenths, color=style.INK, linewidth=1.5, label="first, at γ = 1, β = 0")
    counts.legend(loc="upper center", fontsize=11, borderaxespad=0)
    counts.set(xlim=(0, 1), ylim=(0, len(y)), xlabel="output of the sigmoid", ylabel="images")
    return fig


def soft_threshold(
    pixels: Float[np.ndarray, "batch features"], eps: Real
) -> matplotlib.figure.Figure:
    """Variance of each normalised pixel beside σ² / (σ² + ε)."""
    deviation = pixels.std(axis=0)
    variance = transform.forward(pixels, eps=eps)[0].var(axis=0)
    line = np.geomspace(6e-5, 1.6, 200)
    fig, ax = style.axes()
    ax.plot(line, line**2 / (line**2 + eps), color=style.COLOR["predicted"], label="σ² / (σ² + ε)")
    ax.plot(
        deviation,
        variance,
        "o",
        color=style.COLOR["measured"],
        markersize=5,
        label=f"{pixels.shape[1]} pixels",
    )
    ax.axvline(eps**0.5, color=style.COLOR["highlight"], linestyle=":", label="σ = √ε")
    ax.set(
        xscale="log",
        xlim=(6e-5, 1.6),
        ylim=(-0.03, 1.08),
        xlabel="σ of the pixel (0 paper, 1 ink)",
        ylabel="variance of x̂",
    )
    style.legend_above(ax, columns=3)
    return fig


def fading(
    plain: Float[np.ndarray, "seeds layers"],
    normalised: Float[np.ndarray, "seeds layers"],
    gain: Real,
) -> matplotlib.figure.Figure:
    """Root mean square of the sigmoids' standard deviations over the images, beside the bound."""
    layers = np.arange(1, plain.shape[1] + 1)
    fig, ax = style.axes()
    bound = np.sqrt(np.square(plain[:, 0]).mean()) * (gain / 4) ** (layers - 1)
    for values, colour, marker, label in (
        (normalised, NORMALISED, "o", "batch norm"),
        (plain, PLAIN, "s", "no batch norm"),
    ):
        ax.fill_between(layers, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.25)
        ax.plot(layers, values.mean(axis=0), color=colour, marker=marker, label=label)
    ax.plot(
        layers, bound, color=style.COLOR["predicted"], linestyle=":", label="bound (g/4) a layer"
    )
    ax.set(
        yscale="log",
        ylim=(1e-7, 1e5),
        xticks=layers,
        xlabel="hidden layer",
        ylabel="standard deviation",
    )
    style.legend_above(ax)
    return fig


def percentiles(plain: History, normalised: History, unit: int) -> matplotlib.figure.Figure:
    """The 15th, 50th and 85th percentile of one sigmoid's input over training, in two networks."""
    fig, rows = style.axes(2, height=5, sharex=True, sharey=True)
    for ax, history, colour, title in zip(
        rows,
        (plain, normalised),
        (PLAIN, NORMALISED),
        ("no batch norm", "batch norm"),
        strict=True,
    ):
        low, median, high = history.records["percentiles"][:, unit].T
        ax.fill_between(history.steps, low, high, color=colour, alpha=0.2)
        end = median[-1]
        for values, name, width, place in (
            (high, "85th", 1, max(high[-1], end + APART)),
            (median, "50th", 2.5, end),
            (low, "15th", 1, min(low[-1], end - APART)),
        ):
            ax.plot(history.steps, values, color=colour, linewidth=width, label=name)
            ax.annotate(
                name,
                (history.steps[-1], place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
            )
        ax.set(title=title, ylabel="input of the sigmoid", ylim=(-6, 6))
        ax.set_xlim(0, 1.1 * history.steps[-1])
    rows[-1].set(xlabel="training steps")
    return fig


def in_use(
    runs: Mapping[str, Sequence[tuple[Sequence[float], float]]], goal: Real = LOSS
) -> matplotlib.figure.Figure:
    """Training loss, mean over the last epoch, one line a seed, above; test accuracies below.

    `runs` has the losses and the accuracy of each seed, under "none" and "batch".
    """
    fig, (curves, dots) = style.axes(2, height=4.4, height_ratios=(3, 1))
    looks = {"none": ("no batch norm", PLAIN), "batch": ("batch norm", NORMALISED)}
    for place, (key, (name, colour)) in enumerate(looks.items()):
        for i, (losses, accuracy) in enumerate(runs[key]):
            means = np.convolve(losses, np.ones(EPOCH) / EPOCH, "valid")
            steps = np.arange(EPOCH, len(losses) + 1)
            label = None if i else name
            curves.plot(steps, means, color=colour, linewidth=1.5, label=label)
            dots.plot(accuracy, place, "o", color=colour, alpha=0.6, clip_on=False)
    curves.axhline(goal, color=style.MUTED, linestyle=":")
    curves.set(yscale="log", xlabel="training steps", ylabel="training loss")
    curves.set(yticks=[0.01, 0.1, 1], yticklabels=["0.01", "0.1", "1"])
    style.legend_above(curves)
    dots.set(xlabel="test accuracy", xlim=(0.9, 1))
    dots.set(yticks=(0, 1), yticklabels=("without", "with"), ylim=(-0.6, 1.6))
    return fig


def speedups(full: Mapping) -> matplotlib.figure.Figure:
    """How many times fewer steps to a training loss batch norm needs: means and intervals.

    `full` is the recorded run. Each network starts from the gain and learns at the rate best for it.
    """
    fig, ax = style.axes(height=2.0)
    kinds = list(full_size.STEADINESS["gains"])
    for place, kind in enumerate(kinds):
        mean, *ends = _fewer(full, kind, looked_at=len(kinds))
        ax.plot(ends, (place, place), color=NORMALISED, linewidth=4, alpha=0.4)
        ax.plot(mean, place, "o", color=NORMALISED, markersize=9)
    ax.axvline(1, color=PLAIN, linestyle=":")
    ax.set(yticks=range(len(kinds)), yticklabels=kinds, ylim=(len(kinds) - 0.5, -0.5))
    ax.set(xlim=(0, 5), xlabel="times fewer steps with batch norm")
    return fig


def _fewer(full, kind, looked_at):
    """The geometric mean of the ratio of steps over seeds, and the ends of its interval."""
    part = "convolutional" if kind == "convolutional" else "starts"
    horizon = full_size.CONFIGURATION[part]["horizon"]
    found = full[part]["by_loss"].loss_score.clip(max=horizon).sel(kind=kind)
    steps = np.log2(found.sel(gain=full_size.STEADINESS["gains"][kind], method="nearest"))
    pair = (steps.sel(normalization=name) for name in ("none", "batch"))
    return 2 ** np.array(studies.difference(*pair, looked_at=looked_at))


def corrections(
    eps: Real = 1e-3, sizes: Sequence[int] = (2, 4, 8, 16, 32, 64, 128), draws: int = 4000
) -> matplotlib.figure.Figure:
    """Estimates of a population's variance over the true one, by batch size, at two deviations.

    Lines are what independent draws give on average, marks the mean over batches of normal numbers.
    """
    fig, rows = style.axes(2, height=5.4, sharex=True)
    m = np.array(sizes)
    for ax, deviation in zip(rows, (0.01, 1), strict=True):
        biased = np.array([_mean_variance(size, draws) for size in sizes])
        added = eps / deviation**2
        for name, expected, found, colour, mark in (
            ("+ ε", (m - 1) / m + added, biased + added, style.COLOR["highlight"], "D"),
            ("× m/(m − 1)", np.ones(len(m)), biased * m / (m - 1), style.GREEN, "s"),
            ("as it is", (m - 1) / m, biased, style.MUTED, "o"),
        ):
            # What lies on something else stays in sight: a larger mark, empty, below a smaller one.
            look = {"color": colour, "marker": mark, "markersize": 11 if mark == "D" else 6}
            look["markerfacecolor"] = "none" if mark == "D" else colour
            ax.plot(m, expected, color=colour, linestyle=":")
            ax.plot(m, found, linestyle="", **look)
            ax.plot([], [], linestyle=":", label=name, **look)
        ax.set(xscale="log", yscale="log", ylim=(0.3, 20), ylabel=f"over true, σ = {deviation}")
        ax.set(yticks=[0.5, 1, 10], yticklabels=["0.5", "1", "10"])
        ax.minorticks_off()
        style.legend_above(ax, columns=3)
    rows[-1].set(xlabel="batch size m", xticks=m, xticklabels=sizes)
    return fig


def _mean_variance(size, draws):
    """Mean of the biased variance over batches from the standard normal law."""
    batches = np.random.default_rng(size).normal(size=(draws, size))
    return float(batches.var(axis=1).mean())


PANELS = {
    "sigmoid": {
        "sigmoid, batch norm": ("batch norm", NORMALISED, "o", "full"),
        "sigmoid": ("no batch norm", PLAIN, "s", "full"),
        "sigmoid, gain 4": ("no batch norm, gain 4", PLAIN, "D", "none"),
    },
    "ReLU": {
        "ReLU, gain √2, batch norm": ("batch norm", NORMALISED, "o", "full"),
        "ReLU, gain √2": ("no batch norm", PLAIN, "s", "full"),
    },
}


def learning_rates(tuning: xr.Dataset, steps: int) -> matplotlib.figure.Figure:
    """Test accuracy after so many steps against learning rate: median over seeds, and their range."""
    fig, rows = style.axes(2, height=5.2, sharex=True)
    for ax, (title, curves) in zip(rows, PANELS.items(), strict=True):
        for network, (name, colour, marker, fill) in curves.items():
            found = tuning.accuracy.sel(network=network, steps=steps).dropna("learning_rate")
            rates = found.learning_rate.values
            ends = found.min("seed"), found.max("seed")
            ax.fill_between(rates, *ends, color=colour, alpha=0.15, linewidth=0)
            ax.plot(
                rates,
                found.median("seed"),
                color=colour,
                marker=marker,
                markersize=7 if fill == "none" else 6,
                fillstyle=fill,
                label=name,
            )
        ax.set(xscale="log", ylim=(0, 1.02), ylabel=f"accuracy, {title}")
        style.legend_above(ax)
    rows[-1].set(xlabel="learning rate")
    rows[-1].xaxis.set_major_formatter(lambda rate, _: labels.value_text(rate))
    return fig


def arrivals(found: xr.Dataset, horizon: int) -> matplotlib.figure.Figure:
    """Steps to a training loss against the initial gain: median over seeds, and their range.

    `found` is "by_loss" of the recorded run; runs that did not arrive stand at the horizon.
    """
    fig, rows = style.axes(len(PANELS), height=5.0, sharex=True)
    looks = {
        "batch": ("batch norm", NORMALISED, "o"),
        "none": ("no batch norm", PLAIN, "s"),
    }
    steps = found.loss_score.clip(max=horizon)
    for ax, kind in zip(rows, PANELS, strict=True):
        for normalization, (name, colour, marker) in looks.items():
            one = steps.sel(kind=kind, normalization=normalization)
            ax.fill_between(
                one.gain, one.min("seed"), one.max("seed"), color=colour, alpha=0.15, linewidth=0
            )
            ax.plot(
                one.gain, one.median("seed"), color=colour, marker=marker, markersize=6, label=name
            )
        ax.axhline(horizon, color=style.MUTED, linestyle=":")
        ax.set(xscale="log", yscale="log", ylim=(30, 1.5 * horizon), ylabel=f"steps, {kind}")
        ax.set(yticks=[100, 1000], yticklabels=["100", "1000"])
        style.legend_above(ax)
    rows[-1].set(xlabel="gain of the initial weights", xticks=[1 / 16, 1 / 4, 1, 4, 16])
    rows[-1].set_xticklabels(["1/16", "1/4", "1", "4", "16"])
    rows[-1].minorticks_off()
    return fig


def _moments(values):
    mean = f"{values.mean():.1f}".replace("-0.0", "0.0").replace("-", "−")
    return f"mean {mean}, standard deviation {values.std():.1f}"
