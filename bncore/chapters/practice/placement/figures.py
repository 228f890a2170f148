"""Figures of the chapter on placement and tuning."""

from collections.abc import Mapping, Sequence
from numbers import Real

import matplotlib.figure
import numpy as np
import torch
from scipy.special import expit
from scipy.stats import norm

from bncore.chapters.practice.placement import predictions, results
from bncore.lab import data, networks, training
from bncore.mechanics import transform
from bncore.page import style

LOOKS = {
    "none": (style.COLOR["no batch norm"], "s"),
    "before": (style.COLOR["batch norm"], "o"),
    "after": (style.PURPLE, "D"),
}
FUNCTIONS = {"ReLU": lambda z: np.maximum(z, 0), "sigmoid": expit}
COUNT = 64


def received(activation: str, shift: Real) -> dict[str, np.ndarray]:
    """What the next layer receives from one unit over a batch of 64, by placement."""
    z = np.sort(np.random.default_rng(1).normal(shift, 1, COUNT))[:, None]
    z = z - z.mean() + shift
    function = FUNCTIONS[activation]
    return {
        "none": function(z)[:, 0],
        "before": function(transform.forward(z)[0])[:, 0],
        "after": transform.forward(function(z))[0][:, 0],
    }


def unit(activation: str, shift: Real) -> matplotlib.figure.Figure:
    """One unit's values over a batch, as the next layer receives them, without batch norm and with."""
    fig, rows = style.axes(3, height=5.4, sharex=True)
    order = np.random.default_rng(2).permutation(COUNT)
    height = 0.1 + 0.8 * order / COUNT
    for ax, (name, values) in zip(rows, received(activation, shift).items(), strict=True):
        colour, marker = LOOKS[name]
        ax.plot(values, height, marker, color=colour, markersize=5, alpha=0.6, clip_on=False)
        ax.axvline(values.mean(), color=style.COLOR["mean"], linestyle="--")
        moments = f"mean {values.mean():.1f}, deviation {values.std():.1f}"
        title = "no batch norm" if name == "none" else f"{name} the activation"
        ax.set(ylim=(0, 1), yticks=[], xlim=(-6, 8))
        ax.set_title(f"{title}: {moments}".replace("-0.0", "0.0"), loc="left", fontsize=12)
    rows[-1].set(xlabel="value that the next layer receives")
    return fig


def units(seed: int = 0, m: int = 32, draws: int = 400) -> dict[str, np.ndarray]:
    """The noise of the batch variance of real units, before and after their ReLU.

    Of a network with two hidden layers and batch norm after the activation, trained on the digits.
    A bias moves the sums of each unit, so that the shares at which units are active spread from 3
    to 97 %.

    Returns
    -------
    dict
        For each unit "active", the share of digits; "before" and "after", the deviation of the
        variance over batches of m, over its mean.
    """
    split = data.digits(seed)
    model = networks.mlp(
        (64, 32, 32, 10), "relu", "batch", gain=2**0.5, placement="after", seed=seed
    )
    training.train(model, split, 200, 32, 0.1, seed)
    with torch.no_grad():
        z = [model[:1](split.x_train), model.eval()[:4](split.x_train)]
    z = torch.cat(z, 1).double().numpy()
    z = z[:, z.std(axis=0) > 0]
    shares = np.linspace(0.03, 0.97, z.shape[1])
    z = z - [np.quantile(unit, 1 - share) for unit, share in zip(z.T, shares, strict=True)]
    picked = np.random.default_rng(seed).integers(len(z), size=(draws, m))
    found = {"active": (z > 0).mean(axis=0)}
    for name, values in (("before", z), ("after", np.maximum(z, 0))):
        variances = values[picked].var(axis=1, ddof=1)
        found[name] = variances.std(axis=0) / variances.mean(axis=0)
    return found


def noise(found: Mapping[str, np.ndarray], m: int = 32) -> matplotlib.figure.Figure:
    """The noise of the batch variance against the share of examples at which a unit is active."""
    fig, ax = style.axes(height=3.6)
    shifts = np.linspace(-2.2, 3, 60)
    kurtosis = {
        "before": [3.0] * len(shifts),
        "after": [predictions.rectified_kurtosis(one) for one in shifts],
    }
    for name, (colour, marker) in list(LOOKS.items())[1:]:
        wanted = [predictions.noise_of_variance(one, m) for one in kurtosis[name]]
        ax.plot(norm.cdf(shifts), wanted, color=colour, linestyle="--")
        ax.plot(found["active"], found[name], marker, color=colour, markersize=5, alpha=0.6)
        ax.plot([], [], marker, color=colour, linestyle="--", label=f"{name} the ReLU")
    ax.set(xlim=(0, 1), ylim=(0, 2), xlabel="share of digits at which the unit is active")
    ax.set(ylabel="noise of the variance")
    style.legend_above(ax)
    return fig


def placements(full: Mapping, activation: str) -> matplotlib.figure.Figure:
    """Test accuracy of each placement in four networks: every fresh seed, and the mean."""
    fig, ax = style.axes(height=4.2)
    for place, architecture in enumerate(results.ARCHITECTURES):
        for step, (name, (colour, marker)) in enumerate(LOOKS.items()):
            values = results.points(full, architecture, activation, name).values
            height = place + 0.22 * (step - 1)
            ax.plot(values, [height] * len(values), "|", color=colour, markersize=9, alpha=0.5)
            label = None if place else ("none" if name == "none" else f"{name} it")
            ax.plot(values.mean(), height, marker, color=colour, markersize=8, label=label)
    ax.set(yticks=range(len(results.ARCHITECTURES)), yticklabels=results.ARCHITECTURES)
    ax.set(ylim=(3.5, -0.5), xlim=(*_limits(full), 100), xlabel="test accuracy, %")
    style.legend_above(ax, columns=3)
    return fig


def _limits(full):
    """The lower end that both activations share, in tens."""
    least = min(
        results.points(full, *network, name).min().item()
        for network in results.NETWORKS
        for name in LOOKS
    )
    return (10 * np.floor(least / 10),)


def leads(full: Mapping) -> matplotlib.figure.Figure:
    """After less before, in points of test accuracy: mean and interval in eight networks."""
    fig, ax = style.axes(height=4.4)
    names = []
    for place, (architecture, activation) in enumerate(results.NETWORKS):
        found = results.lead(full, architecture, activation, "after", "before")
        _interval(ax, place, found, style.PURPLE, "D")
        names.append(f"{architecture}, {results.ACTIVATIONS[activation]}")
    _finish(ax, names, "points that after leads before")
    return fig


RECURRENCES = {
    "input − none": ("input", "none"),
    "per step − none": ("before", "none"),
    "shared − per step": ("shared", "before"),
}


def recurrences(full: Mapping) -> matplotlib.figure.Figure:
    """Three differences between recurrent networks, in points of accuracy: mean and interval."""
    fig, rows = style.axes(2, height=4.4, sharex=True)
    for ax, (activation, title) in zip(rows, results.ACTIVATIONS.items(), strict=True):
        for place, pair in enumerate(RECURRENCES.values()):
            found = results.lead(full, "recurrent", activation, *pair)
            _interval(ax, place, found, LOOKS["before"][0], "o")
        _finish(ax, list(RECURRENCES), "")
        ax.set_title(title, loc="left")
    rows[-1].set(xlabel="points of test accuracy")
    return fig


def _interval(ax, place: int, found: Sequence[float], colour: str, marker: str):
    mean, *ends = found
    ax.plot(ends, (place, place), color=colour, linewidth=4, alpha=0.4)
    ax.plot(mean, place, marker, color=colour, markersize=8)


def _finish(ax, names, label):
    ax.axvline(0, color=style.MUTED, linestyle=":")
    ax.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    ax.set(xlabel=label)
