"""The directive that lists what the sources say."""

import io
import re

import pytest
import statements
import verdicts
from sphinx.application import Sphinx

from bncore.chapters import discover, names
from bncore.chapters.statements import Statement, read
from bncore.page.claims import REGISTRY, VERDICTS

discover("claims")
BY_VERDICT = {entry.verdict: name for name, entry in REGISTRY.items()}
CHAPTERS = {"mechanics/forward"}
JUDGED = Statement("a", "Lead", "It holds.", claims=(BY_VERDICT["holds"],))
SOME = [
    JUDGED,
    Statement("a", "Lead", "Both.", claims=(BY_VERDICT["holds"], BY_VERDICT["fails"])),
    Statement("b", "One", "It is defined.", chapter="mechanics/forward"),
    Statement("b", "Two", "It is to come.", chapter="practice/never"),
    Statement("b", "Two", "It is history.", why="It is a matter of record."),
    Statement("b", "One", "It is new.", open=True, proposal="Measure it.", lost=True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "way", "words"),
    list(
        zip(
            SOME,
            ("claims", "claims", "chapter", "waits", "why", "open"),
            (
                f"It holds. {{claim}}`{BY_VERDICT['holds']}`",
                f"Both. {{claim}}`{BY_VERDICT['holds']}` {{claim}}`{BY_VERDICT['fails']}`",
                "It is defined. → [](/book/mechanics/forward.ipynb)",
                "It is to come. *Its chapter is not written yet.*",
                "It is history. *Not checked.* It is a matter of record.",
                "It is new. (The formula was lost in conversion.) *Not judged yet.* Measure it.",
            ),
            strict=True,
        )
    ),
)
def test_a_statement_is_given_with_its_answer(statement, way, words):
    assert statements.answer(statement, CHAPTERS) == way
    assert statements.item(statement, CHAPTERS) == words


@pytest.mark.parametrize("word", VERDICTS)
def test_claims_of_one_verdict_give_it_and_of_several_do_not(word):
    one = BY_VERDICT[word]
    assert statements.verdict(Statement("a", "b", "c", claims=(one, one))) == word
    other = BY_VERDICT["fails" if word == "holds" else "holds"]
    assert statements.verdict(Statement("a", "b", "c", claims=(one, other))) == statements.SEVERAL


def numbers(table):
    return [
        (words, int(number)) for words, number in re.findall(r"^\| (.+?) \| (\d+) \|$", table, re.M)
    ]


def test_the_numbers_add_up_and_those_of_nothing_are_left_out():
    found = dict(numbers(statements.overview(SOME, CHAPTERS)))
    assert found == {
        "have a verdict in the [ledger](claims.ipynb); of these": 2,
        "… ✓ hold": 1,
        "… make several claims, with different verdicts": 1,
        "are derived or defined in a chapter": 1,
        "wait for a chapter that is not written yet": 1,
        "cannot be checked, for the reason that stands beside them": 1,
        "have no answer yet": 1,
    }
    everything = read()
    table = numbers(statements.overview(everything, names()))
    judged = sum(number for words, number in table if words.startswith("…"))
    assert judged == table[0][1] == sum(bool(one.claims) for one in everything)
    assert sum(number for words, number in table if not words.startswith("…")) == len(everything)


def test_sections_are_those_of_the_source_in_its_order():
    found = statements.sections("b", SOME, CHAPTERS)
    assert [(title, count) for title, count, _ in found] == [("One", 1), ("Two", 2), ("One", 1)]
    for source in {one.source for one in read()}:
        found = statements.sections(source, read(), names())
        lines = [line for _, _, text in found for line in text.splitlines()]
        own = [one for one in read() if one.source == source]
        assert lines == [f"- {statements.item(one, names())}" for one in own]


def test_an_unknown_source_is_named_with_those_there_are():
    with pytest.raises(statements.NotThere, match="no source 'c', expected a, b"):
        statements.sections("c", SOME, CHAPTERS)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Build a page: its HTML and what Sphinx complained of."""
    monkeypatch.setattr("bncore.chapters.statements.read", lambda: SOME)
    entries = {name: REGISTRY[name] for name in BY_VERDICT.values()}
    monkeypatch.setattr(verdicts, "_registry", lambda: entries)

    def build(text):
        (tmp_path / "index.md").write_text(f"# Page\n\n{text}\n", "utf-8")
        warned, out = io.StringIO(), tmp_path / "out"
        config = {
            "extensions": ["myst_nb", "sphinx_proof", "folds", "verdicts", "statements"],
            "html_theme": "basic",
        }
        app = Sphinx(
            tmp_path, None, out, out / ".doctrees", "html", config, status=None, warning=warned
        )
        app.build()
        return (out / "index.html").read_text(encoding="utf-8"), warned.getvalue()

    return build


def test_a_section_is_a_fold_that_a_link_can_name_and_holds_verdicts(site):
    page, _ = site("```{statements} a\n```")
    (fold,) = re.findall(r'<details class="bn-fold" id="said-a-1">(.*?)</details>', page, re.DOTALL)
    assert "<summary>Lead (2)</summary>" in fold
    assert fold.count("<li>") == 2
    assert fold.count(f'href="book/claims.html#claim-{BY_VERDICT["holds"]}"') == 2


def test_an_unknown_source_is_a_complaint_with_its_place(site):
    _, warned = site("```{statements} c\n```")
    assert re.search(r"index.md:3: WARNING: statements: there is no source 'c'", warned)
