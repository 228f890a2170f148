"""The claims ledger in the browser: chapters fold and unfold, by hand, by address, by filter, in print."""

import re
from itertools import chain

import pytest
from built import DESKTOP, PHONE, SITE
from tabs import open_tab

pytestmark = pytest.mark.xdist_group("ledger")

LEDGER = "book/claims.html"
UNFOLDED = """() => [...document.querySelectorAll('.bn-chapter[open]')]
    .map(e => e.querySelector('.bn-from').id)"""
SHOWN = """() => [...document.querySelectorAll('.bn-wing .bn-claims tbody tr')]
    .filter(row => row.checkVisibility({ contentVisibilityAuto: true }))
    .map(row => row.dataset.verdict)"""
IN_SIGHT = """id => {
    const box = document.getElementById(id).getBoundingClientRect();
    return box.height > 20 && box.top >= 0 && box.top < innerHeight / 2;
}"""


# Nothing filtered, named or opened.
AS_IT_OPENS = """() => {
    history.replaceState(null, '', location.pathname);
    const form = document.querySelector('.bn-ledger-filters');
    form.reset();
    form.dispatchEvent(new Event('input'));
    document.querySelectorAll('.bn-wing details').forEach(e => { e.open = false; });
    scrollTo(0, 0);
}"""
ALL_IS_FOLDED = """() => !document.querySelector('.bn-wing[hidden], .bn-wing :is([hidden], details[open])')
    && document.querySelector('.bn-ledger-filters button').textContent === 'Open all chapters'"""


@pytest.fixture(scope="module")
def opened(chromium, address):
    """The ledger on a desktop in light, or on a phone in dark: opened once."""
    tabs = {}

    def open_page(viewport):
        theme = "dark" if viewport is PHONE else "light"
        if theme not in tabs:
            tabs[theme] = open_tab(chromium, f"{address}/{LEDGER}", viewport, theme)
        return tabs[theme]

    yield open_page
    for tab in tabs.values():
        tab.context.close()


@pytest.fixture
def ledger(opened):
    """The ledger as it opens, in a tab that tests share."""

    def open_page(viewport=DESKTOP):
        tab = opened(viewport)
        tab.emulate_media(media="screen")
        tab.evaluate(AS_IT_OPENS)
        tab.wait_for_function(ALL_IS_FOLDED)
        return tab

    return open_page


def claims_in(html):
    """The claims that stand in a page or a part of it, in order."""
    return re.findall(r'<tr role="row" id="(claim-[^"]+)"', html)


def ids(page):
    """The claims that stand on a page, in order."""
    return claims_in((SITE / page).read_text("utf-8"))


def of_chapters():
    """The ids of the claims of each chapter of the ledger."""
    parts = (SITE / LEDGER).read_text("utf-8").split('<details class="bn-chapter">')
    return [claims_in(part) for part in parts[1:]]


def test_the_ledger_shows_each_row_in_one_chapter():
    assert sorted(ids(LEDGER)) == sorted(chain(*of_chapters()))


@pytest.mark.parametrize("javascript", [True, False])
def test_chapters_are_folded_and_unfold_by_hand(javascript, visit, ledger):
    tab = ledger(PHONE) if javascript else visit(LEDGER, PHONE, javascript=False)
    chapters = tab.locator(".bn-chapter").all()
    assert len(chapters) == len(of_chapters())
    for chapter in (chapters[0], chapters[-1]):
        row = chapter.locator("tbody tr").first
        assert not row.is_visible()
        assert chapter.locator("summary").first.bounding_box()["height"] >= 44
        chapter.locator("summary").first.click()
        assert row.is_visible()
        chapter.locator("summary").first.click()
        assert not row.is_visible()


@pytest.mark.parametrize(
    ("viewport", "javascript"), [(DESKTOP, True), (PHONE, True), (PHONE, False)]
)
def test_an_address_unfolds_what_it_names(viewport, javascript, visit):
    named = of_chapters()[-1][-1]
    tab = visit(f"{LEDGER}#{named}", viewport, javascript=javascript)
    row = tab.locator(f"#{named}")
    assert row.is_visible()
    assert row.locator("details").evaluate("e => e.open") == javascript
    assert tab.locator(".bn-chapter[open]").count() == 1
    assert tab.evaluate(IN_SIGHT, named)


def test_the_script_unfolds_a_chapter_where_the_browser_does_not(ledger):
    named = of_chapters()[-1][-1]
    tab = ledger()
    tab.evaluate("id => { location.hash = id; }", named)
    tab.wait_for_function("id => document.getElementById(id).checkVisibility()", arg=named)
    tab.evaluate(
        "() => document.querySelectorAll('.bn-chapter').forEach(chapter => { chapter.open = false; })"
    )
    assert not tab.locator(f"#{named}").is_visible()
    tab.evaluate("() => dispatchEvent(new Event('hashchange'))")  # the browser does not hear it
    assert tab.locator(f"#{named}").is_visible()


def test_a_claim_of_a_chapter_leads_to_its_row(visit):
    tab = visit("book/mechanics/forward.html")
    link = tab.locator("#claims a[href*='#claim-']").last
    claim = link.get_attribute("href").split("#")[1]
    link.click()
    tab.wait_for_url(f"**/{LEDGER}#{claim}")
    tab.wait_for_function(f"() => document.querySelector('#{claim} details')?.open")
    assert tab.locator(f"#{claim}").is_visible()
    assert tab.evaluate(IN_SIGHT, claim)


def test_the_summary_leads_to_each_chapter(ledger):
    tab = ledger()
    links = tab.locator(".bn-summary tbody a").all()
    assert len(links) == len(of_chapters())
    for link in (links[0], links[-1]):
        name = link.get_attribute("href").split("#")[1]
        link.click()
        assert name in tab.evaluate(UNFOLDED)
        assert tab.evaluate(IN_SIGHT, name)
    tab.locator(f".bn-chapter:has(#{name}) > summary").click()
    assert name not in tab.evaluate(UNFOLDED)
    links[-1].click()
    assert name in tab.evaluate(UNFOLDED)


def test_the_summary_leads_to_each_chapter_without_script(visit):
    tab = visit(LEDGER, PHONE, javascript=False)
    for link in tab.locator(".bn-summary tbody a").all()[::6]:
        name = link.get_attribute("href").split("#")[1]
        link.click()
        assert tab.locator(f"#{name}").is_visible()


def test_an_address_that_is_none_leaves_the_page_alive(visit):
    tab = visit(f"{LEDGER}#%E0%A4%A")
    tab.wait_for_load_state("networkidle")
    named = ids(LEDGER)[0]
    tab.evaluate("id => { location.hash = id; }", named)
    tab.wait_for_function("id => document.getElementById(id).checkVisibility()", arg=named)
    assert tab.complaints == []


def test_filters_show_what_they_name_and_fold_again(ledger):
    tab = ledger()
    first = tab.locator(".bn-chapter").first
    first.locator("summary").first.click()
    by_hand = tab.evaluate(UNFOLDED)
    everything = len(ids(LEDGER))
    html = (SITE / LEDGER).read_text("utf-8")
    verdicts = sorted(set(re.findall(r'<tr [^>]*data-verdict="(\w+)"', html)))
    assert len(verdicts) >= 4
    for verdict in verdicts:
        tab.select_option("select[name=verdict]", verdict)
        wanted = len(re.findall(f'<tr [^>]*id="[^>]*data-verdict="{verdict}"', html))
        assert tab.evaluate(SHOWN) == [verdict] * wanted
        assert tab.locator(".bn-ledger-count").inner_text().startswith(f"{wanted} of {everything} ")
    for part in (".bn-wing", ".bn-chapter"):
        for shown in tab.locator(f"{part}:not([hidden])").all():
            assert shown.locator("tbody tr:not([hidden])").count()
    tab.select_option("select[name=verdict]", "")
    assert tab.evaluate(UNFOLDED) == by_hand
    tab.fill("input[name=text]", ids(LEDGER)[-1].removeprefix("claim-"))
    assert "1 of" in tab.locator(".bn-ledger-count").inner_text()
    assert len(tab.evaluate(SHOWN)) == 1
    tab.fill("input[name=text]", "no claim says this")
    assert tab.evaluate(SHOWN) == []
    assert tab.locator(".bn-wing:not([hidden])").count() == 0
    # An address shows its row whatever the filters say.
    tab.evaluate("id => { location.hash = id; }", ids(LEDGER)[0])
    tab.wait_for_function("id => document.getElementById(id).checkVisibility()", arg=ids(LEDGER)[0])


def test_filters_by_chapter_source_and_words_agree_with_the_rows(ledger):
    tab = ledger()
    rows = tab.evaluate(
        """() => [...document.querySelectorAll('.bn-wing .bn-claims tbody tr')].map(
            row => [row.id, row.dataset.chapter, row.dataset.source, row.textContent.toLowerCase()])"""
    )
    shown = """() => [...document.querySelectorAll('.bn-wing .bn-claims tbody tr:not([hidden])')]
        .map(row => row.id)"""
    chapter, source = rows[0][1], rows[-1][2]
    tab.select_option("select[name=chapter]", chapter)
    assert tab.evaluate(shown) == [row[0] for row in rows if row[1] == chapter]
    tab.select_option("select[name=chapter]", "")
    tab.select_option("select[name=source]", source)
    assert tab.evaluate(shown) == [row[0] for row in rows if row[2] == source]
    tab.select_option("select[name=chapter]", chapter)
    both = [row[0] for row in rows if row[1] == chapter and row[2] == source]
    assert tab.evaluate(shown) == both
    tab.select_option("select[name=chapter]", "")
    tab.select_option("select[name=source]", "")
    for words in ("variance", "  Gradient  variance "):
        tab.fill("input[name=text]", words)
        wanted = [row[0] for row in rows if all(w in row[3] for w in words.lower().split())]
        assert 0 < len(wanted) < len(rows)
        assert tab.evaluate(shown) == wanted


def test_a_button_and_printing_unfold_all_chapters_and_fold_them(ledger):
    tab = ledger(PHONE)
    button = tab.locator(".bn-ledger-filters button")
    everything = len(of_chapters())
    for words, count in (("Open all chapters", everything), ("Close all chapters", 0)):
        assert button.inner_text() == words
        button.click()
        assert len(tab.evaluate(UNFOLDED)) == count
        tab.wait_for_function(
            "words => document.querySelector('.bn-ledger-filters button').textContent !== words",
            arg=words,
        )
    tab.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert len(tab.evaluate(UNFOLDED)) == everything
    tab.evaluate("() => dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate(UNFOLDED) == []


@pytest.mark.parametrize("javascript", [True, False])
def test_paper_shows_every_row(javascript, visit, ledger):
    tab = ledger() if javascript else visit(LEDGER, javascript=False)
    tab.emulate_media(media="print")
    rows = tab.locator(".bn-wing .bn-claims tbody tr")
    assert rows.count() == len(ids(LEDGER))
    for row in (rows.first, rows.nth(rows.count() // 2), rows.last):
        assert row.is_visible()
        assert row.bounding_box()["height"] > 20
    assert not tab.locator(".bn-ledger-filters").is_visible()


def test_filters_live_in_the_address(visit):
    tab = visit(f"{LEDGER}?verdict=fails&text=variance&chapter=mechanics/forward")
    asked = {"verdict": "fails", "text": "variance", "chapter": "mechanics/forward", "source": ""}

    def filters():
        return {name: tab.locator(f"[name={name}]").input_value() for name in asked}

    assert filters() == asked
    verdicts = tab.evaluate(SHOWN)
    assert verdicts
    assert set(verdicts) == {"fails"}
    tab.select_option("select[name=verdict]", "holds")
    tab.fill("input[name=text]", "")
    asked |= {"verdict": "holds", "text": ""}
    assert "verdict=holds" in tab.url
    assert "text" not in tab.url
    shown = tab.evaluate(SHOWN)
    elsewhere = tab.url.split("claims")[0] + "notation.html"
    for leave in (tab.reload, lambda: tab.goto(elsewhere)):
        tab.wait_for_load_state("networkidle")
        leave()
        tab.wait_for_load_state("networkidle")
        if tab.url == elsewhere:
            tab.go_back()
        tab.wait_for_function("() => !document.querySelector('.bn-ledger-filters').hidden")
        assert filters() == asked
        assert tab.evaluate(SHOWN) == shown
    assert tab.complaints == []


def test_an_address_that_asks_for_what_is_not_there_shows_all(visit):
    tab = visit(f"{LEDGER}?verdict=nope&source=&x=1#{ids(LEDGER)[0]}")
    assert tab.locator(".bn-wing .bn-claims tbody tr:not([hidden])").count() == len(ids(LEDGER))
    tab.select_option("select[name=verdict]", "holds")
    assert tab.url.endswith(f"?verdict=holds&x=1#{ids(LEDGER)[0]}")


def test_two_rows_stand_open_on_top(visit):
    tab = visit(LEDGER, javascript=False)
    rows = tab.locator(".bn-examples tbody tr")
    assert [row.get_attribute("data-verdict") for row in rows.all()] == ["fails", "depends"]
    for row in rows.all():
        assert row.locator("details ul, details p").first.is_visible()
