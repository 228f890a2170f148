"""Lobatto's rule against Legendre's polynomials, and what is resolved against closed forms."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import legendre
from scipy import special

from bncore.convergence.boxes import GRIDS, LAST, ORDER, POINTS, WEIGHTS, Unresolved, resolve
from bncore.convergence.quadrature import ACCURACY

EPS = np.finfo(np.float64).eps
ROUNDING = 4 * ORDER * EPS  # of a sum over the nodes of a box
ACCURACIES = st.sampled_from([1e-4, 1e-8, 1e-12])


def resolved(functions, edges, accuracy=ACCURACY, floor=0.0, rounded=0.0, most=200_000):
    """The rule, with settings for one variable."""
    return resolve(functions, edges, accuracy, floor, rounded, most, lambda x: f"x = {x[0]:.6g}")


# ---- the rule of a box ----


def test_the_rule_is_exact_up_to_degree_37_and_off_by_the_known_term_at_38(near):
    """Of 20 nodes: n (n-1)^3 2^(2n-1) (n-2)!^4 / ((2n-1) (2n-2)!^3) times the derivative of order 38."""
    for degree in range(2 * ORDER - 2):
        exact = 2 / (degree + 1) if degree % 2 == 0 else 0.0
        near(WEIGHTS @ POINTS**degree, exact, ROUNDING)
    n, f = ORDER, math.factorial
    missed = Fraction(
        n * (n - 1) ** 3 * 2 ** (2 * n - 1) * f(n - 2) ** 4, (2 * n - 1) * f(2 * n - 2) ** 2
    )
    assert missed > 100 * ROUNDING
    near(WEIGHTS @ POINTS**38 - 2 / 39, float(missed), ROUNDING)


def test_the_nodes_are_the_ends_and_where_the_last_polynomial_is_level(near):
    assert (POINTS[0], POINTS[-1]) == (-1.0, 1.0)
    assert (np.diff(POINTS) > 1 / ORDER**2).all()
    near(POINTS, -POINTS[::-1], 4 * EPS)
    slope = legendre.Legendre.basis(ORDER - 1).deriv()
    near(slope(POINTS[1:-1]), np.zeros(ORDER - 2), 4 * EPS * np.abs(slope.deriv()(POINTS[1:-1])))


@given(coefficients=st.lists(st.floats(-1, 1), min_size=ORDER, max_size=ORDER))
def test_the_last_coefficients_are_found_from_the_values(coefficients, near):
    values = legendre.legval(POINTS, coefficients)
    near(values @ LAST, np.array(coefficients[-2:]), ORDER**2 * ROUNDING)


@given(powers=st.tuples(st.integers(0, 37), st.integers(0, 37)))
def test_the_rule_in_two_variables_is_the_product(powers, near):
    points, weights = GRIDS[2]
    expected = np.prod([2 / (p + 1) if p % 2 == 0 else 0.0 for p in powers])
    near(weights @ (points[0] ** powers[0] * points[1] ** powers[1]), expected, 2 * ROUNDING)


# ---- what is resolved ----


def bump(k, c):
    return (
        lambda x: np.exp(-((k * (x - c)) ** 2)),
        lambda x: np.sqrt(np.pi) / 2 / k * special.erf(k * (x - c)),
    )


def peak(k, c):
    return lambda x: 1 / (1 + (k * (x - c)) ** 2), lambda x: np.arctan(k * (x - c)) / k


def rise(k, c):
    return (
        lambda x: special.expit(k * (x - c)),
        lambda x: np.logaddexp(0, k * (x - c)) / k,
    )


def power(k, c):
    degree = int(k) % 30
    return (
        lambda x: np.abs(x) ** degree,
        lambda x: np.sign(x) * np.abs(x) ** (degree + 1) / (degree + 1),
    )


SHAPES = st.sampled_from([bump, peak, rise, power])


@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=3),
    k=st.floats(1, 1e3),
    c=st.floats(-1, 2),
    scale=st.sampled_from([1.0, -3.0, 1e100, 1e-100]),
    accuracy=ACCURACIES,
)
def test_each_integral_meets_the_accuracy(shapes, k, c, scale, accuracy, near):
    """And sizes are integrals of absolute values."""
    pairs = [shape(k, c) for shape in shapes]
    edges = np.array([-2.0, min(c, 2.9), 3.0])
    rule = resolved(lambda x: scale * np.array([f(x[0]) for f, _ in pairs]), [edges], accuracy)
    values = scale * np.array([f(rule.points[0]) for f, _ in pairs])
    exact = scale * np.array([F(3.0) - F(-2.0) for _, F in pairs])
    largest = abs(scale) * np.array([np.abs([F(3.0), F(-2.0)]).max() for _, F in pairs])
    # places are rounded, and so are antiderivatives
    error = accuracy * np.abs(exact) + (k * (2 + abs(c)) + 8) * 8 * EPS * largest
    near(values @ rule.weights, exact, error)
    near(rule.size, np.abs(exact), error)


@given(waves=st.integers(1, 60), accuracy=ACCURACIES)
def test_sizes_are_integrals_of_absolute_values(waves, accuracy, near):
    """Of a sine between its zeros: 2 for each half wave, where the integral itself is 0."""
    edges = np.pi * np.arange(2 * waves + 1)
    rule = resolved(lambda x: np.sin(x), [edges], accuracy)
    size = 4.0 * waves
    near(rule.size, np.array([size]), (accuracy + ROUNDING * edges[-1]) * size)
    near(np.sin(rule.points[0]) @ rule.weights, 0.0, (accuracy + ROUNDING * edges[-1]) * size)


@given(k=st.floats(0.5, 40), c=st.floats(-1, 1), m=st.floats(0.5, 40), accuracy=ACCURACIES)
def test_products_in_two_variables_meet_the_accuracy(k, c, m, accuracy, near):
    (f, F), (g, G) = bump(k, c), rise(m, -c)
    edges = [np.array([-2.0, 3.0]), np.array([-1.0, 0.5, 2.0])]
    rule = resolved(lambda x: np.array([f(x[0]) * g(x[1])]), edges, accuracy, most=4_000_000)
    exact = (F(3.0) - F(-2.0)) * (G(2.0) - G(-1.0))
    found = (f(rule.points[0]) * g(rule.points[1])) @ rule.weights
    near(found, exact, (accuracy + 10 * (k + m) * ROUNDING) * exact)
    near(rule.size, np.array([exact]), (accuracy + 10 * (k + m) * ROUNDING) * exact)


@given(
    ends=st.lists(st.integers(-50, 50), min_size=2, max_size=8, unique=True).map(sorted),
    across=st.lists(st.integers(-9, 9), min_size=2, max_size=4, unique=True).map(sorted),
)
def test_weights_are_positive_and_add_up_to_the_volume(ends, across, near):
    ends, across = np.array(ends, float), np.array(across, float)
    one = resolved(lambda x: np.ones((1, x.shape[1])), [ends])
    assert len(one.weights) == ORDER * (len(ends) - 1)
    near(one.weights.sum(), ends[-1] - ends[0], ROUNDING * 100)
    two = resolved(lambda x: np.ones((1, x.shape[1])), [ends, across])
    assert len(two.weights) == ORDER**2 * (len(ends) - 1) * (len(across) - 1)
    volume = (ends[-1] - ends[0]) * (across[-1] - across[0])
    near(two.weights.sum(), volume, ROUNDING * volume)
    for rule, edges in ((one, [ends]), (two, [ends, across])):
        assert (rule.weights > 0).all()
        for along, within in zip(rule.points, edges, strict=True):
            assert (along >= within[0]).all()
            assert (along <= within[-1]).all()


def test_boxes_are_halved_along_the_axis_that_needs_it():
    edges = [np.array([-1.0, 1.0])] * 2
    for steep in (0, 1):
        rule = resolved(lambda x, steep=steep: np.exp(-((30 * x[[steep]]) ** 2)), edges)
        along, across = (len(np.unique(rule.points[axis])) for axis in (steep, 1 - steep))
        assert across == ORDER
        assert along > 4 * ORDER


def test_what_a_floor_allows_is_not_followed():
    """Beside the accuracy: of each function what may be missed at all."""
    edges = [np.array([-1.0, 1.0])]

    def waves(x):
        return np.array([np.exp(x[0]), np.sin(300 * x[0])])

    assert len(resolved(waves, edges, floor=np.array([0.0, 1e3])).weights) == ORDER
    assert len(resolved(waves, edges, floor=np.array([1e3, 0.0])).weights) > 10 * ORDER
    assert len(resolved(waves, edges, floor=1e3).weights) == ORDER


@given(jump=st.floats(0.05, 0.95), size=st.sampled_from([1e-8, 1.0, 1e100]))
def test_jumps_are_followed_until_numbers_end(jump, size, near):
    """To boxes so narrow that rounding their points decides on which side they lie."""
    rule = resolved(lambda x: size * (x > jump), [np.array([0.0, 1.0])])
    near(size * (rule.points[0] > jump) @ rule.weights, size * (1 - jump), ACCURACY * size)
    assert len(rule.weights) > 30 * ORDER


@given(spike=st.floats(0.05, 0.95))
def test_what_is_not_resolved_is_refused_with_where(spike):
    """A root of no smoothness needs more points than are allowed, most of all at its zero."""
    with pytest.raises(
        Unresolved, match="needs more than 200 points, most of all near x = "
    ) as got:
        resolved(lambda x: np.abs(x - spike) ** 0.1, [np.array([0.0, 1.0])], most=200)
    place = float(str(got.value).rsplit("x = ", 1)[1])
    assert abs(place - spike) <= 0.5**4  # in a box of a few halvings
    assert "expected 1e-12" in str(got.value)


def test_what_changes_when_points_are_rounded_is_no_reason_to_halve():
    """Points beside 1e9, handed over without it."""

    def noisy(x):
        return np.sin((x + 1e9) - 1e9)

    edges = [np.linspace(0.0, 3.0, 4)]
    assert len(resolved(noisy, edges, rounded=1e9).weights) <= 4 * 3 * ORDER
    with pytest.raises(Unresolved):
        resolved(noisy, edges, most=20_000)


def test_what_is_not_finite_is_handed_back():
    """Callers say in their own words where a function leaves the range."""
    with np.errstate(invalid="ignore", over="ignore"):
        rule = resolved(lambda x: 1e200 * np.exp(500 * x), [np.array([0.0, 1.0])])
    assert not np.isfinite(rule.size).any()
    assert len(rule.weights) == ORDER
