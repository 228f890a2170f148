"""The search for a length against formulas written out, recursions by hand, and where minima are."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bncore.convergence import Unresolved
from bncore.convergence.length import NUDGE, NoFiniteLength, bisection, bracket, search

EPS = np.finfo(float).eps


class Along:
    """f along a line of vectors of norm 2.5, from its slope in the length."""

    norm = 2.5

    def __init__(self, slope):
        self.of_length = slope

    def slope(self, t):
        return self.of_length(t * self.norm) * self.norm


def double_well(low, top, high):
    """The slope of a quartic with minima at ``low`` and ``high`` and a maximum between them."""
    return lambda g: (g - low) * (g - top) * (g - high)


# ---- brackets ----


@given(
    root=st.floats(-1e6, 1e6),
    start=st.floats(-50, 50),
    width=st.sampled_from([1e-3, 1.0, 7.0]),
    factor=st.sampled_from([1.0, 1e8, 1e-8]),
)
def test_a_bracket_widens_four_times_at_a_time_towards_the_minimum(root, start, width, factor):
    """After k steps it has gone width (4^k - 1) / 3."""
    away = abs(root - start)
    reach = [width * (4.0**k - 1) / 3 for k in range(40)]
    error = (
        64 * EPS * (abs(start) + 4 * away + width)
    )  # of at most 16 steps, and the last four times
    if min(abs(away - r) for r in reach) <= error:
        return
    k = next(k for k in range(40) if reach[k] > away)
    ends = [start + math.copysign(reach[i], root - start) for i in (k - 1, k)]
    a, b, at_a = bracket(lambda g: factor * (g - root), start, width)
    np.testing.assert_allclose([a, b], sorted(ends, key=abs), rtol=0, atol=error)
    assert at_a == factor * (a - root)  # the same expression


def test_a_bracket_begins_at_0_with_a_step_of_1_and_has_its_nearer_end_first():
    assert bracket(lambda g: g - 3) == (1.0, 5.0, -2.0)
    assert bracket(lambda g: g + 3) == (-1.0, -5.0, 2.0)
    a, b, at_a = bracket(lambda g: g - 3, 6.0, 2.0)
    assert sorted([a, b]) == [-4.0, 4.0]
    assert at_a == a - 3


def test_a_minimum_at_the_start_is_its_own_bracket():
    assert bracket(lambda g: g - 2, 2.0) == (2.0, 2.0, 0.0)
    assert bracket(lambda g: 0.0, 2.0) == (2.0, 2.0, 0.0)


def test_a_maximum_at_the_start_is_left_towards_larger_lengths():
    a, b, at_a = bracket(double_well(-1, 0, 1), 0.0, 2.0)
    assert (a, b) == pytest.approx((2 * NUDGE, 2 * NUDGE + 2), rel=4 * EPS, abs=0)
    assert at_a == double_well(-1, 0, 1)(a) < 0


def test_a_level_point_from_which_f_falls_to_one_side_is_left_to_that_side():
    a, b, _ = bracket(lambda g: g**2 * (g + 3))  # falls towards -3
    assert (a, b) == pytest.approx((-NUDGE - 1, -NUDGE - 5), rel=4 * EPS, abs=0)


def test_a_minimum_that_a_step_hits_lies_inside():
    a, b, at_a = bracket(lambda g: g - 1)
    assert (a, at_a) == (0.0, -1.0)
    assert b == pytest.approx(1 + NUDGE, rel=4 * EPS, abs=0)


def test_a_level_point_that_a_step_hits_does_not_end_the_search():
    a, b, _ = bracket(lambda g: (g - 1) ** 2 * (g - 3))
    assert (a, b) == pytest.approx((1 + NUDGE, 5 + NUDGE), rel=4 * EPS, abs=0)


def test_a_minimum_between_far_looks_is_found():
    """Of a slope with minima at 1.2 only, falling again from 4 on."""

    def slope(g):
        return (g - 1.2) * (4 - g) * math.exp(-g * g)

    assert bracket(slope) == (1.0, 1.5, slope(1.0))
    hidden = double_well(0.3, 0.4, 2.0)
    a, b, _ = bracket(lambda g: -0.1 if g >= 1 else hidden(g) - (g > 1))  # falls for ever after 1
    assert (a, b) == (0.25, 0.375)


@pytest.mark.parametrize("factor", [1.0, 1e8, 1e-8])
def test_what_falls_for_ever_is_told_with_where_and_how_steeply(factor):
    with pytest.raises(
        NoFiniteLength, match=r"up to the length 85, where it is -1.* falls for ever"
    ):
        bracket(lambda g: -factor * math.exp(-g))  # 1e-15 of the steepest lies between 21 and 85
    with pytest.raises(NoFiniteLength, match=r"up to the length 4.43e\+35, where"):
        bracket(lambda g: -factor / (1 + abs(g)) ** 0.3)  # 60 widenings: (4^60 - 1) / 3
    with pytest.raises(NoFiniteLength, match="up to the length 5, where it is -0"):
        bracket(lambda g: -factor * math.exp(-2 * g**4))  # underflows before 5


def test_a_slope_is_small_beside_that_at_0_and_at_the_start():
    """From 40, where exp(-g) is 4e-18 already."""
    with pytest.raises(NoFiniteLength, match="up to the length 41, where"):
        bracket(lambda g: -math.exp(-g), 40.0)
    a, b, _ = bracket(lambda g: -1e-16 if g < 100 else 1.0, 0.0)
    assert (a, b) == (85.0, 341.0)


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("factor", [1.0, 1e8, 1e-8])
def test_a_level_floor_that_is_reached_is_a_minimum(power, factor):
    """As with a squared hinge loss on separable data."""
    a, b, _ = bracket(lambda g: -factor * max(0.0, 3.0 - g) ** power)
    assert a == 1.0
    assert b == pytest.approx(5.0, abs=4 * NUDGE + 8 * EPS)  # the last step is 4 long


def test_a_refusal_is_passed_on_unless_a_minimum_lies_before_it():
    def falling(g):
        if g > 3:
            raise Unresolved("too steep")
        return -1.0 - g

    with pytest.raises(
        Unresolved,
        match="up to the length 1, where it is -2, and it is not computed farther out: too",
    ):
        bracket(falling)

    def refused(g):
        if g > 3:
            raise Unresolved("too steep")
        return double_well(0.3, 0.6, 9)(g) if g < 0.9 else -1.0

    assert bracket(refused)[:2] == (0.25, 0.375)


# ---- bisection ----


@given(
    root=st.integers(1, 2**20 - 1),
    exponent=st.integers(-30, 30),
    steps=st.integers(1, 45),
    sign=st.sampled_from([1, -1]),
)
def test_bisection_is_the_recursion_by_hand(root, exponent, steps, sign):
    """From 0 and 2^20 units, whose halves are exact; the end a is the one that is returned."""
    unit = Fraction(2) ** exponent
    r = (root + Fraction(1, 3)) * unit * sign
    low, high = Fraction(0), 2**20 * unit * sign
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if (middle - r) * sign < 0 else (low, middle)
    g, halvings = bisection(
        lambda g: float(Fraction(g) - r), 0.0, float(2**20 * unit) * sign, float(-r), steps
    )
    assert Fraction(g) == low
    assert halvings == steps


@given(root=st.floats(0.001, 1e6), factor=st.sampled_from([1.0, 1e8, 1e-8]))
def test_bisection_ends_between_neighbours(root, factor):
    g, halvings = bisection(lambda x: factor * (x - root), 0.0, 2e6, -factor * root, 2000)
    assert g == pytest.approx(root, rel=4 * EPS)
    assert 0 < halvings < 100


def test_bisection_ends_between_neighbours_that_miss_the_root():
    g, halvings = bisection(lambda x: 1.0 if x * x > 2 else -1.0, 0.0, 4.0, -1.0, 2000)
    assert g * g <= 2 < np.nextafter(g, 2) ** 2 * (1 + EPS)
    assert 50 < halvings < 60


def test_bisection_of_a_level_start_and_of_a_hit_root():
    assert bisection(lambda g: g - 2, 2.0, 5.0, 0.0, 7) == (2.0, 0)
    assert bisection(lambda g: g - 2, 0.0, 8.0, -2.0, 7) == (2.0, 2)
    assert bisection(lambda g: g - 2, 0.0, 8.0, -2.0, 1) == (0.0, 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_bisection_leaves_a_maximum_that_it_hits(sign):
    """The middle of the bracket is the maximum of a double well."""
    slope = double_well(-1, 0, 2)
    g, halvings = bisection(slope, -4.0 * sign, 4.0 * sign, slope(-4.0 * sign), 60)
    assert halvings <= 60
    assert g == pytest.approx(2 if sign == 1 else -1, rel=4 * EPS, abs=0)


# ---- the whole search ----


@given(
    lengths=st.lists(st.integers(-400, 400), min_size=3, max_size=3, unique=True),
    near=st.floats(-5, 5),
    width=st.sampled_from([0.1, 1.0, 5.0]),
    method=st.sampled_from(["bisection", "brentq"]),
    factor=st.sampled_from([1.0, 1e8, 1e-8]),
)
@example(lengths=[-115, -71, 100], near=-2.4e-16, width=1.0, method="bisection", factor=1.0)
def test_a_search_ends_at_a_minimum(lengths, near, width, method, factor):
    low, top, high = sorted(g / 100 for g in lengths)
    slope = double_well(low, top, high)
    found = search(Along(lambda g: factor * slope(g)), 80, method, near, width)
    error = 16 * EPS * (abs(near) + abs(low) + abs(high))
    assert min(abs(found.g - low), abs(found.g - high)) <= error
    a, b = found.bracket
    assert min(a, b) - error <= found.g <= max(a, b) + error
    assert slope(a) * slope(b) <= 0  # differences have the right sign
    assert 0 <= found.halvings <= 80


@pytest.mark.parametrize("method", ["bisection", "brentq"])
def test_a_search_from_a_maximum_finds_a_minimum(method):
    found = search(Along(double_well(-1, 0, 1)), 60, method)
    assert found.g == pytest.approx(1, rel=16 * EPS)
    assert found.bracket == pytest.approx((NUDGE, NUDGE + 1), rel=4 * EPS, abs=0)


@given(top=st.floats(-0.9, 0.9))
def test_brent_leaves_a_maximum_at_which_it_ends(top):
    """The secant through the ends of the bracket meets the maximum."""
    slope = double_well(-1, top, 1)
    a, b, _ = bracket(slope, -3.0, 4.0)
    for width in (4.0, b - a, 5.0, 6.0):
        found = search(Along(slope), 80, "brentq", -3.0, width)
        assert min(abs(found.g - 1), abs(found.g + 1)) <= 16 * EPS


@given(root=st.floats(1e-12, 1e12), method=st.sampled_from(["bisection", "brentq"]))
def test_a_length_of_any_size_is_found_to_its_last_places(root, method):
    found = search(Along(lambda g: g - root), 200, method)
    assert found.g == pytest.approx(root, rel=16 * EPS)


def test_brent_stops_where_bisection_would_and_counts_what_it_made():
    found = search(Along(lambda g: g - math.pi), 3, "brentq")
    assert found.halvings <= 3
    assert found.bracket == (1.0, 5.0)
    exact = search(Along(lambda g: g - math.pi), 100, "brentq")
    assert 0 < exact.halvings < 12


def test_a_slope_that_is_no_number_is_refused_with_the_length():
    for value in (np.nan, np.inf):
        with pytest.raises(Unresolved, match=f"slope of f is {value} at the length 5"):
            search(Along(lambda g, value=value: value if g > 4 else -1.0), 10, "bisection")
