"""Every claim of the book: the evidence bears out the recorded verdict.

``-k mechanics/forward`` chooses the claims of one chapter.
"""

import inspect
import re
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from bncore.chapters import discover, ledger, names
from bncore.page.claims import REGISTRY
from bncore.page.evidence import Evidence, untestable

BOOK = Path(__file__).parents[2] / "book"

discover("claims")
CLAIMS = [entry for entry in REGISTRY.values() if entry.judge.__module__.startswith("bncore.")]
NAMED = [f"{entry.chapter}-{entry.id}" for entry in CLAIMS]


@pytest.mark.parametrize("entry", CLAIMS, ids=NAMED)
def test_the_evidence_bears_out_the_recorded_verdict(entry):
    evidence = entry.evidence()
    measured = [
        f"{group.heading}: {measurement.what} = {measurement.value:.3g}, "
        f"threshold {measurement.relation} {measurement.threshold:.3g}"
        for group in evidence.groups
        for measurement in group.measurements
    ]
    assert evidence.verdict == entry.verdict, "\n".join(measured)


MISTAKES = [
    mistake
    for path in sorted(Path(__file__).parent.rglob("mistakes.toml"))
    for mistake in tomllib.loads(path.read_text(encoding="utf-8"))["mistake"]
]


def _source(function):
    """The code of a function without its decorators."""
    code = textwrap.dedent(inspect.getsource(function))
    return code[re.search(r"^def ", code, re.MULTILINE).start() :]


@pytest.mark.parametrize(
    "mistake",
    MISTAKES,
    ids=[f"{REGISTRY[one['claim']].chapter}-{one['claim']}-{i}" for i, one in enumerate(MISTAKES)],
)
def test_a_mistake_in_what_is_judged_changes_the_verdict(mistake):
    """In the judge, or in another ``function`` of its module, what is ``right`` is made ``wrong``."""
    entry = REGISTRY[mistake["claim"]]
    names = dict(vars(sys.modules[entry.judge.__module__]))
    judge = names[entry.judge.__name__]
    changed = names[mistake.get("function", entry.judge.__name__)]
    changed = getattr(changed, "__wrapped__", changed)
    code = _source(changed)
    assert mistake["right"] in code
    exec(code.replace(mistake["right"], mistake["wrong"]), names)
    if changed is not judge:
        exec(_source(judge), names)
    assert Evidence.of(names[entry.judge.__name__]()).verdict != entry.verdict


@pytest.mark.parametrize("entry", CLAIMS, ids=NAMED)
def test_a_claim_lies_in_its_chapter(entry):
    package, _, name = entry.judge.__module__.rpartition(".")
    assert package == f"bncore.chapters.{entry.chapter.replace('/', '.')}"
    assert f"{name}_".startswith("claims_")


def test_every_source_is_in_the_bibliography():
    entries = (BOOK / "references.bib").read_text(encoding="utf-8")
    keys = set(re.findall(r"^@\w+\{([^,\s]+),", entries, re.MULTILINE))
    assert {entry.key for entry in CLAIMS} <= keys


def test_the_ledger_of_the_book_is_the_ledgers_of_its_chapters(monkeypatch):
    evidence = Evidence.of([untestable("not judged here")])
    monkeypatch.setattr("bncore.page.claims.Claim.evidence", lambda entry: evidence)
    whole = ledger()
    assert whole.whole_book
    parts = [entry for chapter in names() for entry in ledger(chapter).entries]
    assert list(whole.entries) == parts
    assert [entry for entry, _ in parts] == sorted(CLAIMS, key=lambda e: names().index(e.chapter))


def test_an_unknown_chapter_is_refused():
    with pytest.raises(
        ValueError, match=r"mechanics/backwards', expected one of .*mechanics/backward"
    ):
        ledger("mechanics/backwards")
