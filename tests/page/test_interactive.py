"""Interactive figures: grids and words are checked, and a value chooses its figure."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncore.page import Explorer, explore, show, style


@given(
    slopes=st.lists(st.integers(-5, 5), min_size=2, max_size=4, unique=True),
    offsets=st.lists(st.floats(-3, 3), min_size=2, max_size=3, unique=True),
)
def test_a_value_chooses_the_figure_of_that_value(slopes, offsets, explorer):
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


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_it_opens_in_the_middle_of_every_grid(count):
    def level(level):
        """A level."""

    start = explore(alt="{level}", level=list(range(count)))(level).initial["level"]
    assert start == {2: 1, 3: 1, 4: 2, 7: 3}[count]


def test_sliders_stand_in_the_order_of_the_parameters():
    def both(first=1, second="b"):
        """Both."""

    figure = explore(alt="{first}{second}", second=["a", "b", "c"], first=[0, 1, 2, 3])(both)
    assert list(figure.grids.items()) == [("first", [0, 1, 2, 3]), ("second", ["a", "b", "c"])]
    assert list(figure.initial.items()) == [("first", 1), ("second", 1)]
    assert figure.at((3, 0)) == {"first": 3, "second": "a"}
    assert figure.describe(first=3, second="a") == "3a"


def test_a_grid_keeps_its_order_and_takes_arrays():
    def level(level=0.3):
        """A level."""

    figure = explore(alt="{level}", level=np.array([0.5, 0.1, 0.3]))(level)
    assert figure.grids == {"level": [0.5, 0.1, 0.3]}
    assert figure.initial == {"level": 2}


def test_it_opens_in_the_middle_without_a_default_and_at_a_named_default():
    def choice(kind, size="b"):
        """A choice."""

    figure = explore(alt="{kind}, {size}.", kind=[1, 2, 3, 4, 5], size=["a", "b"])(choice)
    assert figure.initial == {"kind": 2, "size": 1}


def test_the_text_face_draws_the_figure_and_records_only_words(monkeypatch, explorer):
    monkeypatch.setenv("BNCORE_FACE", "text")
    bundle = explorer()._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert bundle["text/plain"] == (
        "Interactive figure (slope from −1 to 1; offset from 0 to 2): The line turns and shifts."
    )


def test_names_are_listed_and_quantities_have_ends():
    def both(kind="b", rate=1):
        """Look."""

    figure = explore(alt="x", kind=["a", "b", "c"], rate=[0.1, 1, 10])(both)
    assert repr(figure) == "Interactive figure (kind: a, b, c; rate from 0.1 to 10): Look."


def test_no_face_leaves_a_figure_open(page, explorer):
    before = plt.get_fignums()
    explorer()._repr_mimebundle_()
    assert plt.get_fignums() == before


def undocumented(x):
    pass


def two(slope, offset):
    """Two."""


def three(x, y, z):
    """Three."""


def one(x="c"):
    """One."""


@pytest.mark.parametrize(
    ("function", "alt", "grids", "error", "message"),
    [
        (two, "x", {"slope": [0, 1]}, ValueError, "two takes slope, offset, but there are grids for slope"),
        (three, "x", dict.fromkeys("xyz", (0, 1)), ValueError, "three has 3 parameters, expected one or two"),
        (lambda: None, "x", {}, ValueError, "has 0 parameters, expected one or two"),
        (undocumented, "x", {"x": [0, 1]}, ValueError, "the docstring of undocumented is None, expected a sentence"),
        (one, " ", {"x": ["c", "d"]}, ValueError, "alt is ' ', expected a sentence"),
        (one, "of {y}", {"x": ["c", "d"]}, ValueError, "alt names {y}, expected one of the parameters x"),
        (one, "of {}", {"x": ["c", "d"]}, ValueError, "alt names {}, expected one of the parameters x"),
        (one, "of {x", {"x": ["c", "d"]}, ValueError, r"alt is 'of \{x' \(.*\): write a brace of the text as two"),
        (one, "x", {"x": ["c"]}, ValueError, r"x has 1 value\(s\), expected at least two"),
        (one, "x", {"x": "cd"}, TypeError, "x is str, expected a sequence of values"),
        (one, "x", {"x": 3}, TypeError, "x is int, expected a sequence of values"),
        (one, "x", {"x": ["a", "b"]}, ValueError, r"the default 'c' is not in its grid \['a', 'b'\]"),
    ],
)  # fmt: skip
def test_a_figure_that_cannot_be_explored_is_refused(function, alt, grids, error, message):
    with pytest.raises(error, match=message):
        explore(alt=alt, **grids)(function)


def test_doubled_braces_are_braces_to_the_reader():
    figure = explore(alt="The set {{y}} at {x}.", x=["c", "d"])(one)
    assert figure.describe(x="d") == "The set {y} at d."


def test_a_function_that_forgets_to_return_its_figure_is_told():
    with pytest.raises(TypeError, match="one returned NoneType, expected a matplotlib Figure: end"):
        explore(alt="x", x=["c", "d"])(one).figure(x="c")


def test_show_wants_a_figure_and_words():
    with pytest.raises(TypeError, match="fig is str, expected a matplotlib Figure"):
        show("figure", alt="x", caption="y")
    with pytest.raises(ValueError, match="caption is '', expected a sentence"):
        show(plt.figure(), alt="x", caption="")
    plt.close("all")


def test_a_shown_figure_is_an_explorer_that_does_not_move():
    fig, _ = style.axes()
    still = show(fig, alt="Nothing.", caption="Look here.")
    assert isinstance(still, Explorer)
    assert repr(still) == "Figure: Look here."
    assert still() is fig
    plt.close(fig)


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("Look here: at 2 things!", "look-here-at-2-things"),
        ("$m$ is the size.", "m-is-the-size"),
        ("x" * 50, "x" * 40),
    ],
)
def test_a_shown_figure_is_named_after_its_caption(caption, name):
    fig, _ = style.axes()
    assert show(fig, alt="Nothing.", caption=caption).name == name
    plt.close(fig)


@pytest.mark.parametrize("alt", ["A set {1, 2} of points.", "{x}", "{{", "no brace"])
def test_the_words_of_a_figure_that_does_not_move_are_taken_as_they_are(alt):
    fig, _ = plt.subplots()
    assert show(fig, alt=alt, caption="Look.").describe() == alt


def test_where_a_caption_breaks_its_lines_is_of_no_account():
    def level(level=1):
        """A level, and what
        to look for."""

    assert explore(alt="A level of {level}.", level=[1, 2])(level).caption == (
        "A level, and what to look for."
    )
