"""Figures are rendered in the colours of the page, the same at every build."""

import re

from bncore.page import frames, style


def line(slope=1, offset=0):
    """The line turns and shifts."""
    fig, ax = style.axes()
    ax.plot([0, 1], [offset, offset + slope], color=style.BLUE)
    ax.set(xlabel="x", ylabel="y", ylim=(-9, 9))
    return fig


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


def test_the_same_figure_renders_to_the_same_file():
    assert frames.to_svg(line(), "line") == frames.to_svg(line(), "line")
