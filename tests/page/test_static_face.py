"""The published page has one frame and one description for every position of the sliders."""

import json
import re

import pytest

from bncore.page import explore, frames, show, style
from bncore.page.labels import value_text


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


def test_two_figures_of_one_name_do_not_overwrite_each_other(page):
    explorer()._repr_mimebundle_()
    with pytest.raises(ValueError, match="two figures of this page are named 'line': rename one"):
        explorer()._repr_mimebundle_()
