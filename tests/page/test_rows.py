"""Rows as a picture and as a table."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from bncore.page import curves, style, table

AT = [0.1, 1.0, 10.0]
KINDS = ["plain", "batch norm"]


def study(seed, repeated=3, axes=("rate", "kind", "seed")):
    """Random losses of two kinds at three rates, and as many seeds."""
    sizes = {"rate": AT, "kind": KINDS, "seed": list(range(repeated))}
    shape = [len(sizes[name]) for name in axes]
    values = np.random.default_rng(seed).normal(size=(2, *shape))
    coordinates = {name: sizes[name] for name in axes}
    found = {"loss": (axes, values[0]), "test_loss": (axes, values[1])}
    return xr.Dataset(found, coordinates)


@given(st.integers(0, 999), st.integers(1, 5), st.permutations(["rate", "kind", "seed"]))
def test_a_curve_is_the_median_and_its_band_the_range(seed, repeated, axes):
    found = study(seed, repeated, tuple(axes))
    fig = curves(found.loss, x="rate", by="kind")
    ax = fig.axes[0]
    values = found.loss.transpose("kind", "seed", "rate").values
    assert [text.get_text() for text in ax.get_legend().get_texts()] == KINDS
    for line, band, drawn in zip(ax.lines, ax.collections, values, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), AT)
        np.testing.assert_allclose(line.get_ydata(), np.median(drawn, axis=0))
        corners = band.get_paths()[0].vertices
        for at, low, high in zip(AT, drawn.min(axis=0), drawn.max(axis=0), strict=True):
            here = corners[corners[:, 0] == at, 1]
            np.testing.assert_allclose([here.min(), here.max()], [low, high])
    plt.close(fig)


def test_curves_differ_in_more_than_colour_and_keep_the_colours_of_the_book():
    ax = curves(study(0).loss, x="rate", by="kind").axes[0]
    assert ax.lines[1].get_color() == style.COLOR["batch norm"]
    assert ax.lines[0].get_color() != ax.lines[1].get_color()
    assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()
    assert ax.lines[0].get_marker() != ax.lines[1].get_marker()
    plt.close(ax.figure)


def test_the_colour_of_no_batch_norm_is_left_to_it():
    names = {"plain": "before", "batch norm": "after"}
    ax = curves(study(0).loss, x="rate", by="kind", names=names).axes[0]
    assert style.COLOR["no batch norm"] not in {line.get_color() for line in ax.lines}
    plt.close(ax.figure)


def test_axes_are_called_by_their_names_unless_told():
    ax = curves(study(0).test_loss, x="rate", by="kind").axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("rate", "test loss")
    curves(study(0).loss, x="rate", by="kind", ax=ax, xscale="log", ylabel="cost")
    assert (ax.get_ylabel(), ax.get_xscale(), len(ax.lines)) == ("cost", "log", 4)
    ax.figure.canvas.draw()
    written = [text.get_text() for text in ax.get_xticklabels()]
    assert {"0.1", "1", "10"} <= set(written)
    plt.close(ax.figure)


def test_what_was_run_once_has_no_band_and_names_choose_and_order():
    found = study(0, axes=("rate", "kind"))
    ax = curves(found.loss, x="rate", by="kind", names={"batch norm": "with it"}).axes[0]
    assert len(ax.collections) == 0
    assert [line.get_label() for line in ax.lines] == ["with it"]
    plt.close(ax.figure)


def test_a_rate_at_which_a_kind_did_not_run_leaves_no_gap():
    found = study(0)
    found.loss.loc[{"kind": "plain", "rate": 1.0}] = np.nan
    ax = curves(found.loss, x="rate", by="kind").axes[0]
    assert list(ax.lines[0].get_xdata()) == [0.1, 10.0]
    plt.close(ax.figure)


@given(st.integers(0, 999), st.integers(1, 5), st.integers(0, 4))
def test_a_row_has_mean_and_standard_deviation(seed, repeated, digits):
    found = study(seed, repeated, ("kind", "seed"))
    shown = table(found, {"test_loss": "loss of the test"}, by="kind", digits=digits)
    assert shown.head == ("kind", "loss of the test")
    for (name, cell), kind in zip(shown.rows, KINDS, strict=True):
        values = found.test_loss.sel(kind=kind).values
        numbers = [float(part.replace("−", "-")) for part in cell.split(" ± ")]
        expected = [values.mean(), *([values.std(ddof=1)] if repeated > 1 else [])]
        assert name == kind
        np.testing.assert_allclose(numbers, expected, atol=0.51 * 10.0**-digits)


def test_a_table_is_text_where_only_text_is_recorded_and_html_otherwise(monkeypatch):
    found = study(0, axes=("kind", "seed"))
    shown = table(
        found, ["loss", "test_loss"], by="kind", names={"plain": "a < b", "batch norm": "c"}
    )
    lines = repr(shown).splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["kind", "loss", "test", "loss"]
    assert len({line.rindex("±") for line in lines[1:]}) == 1
    monkeypatch.setenv("BNCORE_FACE", "text")
    assert shown._repr_mimebundle_() == {"text/plain": repr(shown)}
    monkeypatch.setenv("BNCORE_FACE", "page")
    page = shown._repr_mimebundle_()["text/html"]
    assert page.count("<td>") == 4
    assert '<th scope="row">a &lt; b</th>' in page


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda f: curves(f.loss, x="rate", by="depth"), "loss has the axes rate, kind, seed, expected depth, rate and"),
        (lambda f: curves(f.loss, x="kind", by="seed", over="run"), "expected kind, seed and perhaps run: choose one"),
        (lambda f: curves(f.loss, x="rate", by="kind", names={"none": "x"}), "names has 'none', expected some of kind"),
        (lambda f: curves(f.loss.isel(kind=[0] * 6).assign_coords(kind=list("abcdef")), x="rate", by="kind"), "kind has 6 values, expected at most 5"),
        (lambda f: table(f, ["loss"], by="kind"), "loss has the axes rate, kind, seed, expected kind and"),
        (lambda f: table(f, ["cost"], by="kind"), "columns has 'cost', expected some of loss, test_loss"),
        (lambda f: table(f, ["loss", "test_loss", "x"], by="kind"), "there are 3 columns, expected 1 or 2"),
        (lambda f: table(f, [], by="kind"), "there are 0 columns, expected 1 or 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_said(ask, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        ask(study(0))
