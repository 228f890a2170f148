"""The face of an interactive figure beside a live kernel, which draws again on every move.

`live_face.js` builds the controls of the browser itself, since those of ipywidgets have neither name
nor spoken value; anywidget brings it into the notebook.
"""

from pathlib import Path

import anywidget
import traitlets

from bncore.page import frames
from bncore.page.labels import is_choice, label, unbroken, value_text

HERE = Path(__file__).parent


class LiveFigure(anywidget.AnyWidget):
    """A figure with its controls, picture and caption.

    Attributes
    ----------
    axes : list of dict
        For each parameter its `name`, its `values` as text, and whether it is a `choice`.
    indices : list of int
        Where each parameter stands; what the reader moves.
    picture : bytes
        The figure there, a PNG.
    alt : str
        The figure there, in words.
    caption : str
        What to look for.
    """

    _esm = HERE / "live_face.js"
    _css = HERE / "live_face.css"

    axes = traitlets.List().tag(sync=True)
    indices = traitlets.List(traitlets.Int()).tag(sync=True)
    picture = traitlets.Bytes().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)


def widget(explorer):
    """The figure of `explorer` with a slider or a row of buttons for each parameter.

    Parameters
    ----------
    explorer : Explorer

    Returns
    -------
    LiveFigure
    """
    axes = [
        {
            "name": label(key),
            "values": [value_text(value) for value in grid],
            "choice": is_choice(grid),
        }
        for key, grid in explorer.grids.items()
    ]
    start = list(explorer.initial.values())
    figure = LiveFigure(
        axes=axes, indices=start, caption=unbroken(explorer.caption), **_drawn(explorer, start)
    )

    def draw(change):
        with figure.hold_sync():
            for trait, value in _drawn(explorer, change.new).items():
                figure.set_trait(trait, value)

    figure.observe(draw, names="indices")
    return figure


def _drawn(explorer, indices):
    values = explorer.at(indices)
    return {
        "picture": frames.to_png(explorer.figure(**values)),
        "alt": explorer.describe(**values),
    }
