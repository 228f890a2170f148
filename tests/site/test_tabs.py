"""Tabs that tests share are put back as they opened."""

from built import SITE, chapters
from tabs import put_back

STATE = """() => [
    [...document.querySelectorAll('figure.bn-explore[data-shown]')].map(e => e.dataset.shown),
    [...document.querySelectorAll('.bn-control input')].map(e => [e.value, e.checked]),
    [...document.querySelectorAll('.bn-control output')].map(e => e.value),
    document.activeElement === document.body, scrollY,
]"""


def test_a_figure_that_was_moved_is_put_back(visit):
    texts = {page: (SITE / page).read_text(encoding="utf-8") for page in chapters()}
    tab = visit(min((p for p in texts if 'type="range"' in texts[p]), key=lambda p: len(texts[p])))
    figure = tab.locator("figure.bn-explore:has(input[type=range])").first
    slider = figure.locator("input[type=range]").first
    slider.scroll_into_view_if_needed()
    tab.wait_for_selector("figure.bn-explore[data-shown]")
    tab.evaluate("() => scrollTo(0, 0)")
    opening = tab.evaluate(STATE)
    shown = figure.get_attribute("data-shown")
    slider.focus()
    slider.press("End")
    slider.press("ArrowLeft")
    tab.wait_for_function(
        "([figure, shown]) => figure.dataset.shown !== shown", arg=[figure.element_handle(), shown]
    )
    assert tab.evaluate(STATE) != opening
    put_back(tab)
    assert tab.evaluate(STATE) == opening
