"""A figure that moves, on a page without code."""

import io
import re

import pytest
from sphinx.application import Sphinx

FIGURE = "bncore.chapters.front.start.figures.eight_numbers"


@pytest.fixture
def built(tmp_path):
    """A page with this text, built in a folder of its own, and where its files lie."""

    def build(text, name="book/page"):
        place = tmp_path / "source" / f"{name}.rst"
        place.parent.mkdir(parents=True)
        place.write_text(f"Title\n=====\n\n{text}\n", encoding="utf-8")
        (tmp_path / "source/index.rst").write_text(
            f"Index\n=====\n\n.. toctree::\n\n   {name}\n", encoding="utf-8"
        )
        folders = [str(tmp_path / part) for part in ("source", "out", "trees")]
        settings = {"extensions": ["explorer"]}
        warnings = io.StringIO()
        app = Sphinx(
            folders[0], None, *folders[1:], "html", settings, status=None, warning=warnings
        )
        app.build()
        return (tmp_path / "out" / f"{name}.html").read_text(encoding="utf-8"), warnings.getvalue()

    return build


def test_a_figure_comes_with_all_its_frames(built, tmp_path):
    html, _ = built(f".. explorer:: {FIGURE}")
    frames = tmp_path / "out/_frames/book/page/eight_numbers"
    shown = re.search(r'src="([^"]+)"', html[html.index("bn-frame") :])[1]
    assert shown == "../_frames/book/page/eight_numbers/2.svg"
    assert sorted(path.name for path in frames.iterdir()) == [f"{i}.svg" for i in range(8)]
    assert "<figcaption>Move the eighth number" in html


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f".. explorer:: {FIGURE}s", "eight_numberss"),
        (".. explorer:: nothing", "there is no nothing"),
    ],
)
def test_what_is_not_there_is_named(built, text, words):
    _, warnings = built(text)
    assert words in warnings
