"""Interactive figures that live twice: recomputed in a notebook, pre-rendered on the page.

`explore` turns a function from parameters to a matplotlib figure into a figure with one control for
each parameter, a slider for a quantity and buttons for names; `show` is the same for a figure without parameters.
The environment variable BNCORE_FACE says which face to show: `page` while the site is built (then
BNCORE_FRAMES_DIR says where frames go and BNCORE_FRAMES_URL how the page reaches them), `text` where
only text is recorded; without it a reader and a kernel are assumed to be there.
"""

import inspect
import os
import re
import string
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import matplotlib.figure
import numpy as np

from bncore.page import frames, static_face, still_face
from bncore.page.labels import is_choice, label, value_text


@dataclass(frozen=True)
class Explorer:
    """A figure as a function of its parameters, with its grid of values and its words.

    Attributes
    ----------
    function : callable
        From one value for each parameter to a matplotlib figure.
    grids : dict of str to list
        The values that each parameter takes.
    initial : dict of str to int
        Index into each grid at which the figure opens.
    alt : str
        What is to be seen, for those who cannot; `{name}` stands for a parameter's value.
    caption : str
        What to look for.
    name : str
        Names the figure's frames on the page.
    """

    function: Callable[..., matplotlib.figure.Figure]
    grids: dict[str, list]
    initial: dict[str, int]
    alt: str
    caption: str
    name: str

    def figure(self, **values):
        """The matplotlib figure for one value of each parameter."""
        fig = self.function(**values)
        if not isinstance(fig, matplotlib.figure.Figure):
            raise TypeError(
                f"{self.name} returned {type(fig).__name__}, expected a matplotlib Figure: "
                "end the function with `return fig`"
            )
        return fig

    def describe(self, **values):
        """The alternative text for one value of each parameter."""
        return self.alt.format(**{name: value_text(value) for name, value in values.items()})

    def at(self, indices):
        """The values at one index into each grid."""
        return {name: grid[i] for (name, grid), i in zip(self.grids.items(), indices, strict=True)}

    def __call__(self, **values):
        return self.figure(**values)

    def _repr_mimebundle_(self, include=None, exclude=None):
        face = os.environ.get("BNCORE_FACE", "live")
        if face == "page":
            folder, url = os.environ["BNCORE_FRAMES_DIR"], os.environ["BNCORE_FRAMES_URL"]
            html = static_face.html(self, Path(folder), url)
            return {"text/html": html, "text/plain": repr(self)}
        if face == "text":
            picture = frames.to_png(self.figure(**self.at(self.initial.values())))
            return {"image/png": picture, "text/plain": repr(self)}
        if self.grids and find_spec("anywidget"):
            from bncore.page import live_face  # only here is anywidget needed

            bundle, metadata = live_face.widget(self)._repr_mimebundle_()
            return {**bundle, "text/plain": repr(self)}, metadata
        if self.grids:
            warnings.warn(f"{self.name} cannot move: pip install anywidget", stacklevel=2)
        return {"text/html": still_face.html(self), "text/plain": repr(self)}

    def __repr__(self):
        if not self.grids:
            return f"Figure: {self.caption}"
        ranges = "; ".join(_range(name, grid) for name, grid in self.grids.items())
        return f"Interactive figure ({ranges}): {self.caption}"


def explore(*, alt, **grids):
    """Turn a function from parameters to a matplotlib figure into an interactive figure.

    The function's docstring is the caption; the defaults in its signature say where it
    opens (the nearest grid value; the middle of the grid where there is no default).

    Parameters
    ----------
    alt : str
        What the figure shows, for readers who cannot see it. `{name}` stands for the value of that
        parameter.
    **grids : sequence of float or str
        For each parameter its values, in order: numbers make a slider, names or truths a row of
        buttons. At most two parameters.

    Returns
    -------
    callable
        A decorator; the decorated function becomes an `Explorer`, which a notebook displays.

    Raises
    ------
    ValueError, TypeError
        If grids and parameters disagree, a grid has fewer than two values, more than two parameters
        move, or caption or alternative text is missing.

    Examples
    --------
    >>> @explore(alt="A line of slope {gamma}.", gamma=[0, 1, 2])
    ... def line(gamma=1):
    ...     "The slope is γ."
    ...     fig, ax = style.axes()
    ...     ax.plot([0, 1], [0, gamma])
    ...     return fig
    """

    def decorate(function):
        return _explorer(function, alt, grids)

    return decorate


def show(fig, *, alt, caption):
    """Display a figure that does not move, with its caption and alternative text.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
        The figure; it is closed once it is shown.
    alt : str
        What the figure shows, for readers who cannot see it.
    caption : str
        What to look for.

    Returns
    -------
    Explorer
        Display it by making it the last line of a cell.
    """
    if not isinstance(fig, matplotlib.figure.Figure):
        raise TypeError(f"fig is {type(fig).__name__}, expected a matplotlib Figure")
    _require_text("alt", alt)
    _require_text("caption", caption)
    escaped = alt.replace("{", "{{").replace("}", "}}")
    return Explorer(lambda: fig, {}, {}, escaped, caption, _slug(caption))


def _explorer(function, alt, grids):
    name = function.__name__
    parameters = inspect.signature(function).parameters
    if set(parameters) != set(grids):
        raise ValueError(
            f"{name} takes {', '.join(parameters) or 'nothing'}, but there are grids for "
            f"{', '.join(grids) or 'nothing'}: give one grid for each parameter"
        )
    if not 1 <= len(grids) <= 2:
        raise ValueError(
            f"{name} has {len(grids)} parameters, expected one or two: one idea a figure"
        )
    _require_text("alt", alt)
    _require_text(f"the docstring of {name}", function.__doc__)
    _require_fields(alt, grids)
    grids = {key: _grid(key, grids[key]) for key in parameters}
    initial = {key: _start(parameters[key].default, grid) for key, grid in grids.items()}
    return Explorer(function, grids, initial, alt, " ".join(function.__doc__.split()), name)


def _range(name, grid):
    texts = [value_text(value) for value in grid]
    if is_choice(grid):
        return f"{label(name)}: {', '.join(texts)}"
    return f"{label(name)} from {texts[0]} to {texts[-1]}"


def _grid(name, values):
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        raise TypeError(f"{name} is {type(values).__name__}, expected a sequence of values")
    values = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if len(values) < 2:
        raise ValueError(
            f"{name} has {len(values)} value(s), expected at least two to move between"
        )
    return values


def _start(default, grid):
    if default is inspect.Parameter.empty:
        return len(grid) // 2
    if default in grid:
        return grid.index(default)
    if isinstance(default, str):
        raise ValueError(f"the default {default!r} is not in its grid {grid}")
    return int(np.argmin(np.abs(np.asarray(grid, dtype=float) - default)))


def _require_text(name, text):
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name} is {text!r}, expected a sentence for the reader")


def _require_fields(alt, grids):
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(alt) if field is not None]
    except ValueError as error:
        raise ValueError(f"alt is {alt!r} ({error}): write a brace of the text as two") from None
    for field in fields:
        if field not in grids:
            raise ValueError(
                f"alt names {{{field}}}, expected one of the parameters {', '.join(grids)}"
            )


def _slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40]
