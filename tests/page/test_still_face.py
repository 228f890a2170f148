"""In a notebook a figure that does not move is a picture with its words."""

import base64
import re
from html import unescape

from bncore.page import frames, show, still_face, style


def test_picture_words_and_caption_stand_together():
    fig, ax = style.axes()
    ax.plot([0, 1], [0, 1])
    figure = show(fig, alt='<b> & "{x}"', caption="a < b")
    html = still_face.html(figure)
    picture, alt = re.search(r'src="data:image/png;base64,([^"]*)" alt="([^"]*)"', html).groups()
    assert base64.b64decode(picture) == frames.to_png(fig)
    assert unescape(alt) == '<b> & "{x}"'
    assert "<figcaption>a &lt; b</figcaption>" in html
