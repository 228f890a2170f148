"""Every claim of the book: the evidence bears out the recorded verdict.

``-k mechanics/forward`` chooses the claims of one chapter.
"""

import re
from pathlib import Path

import pytest

from bncore.chapters import discover, ledger, names
from bncore.page.claims import REGISTRY, Evidence

BOOK = Path(__file__).parents[2] / "book"

discover("claims")
CLAIMS = [entry for entry in REGISTRY.values() if entry.judge.__module__.startswith("bncore.")]
NAMED = [f"{entry.chapter}-{entry.id}" for entry in CLAIMS]


@pytest.mark.parametrize("entry", CLAIMS, ids=NAMED)
def test_the_evidence_bears_out_the_recorded_verdict(entry):
    evidence = entry.evidence()
    measured = [
        f"{heading}: {measurement.what} = {measurement.value:.3g}, "
        f"threshold {measurement.relation} {measurement.threshold:.3g}"
        for heading, measurements in evidence.groups()
        for measurement in measurements
    ]
    assert evidence.verdict == entry.verdict, "\n".join(measured)


@pytest.mark.parametrize("entry", CLAIMS, ids=NAMED)
def test_a_claim_lies_in_its_chapter(entry):
    assert entry.judge.__module__ == f"bncore.chapters.{entry.chapter.replace('/', '.')}.claims"


def test_every_source_is_in_the_bibliography():
    entries = (BOOK / "references.bib").read_text(encoding="utf-8")
    keys = set(re.findall(r"^@\w+\{([^,\s]+),", entries, re.MULTILINE))
    assert {entry.key for entry in CLAIMS} <= keys


def test_the_ledger_of_the_book_is_the_ledgers_of_its_chapters(monkeypatch):
    evidence = Evidence(reason="not judged here")
    monkeypatch.setattr("bncore.page.claims.Claim.evidence", lambda entry: evidence)
    whole = ledger()
    assert whole.whole_book
    parts = [entry for chapter in names() for entry in ledger(chapter).entries]
    assert list(whole.entries) == parts
    assert [entry for entry, _ in parts] == sorted(CLAIMS, key=lambda e: names().index(e.chapter))


def test_chapters_stand_in_the_order_of_the_table_of_contents():
    contents = (BOOK.parent / "_toc.yml").read_text(encoding="utf-8")
    assert names() == re.findall(r"file: book/(\w+/\w+)", contents)


def test_an_unknown_chapter_is_refused():
    with pytest.raises(
        ValueError, match=r"mechanics/backwards', expected one of .*mechanics/backward"
    ):
        ledger("mechanics/backwards")
