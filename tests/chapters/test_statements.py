"""Every statement of the sources is answered, and every claim about them answers one."""

import re
from pathlib import Path

import pytest

from bncore.chapters import WINGS, discover, ledger, names
from bncore.chapters.statements import Statement, read
from bncore.page.claims import REGISTRY

ROOT = Path(__file__).parents[2]
STATEMENTS = read()
SOURCES = {"encyclopaedia", "cs682slides", "readingnotes", "whatisbn", "sharad"}
# Topics of chapters to come.
WAITING = {
    f"practice/{topic}"
    for topic in (
        "alternatives", "normalizer_free",
        "several_devices", "applications",
    )
}  # fmt: skip

discover("claims")


def named(statement):
    return f"{statement.source}: {statement.text}"


def test_the_five_sources_are_gone_through():
    assert {statement.source for statement in STATEMENTS} == SOURCES
    keys = re.findall(
        r"^@\w+\{([^,\s]+),",
        (ROOT / "book/references.bib").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert set(keys) >= SOURCES


def test_each_statement_is_answered_in_one_way():
    for one in STATEMENTS:
        ways = [bool(one.claims), bool(one.chapter), bool(one.why), one.open]
        assert sum(ways) == 1, named(one)
        assert one.open == bool(one.proposal), named(one)
        assert one.text.strip(), one
        assert one.section.strip(), named(one)


def test_what_a_statement_names_exists():
    for one in STATEMENTS:
        assert set(one.claims) <= set(REGISTRY), named(one)
        if one.chapter:
            assert one.chapter in {*names(), *WAITING}, named(one)
            assert one.chapter.split("/")[0] in WINGS, named(one)


def test_every_claim_about_the_sources_answers_a_statement():
    judged = {name for one in STATEMENTS for name in one.claims}
    about = {name for name, entry in REGISTRY.items() if entry.key in SOURCES}
    assert about - judged == set()


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_a_statement_is_read_as_it_is_written(source):
    text = (ROOT / f"bncore/chapters/statements/{source}.toml").read_text(encoding="utf-8")
    found = [one for one in STATEMENTS if one.source == source]
    assert text.count("[[statement]]") == len(found)
    assert all(isinstance(one, Statement) for one in found)


def test_no_misprint_is_laid_to_the_charge_of_a_text_that_was_not_seen():
    misprinted = {entry.key for entry in REGISTRY.values() if entry.verdict == "misprinted"}
    assert misprinted <= SOURCES


def test_the_ledger_says_which_sources_were_at_hand():
    assert ledger("mechanics/backward").seen == SOURCES
