"""The published page has one frame and one description for every position of the sliders."""

import itertools
import json
import re
from html.parser import HTMLParser

import pytest

from bncore.page import explore, frames, show, static_face, style
from bncore.page.labels import value_text


def test_the_page_has_a_frame_for_every_pair_of_values(page, line, explorer):
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


def test_the_first_figure_of_a_page_gives_its_card(page, line, explorer):
    explorer()._repr_mimebundle_()
    card = (page / "card.png").read_bytes()
    assert card == frames.to_card(line(1, 0))
    fig, _ = style.axes()
    show(fig, alt="Another.", caption="Another")._repr_mimebundle_()
    assert (page / "card.png").read_bytes() == card


def test_frames_differ_where_the_figures_do(page, explorer):
    explorer()._repr_mimebundle_()
    contents = [path.read_text(encoding="utf-8") for path in (page / "line").iterdir()]
    assert len(set(contents)) == 6


def test_words_of_a_figure_cannot_break_the_page(page):
    fig, _ = style.axes()
    html = show(fig, alt='<b> & "{x}"', caption="a < b")._repr_mimebundle_()["text/html"]
    assert "<b>" not in html
    assert "&lt;b&gt; &amp; &quot;{x}&quot;" in html
    assert "a &lt; b" in html


def test_two_figures_of_one_name_do_not_overwrite_each_other(page, explorer):
    explorer()._repr_mimebundle_()
    with pytest.raises(ValueError, match="two figures of this page are named 'line': rename one"):
        explorer()._repr_mimebundle_()


class Parts(HTMLParser):
    """The tags of a figure with their attributes, and the text of each label and output."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.last = [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.last = tag

    def handle_data(self, data):
        if self.last in ("label", "output", "span", "figcaption"):
            self.texts.append((self.last, data))
        self.last = None

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def said(self, tag):
        return [text for name, text in self.texts if name == tag]


@pytest.mark.parametrize("order", [("batch_size", "gamma"), ("gamma", "batch_size")])
@pytest.mark.parametrize("first", range(3))
@pytest.mark.parametrize("second", range(2))
def test_sliders_open_where_the_signature_says_in_the_order_of_the_parameters(
    order, first, second, page
):
    sizes, kinds = [8, 16, 32], ["plain", "<it's & large>"]

    def figure(batch_size=sizes[first], gamma=kinds[second]):
        """Look here."""
        return style.axes()[0]

    grids = {"batch_size": sizes, "gamma": kinds}
    explored = explore(alt="{batch_size}, {gamma}", **{name: grids[name] for name in order})(figure)
    parts = Parts(explored._repr_mimebundle_()["text/html"])
    assert parts.said("label") == ["batch size"]
    assert parts.said("span") == ["γ", *kinds]
    assert parts.said("output") == [str(sizes[first])]
    slider, *buttons = parts.all("input")
    assert (slider["id"], slider["type"]) == ("figure-batch_size", "range")
    assert [slider[key] for key in ("min", "max", "step")] == ["0", "2", "1"]
    assert slider["value"] == str(first)
    assert slider["aria-valuetext"] == str(sizes[first])
    assert json.loads(slider["data-values"]) == ["8", "16", "32"]
    assert [label.get("for") for label in parts.all("label")] == ["figure-batch_size", None, None]
    (group,) = (tag for tag in parts.all("div") if tag.get("role") == "radiogroup")
    assert group["aria-labelledby"] == parts.all("span")[0]["id"] == "figure-gamma"
    assert [button["value"] for button in buttons] == ["0", "1"]
    assert ["checked" in button for button in buttons] == [second == 0, second == 1]
    for button in buttons:
        assert (button["name"], button["type"]) == ("figure-gamma", "radio")
    assert all("disabled" in control for control in (slider, *buttons))
    (picture,) = parts.all("img")
    assert picture["src"] == f"../_frames/figure/{first}-{second}.svg"
    (stage,) = (tag for tag in parts.all("div") if tag.get("role") == "img")
    assert stage["aria-label"] == f"{sizes[first]}, {kinds[second]}"
    assert parts.all("figure")[0]["data-frames"] == "../_frames/figure"
    assert parts.said("figcaption") == ["Look here."]


def test_the_stage_has_the_shape_of_the_picture_before_it_arrives(page):
    wide, high = style.axes(height=2.5)[0], style.axes(height=5)[0]
    shapes = []
    for fig, caption in ((wide, "Wide."), (high, "High.")):
        html = show(fig, alt="Nothing.", caption=caption)._repr_mimebundle_()["text/html"]
        width, height = map(float, re.search(r"aspect-ratio: ([\d.]+) / ([\d.]+)", html).groups())
        shapes.append(width / height)
    assert shapes == pytest.approx([style.WIDTH / 2.5, style.WIDTH / 5])


def test_every_position_has_a_file_of_its_own(explorer):
    figure = explorer(slope=range(12), offset=[0, 1, 2])
    positions = list(static_face.positions(figure))
    assert positions == list(itertools.product(range(12), range(3)))
    assert len({static_face.file_name(position) for position in positions}) == 36
    assert static_face.file_name((11, 1)) == "11-1.svg"
    assert static_face.file_name((1, 11)) == "1-11.svg"
    assert static_face.file_name(()) == "still.svg"


@pytest.mark.parametrize(
    ("values", "width"), [([1, 22], 3), ([0.0001, 2], 7), ([-1.23e-30, 2], 14)]
)
def test_the_longest_value_has_its_place_beside_the_slider(values, width, page):
    def figure(rate=values[0]):
        """Look here."""
        return style.axes()[0]

    html = explore(alt="{rate}", rate=values)(figure)._repr_mimebundle_()["text/html"]
    assert f"min-width: {width}ch" in html
