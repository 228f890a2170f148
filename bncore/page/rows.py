"""A study's rows as a picture or as a table, in one line each.

Rows are an ``xarray.Dataset``, one axis for each name that was varied and one for the seeds, as
`bncore.lab.studies` returns it::

    curves(found.loss, x="learning_rate", by="kind", xscale="log")
    table(found, ["loss", "accuracy"], by="kind", digits=3)
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from bncore.page import labels, style

# Vermillion is without batch norm: what has no colour in the book takes it last.
HUES = (style.BLUE, style.GREEN, style.PURPLE, style.OCHRE, style.VERMILLION)
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKS = "osD^v"


def curves(
    values,
    x: str,
    by: str,
    *,
    over: str = "seed",
    names: Mapping | None = None,
    ax=None,
    **settings,
):
    """Draw one curve for each value of `by`: the median over the seeds, in a band from the least to the greatest.

    A thing that has a colour in the book keeps it; lines and marks differ as colours do.

    Parameters
    ----------
    values : xarray.DataArray
        With the axes `x`, `by` and, where runs were repeated, `over`.
    x, by, over : str
        The axis along the curve, the one with a curve each, and the one of the repetitions.
    names : mapping, optional
        The values of `by` to draw, in order, and what each is called; by default all, as they are written.
    ax : matplotlib.axes.Axes, optional
        The panel to draw in; by default one of a new figure.
    **settings
        For the panel: ``xscale="log"``, ``ylabel="test loss"``. The axes are called by their names
        otherwise.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If `values` has other axes, `by` lacks a value that is named, or there are more curves than
        colours.
    """
    _require_axes(values, {x, by}, over)
    names = _names(values, by, names)
    if len(names) > len(HUES):
        raise ValueError(
            f"{by} has {len(names)} values, expected at most {len(HUES)}: choose some with `names`"
        )
    if ax is None:
        _, ax = style.axes()
    hues = _hues(names.values())
    for (value, name), colour, line, mark in zip(names.items(), hues, LINES, MARKS, strict=False):
        one = values.sel({by: value}).dropna(x, how="all")
        if over in one.dims:
            ax.fill_between(one[x], one.min(over), one.max(over), color=colour, alpha=0.2, lw=0)
            one = one.median(over)
        ax.plot(one[x], one, color=colour, linestyle=line, marker=mark, markersize=6, label=name)
    called = {"xlabel": labels.label(x), "ylabel": labels.label(str(values.name))}
    ax.set(**{**called, **settings})
    for axis in (ax.xaxis, ax.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter(lambda value, _: labels.value_text(value))
    style.legend_above(ax)
    return ax.figure


def _hues(names):
    """A colour for each name: the book's where it has one, and one that is free otherwise."""
    kept = {name: style.COLOR[name] for name in names if style.COLOR.get(name) in HUES}
    free = [hue for hue in HUES if hue not in kept.values()]
    return [kept.get(name) or free.pop(0) for name in names]


@dataclass(frozen=True)
class Table:
    """Cells of text under a heading each; shown as text where only text is recorded, and as HTML."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __repr__(self) -> str:
        lines = [self.head, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if place else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        if os.environ.get("BNCORE_FACE") == "text":
            return {"text/plain": repr(self)}
        return {"text/html": self.html(), "text/plain": repr(self)}

    def html(self) -> str:
        """Return the table with headings of columns and of rows."""
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.head)
        body = "".join(
            f'<tr><th scope="row">{escape(first)}</th>'
            f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
            for first, *cells in self.rows
        )
        return f'<table class="bn-rows"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def table(
    rows,
    columns: Sequence[str] | Mapping[str, str],
    by: str,
    *,
    over: str = "seed",
    digits: int = 2,
    names: Mapping | None = None,
) -> Table:
    """Return one row for each value of `by`: the mean over the seeds ± their standard deviation.

    Parameters
    ----------
    rows : xarray.Dataset
        Its `columns` have the axes `by` and, where runs were repeated, `over`.
    columns : sequence or mapping of str
        One or two of its variables; a mapping says what each is called.
    by, over : str
        The axis with a row each, and the one of the repetitions.
    digits : int
        Digits behind the point.
    names : mapping, optional
        The values of `by` to show, in order, and what each is called; by default all, as they are written.

    Raises
    ------
    ValueError
        If there are more than two columns, one is no variable of the rows or has other axes, or `by`
        lacks a value that is named.
    """
    called = (
        columns if isinstance(columns, Mapping) else {one: labels.label(one) for one in columns}
    )
    if not 1 <= len(called) <= 2:
        raise ValueError(
            f"there are {len(called)} columns, expected 1 or 2: more are a picture, see `curves`"
        )
    for column in called:
        if column not in rows.data_vars:
            raise ValueError(
                f"columns has {column!r}, expected some of {', '.join(map(str, rows.data_vars))}"
            )
        _require_axes(rows[column], {by}, over)
    lines = tuple(
        (name, *(_spread(rows[column].sel({by: value}), over, digits) for column in called))
        for value, name in _names(rows, by, names).items()
    )
    return Table((labels.label(by), *called.values()), lines)


def _spread(values, over, digits):
    text = f"{float(values.mean()):.{digits}f}"
    if over in values.dims and values.sizes[over] > 1:
        text += f" ± {float(values.std(over, ddof=1)):.{digits}f}"
    return text.replace("-", "−")


def _names(found, by, names):
    there = found[by].values.tolist()
    if names is None:
        return {value: labels.value_text(value) for value in there}
    for value in names:
        if value not in there:
            raise ValueError(f"names has {value!r}, expected some of {by}: {there}")
    return names


def _require_axes(values, needed, over):
    if not needed <= set(values.dims) <= {*needed, over}:
        raise ValueError(
            f"{values.name} has the axes {', '.join(map(str, values.dims))}, expected "
            f"{', '.join(sorted(needed))} and perhaps {over}: choose one value of every other with `.sel`"
        )
