"""Expectations against closed forms, kinks found where they are, and what is refused."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad

from bncore.explanations import panels
from bncore.explanations.activation import ACTIVATIONS, Function

EPS = np.finfo(np.float64).eps
ACCURACY = 1e-9  # what ``panels.gaussian`` says of expectations


@pytest.mark.parametrize("reach", [0, -1.0, float("nan"), float("inf")])
def test_panels_need_a_reach(reach):
    with pytest.raises(ValueError, match=r"reach is .*, expected a finite number above 0"):
        panels.breakpoints(Function("tanh"), reach)


@given(st.floats(-4, 4), st.floats(0.01, 500))
def test_steep_and_shifted_functions_are_integrated_as_stated(kink, steepness):
    """softplus(k (z - a)) / k, by scipy's adaptive rule, and relu(z - a) in closed form."""
    rule = panels.gaussian(
        Function(lambda z: torch.logaddexp(steepness * (z - kink), 0 * z) / steepness)
    )
    slope = lambda z: 1 / (1 + np.exp(-np.clip(steepness * (z - kink), -700, 700)))  # noqa: E731
    ends = [-12, *np.clip(kink + np.array([-30, -5, 0, 5, 30]) / steepness, -12, 12), 12]
    expected = sum(
        quad(lambda z: slope(z) ** 2 * stats.norm.pdf(z), a, b, epsabs=1e-15, epsrel=1e-13)[0]
        for a, b in pairwise(ends)
    )
    assert rule.weights @ rule.dphi**2 == pytest.approx(expected, rel=ACCURACY, abs=0)
    bent = panels.gaussian(Function(lambda z: torch.relu(z - kink)))
    tail, density = stats.norm.sf(kink), stats.norm.pdf(kink)
    assert bent.weights @ bent.dphi**2 == pytest.approx(tail, rel=ACCURACY, abs=0)
    assert bent.weights @ bent.phi == pytest.approx(density - kink * tail, rel=ACCURACY, abs=0)
    square = (1 + kink**2) * tail - kink * density
    assert bent.weights @ bent.phi**2 == pytest.approx(square, rel=ACCURACY, abs=0)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=4, unique=True))
def test_kinks_are_found_where_they_are(places):
    places = sorted(places)
    if min(np.diff(places), default=1.0) < 1e-3:
        return
    phi = Function(lambda z: z + sum(torch.relu(z - place) for place in places))
    _, found = panels.breakpoints(phi, 4.0)
    apart = np.abs(found - places)
    # So near to an edge, a multiple of 2^-37, that no integral shows it, a kink is found there.
    at_an_edge = found == np.round(found * 2.0**37) / 2.0**37
    unseen = 3 * panels.TOLERANCE * phi(np.array([4.0]))[0]
    # Elsewhere bisection ends at neighbouring floats.
    assert (apart <= np.where(at_an_edge, unseen, 4 * 4 * EPS)).all()


def test_a_smooth_function_has_no_kink_and_few_panels():
    for name in ("tanh", "sigmoid", "gelu", "silu", "softplus", "erf"):
        edges, kinks = panels.breakpoints(Function(name), 4.0)
        assert len(kinks) == 0
        assert len(edges) == 9


def test_the_rule_is_one_of_the_normal_distribution():
    for name in ACTIVATIONS:
        rule = panels.gaussian(Function(name))
        for power in range(0, 13, 2):
            moment = math.prod(range(1, power, 2))
            assert rule.weights @ rule.z**power == pytest.approx(
                moment, rel=panels.TOLERANCE, abs=0
            )
    z = np.linspace(-5, 5, 11)
    np.testing.assert_allclose(panels.density(z), stats.norm.pdf(z), rtol=10 * EPS)
