"""Figures are rendered in the colours of the page, the same at every build."""

import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from bncore.page import frames, style


def test_house_colours_become_css_variables_and_no_number_is_lost():
    fig, ax = style.axes()
    ax.plot([0, 1], [0, 1], color=style.VERMILLION)
    ax.set_title("1234567890")
    svg = frames.to_svg(fig, "colours")
    assert "var(--bn-vermillion, #d55e00)" in svg
    assert "var(--bn-ink, #1b1b1f)" in svg
    assert not re.search(r"(?<!, )#d55e00", svg)
    assert "scale(0.015625)" in svg, "glyphs are scaled by their exact size"
    assert set(re.findall(r' id="([^"]*)"', svg)) == {
        name for name in re.findall(r' id="([^"]*)"', svg) if name.startswith("colours-")
    }
    assert all(ref.startswith("colours-") for ref in re.findall(r'(?:href="|url\()#([^")]*)', svg))


def test_the_same_figure_renders_to_the_same_file(line):
    assert frames.to_svg(line(), "line") == frames.to_svg(line(), "line")


def test_a_frame_grows_with_its_page_and_says_nothing_to_screen_readers(line):
    svg = frames.to_svg(line(), "line")
    head = svg[: svg.index(">")]
    assert head.startswith("<svg")
    assert " width=" not in head
    assert " height=" not in head
    assert 'viewBox="0 0 360 237.6"' in head  # five inches by 3.3, in points
    assert 'aria-hidden="true" focusable="false"' in head
    assert "<metadata" not in svg
    assert "date" not in svg


def test_coordinates_keep_two_decimals(line):
    paths = re.findall(r' d="([^"]*)"', frames.to_svg(line(slope=1 / 3), "line"))
    decimals = {len(digits) for path in paths for digits in re.findall(r"\.(\d+)", path)}
    assert max(decimals) == 2


def test_every_house_colour_is_themed_with_itself_for_a_fallback():
    for colour, name in style.CSS_NAMES.items():
        themed = f"var(--bn-{name}, {colour})"
        assert frames.themed(f"stroke: {colour}; fill: {colour.upper()}") == (
            f"stroke: {themed}; fill: {themed}"
        )
    assert frames.themed("fill: #123456") == "fill: #123456"


def test_a_picture_is_opaque_and_twice_as_fine_as_the_screen(line):
    png = frames.to_png(line())
    picture = plt.imread(io.BytesIO(png))
    assert picture.shape[:2] == (round(3.3 * 144), 5 * 144)
    paper = [int(style.PAPER[i : i + 2], 16) for i in (1, 3, 5)]
    np.testing.assert_array_equal(np.round(255 * picture[0, 0]), [*paper, 255])


@pytest.mark.parametrize("height", [1.5, 3.3, 9])
def test_a_card_has_its_size_and_paper_all_round_the_figure(height):
    fig, _ = style.axes(height=height)
    fig.add_artist(Rectangle((0, 0), 1, 1, fill=False, edgecolor=style.INK, linewidth=4))
    card = plt.imread(io.BytesIO(frames.to_card(fig)))
    assert card.shape[:2] == (630, 1200)
    dark = np.argwhere((card[..., :3] < 0.5).all(axis=-1))
    paper = [int(style.PAPER[i : i + 2], 16) for i in (1, 3, 5)]
    for corner in (card[0, 0], card[-1, -1]):
        np.testing.assert_array_equal(np.round(255 * corner[:3]), paper)
    low, high = dark.min(axis=0), dark.max(axis=0)
    np.testing.assert_allclose(low, [629, 1199] - high, atol=0.02 * 1200)
    assert (low > 0.01 * 630).all()


def test_rendering_closes_the_figure(line):
    before = plt.get_fignums()
    frames.to_card(line())
    frames.to_svg(line(), "line")
    frames.to_png(line())
    assert plt.get_fignums() == before
