"""Rendering matplotlib figures for the two faces of the book: PNG in a notebook, SVG on the page.

The SVG carries CSS variables in place of the house colours, so that one file serves both themes.
"""

import io
import re

import matplotlib.pyplot as plt
from matplotlib.transforms import Bbox

from bncore.page import style

CARD = (1200, 630)
"""Pixels of the picture that goes with a link to a page, where that is shown as a card."""

_COLOUR = re.compile("|".join(map(re.escape, style.CSS_NAMES)), re.IGNORECASE)
_HEADER = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_SIZE = re.compile(r' width="[\d.]+pt"| height="[\d.]+pt"')
_REFERENCE = re.compile(r' id="|href="#|url\(#')
_COORDINATES = re.compile(r' d="[^"]*"|points="[^"]*"')
_LONG_NUMBER = re.compile(r"(\d+\.\d\d)\d+")


def themed(svg):
    """Replace each house colour in `svg` by its CSS variable, with the colour as the fallback."""
    return _COLOUR.sub(
        lambda match: f"var(--bn-{style.CSS_NAMES[match[0].lower()]}, {match[0].lower()})", svg
    )


def to_svg(fig, name):
    """Render `fig` as a themed SVG document without size, date or metadata, and close it.

    Its identifiers start with `name`, so that a page can hold several such documents.
    """
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(fig)
    svg = _METADATA.sub("", _HEADER.sub("", buffer.getvalue()))
    head, rest = svg.split(">", 1)
    head = _SIZE.sub("", head) + ' aria-hidden="true" focusable="false"'
    body = _COORDINATES.sub(lambda match: _LONG_NUMBER.sub(r"\1", match[0]), rest)
    body = _REFERENCE.sub(rf"\g<0>{name}-", body)
    return themed(head + ">" + body)


def to_card(fig):
    """Render `fig` as the picture of a card, a PNG of 1200 by 630 pixels with the figure whole, and close it."""
    width, height = fig.get_size_inches()
    across = 1.05 * max(width, height * CARD[0] / CARD[1])
    down = across * CARD[1] / CARD[0]
    paper = Bbox.from_bounds((width - across) / 2, (height - down) / 2, across, down)
    buffer = io.BytesIO()
    fig.savefig(
        buffer, format="png", dpi=CARD[0] / across, facecolor=style.PAPER, bbox_inches=paper
    )
    plt.close(fig)
    return buffer.getvalue()


def to_png(fig):
    """Render `fig` as a PNG on white paper at twice the screen's resolution, and close it."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=144, facecolor=style.PAPER)
    plt.close(fig)
    return buffer.getvalue()
