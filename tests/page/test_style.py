"""Panels and legends keep to the size and the places that a phone needs."""

import re
from pathlib import Path

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


def test_the_page_knows_every_colour_by_its_name():
    css = (Path(__file__).parents[2] / "book/_static/book.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--bn-(\w+): (#\w{6});", block))
        for block in re.findall(r"\{([^}]*--bn-ink[^}]*)\}", css)[:2]
    )
    assert light == {name: colour for colour, name in style.CSS_NAMES.items()}
    assert dark.keys() == light.keys()
    used = {*style.COLOR.values(), *style.RC["axes.prop_cycle"].by_key()["color"]}
    assert used <= style.CSS_NAMES.keys()


def _luminance(colour):
    """Relative luminance by WCAG 2.1."""
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("thing", style.COLOR)
def test_every_colour_reads_on_paper(thing):
    contrast = (_luminance(style.PAPER) + 0.05) / (_luminance(style.COLOR[thing]) + 0.05)
    assert contrast >= 3, "WCAG asks 3 of a graphical object"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("batch norm", "no batch norm"),
        ("measured", "predicted"),
        ("train", "eval"),
        ("no batch norm", "eval"),
        ("mean", "variance"),
    ],
)
def test_what_stands_side_by_side_has_two_colours(one, other):
    assert style.COLOR[one] != style.COLOR[other]


def test_with_batch_norm_is_blue_and_without_is_vermillion_throughout_the_book():
    assert style.COLOR["batch norm"] == style.COLOR["train"] == style.COLOR["measured"] == "#0072b2"
    assert style.COLOR["no batch norm"] == "#d55e00"
    assert style.COLOR["predicted"] == style.INK


def test_type_is_legible_on_a_phone():
    """A figure of five inches on 340 pixels: 12 points become 11 pixels."""
    style.use()
    sizes = [plt.rcParams[f"{part}.labelsize"] for part in ("axes", "xtick", "ytick")]
    sizes += [plt.rcParams[key] for key in ("font.size", "legend.fontsize", "axes.titlesize")]
    assert min(sizes) / 72 * 340 / style.WIDTH >= 11
