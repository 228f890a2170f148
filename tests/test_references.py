"""The bibliography: each entry leads to its source, or it is said why it does not."""

import re
from pathlib import Path

import pytest
from pybtex.database import parse_file

ENTRIES = parse_file(
    str(Path(__file__).resolve().parents[1] / "book/references.bib"), "bibtex"
).entries

WITHOUT_LINK = {
    "cs682slides": "slides of a course, no public address known",
    "readingnotes": "reading notes, no public address known",
    "whatisbn": "a lesson of a course, no public address known",
    "sharad": "slides of a student, no public address known",
}


def links(entry):
    return {name: entry.fields[name] for name in ("doi", "eprint", "url") if name in entry.fields}


@pytest.mark.parametrize("key", ENTRIES)
def test_an_entry_links_or_is_said_not_to(key):
    assert bool(links(ENTRIES[key])) != (key in WITHOUT_LINK)


def test_what_has_no_link_is_in_the_bibliography():
    assert set(WITHOUT_LINK) <= set(ENTRIES)


@pytest.mark.parametrize("key", [key for key in ENTRIES if key not in WITHOUT_LINK])
def test_a_link_has_the_form_that_leads_there(key):
    found = links(ENTRIES[key])
    assert re.fullmatch(r"10\.\d{4,9}/\S+", found.get("doi", "10.1000/x"))
    assert re.fullmatch(r"\d{4}\.\d{4,5}", found.get("eprint", "1234.5678"))
    assert re.fullmatch(r"https://\S+", found.get("url", "https://x"))
    # Without its prefix the edition would not know where an eprint is kept.
    assert ("eprint" in found) == (ENTRIES[key].fields.get("archiveprefix") == "arXiv")


def test_no_two_entries_lead_to_one_place():
    places = [place for key in ENTRIES for place in links(ENTRIES[key]).items()]
    assert len(set(places)) == len(places)
