"""The ledger's names of the sources are those of the bibliography."""

import codecs
import re
from pathlib import Path

import latexcodec  # noqa: F401 - registers the codec "ulatex"
import pytest
from pybtex.database import parse_file

from bncore.chapters import discover
from bncore.chapters.sources import NAMES
from bncore.page.claims import REGISTRY

ENTRIES = parse_file(
    str(Path(__file__).resolve().parents[2] / "book/references.bib"), "bibtex"
).entries

discover("claims")


def plain(latex):
    return re.sub("[{}]", "", codecs.decode(latex, "ulatex"))


def cited(entry):
    """The authors and the year, as one cites them."""
    names = [plain(" ".join([*p.prelast_names, *p.last_names])) for p in entry.persons["author"]]
    who = names[0] if len(names) == 1 else " & ".join(names)
    return f"{who if len(names) <= 2 else f'{names[0]} et al.'} {entry.fields['year']}"


def test_every_source_of_a_claim_has_a_name_of_its_own():
    assert set(NAMES) == {entry.key for entry in REGISTRY.values()}
    assert len(set(NAMES.values())) == len(NAMES)


@pytest.mark.parametrize("key", NAMES)
def test_a_name_is_that_of_the_bibliography(key):
    entry = ENTRIES[key]
    if entry.fields["year"].isdigit():
        assert NAMES[key] == cited(entry)
    else:
        words = plain(
            f"{entry.persons['author'][0]} {entry.fields['title']} {entry.fields['howpublished']}"
        )
        assert set(NAMES[key].lower().split()) <= set(re.sub("[,;:]", "", words.lower()).split())
