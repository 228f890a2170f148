"""Interactive figures in the browser: by keyboard, by pointer, without script, and within budget."""

import gzip
import json
import random
import statistics
from pathlib import Path

import counted
import pytest
from built import PHONE, SITE, UNFOLD, chapters, pages, wings
from notebooks import ask_after

from bncore.page.static_face import file_name

ROOT = Path(__file__).resolve().parents[2]
FRAMES = SITE / "_frames" / "book"
EXPLORER = "figure.bn-explore"
EXPLORER_HTML = 'class="bn-figure bn-explore"'
MEGABYTE = 1_000_000
TEXT = (".html", ".css", ".js", ".svg", ".json", ".txt", "/")

SHOWN = "figure => figure.dataset.shown"
# Where each control stands: a slider, or the button that is chosen.
POSITIONS = """figure => [...figure.querySelectorAll('.bn-control')]
    .map(control => control.querySelector('input[type=range], input:checked').value)"""

SETTLED = f"figure => figure.dataset.shown === ({POSITIONS})(figure).join('-') + '.svg'"

PICTURE_IS_THE_FRAME = """async figure => {
    const file = await (await fetch(`${figure.dataset.frames}/${figure.dataset.shown}`)).text();
    const holder = document.createElement('div');
    holder.innerHTML = file;
    const shown = figure.querySelector('.bn-frame').shadowRoot.querySelector('svg');
    return holder.firstElementChild.outerHTML === shown.outerHTML;
}"""

# What a figure says, beside what it should say of the frame that it shows.
SAID = """figure => {
    const sliders = [...figure.querySelectorAll('input[type=range]')];
    const alts = JSON.parse(figure.querySelector('.bn-alts').textContent);
    const values = sliders.map(s => JSON.parse(s.dataset.values)[s.value]);
    return [
        [figure.querySelector('.bn-frame').getAttribute('aria-label'), alts[figure.dataset.shown]],
        [sliders.map(s => s.getAttribute('aria-valuetext')), values],
        [sliders.map(s => s.parentElement.querySelector('output').value), values],
    ];
}"""

# Move the first control of a figure to a position, and the event that the browser would send.
MOVE = """(figure, axis, position) => {
    const inputs = figure.querySelectorAll('.bn-control')[axis].querySelectorAll('input');
    if (inputs.length > 1) inputs[position].checked = true;
    else inputs[0].value = position;
    (inputs[position] ?? inputs[0]).dispatchEvent(new Event('input', { bubbles: true }));
}"""

TIME_OF_A_MOVE = f"""async ([figure, step]) => {{
    const positions = ({POSITIONS})(figure).map(Number);
    const inputs = figure.querySelector('.bn-control').querySelectorAll('input');
    const count = inputs.length > 1 ? inputs.length : Number(inputs[0].max) + 1;
    const wanted = positions.with(0, (positions[0] + step) % count);
    const start = performance.now();
    ({MOVE})(figure, 0, wanted[0]);
    while (figure.dataset.shown !== wanted.join('-') + '.svg')
        await new Promise(requestAnimationFrame);
    await new Promise(done => requestAnimationFrame(() => {{
        const channel = new MessageChannel();
        channel.port1.onmessage = done;
        channel.port2.postMessage(null);
    }}));
    return performance.now() - start;
}}"""


CHOICE = 'role="radiogroup"'

# Words of a frame that leave it, and words that lie on others.
BADLY_PLACED = """svg => {
    document.body.innerHTML = svg;
    const frame = document.querySelector('svg').getBoundingClientRect();
    const all = [...document.querySelectorAll('g[id*="-text_"]')]
        .map(word => [word.innerHTML.match(/<!--(.*?)-->/)?.[1].trim(), word.getBoundingClientRect()])
        .filter(([, box]) => box.width > 0);
    const outside = all.filter(([, box]) => box.left < frame.left - 0.5 || box.right > frame.right + 0.5
        || box.top < frame.top - 0.5 || box.bottom > frame.bottom + 0.5);
    const across = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = (a, b) => Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    const pairs = all.flatMap(([one, a], i) => all.slice(i + 1)
        .filter(([, b]) => across(a, b) > 1.5 && down(a, b) > 1.5)
        .map(([other]) => `${one} on ${other}`));
    return [...outside.map(([word]) => `${word} cut`), ...pairs];
}"""


def source(page):
    return (SITE / page).read_text(encoding="utf-8")


def explorers(tab):
    """Handles to the interactive figures of a page, each once it shows its frame."""
    handles = tab.query_selector_all(EXPLORER)
    for handle in handles:
        handle.scroll_into_view_if_needed()
        settle(tab, handle)
    return handles


def settle(tab, figure):
    tab.wait_for_function(SETTLED, arg=figure)


def value_shown(slider):
    return slider.evaluate("slider => slider.parentElement.querySelector('output').value")


def check_words(figure):
    for said, expected in figure.evaluate(SAID):
        assert said == expected


def move(figure, position, axis=0):
    """Move a control without waiting for the picture."""
    figure.evaluate(
        f"(figure, [axis, position]) => ({MOVE})(figure, axis, position)", [axis, position]
    )


ANSWERS = {"book/explanations/why.html", "book/practice/symptoms.html"}
"""Pages that draw several chapters together, in one picture or in a list."""


@pytest.fixture
def visit(visit):
    """Open a page of the site with its folds open: figures may stand in them."""

    def open_page(*args, **settings):
        tab = visit(*args, **settings)
        tab.evaluate(UNFOLD)
        return tab

    return open_page


def test_every_chapter_has_two_interactive_figures():
    few = [
        page
        for wing in wings()
        for page in pages(f"book/{wing}/*.html")
        if page not in ANSWERS and source(page).count(EXPLORER_HTML) < 2
    ]
    assert few == []


@pytest.mark.parametrize("page", chapters())
def test_the_keyboard_moves_every_slider(page, use):
    tab = use(page)
    for figure in explorers(tab):
        opening = figure.query_selector("img").get_attribute("src").rsplit("/", 1)[1]
        assert figure.evaluate(SHOWN) == opening, (
            "it opens at the picture that shows without script"
        )
        check_words(figure)
        for slider in figure.query_selector_all("input[type=range]"):
            before, picture = value_shown(slider), figure.evaluate(SHOWN)
            slider.focus()
            at_the_end = slider.evaluate("slider => slider.value === slider.max")
            slider.press("ArrowLeft" if at_the_end else "ArrowRight")
            settle(tab, figure)
            assert value_shown(slider) != before
            check_words(figure)
            assert figure.evaluate(SHOWN) != picture
            assert figure.evaluate(PICTURE_IS_THE_FRAME)


@pytest.mark.parametrize("page", chapters())
def test_the_pointer_moves_every_slider(page, use):
    tab = use(page, PHONE, "dark")
    for figure in explorers(tab):
        for slider in figure.query_selector_all("input[type=range]"):
            slider.scroll_into_view_if_needed()
            box = slider.bounding_box()
            assert box["height"] >= 44, "a finger needs 44 pixels"
            assert box["width"] >= 64, "and a way to go"
            middle = box["y"] + box["height"] / 2
            tab.mouse.move(box["x"] + box["width"] / 2, middle)
            tab.mouse.down()
            for share in (0.9, 0.02):
                tab.mouse.move(box["x"] + box["width"] * share, middle, steps=3)
            tab.mouse.up()
            settle(tab, figure)
            assert slider.evaluate("slider => slider.value") == "0"
            assert slider.bounding_box()["width"] == box["width"], "the slider fled from the finger"
            assert figure.evaluate(PICTURE_IS_THE_FRAME)


@pytest.mark.parametrize("page", [page for page in chapters() if CHOICE in source(page)])
def test_buttons_are_chosen_by_arrow_keys_and_by_touch(page, use):
    tab = use(page, PHONE, "dark")
    for figure in explorers(tab):
        for group in figure.query_selector_all('[role="radiogroup"]'):
            radios = group.query_selector_all("input")
            chosen = next(radio for radio in radios if radio.is_checked())
            pictures = {figure.evaluate(SHOWN)}
            chosen.focus()
            ring = "radio => getComputedStyle(radio.nextElementSibling).outlineStyle"
            for _ in radios:
                tab.keyboard.press("ArrowRight")
                settle(tab, figure)
                pictures.add(figure.evaluate(SHOWN))
                active = tab.evaluate_handle("() => document.activeElement").as_element()
                assert active.is_checked()
                assert active.evaluate(ring) == "solid", "one sees where one is"
            assert chosen.is_checked(), "the arrows go round"
            assert len(pictures) == len(radios)
            for radio in radios:
                box = radio.bounding_box()
                assert box["height"] >= 44, "a finger needs 44 pixels"
                assert box["width"] >= 44
                radio.tap()
                settle(tab, figure)
                assert radio.is_checked()
                assert figure.evaluate(PICTURE_IS_THE_FRAME)
                check_words(figure)


@pytest.mark.parametrize("page", chapters())
def test_without_script_the_first_frame_and_its_caption_show(page, visit):
    tab = visit(page, javascript=False)
    for figure in tab.locator("figure.bn-figure").all():
        figure.scroll_into_view_if_needed()
        image = figure.locator("img")
        assert image.is_visible()
        assert image.bounding_box()["height"] > 50
        assert figure.locator("figcaption").inner_text().strip()
        for control in figure.locator("input").all():
            assert not control.is_visible()


def positions(figure):
    """How many positions the first control has, and where it stands."""
    return lengths(figure)[0], int(figure.evaluate(POSITIONS)[0])


def lengths(figure):
    """How many positions each control has."""
    return [
        len(control.query_selector_all("input[type=radio]"))
        or int(control.query_selector("input").get_attribute("max")) + 1
        for control in figure.query_selector_all(".bn-control")
    ]


def frame_at(figure, position):
    return file_name([position, *figure.evaluate(POSITIONS)[1:]])


def test_a_picture_that_comes_late_does_not_replace_a_later_one(visit):
    tab = visit(chapters()[0])
    figure = explorers(tab)[0]
    count, here = positions(figure)
    late, last = [position for position in range(count) if position != here][:2]
    held = []
    tab.route(f"**/{frame_at(figure, late)}", lambda route: held.append(route))
    move(figure, late)
    tab.wait_for_timeout(100)
    move(figure, last)
    settle(tab, figure)
    for route in held:
        route.continue_()
    tab.wait_for_timeout(300)
    assert held, "nobody asked for the picture"
    assert figure.evaluate(SHOWN) == frame_at(figure, last)
    assert figure.evaluate(PICTURE_IS_THE_FRAME)
    check_words(figure)


def test_a_picture_that_is_lost_is_said_to_be_and_asked_for_again(visit):
    tab = visit(chapters()[0])
    figure = explorers(tab)[0]
    count, here = positions(figure)
    lost = (here + 1) % count
    pattern = f"**/{frame_at(figure, lost)}"
    tab.route(pattern, lambda route: route.abort())
    move(figure, lost)
    tab.wait_for_function(
        "figure => figure.querySelector('.bn-frame').ariaLabel.includes('could not be loaded')",
        arg=figure,
    )
    tab.unroute(pattern)
    move(figure, here)
    move(figure, lost)
    settle(tab, figure)
    check_words(figure)


@pytest.mark.parametrize("page", pages("book/**/*.html"))
def test_a_page_arrives_within_its_budget(page, look):
    transferred = {}
    for answer in look(page).arrived:
        body = answer.body()
        is_text = answer.url.split("?")[0].endswith(TEXT)
        transferred[answer.url] = len(gzip.compress(body, 6)) if is_text else len(body)
    total = sum(transferred.values())
    heaviest = sorted(transferred.items(), key=lambda item: -item[1])[:5]
    assert total <= MEGABYTE, f"{total} bytes; heaviest: {heaviest}"


def heaviest_frame(page):
    """Bytes of the largest picture that a figure of the page moves to."""
    folders = (SITE / "_frames" / page.removesuffix(".html")).iterdir()
    moving = [files for folder in folders if len(files := list(folder.glob("*.svg"))) > 1]
    return max((file.stat().st_size for files in moving for file in files), default=0)


# The larger a picture, the longer it takes: what holds for the largest holds for the others.
HEAVIEST = sorted(chapters(), key=heaviest_frame)[-6:]


@pytest.mark.timing
@pytest.mark.parametrize("page", HEAVIEST)
def test_a_move_is_painted_within_fifty_milliseconds(page, visit):
    tab = visit(page)
    for figure in explorers(tab):
        figure.query_selector("input").focus()
        tab.wait_for_load_state("networkidle")
        times = [
            tab.evaluate(TIME_OF_A_MOVE, [figure, step]) for step in (1, 2, 3, 1, 1, 2, 3, 1, 1)
        ]
        assert statistics.median(times) <= 50, (page, times)


RERENDER = """
import json as _json
from bncore.page import Explorer as _Explorer
from bncore.page.frames import to_svg as _to_svg
_explorers = {v.name: v for v in list(globals().values()) if isinstance(v, _Explorer) and v.grids}
print(_json.dumps({
    _name: [_to_svg(_e.figure(**_e.at(_indices)), _name) for _indices in _wanted[_name]]
    for _name, _e in _explorers.items()
}))
"""


def quickest(wing):
    """The chapter of a wing with the least code."""
    found = [page for page in pages(f"book/{wing}/*.html") if source(page).count(EXPLORER_HTML) > 1]
    return min(found, key=lambda page: len("".join(counted.code(counted.article(source(page))))))


@pytest.mark.parametrize("page", [quickest(wing) for wing in wings()])
def test_the_picture_is_the_one_that_the_code_computes(page, use):
    """Run a chapter of each wing, draw frames from its own functions, and find them on the page."""
    tab = use(page)
    figures = {
        handle.get_attribute("id").removeprefix("figure-"): handle for handle in explorers(tab)
    }
    rng = random.Random(page)
    wanted = {}
    for name, figure in figures.items():
        wanted[name] = [[rng.randrange(n) for n in lengths(figure)] for _ in range(2)]
    path = ROOT / page.replace(".html", ".ipynb")
    computed = json.loads(ask_after(path, f"_wanted = {wanted!r}\n{RERENDER}"))
    assert computed.keys() == figures.keys()
    for name, figure in figures.items():
        for indices, svg in zip(wanted[name], computed[name], strict=True):
            for axis, index in enumerate(indices):
                move(figure, index, axis)
            settle(tab, figure)
            assert figure.evaluate(SHOWN) == file_name(indices)
            assert figure.evaluate(
                """(figure, svg) => {
                    const holder = document.createElement('div');
                    holder.innerHTML = svg;
                    const shown = figure.querySelector('.bn-frame').shadowRoot.querySelector('svg');
                    return holder.firstElementChild.outerHTML === shown.outerHTML;
                }""",
                svg,
            )


def test_the_look_at_words_sees_what_is_cut_and_what_overlaps(chromium):
    tab = chromium.new_page(viewport={"width": 700, "height": 900})
    letters = [("a", 0, 0), ("b", 5, 5), ("c", 95, 50)]
    words = "".join(
        f'<g id="x-text_{name}"><!-- {name} --><path d="M{x} {y}h9v9h-9z"/></g>'
        for name, x, y in letters
    )
    found = tab.evaluate(BADLY_PLACED, f'<svg viewBox="0 0 100 100">{words}</svg>')
    assert found == ["c cut", "a on b"]
    tab.close()


@pytest.mark.parametrize(
    "page",
    sorted({path.parents[1] for path in FRAMES.rglob("*.svg")}),
    ids=lambda page: page.relative_to(FRAMES).as_posix(),
)
def test_no_word_of_a_frame_is_cut_or_lies_on_another(chromium, page):
    tab = chromium.new_page(viewport={"width": 700, "height": 900})
    found = {
        f"{frame.parent.name}/{frame.name}": wrong
        for frame in sorted(page.glob("*/*.svg"))
        if (wrong := tab.evaluate(BADLY_PLACED, frame.read_text(encoding="utf-8")))
    }
    tab.close()
    assert found == {}
