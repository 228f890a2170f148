"""Verdicts follow from measurements, and errors teach."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncore.page import claims
from bncore.page.claims import Claim, Evidence, Measurement, claim

finite = st.floats(allow_nan=False, allow_infinity=False)
good = Measurement("error", 0.0, at_most=1)
bad = Measurement("error", 2.0, at_most=1)
lost = Measurement("error", math.nan, at_most=1)


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    registry = {}
    monkeypatch.setattr(claims, "REGISTRY", registry)
    return registry


@given(st.floats(), finite, st.booleans())
def test_a_measurement_holds_fails_or_decides_nothing(value, threshold, upper):
    bound = {"at_most": threshold} if upper else {"at_least": threshold}
    measurement = Measurement("error", value, **bound)
    if math.isnan(value):
        assert not measurement.holds
        assert not measurement.fails
    else:
        assert measurement.holds == (value <= threshold if upper else value >= threshold)
        assert measurement.fails != measurement.holds


@pytest.mark.parametrize("bounds", [{}, {"at_most": 1, "at_least": 0}])
def test_exactly_one_threshold(bounds):
    with pytest.raises(ValueError, match="expected exactly one of at_most and at_least"):
        Measurement("error", 0.5, **bounds)


@pytest.mark.parametrize("threshold", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", ["at_most", "at_least"])
def test_a_threshold_that_decides_nothing_is_refused(name, threshold):
    with pytest.raises(ValueError, match=f"{name} of measurement 'error' is .*finite"):
        Measurement("error", 0.5, **{name: threshold})


def test_a_measurement_says_what_was_measured():
    with pytest.raises(ValueError, match="what is empty"):
        Measurement(" ", 0.5, at_most=1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("value", {"value": "1", "at_most": 1}), ("at_most", {"value": 1, "at_most": "1"})],
)
def test_a_measurement_is_a_number(name, arguments):
    with pytest.raises(TypeError, match=f"{name} of measurement 'error' is a str"):
        Measurement("error", **arguments)


one_or_more = st.lists(st.sampled_from([good, bad, lost]), min_size=1, max_size=4)


@given(one_or_more)
def test_printed_alone_holds_fails_or_is_undecided(printed):
    verdict = Evidence(printed=printed).verdict
    if bad in printed:
        assert verdict == "fails"
    elif lost in printed:
        assert verdict == "undecided"
    else:
        assert verdict == "holds"


@given(one_or_more, one_or_more)
def test_a_misprint_fails_as_printed_and_holds_corrected(printed, corrected):
    verdict = Evidence(printed=printed, corrected=corrected, correction="$x$").verdict
    assert (verdict == "misprinted") == (bad in printed and set(corrected) == {good})
    if set(printed) == {good}:
        assert verdict == "holds"


@given(one_or_more, one_or_more)
def test_a_dependence_shows_both_sides(under, otherwise):
    verdict = Evidence(under=("m > 2", under), otherwise=("m = 2", otherwise)).verdict
    assert verdict == ("depends" if set(under) == {good} and bad in otherwise else "undecided")


def test_a_reason_makes_a_claim_untestable():
    assert Evidence(reason="a matter of taste").verdict == "untestable"


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"reason": ""},
        {"corrected": [good], "correction": "$x$"},
        {"printed": [bad], "corrected": [good]},
        {"printed": [bad], "correction": "$x$"},
        {"under": ("a", [good])},
        {"otherwise": ("a", [bad])},
        {"printed": [good], "reason": "too hard"},
        {"printed": [good], "under": ("a", [good]), "otherwise": ("b", [bad])},
    ],
)
def test_evidence_takes_one_form(parts):
    with pytest.raises(ValueError, match=r"evidence has .*expected one of: printed;"):
        Evidence(**parts)


@pytest.mark.parametrize("side", [(" ", [bad]), ("m = 2", [])])
@pytest.mark.parametrize("name", ["under", "otherwise"])
def test_each_side_has_a_condition_and_a_measurement(name, side):
    sides = {"under": ("m > 2", [good]), "otherwise": ("m = 2", [bad]), name: side}
    with pytest.raises(ValueError, match=f"{name} is .*expected a condition in words"):
        Evidence(**sides)


def register(**changes):
    words = {
        "id": "a-claim",
        "source": "ioffe2015, Algorithm 1",
        "statement": "It is so.",
        "chapter": "mechanics/forward",
        "verdict": "holds",
    }

    @claim(**(words | changes))
    def judge():
        return Evidence(printed=[good])

    return judge


def test_a_claim_is_registered_beside_its_judge(registry):
    judge = register()
    (entry,) = registry.values()
    assert entry.judge is judge
    assert (entry.key, entry.locator) == ("ioffe2015", "Algorithm 1")
    assert entry.evidence().verdict == entry.verdict == "holds"


def test_reloading_a_module_replaces_its_claims(registry):
    register()
    judge = register()
    assert [entry.judge for entry in registry.values()] == [judge]


def test_two_claims_do_not_share_an_id():
    register()
    with pytest.raises(ValueError, match=r"id 'a-claim' is already the claim of .*judge"):

        @claim(
            id="a-claim",
            source="ioffe2015, Algorithm 2",
            statement="Another.",
            chapter="mechanics/forward",
            verdict="holds",
        )
        def another():
            return Evidence(printed=[good])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "A claim"}, "id is 'A claim', expected lower-case words joined by hyphens"),
        ({"id": ""}, "id is '', expected lower-case"),
        ({"source": "ioffe2015"}, "source of claim 'a-claim' is 'ioffe2015', expected a bib"),
        ({"source": ", Algorithm 1"}, "source of claim 'a-claim' is"),
        ({"statement": "  "}, "statement of claim 'a-claim' is empty"),
        ({"chapter": "forward"}, "chapter of claim 'a-claim' is 'forward', expected 'wing/cha"),
        ({"verdict": "true"}, "verdict of claim 'a-claim' is 'true', expected one of holds, fai"),
    ],
)
def test_a_malformed_claim_is_refused_and_not_registered(registry, changes, message):
    with pytest.raises(ValueError, match=message):
        register(**changes)
    assert not registry


def test_a_judge_takes_no_arguments():
    with pytest.raises(ValueError, match=r"judges claim 'a-claim' takes \(x\), expected no arg"):

        @claim(
            id="a-claim",
            source="ioffe2015, Algorithm 1",
            statement="It is so.",
            chapter="mechanics/forward",
            verdict="holds",
        )
        def judge(x):
            return Evidence(printed=[good])


def test_a_judge_returns_evidence():
    entry = Claim("a", "b, c", "d", "e/f", "holds", lambda: True)
    with pytest.raises(TypeError, match="judges claim 'a' returned a bool, expected Evidence"):
        entry.evidence()


words = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]))
