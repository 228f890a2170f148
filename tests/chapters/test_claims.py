"""Every claim of the book: the evidence bears out the recorded verdict.

``-k mechanics/forward`` chooses the claims of one chapter.
"""

import inspect
import re
import sys
import textwrap
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
    ("scaling-joint-singular", "m = int(rng.integers(2, d + 1))", "m = d + 2"),
    ("scaling-same-scale", "Z.var(axis=0)", "Z.var(axis=0, ddof=1)"),
    ("forward-zero-mean-unit-variance", "x.var(axis=0)", "x.var(axis=0, ddof=1)"),
    ("forward-recovers-identity", "x.std(axis=0), x.mean", "x.std(axis=0, ddof=1), x.mean"),
    ("backward-chain-rule", "* -0.5 *", "* 0.5 *"),
    ("backward-cached", "(dy * x_hat).mean(axis=0)", "dy.mean(axis=0)"),
    ("inference-lost-factor", "m / (m - 1)", "(m + 1) / m"),
    ("inference-single-transform", "scale * x + shift", "scale * x - shift"),
    ("covariate-shift-definition", "gradient_shift(model, mse_loss, x, y, new)", "linearized_shift(model, mse_loss, x, y, new)"),
    ("noise-direct-shift", "/ keep - c**2", "/ keep"),
    ("noise-direct-shift", "keep**kept", "keep ** (6 - kept)"),
    ("smoothness-sign", "gamma * y_hat", "(2 - gamma) * y_hat"),
    ("smoothness-curvature-bound", "d @ case.second() @ d", "d @ case.H @ d"),
    ("scale-invariance-decay-sets-rate", "(1 - rate * decay)", "2"),
    ("depth-relu", "np.pi / (np.pi - 1)", "np.pi / (np.pi - 2)"),
    ("decoupling-norm", "length[2] - length[0] - length[1]", "length[2] - length[0]"),
    ("least-squares-gradient-norm", "/= 4 *", "/= 2 *"),
    ("neural-networks-gaussian", "net.u) - B", "net.u) + B"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    MISTAKES,
    ids=[f"{REGISTRY[name].chapter}-{name}-{i}" for i, (name, *_) in enumerate(MISTAKES)],
)
def test_a_mistake_in_what_is_judged_changes_the_verdict(name, right, wrong):
    entry = REGISTRY[name]
    code = textwrap.dedent(inspect.getsource(entry.judge))
    function = code[code.index("\ndef ") :]
    assert right in function
    names = dict(vars(sys.modules[entry.judge.__module__]))
    exec(function.replace(right, wrong), names)
    assert Evidence.of(names[entry.judge.__name__]()).verdict != entry.verdict


@pytest.mark.parametrize("entry", CLAIMS, ids=NAMED)
def test_a_claim_lies_in_its_chapter(entry):
    assert entry.judge.__module__ == f"bncore.chapters.{entry.chapter.replace('/', '.')}.claims"


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


def test_chapters_stand_in_the_order_of_the_table_of_contents():
    contents = (BOOK.parent / "_toc.yml").read_text(encoding="utf-8")
    assert names() == re.findall(r"file: book/(\w+/\w+)", contents)


def test_an_unknown_chapter_is_refused():
    with pytest.raises(
        ValueError, match=r"mechanics/backwards', expected one of .*mechanics/backward"
    ):
        ledger("mechanics/backwards")
