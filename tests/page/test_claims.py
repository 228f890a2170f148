"""Claims are registered beside their judges, and what is malformed is refused."""

import pytest

from bncore.page import claims
from bncore.page.claims import Claim, at_most, claim


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    registry = {}
    monkeypatch.setattr(claims, "REGISTRY", registry)
    return registry


def register(function=None, source="ioffe2015, Algorithm 1", verdict="holds", **changes):
    def zero_mean():
        """It is so,
        and so.
        """
        yield at_most(1, 0.0, "error")

    function = function or zero_mean
    return claim(source, verdict, **({"chapter": "mechanics/feed_forward"} | changes))(function)


def test_a_claim_is_registered_beside_its_judge(registry):
    judge = register(lost=True, aliases=["older", "oldest"])
    (entry,) = registry.values()
    assert entry.judge is judge
    assert entry.id == "feed-forward-zero-mean"
    assert entry.statement == "It is so, and so."
    assert (entry.key, entry.locator) == ("ioffe2015", "Algorithm 1")
    assert (entry.chapter, entry.lost, entry.aliases) == (
        "mechanics/feed_forward", True, ("older", "oldest"),
    )  # fmt: skip
    assert entry.evidence().verdict == entry.verdict == "holds"


def test_the_chapter_is_that_of_the_module(registry):
    def judge():
        """So."""
        yield at_most(1, 0.0, "error")

    judge.__module__ = "bncore.chapters.practice.small_batches.claims"
    register(judge, chapter=None)
    (entry,) = registry.values()
    assert (entry.chapter, entry.id) == ("practice/small_batches", "small-batches-judge")


def test_reloading_a_module_replaces_its_claims(registry):
    register()
    judge = register()
    assert [entry.judge for entry in registry.values()] == [judge]


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ({"id": "a"}, {"id": "a"}, "a"),
        ({"id": "a", "aliases": ["b"]}, {"id": "b"}, "b"),
        ({"id": "a"}, {"id": "b", "aliases": ["a"]}, "a"),
        ({"id": "a", "aliases": ["c"]}, {"id": "b", "aliases": ["c"]}, "c"),
    ],
)
def test_two_claims_share_no_id_and_no_alias(registry, first, second, name):
    def another():
        """Another."""
        yield at_most(1, 0.0, "error")

    register(**first)
    with pytest.raises(ValueError, match=rf"id '{name}' is already the claim of .*zero_mean"):
        register(another, **second)
    assert list(registry) == ["a"]


def nameless():
    yield at_most(1, 0.0, "error")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "A claim"}, "id is 'A claim', expected lower-case words joined by hyphens"),
        ({"id": ""}, "id is '', expected lower-case"),
        ({"aliases": ["B"]}, "id is 'B', expected lower-case"),
        ({"source": "ioffe2015"}, "source of claim 'feed-forward-zero-mean' is 'ioffe2015', exp"),
        ({"source": ", Algorithm 1"}, "source of claim 'feed-forward-zero-mean' is"),
        ({"function": nameless}, "claim 'feed-forward-nameless' has no docstring, expected what"),
        ({"chapter": "forward"}, "chapter of the claim zero_mean is 'forward', expected 'wing/c"),
        ({"verdict": "true"}, "verdict of claim 'feed-forward-zero-mean' is 'true', expected one"),
    ],
)
def test_a_malformed_claim_is_refused_and_not_registered(registry, changes, message):
    with pytest.raises(ValueError, match=message):
        register(**changes)
    assert not registry


def test_a_judge_takes_no_arguments(registry):
    def judge(x):
        """So."""
        yield at_most(1, x, "error")

    with pytest.raises(
        ValueError, match=r"judges claim 'feed-forward-judge' takes \(x\), expected"
    ):
        register(judge)
    assert not registry


def test_a_judge_yields():
    entry = Claim("a", "b, c", "d", "e/f", "holds", lambda: True)
    with pytest.raises(
        TypeError, match="judges claim 'a' returned a bool, expected that it yields"
    ):
        entry.evidence()
