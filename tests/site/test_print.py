"""A printed page: black on white from either theme, nothing folded, nothing cut off."""

import pytest
from built import pages, wings

PAGES = [pages(f"book/{wing}/*.html")[0] for wing in wings()]

# Text whose colour is not near black, or whose ground is not near white.
PALE = r"""() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const light = colours => {  // of colours laid over one another, on paper
        canvas.fillStyle = 'white';
        canvas.fillRect(0, 0, 1, 1);
        for (const colour of colours) {
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
        }
        const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data;
        return (0.3 * r + 0.59 * g + 0.11 * b) / 255;
    };
    const grounds = e => e ? [...grounds(e.parentElement), getComputedStyle(e).backgroundColor] : [];
    return [...document.querySelectorAll('article :is(p, li, td, th, h1, h2, h3, pre, figcaption, summary)')]
        .filter(e => e.checkVisibility() && e.innerText.trim())
        .map(e => [light([getComputedStyle(e).color]), light(grounds(e)), e.outerHTML.slice(0, 80)])
        .filter(([ink, paper]) => ink > 0.4 || paper < 0.9);
}"""

FOLDED = """() => [
    ...document.querySelectorAll('article details:not(.hide, .bn-ledger *) > :not(summary)'),
    ...document.querySelectorAll('article .admonition.dropdown > :not(.admonition-title)'),
].filter(e => e.tagName !== 'SCRIPT' && !(e.getBoundingClientRect().height > 0
    && e.checkVisibility({ opacityProperty: true, visibilityProperty: true, contentVisibilityAuto: true })))
    .map(e => e.outerHTML.slice(0, 80))"""

CUT_OFF = """() => [...document.querySelectorAll('article pre')]
    .filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1)
    .map(e => e.innerText.slice(0, 80))"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_a_printed_page_is_black_on_white_open_and_whole(page, theme, visit):
    tab = visit(page, theme=theme)
    assert tab.evaluate(FOLDED), "on the screen something is folded"
    tab.emulate_media(media="print")
    tab.wait_for_function("() => document.documentElement.dataset.theme === 'light'")
    tab.wait_for_timeout(500)  # what unfolds does so slowly
    assert tab.evaluate(PALE) == []
    assert tab.evaluate(FOLDED) == []
    assert tab.evaluate(CUT_OFF) == []
    tab.emulate_media(media="screen")
    tab.wait_for_function(f"() => document.documentElement.dataset.theme === '{theme}'")
    assert tab.evaluate(FOLDED), "and is again afterwards"
