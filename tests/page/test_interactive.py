"""Interactive figures: grids and words are checked, and both faces show what the function draws."""

import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from bncore.page import Explorer, explore, frames, live_face, show, style
from bncore.page.labels import label, value_text


def line(slope=1, offset=0):
    """The line turns and shifts."""
    fig, ax = style.axes()
    ax.plot([0, 1], [offset, offset + slope], color=style.BLUE)
    ax.set(xlabel="x", ylabel="y", ylim=(-9, 9))
    return fig


def explorer(**grids):
    grids = grids or {"slope": [-1, 0, 1], "offset": [0, 2]}
    return explore(alt="A line of slope {slope} and offset {offset}.", **grids)(line)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The environment of a site build; frames go to the folder returned."""
    monkeypatch.setenv("BNCORE_FACE", "page")
    monkeypatch.setenv("BNCORE_FRAMES_DIR", str(tmp_path))
    monkeypatch.setenv("BNCORE_FRAMES_URL", "../_frames")
    return tmp_path


@given(
    slopes=st.lists(st.integers(-5, 5), min_size=2, max_size=4, unique=True),
    offsets=st.lists(st.floats(-3, 3), min_size=2, max_size=3, unique=True),
)
def test_a_value_chooses_the_figure_of_that_value(slopes, offsets):
    figure = explorer(slope=slopes, offset=offsets)
    for i, slope in enumerate(slopes):
        for j, offset in enumerate(offsets):
            values = figure.at((i, j))
            assert values == {"slope": slope, "offset": offset}
            fig = figure.figure(**values)
            np.testing.assert_array_equal(
                fig.axes[0].lines[0].get_ydata(), [offset, offset + slope]
            )
            plt.close(fig)


@given(default=st.floats(-10, 10), grid=st.lists(st.floats(-10, 10), min_size=2, max_size=9))
def test_it_opens_at_the_grid_value_nearest_to_the_default(default, grid):
    def flat(level=default):
        """A level."""

    start = explore(alt="A level of {level}.", level=grid)(flat).initial["level"]
    assert abs(grid[start] - default) == min(abs(value - default) for value in grid)


def test_it_opens_in_the_middle_without_a_default_and_at_a_named_default():
    def choice(kind, size="b"):
        """A choice."""

    figure = explore(alt="{kind}, {size}.", kind=[1, 2, 3, 4, 5], size=["a", "b"])(choice)
    assert figure.initial == {"kind": 2, "size": 1}


def test_the_page_has_a_frame_for_every_pair_of_values(page):
    figure = explorer()
    html = figure._repr_mimebundle_()["text/html"]
    alts = json.loads(re.search(r'bn-alts">(.*?)</script>', html)[1])
    files = {path.name for path in (page / "line").iterdir()}
    assert files == alts.keys() == {f"{i}-{j}.svg" for i in range(3) for j in range(2)}
    for i, slope in enumerate([-1, 0, 1]):
        for j, offset in enumerate([0, 2]):
            expected = frames.to_svg(line(slope, offset), "line")
            assert (page / "line" / f"{i}-{j}.svg").read_text(encoding="utf-8") == expected
            words = f"slope {value_text(slope)} and offset {value_text(offset)}."
            assert alts[f"{i}-{j}.svg"].endswith(words)
    assert 'src="../_frames/line/2-0.svg"' in html
    assert "The line turns and shifts." in html


def test_frames_differ_where_the_figures_do(page):
    explorer()._repr_mimebundle_()
    contents = [path.read_text(encoding="utf-8") for path in (page / "line").iterdir()]
    assert len(set(contents)) == 6


def test_words_of_a_figure_cannot_break_the_page(page):
    fig, _ = style.axes()
    html = show(fig, alt='<b> & "{x}"', caption="a < b")._repr_mimebundle_()["text/html"]
    assert "<b>" not in html
    assert "&lt;b&gt; &amp; &quot;{x}&quot;" in html
    assert "a &lt; b" in html


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


def test_the_text_face_draws_the_figure_and_records_only_words(monkeypatch):
    monkeypatch.setenv("BNCORE_FACE", "text")
    bundle = explorer()._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert bundle["text/plain"] == (
        "Interactive figure (slope from −1 to 1; offset from 0 to 2): The line turns and shifts."
    )


def test_no_face_leaves_a_figure_open(page):
    before = plt.get_fignums()
    explorer()._repr_mimebundle_()
    assert plt.get_fignums() == before


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


@pytest.mark.parametrize(
    ("name", "text"), [("gamma", "γ"), ("eps", "ε"), ("batch_size", "batch size")]
)
def test_parameters_have_readable_names(name, text):
    assert label(name) == text


@pytest.mark.parametrize(
    ("value", "text"), [(-0.5, "−0.5"), (1e-5, "1e−05"), ("relu", "relu"), (3, "3"), (True, "True")]
)
def test_values_are_written_for_readers(value, text):
    assert value_text(value) == text


def undocumented(x):
    pass


def three(x, y, z):
    """Three."""


def one(x="c"):
    """One."""


@pytest.mark.parametrize(
    ("function", "alt", "grids", "error", "message"),
    [
        (line, "x", {"slope": [0, 1]}, ValueError, "line takes slope, offset, but there are grids for slope"),
        (three, "x", dict.fromkeys("xyz", (0, 1)), ValueError, "three has 3 parameters, expected one or two"),
        (lambda: None, "x", {}, ValueError, "has 0 parameters, expected one or two"),
        (undocumented, "x", {"x": [0, 1]}, ValueError, "the docstring of undocumented is None, expected a sentence"),
        (one, " ", {"x": ["c", "d"]}, ValueError, "alt is ' ', expected a sentence"),
        (one, "of {y}", {"x": ["c", "d"]}, ValueError, "alt names {y}, expected one of the parameters x"),
        (one, "x", {"x": ["c"]}, ValueError, r"x has 1 value\(s\), expected at least two"),
        (one, "x", {"x": "cd"}, TypeError, "x is str, expected a sequence of values"),
        (one, "x", {"x": 3}, TypeError, "x is int, expected a sequence of values"),
        (one, "x", {"x": ["a", "b"]}, ValueError, r"the default 'c' is not in its grid \['a', 'b'\]"),
    ],
)  # fmt: skip
def test_a_figure_that_cannot_be_explored_is_refused(function, alt, grids, error, message):
    with pytest.raises(error, match=message):
        explore(alt=alt, **grids)(function)


def test_a_function_that_forgets_to_return_its_figure_is_told():
    with pytest.raises(TypeError, match="one returned NoneType, expected a matplotlib Figure: end"):
        explore(alt="x", x=["c", "d"])(one).figure(x="c")


def test_show_wants_a_figure_and_words():
    with pytest.raises(TypeError, match="fig is str, expected a matplotlib Figure"):
        show("figure", alt="x", caption="y")
    with pytest.raises(ValueError, match="caption is '', expected a sentence"):
        show(plt.figure(), alt="x", caption="")
    plt.close("all")


def test_two_figures_of_one_name_do_not_overwrite_each_other(page):
    explorer()._repr_mimebundle_()
    with pytest.raises(ValueError, match="two figures of this page are named 'line': rename one"):
        explorer()._repr_mimebundle_()


def test_a_shown_figure_is_an_explorer_that_does_not_move():
    fig, _ = style.axes()
    still = show(fig, alt="Nothing.", caption="Look here.")
    assert isinstance(still, Explorer)
    assert repr(still) == "Figure: Look here."
    assert still() is fig
    plt.close(fig)


@pytest.mark.parametrize(("rows", "height"), [(1, 3.3), (2, 5.0)])
def test_panels_are_stacked_at_one_width(rows, height):
    fig, ax = style.axes(rows)
    assert tuple(fig.get_size_inches()) == (style.WIDTH, height)
    assert np.size(ax) == rows
    plt.close(fig)
