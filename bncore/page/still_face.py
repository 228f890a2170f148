"""The face in a notebook of a figure that does not move: a picture with its words, in one piece of HTML."""

import base64
from html import escape

from bncore.page import frames
from bncore.page.labels import unbroken


def html(explorer):
    """`explorer` where it opens, with alternative text and caption.

    Parameters
    ----------
    explorer : Explorer

    Returns
    -------
    str
        A `<figure>` that needs no other file.
    """
    values = explorer.at(explorer.initial.values())
    picture = base64.b64encode(frames.to_png(explorer.figure(**values))).decode()
    return (
        '<figure style="margin: 0.5em 0; max-width: 560px">'
        f'<img style="width: 100%" src="data:image/png;base64,{picture}" alt="{escape(explorer.describe(**values))}">'
        f"<figcaption>{escape(unbroken(explorer.caption))}</figcaption></figure>"
    )
