"""Beside a kernel every move of a slider recomputes the picture."""

from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from bncore.page import explore, frames, live_face, style


def line(slope=1, offset=0):
    """The line turns and shifts."""
    fig, ax = style.axes()
    ax.plot([0, 1], [offset, offset + slope], color=style.BLUE)
    ax.set(xlabel="x", ylabel="y", ylim=(-9, 9))
    return fig


def explorer(**grids):
    grids = grids or {"slope": [-1, 0, 1], "offset": [0, 2]}
    return explore(alt="A line of slope {slope} and offset {offset}.", **grids)(line)


def test_a_moved_slider_redraws_and_describes(monkeypatch):
    monkeypatch.delenv("BNCORE_FACE", raising=False)
    figure = explorer()
    assert list(figure._repr_mimebundle_()) == [
        "text/plain",
        "application/vnd.jupyter.widget-view+json",
    ]
    slope, offset, image, caption = live_face.widget(figure).children
    assert (slope.description, offset.description, caption.value) == (
        "slope",
        "offset",
        "The line turns and shifts.",
    )
    for i, j in [(2, 1), (0, 1), (0, 0)]:
        slope.index, offset.index = i, j
        values = figure.at((i, j))
        assert image.value == frames.to_png(line(**values))
        assert image.alt == figure.describe(**values)


LIVE = """
import base64, json
from bncore.page import explore, frames, live_face, style

@explore(alt="A line of slope {slope}.", slope=[-1, 0, 1, 2])
def line(slope=0):
    "The line turns."
    fig, ax = style.axes()
    ax.plot([0, 1], [0, slope])
    return fig

line
"""

MOVE = """
box = live_face.widget(line)
slider, image, caption = box.children
seen = []
for position in range(4):
    slider.index = position
    seen.append(image.value == frames.to_png(line(slope=[-1, 0, 1, 2][position])))
print(seen, slider.description, caption.value, image.alt)
"""


def test_beside_a_kernel_every_move_recomputes_the_picture(monkeypatch):
    monkeypatch.delenv("BNCORE_FACE", raising=False)
    notebook = new_notebook(cells=[new_code_cell(LIVE), new_code_cell(MOVE)])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    shown, moved = (cell.outputs[0] for cell in notebook.cells)
    model = shown.data["application/vnd.jupyter.widget-view+json"]["model_id"]
    state = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert state[model]["model_name"] == "VBoxModel"
    assert moved.text == "[True, True, True, True] slope The line turns. A line of slope 2.\n"
