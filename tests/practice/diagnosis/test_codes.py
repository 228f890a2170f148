"""Codes are described in one line, and their links lead to themselves."""

import pytest

from bncore.practice.diagnosis.codes import CODES, SEVERITIES


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_a_code_says_what_why_and_what_to_do(code):
    assert CODES[code.code] is code
    assert code.severity in SEVERITIES
    assert all(text.endswith((".", "?")) for text in (code.definition, code.why, code.remedy))
    assert len(code.definition) <= 160
    assert code.link.endswith(f"#{code.code}")


def test_only_what_torch_does_by_itself_is_a_note():
    notes = {code.code for code in CODES.values() if code.severity == "note"}
    assert notes == {"redundant-bias", "decayed-affine"}
