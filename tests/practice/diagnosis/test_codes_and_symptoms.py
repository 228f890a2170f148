"""The page of symptoms has every code, under the address that reports give."""

import re
from pathlib import Path

import nbformat
import pytest

from bncore.chapters.practice.diagnosis import figures, sick
from bncore.practice.diagnosis import CODES

PAGE = Path(__file__).resolve().parents[3] / "book/practice/symptoms.ipynb"
TEXT = "\n".join(
    cell.source for cell in nbformat.read(PAGE, as_version=4).cells if cell.cell_type == "markdown"
)


@pytest.mark.parametrize("code", CODES)
def test_a_code_has_a_section_where_its_link_leads(code):
    assert CODES[code].link == f"practice/symptoms.html#{code}"
    assert re.findall(rf"\(symptom-{code}\)=\n### {code}\n\n\S", TEXT)


def test_there_is_no_other_code():
    assert set(re.findall(r"^### (\S+)$", TEXT, re.MULTILINE)) == set(CODES)


def test_every_warning_and_error_is_the_cause_of_a_symptom():
    rows = [line for line in TEXT.splitlines() if line.startswith("| ")][1:]
    assert all(line.count(" | ") == 3 for line in rows)
    named = set(re.findall(r"\]\(symptom-([a-z-]+)\)", "\n".join(rows)))
    assert named == {code for code, one in CODES.items() if one.severity != "note"}


@pytest.mark.parametrize(("letter", "name"), figures.LETTERS.items())
def test_patients_are_named_in_the_section_of_their_code(letter, name):
    [section] = re.findall(rf"^### {sick.MISTAKES[name].code}$(.*?)(?=^###|\Z)", TEXT, re.M | re.S)
    assert f"as patient {letter} of [Diagnosis](diagnosis.ipynb)" in section
