"""Interactive figures beside a kernel: in JupyterLab, under the keyboard, read by a screen reader."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from built import DESKTOP
from lab_server import clear_all, run_all
from nbformat.v4 import new_code_cell, new_notebook

pytest.importorskip("anywidget", reason="requirements.txt names it: install it again")

CAPTION = " ".join(["What to look for is said in words, and the words go on for a while."] * 4)
SLOPES, KINDS = [0.001, 0.1, 1, 1000], ["solid", "dotted", "dashed"]

MOVES = f'''
from bncore.page import explore, show, style

@explore(alt="A {{kind}} line of slope {{slope}}.", slope={SLOPES}, kind={KINDS})
def line(slope=0.1, kind="solid"):
    """{CAPTION}"""
    fig, ax = style.axes()
    ax.plot([0, 1], [0, slope], linestyle=kind)
    return fig

line
'''
STANDS = f"show(line(slope=1, kind='solid'), alt='A line that stays.', caption='{CAPTION}')"

PICTURE = """async figure => {
    const image = figure.querySelector('img');
    await image.decode();
    const bytes = await (await fetch(image.src)).arrayBuffer();
    const hash = await crypto.subtle.digest('SHA-256', bytes);
    return [image.alt, image.naturalWidth > 500, [...new Uint8Array(hash)].join()];
}"""


@pytest.fixture(scope="module")
def notebook(lab):
    """The tab of JupyterLab in which the figures are drawn."""
    cells = [new_code_cell(code) for code in (MOVES, STANDS, "line")]
    return lab(new_notebook(cells=cells))


@pytest.fixture
def figures(notebook):
    """The figure that moves and the one that does not, drawn anew for each test."""
    tab = notebook
    tab.set_viewport_size(DESKTOP)
    clear_all(tab)
    run_all(tab)
    found = tab.locator(".jp-OutputArea-output")
    found.nth(1).locator("img").wait_for()
    found.nth(0).locator("img").wait_for()
    return tab, found.nth(0), found.nth(1)


def drawn(tab, figure, slope, kind):
    """The picture in `figure`, once its words are those of this slope and kind."""
    alt = f"A {kind} line of slope {slope}."
    tab.wait_for_function(
        "([figure, alt]) => figure.querySelector('img').alt === alt",
        arg=[figure.element_handle(), alt],
    )
    _, large, picture = figure.evaluate(PICTURE)
    assert large
    return picture


def test_captions_wrap_and_pictures_have_words(figures):
    tab, *both = figures
    for width in (1280, 700):
        tab.set_viewport_size({"width": width, "height": 900})
        for figure in both:
            caption = figure.get_by_text(CAPTION)
            assert caption.evaluate("e => e.scrollWidth <= e.clientWidth")
            assert caption.evaluate(
                "e => e.getBoundingClientRect().right <= document.body.clientWidth"
            )
            assert caption.bounding_box()["height"] > 30, "long words take several lines"
    assert [figure.locator("img").get_attribute("alt") for figure in both] == [
        "A solid line of slope 0.1.",
        "A line that stays.",
    ]


def test_the_keyboard_moves_named_controls_that_speak_their_values(figures):
    tab, figure, _ = figures
    slope = figure.get_by_role("slider", name="slope", exact=True)
    assert slope.get_attribute("aria-valuetext") == "0.1"
    seen = {drawn(tab, figure, "0.1", "solid")}
    slope.focus()
    for key, said in [("ArrowRight", "1"), ("End", "1000"), ("Home", "0.001")]:
        slope.press(key)
        assert slope.get_attribute("aria-valuetext") == said
        assert figure.locator("output").inner_text() == said
        seen.add(drawn(tab, figure, said, "solid"))
    group = figure.get_by_role("radiogroup", name="kind", exact=True)
    chosen = group.get_by_role("radio", name="solid", exact=True)
    chosen.focus()
    for kind in ("dotted", "dashed", "solid"):
        tab.keyboard.press("ArrowRight")
        assert group.get_by_role("radio", name=kind, exact=True).is_checked()
        seen.add(drawn(tab, figure, "0.001", kind))
    assert len(seen) == 6, "every place has a picture of its own"


def test_a_click_chooses_and_the_slider_stays(figures):
    tab, figure, _ = figures
    figure.get_by_role("radio", name="dashed", exact=True).click()
    drawn(tab, figure, "0.1", "dashed")
    assert figure.get_by_role("slider").get_attribute("aria-valuetext") == "0.1"


def test_two_figures_of_one_kind_keep_their_choices_and_their_names(figures):
    tab, first, _ = figures
    second = tab.locator(".jp-OutputArea-output").nth(2)
    second.locator("img").wait_for()
    second.get_by_role("radio", name="dashed", exact=True).click()
    for figure, chosen in ((first, "solid"), (second, "dashed")):
        assert figure.get_by_role("radio", name=chosen, exact=True).is_checked()
    second.get_by_text("slope", exact=True).click()
    assert second.evaluate("figure => figure.contains(document.activeElement)")


def test_axe_finds_nothing_in_the_figures(figures):
    tab, *_ = figures
    found = Axe().run(tab, context=".jp-OutputArea-output").response["violations"]
    assert [violation["help"] for violation in found] == []
