"""The figures of the feature scaling chapter."""

from functools import cache

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes

from bncore.chapters.mechanics.scaling import experiments, full_size
from bncore.lab import studies
from bncore.mechanics import scaling, transform
from bncore.page import style
from bncore.page.labels import RAISED, value_text

MEASURED, PREDICTED = style.COLOR["measured"], style.COLOR["predicted"]
SCALINGS = ["raw", "centred", "min–max", "standardised", "whitened"]


def two_features(correlation, ratio=1.0, samples=100, seed=1):
    """Centred data with exactly this correlation, standard deviations 1 and `ratio`."""
    Z = np.random.default_rng(seed).normal(size=(samples, 2))
    white = scaling.ZCAWhitening.fit(Z).apply(Z)
    slope = np.sqrt(1 - correlation**2)
    return white @ np.array([[1, correlation * ratio], [0, slope * ratio]])


@cache
def table(name):
    """A table and its target, the target with mean 0 and variance 1."""
    load = {
        "diabetes": lambda: load_diabetes(return_X_y=True, scaled=False),
        "breast cancer": lambda: load_breast_cancer(return_X_y=True),
    }[name]
    X, y = load()
    return X, (y - y.mean()) / y.std()


def scaled(X, how):
    """X after one of SCALINGS, fitted on X itself."""
    return {
        "raw": lambda: X,
        "centred": lambda: X - X.mean(axis=0),
        "min–max": lambda: scaling.MinMax.fit(X).apply(X),
        "standardised": lambda: scaling.Standardization.fit(X).apply(X),
        "whitened": lambda: scaling.ZCAWhitening.fit(X).apply(X),
    }[how]()


def level_sets(H, names, steps=20):
    """Level sets of the loss around its minimum, and the path from the worst start."""
    values, vectors = np.linalg.eigh(H)
    kappa = values[-1] / values[0]
    rate = scaling.gradient_descent_rate(kappa)
    error = np.empty((steps + 1, 2))
    error[0] = (vectors[:, 0] + vectors[:, -1]) / np.sqrt(2)
    error[0] *= np.sign(error[0, 0]) or 1
    for t in range(steps):
        error[t + 1] = error[t] - 2 / values.sum() * H @ error[t]

    fig, ax = style.axes(height=4.3)
    angle = np.linspace(0, 2 * np.pi, 181)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    for level in 0.5 ** np.arange(0, 9):
        radii = np.sqrt(2 * level * error[0] @ H @ error[0] / values)[:, None]
        ax.plot(*(vectors @ (radii * circle)), color=style.MUTED, linewidth=0.8)
    ax.plot(*error.T, "o-", color=MEASURED, markersize=5, linewidth=1.5)
    ax.plot(0, 0, "x", color=style.INK, markersize=9, markeredgewidth=2)
    ax.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
    ax.set(xlabel=f"{names[0]}, minus its optimum", ylabel=f"{names[1]}, minus its optimum")
    share = 100 * rate**steps
    shown = value_text(float(f"{share:.2g}")) if share >= 1e-3 else "<0.001"
    left = f"{shown} % of the error left after {steps} steps"
    ax.set_title(
        f"κ = {value_text(kappa)}: {left if kappa > 1 + 1e-9 else 'at the optimum in one step'}"
    )
    return fig


def path(ratio, how):
    """Gradient descent on two correlated features of unequal scale."""
    Z = scaled(two_features(0.5, ratio), how)
    return level_sets(Z.T @ Z / len(Z), ("weight 1", "weight 2"))


def path_off_centre(mean):
    """Gradient descent on one feature of variance 1 and the intercept."""
    return level_sets(np.array([[1, mean], [mean, 1 + mean**2]]), ("intercept", "weight"))


def cloud(correlation, how):
    """A correlated cloud after a scaling, and gradient descent on it."""
    X = two_features(correlation)
    Z = {
        "batch norm": lambda: transform.forward(X, np.ones(2), np.zeros(2))[0],
        "PCA": lambda: scaling.PCAWhitening.fit(X).apply(X),
        "ZCA": lambda: scaling.ZCAWhitening.fit(X).apply(X),
    }[how]()
    kappa = scaling.condition_number(Z)
    rate = scaling.gradient_descent_rate(kappa)
    _, vectors = np.linalg.eigh(Z.T @ Z / len(Z))
    target = Z @ (vectors[:, 0] + vectors[:, -1])
    W = experiments.descend(Z, target, experiments.best_step(Z), 30)
    errors = np.linalg.norm(W - (vectors[:, 0] + vectors[:, -1]), axis=1) / np.sqrt(2)

    fig, (top, bottom) = style.axes(rows=2, height=6.0, height_ratios=[1.6, 1])
    color = style.COLOR["batch norm"] if how == "batch norm" else style.GREEN
    top.plot(*Z.T, "o" if how == "batch norm" else "^", color=color, markersize=3.5, linestyle="")
    top.set(xlim=(-3.6, 3.6), ylim=(-3.6, 3.6), aspect="equal", xlabel="feature 1")
    top.set(ylabel="feature 2", title=f"|correlation| = {abs(np.corrcoef(Z.T)[0, 1]):.2f}")
    t = np.arange(31)
    floor = 1e-4
    bottom.plot(t, np.maximum(rate**t, floor / 10), color=PREDICTED, label="predicted")
    shown = errors >= floor
    bottom.plot(t[shown], errors[shown], "o", color=MEASURED, markersize=5, label="measured")
    bottom.set(xlim=(-0.5, 30.5), xlabel="step", ylabel="error, relative")
    _decades(bottom, "y", floor, 1)
    bottom.set_title(f"κ = {value_text(kappa)}")
    bottom.legend(loc="upper right" if kappa < 10 else "lower left")
    return fig


def _decades(ax, axis, low, high, thin=1):
    """A logarithmic axis with plain labels: drawn several times as fast as matplotlib's own."""
    decades = 10.0 ** np.arange(round(np.log10(low)), round(np.log10(high)) + 1, thin)
    getattr(ax, f"set_{axis}scale")("log", subs=[])
    getattr(ax, f"set_{axis}ticks")(decades, [_plain(d) for d in decades])
    ax.minorticks_off()
    getattr(ax, f"set_{axis}lim")(low, high * 2)


def _plain(decade):
    if 1e-4 <= decade <= 1e4:
        return f"{decade:g}"
    return "10" + str(round(np.log10(decade))).translate(RAISED)


def ladder():
    """Condition number of two tables with an intercept after each of SCALINGS."""
    fig, ax = style.axes(height=3.5)
    looks = {"diabetes": ("o-", MEASURED), "breast cancer": ("D-", style.PURPLE)}
    for name, (look, colour) in looks.items():
        kappas = [_kappa(name, how) for how in SCALINGS]
        ax.plot(kappas, range(len(SCALINGS)), look, color=colour, linewidth=1, label=name)
    _decades(ax, "x", 1, 1e13, thin=3)
    ax.set(yticks=range(len(SCALINGS)), yticklabels=SCALINGS, xlabel="condition number κ")
    ax.set(ylim=(len(SCALINGS) - 0.5, -0.5), xlim=(0.5, 1e14))
    style.legend_above(ax)
    return fig


@cache
def _kappa(name, how):
    X, _ = table(name)
    return scaling.condition_number(experiments.with_intercept(scaled(X, how)))


def leads(last):
    """Points of accuracy by which other scalings of the inputs lead over batch norm, with intervals.

    `last` is the recorded accuracy of ``experiments.scaled_first`` at the best rates, on fresh seeds.
    """
    fig, ax = style.axes(height=3.6)
    looks = {
        "nothing": ("s", style.COLOR["no batch norm"]),
        "z-score": ("o", style.OCHRE),
        "logarithm": ("^", style.PURPLE),
    }
    sources = {"breast cancer": "tumours", "product": "product", "sum": "sum"}
    for shift, (first, (mark, colour)) in zip((-0.22, 0, 0.22), looks.items(), strict=True):
        for place, source in enumerate(sources):
            pair = (100 * last.sel(source=source, first=kind) for kind in (first, "batch norm"))
            mean, *ends = studies.difference(*pair, looked_at=full_size.LOOKED_AT)
            height = place + shift
            ax.plot(ends, (height, height), color=colour, linewidth=4, alpha=0.4)
            ax.plot(mean, height, mark, color=colour, markersize=8, label=None if place else first)
    ax.axvline(0, color=style.COLOR["batch norm"], linestyle="--")
    ax.set(yticks=range(len(sources)), yticklabels=sources.values(), ylim=(2.5, -0.5))
    ax.set(xlabel="points ahead of batch norm")
    style.legend_above(ax, columns=3)
    return fig


STEPS = 10_000


@cache
def _curves(name, how):
    X, y = table(name)
    design = experiments.with_intercept(scaled(X, how))
    step = 1 / experiments.extreme_eigenvalues(design.T @ design / len(design))[1]
    times = np.r_[0, np.unique(np.geomspace(1, STEPS, 50).round().astype(int))]
    W = experiments.descend(design, y, step, STEPS)[times]
    measured = experiments.excess_loss(design, y, W)
    foretold = experiments.foretold_excess_loss(design, y, step, times.astype(float))
    rate = scaling.gradient_descent_rate(scaling.condition_number(design), step="1/lambda_max")
    return times, measured / measured[0], foretold / measured[0], rate ** (2.0 * times)


def real_data(data, scale):
    """Measured and predicted excess loss on a real table, every other scaling in grey."""
    floor = 1e-4
    fig, ax = style.axes(height=3.9)
    for other in SCALINGS:
        times, measured, _, _ = _curves(data, other)
        ax.plot(1 + times, np.maximum(measured, floor / 10), color=style.MUTED, linewidth=0.8)
    times, measured, foretold, bound = _curves(data, scale)
    ax.plot(1 + times, np.maximum(bound, floor / 10), "--", color=style.OCHRE, label="worst case")
    ax.plot(1 + times, np.maximum(foretold, floor / 10), color=PREDICTED, label="predicted")
    shown = measured >= floor
    ax.plot(1 + times[shown][::3], measured[shown][::3], "o", color=MEASURED, label="measured")
    _decades(ax, "x", 1, STEPS)
    ax.set_xlim(0.9, STEPS)
    _decades(ax, "y", floor, 1)
    ax.set(xlabel="step + 1", ylabel="excess loss, relative")
    style.legend_above(ax, columns=3)
    return fig


def outlier(size):
    """One feature with one far value, min–max scaled and standardised."""
    x = np.random.default_rng(3).normal(size=(100, 1))
    x[0] = size
    fig, panels = style.axes(rows=2, height=4.2)
    for ax, how in zip(panels, ("min–max", "standardised"), strict=True):
        z = scaled(x, how)[:, 0]
        middle = np.ptp(np.percentile(z, [25, 75]))
        ax.plot(z[1:], np.linspace(-1, 1, 99), "o", color=style.COLOR["data"], markersize=4)
        ax.plot(z[0], 0, "D", color=style.COLOR["highlight"], markersize=8)
        ax.set(ylim=(-1.6, 1.6), yticks=[], xlabel=f"{how} value")
        ax.set_title(f"middle half of the samples: {middle:.2g} wide")
    return fig


def spread_over_starts(starts=20):
    """Steps for three digits of accuracy from random starts, beside the worst case."""
    kappas = np.array([2, 5, 10, 30, 100, 300, 1000])
    rng = np.random.default_rng(0)
    needed = np.empty((len(kappas), starts))
    for k, kappa in enumerate(kappas):
        factors = 1 - 2 / (1 + kappa) * np.geomspace(1, kappa, 10)
        error = rng.normal(size=(starts, 10))
        goal = np.linalg.norm(error, axis=1) / 1e3
        needed[k] = 0
        while (far := np.linalg.norm(error, axis=1) > goal).any():
            error = error * factors
            needed[k] += far
    fig, ax = style.axes()
    fine = np.geomspace(1.5, 1500, 100)
    rates = [scaling.gradient_descent_rate(k) for k in fine]
    worst = [experiments.steps_to_shrink(rate, 1e3) for rate in rates]
    ax.plot(fine, worst, color=PREDICTED, label="predicted, worst start")
    middle = np.median(needed, axis=1)
    ends = np.abs(np.stack([needed.min(axis=1), needed.max(axis=1)]) - middle)
    ax.errorbar(kappas, middle, ends, fmt="o", capsize=4, color=MEASURED, label="20 random starts")
    _decades(ax, "x", 1, 1000)
    _decades(ax, "y", 1, 10_000)
    ax.set(xlabel="condition number κ", ylabel="steps to 1/1000 of the error")
    ax.legend()
    return fig


def logistic(steps=1500):
    """Distance to the minimum of the logistic loss, and the slope that its Hessian predicts."""
    X, y = table("breast cancer")
    labels = (y > 0).astype(float)
    fig, ax = style.axes(height=3.9)
    t = np.arange(steps + 1)
    looks = {"standardised": (MEASURED, "s"), "whitened": (style.GREEN, "^")}
    for how, (color, marker) in looks.items():
        design = experiments.with_intercept(scaled(X[:, [1, 4, 5, 8, 9]], how))
        optimum, H = experiments.logistic_optimum(design, labels)
        step = 4 / experiments.extreme_eigenvalues(design.T @ design / len(design))[1]
        W = experiments.logistic_descent(design, labels, step, steps)
        errors = np.linalg.norm(W - optimum, axis=1) / np.linalg.norm(optimum)
        slowest, _ = experiments.extreme_eigenvalues(H)
        shown = t[errors > 1e-9][::75]
        late = shown[-1]
        slope = errors[late] * (1 - step * slowest) ** (t - float(late))
        ax.plot(t, slope, "--", color=PREDICTED, linewidth=1.2)
        ax.plot(shown, errors[shown], marker, color=color, label=f"{how}, measured")
    ax.plot([], [], "--", color=PREDICTED, linewidth=1.2, label="predicted slope")
    _decades(ax, "y", 1e-8, 1, thin=2)
    ax.set(xlabel="step", ylabel="distance to minimum, relative")
    ax.legend()
    return fig
