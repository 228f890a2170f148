"""Figures of the chapter on diagnosis."""

import numpy as np

from bncore.page import style
from bncore.practice import diagnosis


def before_and_after(shift):
    """Draw twelve values of one feature, moved by a shift, above; the same values centred, below."""
    x = np.random.default_rng(0).normal(size=(12, 1)) + shift
    fig, panels = style.axes(2, height=3.3, sharex=True)
    for ax, values, name in zip(
        panels, (x, diagnosis.centred(x)), ("before", "after"), strict=True
    ):
        ax.plot(values, np.zeros(12), "o", color=style.COLOR["data"], clip_on=False)
        ax.axvline(values.mean(), color=style.COLOR["mean"])
        ax.set(xlim=(-6, 6), yticks=[], ylabel=name)
    return fig
