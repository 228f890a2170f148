"""Beside a kernel every move of a control draws the picture again."""

import warnings

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from bncore.page import explore, frames, interactive, show, style

pytest.importorskip("anywidget", reason="requirements.txt names it: install it again")

from bncore.page import live_face

VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(autouse=True)
def live(monkeypatch):
    """A reader and a kernel."""
    monkeypatch.delenv("BNCORE_FACE", raising=False)


def test_a_move_draws_and_describes(line, explorer):
    figure = explorer()
    bundle, _ = figure._repr_mimebundle_()
    assert bundle.keys() == {"text/plain", VIEW}
    widget = live_face.widget(figure)
    assert widget.caption == "The line turns and shifts."
    assert widget.axes == [
        {"name": "slope", "values": ["−1", "0", "1"], "choice": False},
        {"name": "offset", "values": ["0", "2"], "choice": False},
    ]
    for indices in [(2, 1), (0, 1), (0, 0)]:
        widget.indices = list(indices)
        values = figure.at(indices)
        assert widget.picture == frames.to_png(line(**values))
        assert widget.alt == figure.describe(**values)


@pytest.mark.parametrize("first", range(3))
@pytest.mark.parametrize("second", range(2))
def test_it_opens_where_the_signature_says_in_the_order_of_the_parameters(first, second):
    sizes, kinds = [8, 16, 32], ["plain", "large"]

    def figure(batch_size=sizes[first], gamma=kinds[second]):
        """Look here."""
        fig, ax = style.axes()
        ax.set_title(f"{batch_size}, {gamma}")
        return fig

    explored = explore(alt="{batch_size}, {gamma}", gamma=kinds, batch_size=sizes)(figure)
    widget = live_face.widget(explored)
    assert widget.axes == [
        {"name": "batch size", "values": ["8", "16", "32"], "choice": False},
        {"name": "γ", "values": kinds, "choice": True},
    ]
    assert widget.indices == [first, second]
    assert widget.alt == f"{sizes[first]}, {kinds[second]}"
    assert widget.picture == frames.to_png(figure())


def test_without_anywidget_the_figure_stands_still_and_says_so(monkeypatch, explorer):
    monkeypatch.setattr(interactive, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="line cannot move: pip install anywidget"):
        bundle = explorer()._repr_mimebundle_()
    assert bundle.keys() == {"text/plain", "text/html"}
    assert 'alt="A line of slope 1 and offset 0."' in bundle["text/html"]


def test_a_figure_that_does_not_move_needs_no_widget(monkeypatch):
    monkeypatch.setattr(interactive, "find_spec", lambda name: None)
    fig, _ = style.axes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bundle = show(fig, alt="Nothing.", caption="Look.")._repr_mimebundle_()
    assert bundle.keys() == {"text/plain", "text/html"}


LIVE = """
from bncore.page import explore, frames, live_face, style

@explore(alt="A line of slope {slope}.", slope=[-1, 0, 1, 2])
def line(slope=0):
    "The line turns."
    fig, ax = style.axes()
    ax.plot([0, 1], [0, slope])
    return fig

line
"""


def test_a_notebook_shows_the_widget():
    notebook = new_notebook(cells=[new_code_cell(LIVE)])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    (shown,) = notebook.cells[0].outputs
    model = shown.data[VIEW]["model_id"]
    state = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"][model]
    assert state["model_name"] == "AnyModel"
    assert state["state"]["alt"] == "A line of slope 0."
    assert state["state"]["indices"] == [1]
