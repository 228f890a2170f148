"""Panels and legends keep to the size and the places that a phone needs."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from bncore.page import style


@pytest.mark.parametrize("columns", [1, 2])
def test_a_legend_above_leaves_the_panel_to_the_curves(columns):
    fig, ax = style.axes()
    for k in range(4):
        ax.plot([0, 1], [k, -k], label=f"curve {k}")
    legend = style.legend_above(ax, columns)
    fig.canvas.draw()
    entries = [text.get_window_extent() for text in legend.get_texts()]
    assert min(entry.y0 for entry in entries) >= ax.get_window_extent().y1
    assert max(entry.y1 for entry in entries) <= fig.bbox.y1
    assert len({round(entry.x0) for entry in entries}) == columns


@pytest.mark.parametrize(("rows", "height"), [(1, 3.3), (2, 5.0)])
def test_panels_are_stacked_at_one_width(rows, height):
    fig, ax = style.axes(rows)
    assert tuple(fig.get_size_inches()) == (style.WIDTH, height)
    assert np.size(ax) == rows
    plt.close(fig)
