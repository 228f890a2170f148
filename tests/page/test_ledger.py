"""The ledger shows every claim with its verdict and evidence, and can be read without colour or script."""

import math
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncore.page import claims
from bncore.page.claims import VERDICTS, Claim, claim
from bncore.page.evidence import (
    Evidence,
    at_least,
    at_most,
    corrected,
    otherwise,
    under,
    untestable,
)
from bncore.page.ledger import SYMBOLS, Ledger, inline

good = at_most(1, 0.0, "error")
bad = at_most(1, 2.0, "error")
lost = at_most(1, math.nan, "error")


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    registry = {}
    monkeypatch.setattr(claims, "REGISTRY", registry)
    return registry


def register():
    @claim("ioffe2015, Algorithm 1", "holds", chapter="mechanics/forward")
    def judge():
        """It is so."""
        yield good

    return judge


def entries():
    def judge():
        yield good

    def row(id, verdict, *parts, chapter="mechanics/forward"):
        entry = Claim(id, f"{id}2015, (3)", f"**{id}** $a < b$ & c", chapter, verdict, judge)
        return entry, Evidence.of(parts)

    return [
        row("first", "holds", good),
        row("second", "fails", bad),
        row("third", "misprinted", bad, corrected("rather $a > b$"), good),
        row(
            "fourth", "depends", under("$m > 2$"), good, otherwise("$m = 2$"), bad,
            chapter="mechanics/backward",
        ),
        row("fifth", "untestable", untestable("a matter of taste")),
        row("sixth", "holds", lost),
    ]  # fmt: skip


class Tree(HTMLParser):
    """Checks that tags nest, and collects tags with their attributes, and the text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("input", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return "".join(self.words)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def test_every_verdict_has_a_symbol():
    assert set(SYMBOLS) == set(VERDICTS)
    assert len(set(SYMBOLS.values())) == len(SYMBOLS)


def test_the_text_names_each_verdict_and_counts():
    assert repr(Ledger(entries())).splitlines() == [
        "first   holds",
        "second  fails",
        "third   misprinted",
        "fourth  depends",
        "fifth   untestable",
        "sixth   undecided (recorded: holds)",
        "6 claims: 1 holds, 1 fails, 1 depends, 1 misprinted, 1 undecided, 1 untestable",
    ]
    assert repr(Ledger([])) == "0 claims"
    assert repr(Ledger(entries()[:1])).endswith("\n1 claim: 1 holds")


def test_only_text_is_shown_where_only_text_is_recorded(monkeypatch):
    ledger = Ledger(entries())
    monkeypatch.setenv("BNCORE_FACE", "text")
    assert ledger._repr_mimebundle_() == {"text/plain": repr(ledger)}
    monkeypatch.delenv("BNCORE_FACE")
    assert ledger._repr_mimebundle_() == {"text/plain": repr(ledger), "text/html": ledger.html()}


@pytest.mark.parametrize("whole_book", [False, True])
def test_the_table_can_be_read_without_colour_or_sight(whole_book):
    tree = Tree(Ledger(entries(), whole_book).html())
    tables = tree.all("table")
    assert len(tables) == (1 + 1 + 2 if whole_book else 1)
    assert len(tree.all("caption")) == len(tables)
    rows = [attrs for attrs in tree.all("th") if attrs.get("role") == "rowheader"]
    assert len(rows) == (6 + 2 if whole_book else 6)
    assert all(attrs["scope"] in ("col", "row", "rowgroup") for attrs in tree.all("th"))
    for verdict, symbol in SYMBOLS.items():
        assert f"{symbol} {verdict}" in tree.text
    assert all(attrs["tabindex"] == "0" and attrs["aria-label"] for attrs in tree.all("pre"))


def test_each_row_carries_what_the_filters_need():
    tree = Tree(Ledger(entries(), whole_book=True).html())
    rows = {attrs["id"]: attrs for attrs in tree.all("tr") if "id" in attrs}
    assert sorted(rows) == sorted(f"claim-{claim.id}" for claim, _ in entries())
    for entry, evidence in entries():
        row = rows[f"claim-{entry.id}"]
        assert row["data-verdict"] == evidence.verdict
        assert row["data-chapter"] == entry.chapter
        assert row["data-source"] == entry.key
    assert [attrs["name"] for attrs in tree.all("select")] == ["verdict", "chapter", "source"]
    assert all("hidden" in form for form in tree.all("form"))
    offered = len(SYMBOLS) + 2 + len(entries())
    assert len(tree.all("option")) == offered + len(tree.all("select"))


def test_the_filters_offer_each_choice_once_and_sources_in_alphabetical_order():
    first, *others = entries()
    again = replace(first[0], id="again", source="first2015, (4)"), first[1]
    html = Ledger([*others, again, first], whole_book=True).html()
    offered = {
        name: re.findall('<option value="([^"]+)">', select)
        for name, select in re.findall(r'<select name="(\w+)">(.*?)</select>', html)
    }
    keys = {claim.key for claim, _ in entries()}
    assert offered["source"] == sorted(keys)
    assert offered["chapter"] == ["mechanics/forward", "mechanics/backward"]
    assert offered["verdict"] == list(SYMBOLS)


def test_sources_and_chapters_are_called_by_their_names():
    names = {"first": "Ann & Bo 2015", "first2015": "Ann & Bo 2015", "second2015": "A. <Z>"}
    ledger = Ledger(entries(), whole_book=True, titles={"mechanics/forward": "On"}, sources=names)
    html = ledger.html()
    select = re.search(r'<select name="source">(.*?)</select>', html)[1]
    offered = re.findall('<option value="([^"]+)">(.*?)</option>', select)
    assert offered[:2] == [("second2015", "A. &lt;Z&gt;"), ("first2015", "Ann &amp; Bo 2015")]
    assert ("third2015", "third2015") in offered
    assert '<option value="mechanics/forward">On</option>' in html
    row = html[html.index('id="claim-first"') :]
    assert "Ann & Bo 2015, (3)" in Tree(row[row.index("<td") : row.index("</tr>")]).text


def test_a_row_that_fails_and_one_that_depends_stand_open_on_top_without_ids():
    html = Ledger(entries(), whole_book=True).html()
    table = re.search(r'<table class="bn-claims bn-examples".*?</table>', html, re.DOTALL)[0]
    assert re.findall(r'data-verdict="(\w+)"', table) == ["fails", "depends"]
    assert table.count("<details open>") == html.count("<details open>") == 2
    assert "id=" not in table
    assert "bn-examples" not in Ledger(entries()[:1], whole_book=True).html()
    assert "bn-examples" not in Ledger(entries()).html()


def test_the_ledger_of_the_book_folds_each_chapter_under_its_wing():
    far = replace(entries()[0][0], id="far", chapter="far_away/last_place")
    there = [*entries(), (far, Evidence.of([bad]))]
    html = Ledger(there, whole_book=True).html()
    tree = Tree(html)
    assert [attrs["id"] for attrs in tree.all("section")] == [
        "claims-of-mechanics",
        "claims-of-far_away",
    ]
    folded = [attrs for attrs in tree.all("details") if attrs.get("class") == "bn-chapter"]
    assert [attrs["id"] for attrs in tree.all("p") if attrs.get("class") == "bn-from"] == [
        "claims-of-mechanics-forward",
        "claims-of-mechanics-backward",
        "claims-of-far_away-last_place",
    ]
    assert not any("open" in attrs for attrs in folded)
    parts = html.split('<details class="bn-chapter"')[1:]
    for part, chapter in zip(
        parts, ("mechanics/forward", "mechanics/backward", "far_away/last_place"), strict=True
    ):
        inside = [claim for claim, _ in there if claim.chapter == chapter]
        assert re.findall(r'<tr role="row" id="claim-([a-z]+)"', part) == [c.id for c in inside]
    assert "<h4>Last place</h4>" in parts[2]
    assert "5 claims: 1 holds, 1 fails, 1 misprinted, 1 undecided, 1 untestable" in parts[0]


def test_the_summary_counts_each_verdict_of_each_chapter():
    html = Ledger(entries(), whole_book=True).html()
    summary = html[html.index('<table class="bn-summary"') : html.index("</table>")]
    lines = [
        " ".join(re.sub("<[^>]+>", " ", unescape(line)).split())
        for line in re.findall("<tr>.*?</tr>", summary)
    ]
    head, wing, forward, backward, total = lines
    verdicts = " ".join(f"{symbol} {verdict}" for verdict, symbol in SYMBOLS.items())
    assert head == f"Chapter {verdicts} all"
    assert wing == "Mechanics"
    assert forward == "Forward 1 1 0 1 1 1 5"
    assert backward == "Backward 0 0 1 0 0 0 1"
    assert total == "The book 1 1 1 1 1 1 6"


def test_a_verdict_that_no_claim_has_gets_no_column():
    html = Ledger(entries()[:1], whole_book=True).html()
    assert 'bn-word">holds' in html
    assert 'bn-word">fails' not in html


def test_a_chapter_has_no_filters_and_no_summary_and_nothing_folded_but_evidence():
    html = Ledger(entries()).html()
    assert not Tree(html).all("form")
    assert "bn-summary" not in html
    assert "bn-chapter" not in html


def test_a_row_shows_measurement_threshold_correction_reason_and_code():
    html = Ledger(entries()).html()
    text = Tree(html).text
    assert "error: 2, threshold ≤ 1 ✗ fails" in text
    assert "error: 0, threshold ≤ 1 ✓ holds" in text
    assert "error: nan, threshold ≤ 1 ! undecided" in text
    assert r"rather \(a > b\)" in text
    assert r"Under \(m > 2\)" in text
    assert r"Otherwise: \(m = 2\)" in text
    assert "a matter of taste" in text
    assert "def judge():\n    yield good" in text
    assert "test_ledger.entries.<locals>.judge" in text
    assert "(recorded: holds)" in text


def test_the_code_starts_at_the_function_and_not_at_its_registration(registry):
    register()
    (entry,) = registry.values()
    text = Tree(Ledger([(entry, entry.evidence())]).html()).text
    assert "@claim" not in text
    assert "judgedef judge():\n    yield good" in text
    assert text.count("It is so.") == 1
    entry = replace(entry, judge=lambda: [good])
    assert "lambda: [good]" in Tree(Ledger([(entry, entry.evidence())]).html()).text


def test_values_are_shown_to_two_digits():
    evidence = Evidence.of([at_least(0.1, 0.123456, "a"), at_least(0.1, (0.5, 0.023, 1.234), "b")])
    html = Ledger([(entries()[0][0], evidence)]).html()
    text = Tree(html).text
    assert "a: 0.12, threshold ≥ 0.1 ✓ holds" in text
    assert "b: 0.5 (0.023 to 1.2), threshold ≥ 0.1 ! undecided" in text


@pytest.mark.parametrize(
    ("value", "threshold", "shown"),
    [
        (414, 10, "410, threshold ≥ 10"),
        (0.000123, 0.0001, "0.00012, threshold ≥ 0.0001"),
        (-1.26e-15, -1e-12, "−1.3 × 10⁻¹⁵, threshold ≥ −10⁻¹²"),
        (math.inf, 1e7, "inf, threshold ≥ 10⁷"),
    ],
)
def test_numbers_stand_as_people_write_them(value, threshold, shown):
    evidence = Evidence.of([at_least(threshold, value, "a")])
    text = Tree(Ledger([(entries()[0][0], evidence)]).html()).text
    assert f"a: {shown} ✓ holds" in text


def test_a_condition_is_printed_with_the_verdict_that_depends_on_it():
    rows = dict(zip("123456", entries(), strict=True))
    assert r"Condition: \(m > 2\)" in Tree(Ledger([rows["4"]]).html()).text
    others = [row for number, row in rows.items() if number != "4"]
    assert "Condition" not in Tree(Ledger(others).html()).text
    undecided = rows["4"][0], Evidence.of([under("$m > 2$"), good, otherwise("else"), good])
    assert "Condition" not in Tree(Ledger([undecided]).html()).text


def test_a_lost_formula_is_said_to_be_lost_and_old_ids_still_lead_to_the_row():
    entry, evidence = entries()[0]
    assert "Lost in conversion" not in Ledger([(entry, evidence)]).html()
    html = Ledger([(replace(entry, lost=True, aliases=("old", "older")), evidence)]).html()
    assert "Lost in conversion" in Tree(html).text
    row = html[html.index('<tr role="row" id="claim-first"') :]
    assert 'id="claim-old"' in row
    assert 'id="claim-older"' in row


def test_a_source_that_was_not_at_hand_is_said_to_be_retold():
    (entry, evidence), *_ = entries()
    for seen, retold in ((None, False), ({entry.key}, False), ({"another"}, True)):
        for whole_book in (False, True):
            html = Ledger([(entry, evidence)], whole_book=whole_book, seen=seen).html()
            assert (", retold" in Tree(html).text) == retold


def test_code_shows_without_pygments_and_a_name_without_code(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pygments", None)
    assert "yield good" in Tree(Ledger(entries()).html()).text
    namespace = {"good": good}
    exec("def hidden(): yield good", namespace)
    entry = Claim("a", "b2015, c", "d", "e/f", "holds", namespace["hidden"])
    assert "hidden" in Tree(Ledger([(entry, entry.evidence())]).html()).text


@pytest.mark.parametrize(
    ("root", "start"), [("../", "../book/"), ("..", "../book/"), ("", "book/"), ("../..", "../../")]
)
def test_links_lead_from_the_page_to_the_site(monkeypatch, root, start):
    monkeypatch.setenv("BNCORE_PAGE_ROOT", root)
    links = [a["href"] for a in Tree(Ledger(entries(), whole_book=True).html()).all("a")]
    chapters = {claim.chapter for claim, _ in entries()}
    assert len(links) == 2 * (len(entries()) + 2) + 2 * len(chapters)
    assert all(link.startswith(start) for link in links)
    assert any(link.endswith("book/bibliography.html#cite-first2015") for link in links)
    assert any(link.endswith("book/mechanics/backward.html") for link in links)
    assert any(link.endswith("book/claims.html#claim-second") for link in links)
    assert any(link.endswith("book/claims.html#claims-of-mechanics-backward") for link in links)


def test_nothing_is_linked_in_a_live_notebook(monkeypatch):
    monkeypatch.delenv("BNCORE_PAGE_ROOT", raising=False)
    assert not Tree(Ledger(entries(), whole_book=True).html()).all("a")


words = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]))


@given(words)
def test_inline_text_loses_nothing_but_its_marks_and_opens_no_tag(text):
    tree = Tree(inline(text))
    assert {tag for tag, _ in tree.tags} <= {"span", "code", "strong", "em"}

    def bare(marked):
        return re.sub(r"[$`*\\()]", "", marked)

    assert bare(tree.text) == bare(text)


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        (r"$a < b$", r'<span class="math notranslate nohighlight">\(a &lt; b\)</span>'),
        (
            "so $a$). Then",
            r'so <span class="bn-keep"><span class="math notranslate nohighlight">\(a\)</span>).</span>'
            " Then",
        ),
        ("`a<b` & *c* **d**", "<code>a&lt;b</code> &amp; <em>c</em> <strong>d</strong>"),
        ("costs $5", "costs $5"),
        ("$a^*b^*$", r'<span class="math notranslate nohighlight">\(a^*b^*\)</span>'),
    ],
)
def test_inline(markdown, html):
    assert inline(markdown) == html
