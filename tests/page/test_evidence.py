"""Verdicts follow from measurements, and errors teach."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncore.page.evidence import (
    Evidence,
    at_least,
    at_most,
    corrected,
    otherwise,
    under,
    untestable,
)

finite = st.floats(allow_nan=False, allow_infinity=False)
good = at_most(1, 0.0, "error")
bad = at_most(1, 2.0, "error")
lost = at_most(1, math.nan, "error")
wide = at_most(1, (0.9, 0.5, 1.5), "error")
one_or_more = st.lists(st.sampled_from([good, bad, lost, wide]), min_size=1, max_size=4)


@given(st.floats(), finite, st.booleans())
def test_a_measurement_holds_fails_or_decides_nothing(value, threshold, upper):
    measurement = (at_most if upper else at_least)(threshold, value, "error")
    if math.isnan(value):
        assert not measurement.holds
        assert not measurement.fails
    else:
        assert measurement.holds == (value <= threshold if upper else value >= threshold)
        assert measurement.fails != measurement.holds


@given(st.lists(finite, min_size=3, max_size=3).map(sorted), finite, st.booleans())
def test_an_interval_decides_only_where_all_of_it_lies_on_one_side(numbers, threshold, upper):
    low, mean, high = numbers
    measurement = (at_most if upper else at_least)(threshold, (mean, low, high), "error")
    ends = [(at_most if upper else at_least)(threshold, end, "error") for end in (low, high)]
    assert measurement.holds == all(end.holds for end in ends)
    assert measurement.fails == all(end.fails for end in ends)
    assert (measurement.value, measurement.relation) == (mean, "≤" if upper else "≥")


@pytest.mark.parametrize("threshold", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("bound", [at_most, at_least])
def test_a_threshold_that_decides_nothing_is_refused(bound, threshold):
    with pytest.raises(ValueError, match=f"{bound.__name__} of 'error' is .*finite"):
        bound(threshold, 0.5, "error")


def test_a_measurement_says_what_was_measured():
    with pytest.raises(ValueError, match="what is empty"):
        at_most(1, 0.5, " ")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("threshold", "value", "message"),
    [
        (1, "1", "value of 'error' is a str"),
        ("1", 1, "threshold of 'error' is a str"),
        (1, (0.0, "0", 1.0), "interval of 'error' is a str"),
    ],
)
def test_a_measurement_is_a_number(threshold, value, message):
    with pytest.raises(TypeError, match=message):
        at_least(threshold, value, "error")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((1.0, 2.0), "value of 'error' has 2 numbers, expected one, or a mean and two ends"),
        ((3.0, 1.0, 2.0), "value of 'error' is 3.0, expected it between 1.0 and 2.0"),
        ((0.5, 1.0, 2.0), "value of 'error' is 0.5, expected it between"),
    ],
)
def test_an_interval_has_its_mean_inside(value, message):
    with pytest.raises(ValueError, match=message):
        at_least(1, value, "error")


@given(one_or_more)
def test_as_stated_alone_holds_fails_or_is_undecided(printed):
    verdict = Evidence.of(printed).verdict
    if bad in printed:
        assert verdict == "fails"
    else:
        assert verdict == ("holds" if set(printed) == {good} else "undecided")


@given(one_or_more, one_or_more)
def test_a_misprint_fails_as_printed_and_holds_corrected(printed, mended):
    verdict = Evidence.of([*printed, corrected("$x$"), *mended]).verdict
    assert (verdict == "misprinted") == (bad in printed and set(mended) == {good})
    if set(printed) == {good}:
        assert verdict == "holds"
    if verdict not in ("misprinted", "holds"):
        assert verdict == "undecided"


@given(one_or_more, one_or_more)
def test_a_dependence_shows_both_sides(first, second):
    evidence = Evidence.of([under("m > 2"), *first, otherwise("m = 2"), *second])
    shown = set(first) == {good} and bad in second
    assert evidence.verdict == ("depends" if shown else "undecided")
    assert evidence.condition == "m > 2"
    assert [group.heading for group in evidence.groups] == ["Under m > 2", "Otherwise: m = 2"]


def test_a_reason_makes_a_claim_untestable():
    evidence = Evidence.of([untestable("a matter of taste")])
    assert evidence.verdict == "untestable"
    assert evidence.condition == ""


@pytest.mark.parametrize(
    ("parts", "form"),
    [
        ([], "nothing"),
        ([corrected("$x$"), good], "corrected"),
        ([under("a"), good], "under"),
        ([otherwise("a"), bad], "otherwise"),
        ([otherwise("a"), bad, under("b"), good], "otherwise, under"),
        ([good, untestable("too hard")], "printed, untestable"),
        ([good, under("a"), good, otherwise("b"), bad], "printed, under, otherwise"),
        ([good, corrected("a"), good, corrected("b"), bad], "printed, corrected, corrected"),
    ],
)
def test_evidence_takes_one_form(parts, form):
    with pytest.raises(ValueError, match=f"^evidence has {form}, expected one of: printed;"):
        Evidence.of(parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([under("a"), otherwise("b"), bad], "under has 0 measurements, expected at least one"),
        ([under("a"), good, otherwise("b")], "otherwise has 0 measurements, expected at least"),
        ([bad, corrected("b")], "corrected has 0 measurements, expected at least one"),
        ([untestable("a"), good], "untestable has 1 measurements, expected none"),
    ],
)
def test_every_part_but_a_reason_is_measured(parts, message):
    with pytest.raises(ValueError, match=message):
        Evidence.of(parts)


@pytest.mark.parametrize("heading", [under, otherwise, corrected, untestable])
def test_a_heading_has_words(heading):
    with pytest.raises(ValueError, match=f"{heading.__name__} is empty, expected words"):
        heading(" ")


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_evidence_is_refused_by_its_kind():
    with pytest.raises(TypeError, match="a judge yields a float, expected at_most, at_least"):
        Evidence.of([good, 0.5])
