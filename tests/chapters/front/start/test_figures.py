"""The figures of "Batch norm in ten minutes" show the numbers that they are given."""

import numpy as np
import pytest
import xarray as xr

from bncore.chapters.front.start import figures
from bncore.page import style


@pytest.mark.parametrize("eighth_number", figures.eight_numbers.grids["eighth_number"])
def test_the_lower_numbers_are_the_upper_ones_normalised(eighth_number):
    before, after = figures.eight_numbers.figure(eighth_number=eighth_number).axes
    x, y = (ax.lines[0].get_xdata() for ax in (before, after))
    assert x.tolist() == [2, 4, 4, 4, 5, 5, 7, eighth_number]
    np.testing.assert_allclose(y, (x - x.mean()) / np.sqrt(x.var() + 1e-5), rtol=1e-12)
    assert before.lines[1].get_xdata() == eighth_number
    for ax in (before, after):
        points = set(zip(ax.lines[0].get_xdata().round(9), ax.lines[0].get_ydata(), strict=True))
        assert len(points) == 8


def test_losses_are_drawn_with_their_means_over_epochs():
    rng = np.random.default_rng(0)
    plain, normalised = rng.random((2, 50)).tolist()
    (ax,) = figures.losses(plain, normalised).axes
    assert [line.get_label() for line in ax.lines[1::2]] == ["no batch norm", "batch norm"]
    for found, thin, thick in zip((plain, normalised), ax.lines[::2], ax.lines[1::2], strict=True):
        assert list(thin.get_ydata()) == found
        np.testing.assert_allclose(thick.get_ydata(), [np.mean(found[:21]), np.mean(found[21:42])])


def test_answers_in_company_are_points_and_the_one_alone_a_line():
    (ax,) = figures.answers([0.2, 0.9], 0.7).axes
    assert ax.lines[0].get_ydata().tolist() == [0.2, 0.9]
    assert set(ax.lines[1].get_ydata()) == {0.7}


def test_each_mistake_stands_above_its_repair_with_median_and_range():
    rng = np.random.default_rng(0)
    values = rng.random((2, 5))
    found = xr.Dataset({name: ("seed", row) for name, row in zip("ab", values, strict=True)})
    (ax,) = figures.mistakes(found, [("one", "a", "b"), ("two", "b", "a")]).axes
    spans, points = ax.lines[::2], ax.lines[1::2]
    for row, span, point in zip(values[[0, 1, 1, 0]], spans, points, strict=True):
        assert list(span.get_xdata()) == [row.min(), row.max()]
        assert list(point.get_xdata()) == [np.median(row)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]


def test_what_has_batch_norm_is_never_in_the_colour_of_what_has_none():
    found = xr.Dataset({name: ("seed", [0.1, 0.9]) for name in "ab"})
    for figure in (figures.answers([0.2, 0.9], 0.7), figures.mistakes(found, [("one", "a", "b")])):
        colours = {line.get_color() for line in figure.axes[0].lines}
        assert style.COLOR["batch norm"] in colours
        assert style.COLOR["no batch norm"] not in colours
