"""Beside a kernel every move of a slider recomputes the picture."""

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from bncore.page import explore, frames, live_face, style


def test_a_moved_slider_redraws_and_describes(monkeypatch, line, explorer):
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


@pytest.mark.parametrize("first", range(3))
@pytest.mark.parametrize("second", range(2))
def test_sliders_open_where_the_signature_says_in_the_order_of_the_parameters(first, second):
    sizes, kinds = [8, 16, 32], ["plain", "large"]

    def figure(batch_size=sizes[first], gamma=kinds[second]):
        """Look here."""
        fig, ax = style.axes()
        ax.set_title(f"{batch_size}, {gamma}")
        return fig

    explored = explore(alt="{batch_size}, {gamma}", gamma=kinds, batch_size=sizes)(figure)
    *sliders, image, caption = live_face.widget(explored).children
    assert [slider.description for slider in sliders] == ["batch size", "γ"]
    assert [slider.index for slider in sliders] == [first, second]
    assert [slider.value for slider in sliders] == [sizes[first], kinds[second]]
    assert sliders[0].options == (("8", 8), ("16", 16), ("32", 32))
    assert sliders[1].options == (("plain", "plain"), ("large", "large"))
    assert all(slider.continuous_update for slider in sliders)
    assert image.alt == f"{sizes[first]}, {kinds[second]}"
    assert image.value == frames.to_png(figure())
    assert caption.value == "Look here."


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
