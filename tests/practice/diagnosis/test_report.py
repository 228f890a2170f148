"""Reports read well in a terminal and a notebook, and are data."""

import json
import math
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncore.practice.diagnosis.codes import CODES, SEVERITIES
from bncore.practice.diagnosis.report import Finding, Report, short

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)
LAYERS = tuple(f"norm{i}" for i in range(1, 13))
ROWS = st.lists(
    st.tuples(
        st.sampled_from(list(CODES)),
        st.sampled_from(SEVERITIES),
        st.sampled_from(("", *LAYERS)),
        TEXT,
        st.dictionaries(TEXT, st.floats() | st.integers() | st.none() | TEXT, max_size=3),
    ),
    max_size=20,
)


def made(rows):
    return Report(tuple(Finding(*row) for row in rows), LAYERS, 4)


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@given(ROWS)
def test_the_worst_stand_first_then_the_order_of_the_network(rows):
    report = made(rows)
    keys = [(SEVERITIES.index(f.severity), ("", *LAYERS).index(f.layer)) for f in report]
    assert keys == sorted(keys)
    assert report.codes == {f.code for f in report}
    assert len(report) == len(report.findings)


@given(ROWS)
def test_text_has_80_columns_and_names_every_code(rows):
    report = made(rows)
    text = str(report)
    assert repr(report) == text
    assert all(len(line) <= 80 for line in text.splitlines())
    for code in report.codes:
        assert text.count(f": {code}, ") <= len(SEVERITIES)
        assert f": {code}, " in text


@given(ROWS)
def test_html_is_balanced_and_escaped(rows):
    report = made(rows)
    parser = Balanced()
    parser.feed(report._repr_html_())
    parser.close()
    assert not parser.open
    seen = "".join(parser.text)
    for one in report:
        if sum(f.code == one.code for f in report) == 1:
            assert one.measured in seen


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "a < b", "x & y", "<b", "&lt;"])
def test_no_text_becomes_a_tag(text):
    report = Report((Finding("few-values", "warning", text, text),), (text,), 4, (text,))
    page, parser = report._repr_html_(), Balanced()
    parser.feed(page)
    parser.close()
    assert "<script" not in page
    assert "".join(parser.text).count(text) == 3


@given(ROWS)
def test_data_survive_json(rows):
    report = made(rows)
    back = json.loads(report.to_json())
    assert back["layers"] == list(LAYERS)
    assert back["findings"] == report.to_dicts()
    for one, row in zip(report, back["findings"], strict=True):
        finite = {
            k: v
            for k, v in one.values.items()
            if not (isinstance(v, float) and not math.isfinite(v))
        }
        assert {k: v for k, v in row["values"].items() if k in finite} == finite
        kept = ("code", "severity", "layer", "measured", "why", "remedy", "link")
        assert {k: row[k] for k in kept} == {k: getattr(one, k) for k in kept}


def test_many_layers_of_one_code_are_summed_up():
    found = tuple(
        Finding("few-values", "warning", name, f"{i} values.", {"mean_error": 1 / (i + 1)})
        for i, name in enumerate(LAYERS)
    )
    text = str(Report(found, LAYERS, 3))
    assert "12 batch norms examined on 3 batches: 12 warnings." in text
    assert "warning: few-values, layers norm1 … norm12 (12)" in text
    assert "Most at norm1: 0 values." in text


def test_a_healthy_network_is_said_to_be_so():
    assert str(Report((), ("a", "b"), 32)) == "2 batch norms examined on 32 batches: nothing found."
    assert str(Report((), ("a",), 1)) == "1 batch norm examined on 1 batch: nothing found."
    assert str(Report((), ("a",))) == "1 batch norm examined in a checkpoint: nothing found."
    html = Report((), ("a",), 1)._repr_html_()
    assert html == "<p>1 batch norm examined on 1 batch: nothing found.</p>"


def test_remarks_are_told():
    report = Report((), ("a",), 1, ("1 batch norm is never called: <b>.",))
    assert "never called: <b>." in str(report)
    assert "never called: &lt;b&gt;." in report._repr_html_()


def test_a_report_is_neither_true_nor_false():
    with pytest.raises(TypeError, match=r"ask for report\.codes, or len\(report\) == 0"):
        bool(Report((), ()))


def test_unknown_codes_and_severities_are_refused(unchecked):
    with pytest.raises(ValueError, match="code is 'stale', expected one of not-finite, "):
        Finding("stale", "error", "", "")
    with pytest.raises(ValueError, match="severity is 'bad', expected one of error, warning, note"):
        Finding("few-values", "bad", "", "")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0123, "0.012"),
        (2.61, "2.6"),
        (99.4, "99"),
        (99.7, "100"),
        (263.0, "260"),
        (5e5, "500000"),
        (2e9, "2e+09"),
        (math.inf, "inf"),
    ],
)
def test_numbers_are_written_as_people_do(value, words):
    assert short(value) == words
