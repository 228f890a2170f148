"""The figures of the backward chapter."""

import numpy as np
from matplotlib.patches import FancyArrowPatch
from scipy import stats

from bncore.chapters.mechanics.backward.experiments import drifting_bias
from bncore.lab import studies
from bncore.mechanics import projection, textbook, transform
from bncore.page import style
from bncore.page.labels import value_text

X = np.array([-1.7, -1.0, -0.3, 0.4, 0.9, 1.7])[:, None]
REST = projection.split(np.array([0.9, -1.1, 0.3, -0.8, 1.2, -0.5])[:, None], X).rest

NODES = {
    "x": (1.1, 9.0),
    "μ": (5.0, 7.3),
    "σ²": (8.9, 9.0),
    "x̂": (5.0, 4.9),
    "γ": (1.6, 3.7),
    "β": (8.4, 3.7),
    "y": (5.0, 2.5),
    "ℓ": (5.0, 0.5),
}
LEADS_TO = {
    "x": ("μ", "σ²", "x̂"),
    "μ": ("σ²", "x̂"),
    "σ²": ("x̂",),
    "x̂": ("y",),
    "γ": ("y",),
    "β": ("y",),
    "y": ("ℓ",),
}
EDGES = [(tail, head) for tail, heads in LEADS_TO.items() for head in heads]
SYMBOLS = {
    "x": "$x$",
    "μ": r"$\mu$",
    "σ²": r"$\sigma^2$",
    "x̂": r"$\hat x$",
    "γ": r"$\gamma$",
    "β": r"$\beta$",
    "y": "$y$",
    "ℓ": r"$\ell$",
}
STEPS = ["forward", "∂ℓ/∂y", "∂ℓ/∂β", "∂ℓ/∂γ", "∂ℓ/∂x̂", "∂ℓ/∂σ²", "∂ℓ/∂μ", "∂ℓ/∂x"]
FORMULAS = {
    "forward": r"$\hat x_i=(x_i-\mu)/\sqrt{\sigma^2+\varepsilon}$,   $y_i=\gamma\hat x_i+\beta$",
    "∂ℓ/∂y": r"$\partial\ell/\partial y_i$: given by what follows",
    "∂ℓ/∂β": r"$\sum_i\,\partial\ell/\partial y_i$",
    "∂ℓ/∂γ": r"$\sum_i\,\partial\ell/\partial y_i\;\hat x_i$",
    "∂ℓ/∂x̂": r"$\gamma\;\partial\ell/\partial y_i$",
    "∂ℓ/∂σ²": r"$-\frac{1}{2}(\sigma^2+\varepsilon)^{-3/2}"
    r"\,\sum_i\,\partial\ell/\partial\hat x_i\;(x_i-\mu)$",
    "∂ℓ/∂μ": r"$-(\sigma^2+\varepsilon)^{-1/2}\,\sum_i\,\partial\ell/\partial\hat x_i\;+\;0$",
    "∂ℓ/∂x": r"$\dfrac{\partial\ell/\partial\hat x_i}{\sqrt{\sigma^2+\varepsilon}}"
    r"+\dfrac{\partial\ell}{\partial\sigma^2}\,\dfrac{2(x_i-\mu)}{m}"
    r"+\dfrac{\partial\ell}{\partial\mu}\,\dfrac{1}{m}$",
}


def fit(level, tilt, eps=1e-12):
    """Draw the gradients of a batch of six with the line fitted to them, and what the line leaves.

    Parameters
    ----------
    level, tilt : float
        What is added to the gradient along the ones and along x.
    eps : float
        Added to the variance; the line is a ridge regression with penalty m eps.
    """
    dy = REST + level + tilt * X
    _, cache = transform.forward(X, eps=eps)
    dx = transform.backward(dy, cache).dx / cache.inv_std
    fig, (above, below) = style.axes(rows=2, height=4.8, sharex=True)
    above.plot(X, dy - dx, color=style.INK, linestyle="--", label="fitted line")
    above.vlines(X[:, 0], (dy - dx)[:, 0], dy[:, 0], color=style.COLOR["batch norm"], linewidth=4)
    above.plot(X, dy, "o", color=style.MUTED, markersize=9, label="what the loss asks for")
    above.set(ylim=(-7.5, 7.5), ylabel="at the outputs")
    style.legend_above(above)
    below.axhline(0, color=style.INK, linestyle="--")
    below.vlines(X[:, 0], 0, dx[:, 0], color=style.COLOR["batch norm"], linewidth=4)
    below.plot(X, dx, "s", color=style.COLOR["batch norm"], markersize=8, label="what arrives")
    below.set(ylim=(-2.2, 2.2), ylabel="at the inputs · s")
    below.set_xlabel("value in the batch")
    style.legend_above(below)
    return fig


def graph(step, values):
    """Draw the computation graph of batch norm, with one step of the backward pass marked.

    Parameters
    ----------
    step : str
        One of ``STEPS``.
    values : dict of str to array
        For each step but "forward" the number, or the number of each sample.
    """
    style.use()
    fig, ax = style.plt.subplots(figsize=(style.WIDTH, 5.6))
    ax.set(xlim=(0, 10), ylim=(-3.4, 9.8))
    ax.axis("off")
    reached = STEPS.index(step)
    node = "ℓ" if step == "forward" else step.removeprefix("∂ℓ/∂")
    done = {name.removeprefix("∂ℓ/∂") for name in STEPS[1 : reached + 1]} | {"ℓ"}
    for tail, head in EDGES:
        forward = step == "forward"
        now, passed = tail == node and not forward, tail in done and not forward
        colour = style.COLOR["highlight"] if now else style.BLUE if passed else style.MUTED
        start, end = (head, tail) if passed or now else (tail, head)
        ax.add_patch(
            FancyArrowPatch(
                NODES[start],
                NODES[end],
                arrowstyle="-|>",
                mutation_scale=18,
                color=colour,
                shrinkA=19,
                shrinkB=19,
                linewidth=4 if now else 2,
                linestyle="-" if now or not passed else (0, (4, 1.5)),
            )
        )
    for name, (a, b) in NODES.items():
        now = name == node and step != "forward"
        colour = style.COLOR["highlight"] if now else style.BLUE if name in done else style.MUTED
        edge = style.MUTED if step == "forward" else colour
        ax.plot(
            a,
            b,
            "o",
            markersize=34,
            markeredgecolor=edge,
            markerfacecolor=style.PAPER,
            markeredgewidth=4 if now else 2,
        )
        ax.text(a, b, SYMBOLS[name], ha="center", va="center", fontsize=18)
    ax.text(5, -1.25, FORMULAS[step], ha="center", va="center", fontsize=16)
    if step != "forward":
        numbers = "   ".join(value_text(value) for value in np.ravel(values[step]))
        ax.text(5, -2.8, f"= {numbers}", ha="center", va="center", fontsize=14)
    return fig


HIDDEN = {
    "nothing": ("nothing hidden", style.COLOR["batch norm"], "o"),
    "variance": ("variance hidden", style.COLOR["variance"], "s"),
    "mean": ("mean hidden", style.COLOR["mean"], "D"),
    "both": ("both hidden", style.COLOR["highlight"], "^"),
}


def surviving(m, draws=4000):
    """Draw how the share of a random gradient that survives is distributed, beside its prediction.

    Parameters
    ----------
    m : int
        Batch size, at least 3.
    draws : int
        Number of random batches.
    """
    rng = np.random.default_rng(m)
    dy, x = rng.normal(size=(2, m, draws))
    share = projection.surviving_share(dy, x)
    density = stats.beta((m - 2) / 2, 1)
    fig, ax = style.axes(height=3.6)
    edges = np.linspace(0, 1, 26)
    ax.hist(
        share,
        edges,
        density=True,
        color=style.COLOR["measured"],
        alpha=0.45,
        label=f"measured, mean {share.mean():.3f}",
    )
    grid = np.linspace(0.002, 1, 300)
    ax.plot(
        grid,
        density.pdf(grid),
        color=style.COLOR["predicted"],
        linestyle="--",
        label=f"predicted, mean {(m - 2) / m:.3f}",
    )
    ax.axvline((m - 2) / m, ymax=0.72, color=style.COLOR["highlight"], linestyle=":")
    top = max(3.2, 1.25 * (m - 2) / 2)
    ax.set(xlim=(0, 1), ylim=(0, top), ylabel="density", title=f"batch of {m}")
    ax.set_xlabel(r"share of $\|\partial\ell/\partial y\|^2$ that survives")
    ax.legend(loc="upper left" if m > 3 else "upper center")
    return fig


def leaking(eps):
    """Draw a gradient that is all tilt, what epsilon lets through of it, and the law of the leak.

    Parameters
    ----------
    eps : float
        Added to the variance.
    """
    x = X / X.std()
    dy = x.copy()
    _, cache = transform.forward(x, eps=eps)
    dx = transform.backward(dy, cache).dx / cache.inv_std
    fig, (above, below) = style.axes(rows=2, height=5.0)
    above.plot(x, dy, "o", color=style.MUTED, markersize=12, label="asked for: all tilt")
    above.plot(x, dy - dx, color=style.INK, linestyle="--", label="fitted, flattened")
    above.plot(x, dx, "s", color=style.COLOR["batch norm"], markersize=6, label="arrives")
    above.set(ylim=(-1.9, 1.9), xlim=(-1.7, 1.7), ylabel="gradient")
    above.set_xlabel(r"value in the batch, $x_i$ (standard deviation 1)")
    above.legend(loc="upper left")
    grid = np.logspace(-5, 2, 100)
    below.semilogx(
        grid,
        grid / (1 + grid),
        color=style.COLOR["predicted"],
        linestyle="--",
        label=r"predicted, $\varepsilon/(\sigma^2+\varepsilon)$",
    )
    measured = float((dx * dy).sum() / (dy**2).sum())
    below.plot(eps, measured, "s", color=style.COLOR["measured"], markersize=10, label="measured")
    below.set(ylim=(-0.05, 1.05), ylabel="share that leaks")
    below.set(xlabel=r"$\varepsilon/\sigma^2$", xticks=[1e-4, 0.01, 1, 100])
    below.xaxis.set_major_formatter(lambda value, _: value_text(value))
    below.minorticks_off()
    below.legend(loc="upper left")
    return fig


def constant_feature(eps=1e-5):
    """Draw what arrives at a batch of two by the deviation of its values, beside its prediction.

    Parameters
    ----------
    eps : float
        Added to the variance.
    """
    line = np.geomspace(1e-4, 10, 200)
    deviations = 10.0 ** np.arange(-4, 2)
    pull, unit = np.array([[1.0], [-1.0]]), np.ones(1)
    arrives = []
    for deviation in deviations:
        cache = textbook.forward(deviation * pull, unit, unit, eps)[1]
        arrives.append(textbook.backward(pull, cache)[0][0, 0])
    fig, ax = style.axes(height=3.0)
    predicted = eps / (line**2 + eps) ** 1.5
    ax.loglog(line, predicted, color=style.COLOR["predicted"], linestyle="--", label="predicted")
    ax.loglog(deviations, arrives, "o", color=style.COLOR["measured"], label="measured")
    ax.set(xlabel="standard deviation of the two values", ylabel="arrives")
    ax.set(xticks=deviations[::2], yticks=[1e-6, 1e-3, 1, 1e3])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: value_text(value))
    ax.minorticks_off()
    style.legend_above(ax)
    return fig


def survival(sizes, shares):
    """Draw the share of real gradients that survives against the batch size, beside its prediction.

    Parameters
    ----------
    sizes : sequence of int
        Batch sizes.
    shares : dict of str to ndarray of shape (seeds, sizes)
        For "fresh" and "trained" networks.
    """
    fig, ax = style.axes(height=3.4)
    expected = 1 - 2 / np.array(sizes)
    ax.plot(sizes, expected, color=style.COLOR["predicted"], linestyle="--", label="1 − 2/m")
    looks = {"fresh": (style.MUTED, "o"), "trained": (style.COLOR["measured"], "s")}
    for name, (colour, mark) in looks.items():
        ends = shares[name].min(axis=0), shares[name].max(axis=0)
        ax.fill_between(sizes, *ends, color=colour, alpha=0.25)
        ax.plot(sizes, shares[name].mean(axis=0), color=colour, marker=mark, label=name)
    ax.set(xscale="log", ylim=(-0.03, 1.05), xlabel="batch size m", ylabel="share that survives")
    ax.set_xticks(sizes, sizes)
    ax.minorticks_off()
    style.legend_above(ax, columns=3)
    return fig


def differences(steps, errors, predicted):
    """Draw the relative errors of numerical derivatives against the step, beside their prediction.

    Parameters
    ----------
    steps : ndarray
        Step sizes.
    errors, predicted : dict of str to ndarray
        As from ``experiments.difference_errors``.
    """
    fig, ax = style.axes(height=3.8)
    looks = {
        "forward": ("^", style.VERMILLION),
        "central": ("o", style.COLOR["measured"]),
        "complex step": ("s", style.GREEN),
    }
    for name, (mark, colour) in looks.items():
        seen = np.maximum(errors[name], 1e-17)
        ax.plot(steps, seen, mark, markersize=4, color=colour, label=name)
    for name in predicted:
        label = "predicted" if name == "central" else None
        ax.plot(steps, predicted[name], color=style.COLOR["predicted"], linestyle="--", label=label)
    ax.set(xscale="log", yscale="log", ylim=(1e-17, 1e2))
    ax.set(xlabel="step size h", ylabel="relative error of the slope")
    style.legend_above(ax)
    return fig


def drift(steps=200):
    """Draw a bias before a normalisation whose mean the gradient sees or not, and the loss."""
    fig, (above, below) = style.axes(rows=2, height=4.2, sharex=True)
    for name, colour, settings in (
        ("mean hidden", style.COLOR["mean"], {"seen": False}),
        ("mean hidden, with β", style.COLOR["highlight"], {"seen": False, "output_bias": True}),
        ("mean seen", style.COLOR["batch norm"], {"seen": True}),
    ):  # fmt: skip
        path, losses = drifting_bias(steps, **settings)
        width = 5 if name == "mean hidden" else 2
        above.plot(path, color=colour, linewidth=width, label=name)
        below.plot(losses, color=colour, linewidth=width)
        if name == "mean hidden":
            straight = path[1] * np.arange(steps)
            above.plot(
                straight,
                color=style.COLOR["predicted"],
                linestyle="--",
                label="predicted",
                zorder=3,
            )
    above.set(ylabel="bias b", ylim=(-1, 17))
    below.set(ylabel="loss", xlabel="gradient steps", ylim=(0, None))
    style.legend_above(above)
    return fig


def hidden(runs, every=20, window=15):
    """Draw training loss and length of the weights with statistics hidden from the gradient.

    Parameters
    ----------
    runs : dict of str to list
        For each of ``experiments.HIDDEN`` what ``hidden_on_digits`` returns, a run a seed.
    every, window : int
        Steps between two lengths, and over how many the loss is averaged.
    """
    fig, (above, below) = style.axes(rows=2, height=4.6, sharex=True)
    for kind, (name, colour, mark) in HIDDEN.items():
        means = [np.convolve(run[0], np.ones(window) / window, "valid") for run in runs[kind]]
        lengths = [run[1] for run in runs[kind]]
        steps = np.arange(len(means[0])) + window // 2
        for ax, where, values in (
            (above, steps, np.array(means)),
            (below, every * np.arange(len(lengths[0])), np.array(lengths)),
        ):
            ends = values.min(axis=0), values.max(axis=0)
            ax.fill_between(where, *ends, color=colour, alpha=0.2)
            seldom = max(1, len(where) // 8)
            mean = values.mean(axis=0)
            ax.plot(where, mean, marker=mark, markevery=seldom, color=colour, label=name)
    above.set(yscale="log", ylabel="training loss")
    above.set(yticks=[0.01, 0.1, 1], yticklabels=["0.01", "0.1", "1"])
    below.set(ylabel="weight length", xlabel="gradient steps", ylim=(0, None))
    style.legend_above(above)
    return fig


def cost(fresh, looked_at=15):
    """Draw the loss with statistics hidden over that with nothing hidden, and its interval.

    Parameters
    ----------
    fresh : xarray.Dataset
        "fresh" of the recorded run.
    looked_at : int
        For how many comparisons the intervals allow.
    """
    logs = np.log(fresh.loss)
    fig, ax = style.axes(height=2.8)
    for shift, kind in zip((0.92, 1, 1.08), ("variance", "mean", "both"), strict=True):
        _, colour, mark = HIDDEN[kind]
        for steps in logs.steps.values:
            pair = (logs.sel(hidden=one, steps=steps) for one in (kind, "nothing"))
            mean, *ends = np.exp(studies.difference(*pair, looked_at=looked_at))
            label = kind if steps == logs.steps[0] else None
            ax.plot((steps * shift,) * 2, ends, color=colour, linewidth=4, alpha=0.4)
            ax.plot(steps * shift, mean, mark, color=colour, markersize=8, label=label)
    ax.axhline(1, color=style.COLOR["batch norm"])
    ax.set(xscale="log", yscale="log", xlabel="gradient steps", ylabel="times the loss")
    ax.set_xticks(logs.steps.values, logs.steps.values)
    ax.set(yticks=[0.5, 1, 2, 4, 8, 16], yticklabels=["0.5", "1", "2", "4", "8", "16"])
    ax.set(ylim=(ax.dataLim.ymin / 1.2, 1.2 * ax.dataLim.ymax))
    ax.minorticks_off()
    style.legend_above(ax, columns=3)
    return fig
