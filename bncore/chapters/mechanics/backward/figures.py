"""The longer figures of the backward chapter: a fit, the computation graph, and what survives."""

import numpy as np
from matplotlib.patches import FancyArrowPatch
from scipy import stats

from bncore.mechanics import projection, transform
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
    fig, (above, below) = style.axes(rows=2, height=5.2, sharex=True)
    above.plot(X, dy - dx, color=style.INK, linestyle="--", label="fitted line")
    above.vlines(X[:, 0], (dy - dx)[:, 0], dy[:, 0], color=style.COLOR["batch norm"], linewidth=4)
    above.plot(X, dy, "o", color=style.MUTED, markersize=9, label="what the loss asks for")
    above.set(ylim=(-7.5, 7.5), ylabel=r"$\partial\ell/\partial y_i$")
    style.legend_above(above)
    below.axhline(0, color=style.INK, linestyle="--")
    below.vlines(X[:, 0], 0, dx[:, 0], color=style.COLOR["batch norm"], linewidth=4)
    below.plot(X, dx, "s", color=style.COLOR["batch norm"], markersize=8, label="what arrives")
    below.set(ylim=(-2.2, 2.2), ylabel=r"$\partial\ell/\partial x_i\cdot s/\gamma$")
    below.set_xlabel(r"value in the batch, $x_i$")
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
    fig, (above, below) = style.axes(rows=2, height=5.4)
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
    below.set_xlabel(r"$\varepsilon/\sigma^2$")
    below.legend(loc="upper left")
    return fig
