"""Figures of the chapter on small batches."""

import numpy as np

from bncore.chapters.practice.small_batches import causes, results
from bncore.page import style
from bncore.practice import textbook

REMEDIES = (
    "recalibrated",
    "renormalised",
    results.LARGE,
    "running statistics",
    "accumulated",
    "layer norm",
)


def harm(m):
    """Draw values after batch norm in batches of m over those before; and what the size costs."""
    z, (out,) = causes.outputs(m)
    fig, (above, below) = style.axes(2, height=5.4, gridspec_kw={"height_ratios": [1.5, 1]})
    reach = np.array([-3.2, 3.2])
    above.plot(reach, reach, "--", color=style.COLOR["predicted"], label="evaluation")
    above.plot(
        z[::4, 3], out[::4, 3], ".", color=style.COLOR["batch norm"], label=f"batches of {m}"
    )
    above.set(xlim=reach, ylim=reach, xlabel="value, in deviations", ylabel="output")
    style.legend_above(above)
    names = ("output: noise", "gradient: stopped", "mean: off by")
    for row, (found, expected) in enumerate(
        zip(causes.measured(m), causes.predicted(m), strict=True)
    ):
        below.barh(row, 100 * found, 0.55, color=style.COLOR["measured"])
        below.plot(
            [100 * expected] * 2, [row - 0.4, row + 0.4], "--", color=style.COLOR["predicted"]
        )
    below.set(yticks=range(3), yticklabels=names, ylim=(2.6, -0.6), xlim=(0, 104))
    below.set_xlabel("%: bars measured, dashes predicted")
    below.grid(visible=False, axis="y")
    return fig


def corrected(m, r_max):
    """Draw the outputs of a renormalization for a dozen batches over their inputs."""
    rng = np.random.default_rng(4)
    batches = rng.normal(size=(96 // m, m, 1))
    one, zero = np.ones(1), np.zeros(1)
    fig, ax = style.axes(height=4.2)
    reach = np.array([-3.2, 3.2])
    ax.plot(reach, reach, "--", color=style.COLOR["predicted"], label="evaluation")
    d_max = 2.5 * (r_max - 1)
    for x in batches:
        y, _ = textbook.renormalize(x, zero, one, one, zero, r_max, d_max)
        order = np.argsort(x[:, 0])
        (line,) = ax.plot(x[order], y[order], ".-", color=style.COLOR["batch norm"], linewidth=0.8)
    line.set_label(f"each batch of {m}")
    ax.set(xlim=reach, ylim=reach, xlabel="value, in running deviations", ylabel="output")
    style.legend_above(ax)
    return fig


def chart(record, remedy):
    """Draw test error against batch size, without batch norm, with it, and with a remedy.

    A cross at 90 %, a guess, stands where an arm cannot be trained.

    Parameters
    ----------
    record : dict
        The recorded run.
    remedy : str
        One of ``REMEDIES``.
    """
    found = 100 * results.fresh(record).error
    fig, ax = style.axes(height=4.4)
    arms = (
        ("none", "no batch norm", "v-", style.COLOR["no batch norm"]),
        ("batch norm", "batch norm", "o-", style.COLOR["batch norm"]),
        (remedy, remedy, "s-", style.COLOR["highlight"]),
    )
    for place, (arm, label, mark, colour) in enumerate(arms):
        one = found.sel(arm=arm).dropna("batch_size", how="all")
        sizes = one.batch_size.values * 1.04 ** (place - 1)
        ax.plot(sizes, one.mean("seed"), mark, color=colour, label=label)
        ax.vlines(sizes, one.min("seed"), one.max("seed"), color=colour, linewidth=1.5)
        refused = [m for m in found.batch_size.values if m not in one.batch_size]
        ax.plot(np.array(refused) * 1.1 ** (place - 1), [90] * len(refused), "x", color=colour)
    ax.set(xscale="log", yscale="log", ylim=(1, 95), xlabel="batch size (examples)")
    ax.set_ylabel("test error (%)")
    ax.set_xticks(found.batch_size.values, [str(m) for m in found.batch_size.values])
    ax.set_yticks([1, 2, 5, 10, 20, 50, 90], ["1", "2", "5", "10", "20", "50", "90"])
    ax.minorticks_off()
    style.legend_above(ax, columns=3)
    return fig
