"""Expectations over a sphere against closed forms, and rules with many more nodes."""

import numpy as np
import pytest
import torch

from bncore.explanations import panels, sphere, textbook
from bncore.explanations.activation import Function, Standardized
from bncore.explanations.depth import growth_rate, symmetry_multiplier
from bncore.explanations.sphere import ACCURACY

EPS = np.finfo(np.float64).eps
SIZES = [4, 5, 6, 8, 11, 12, 20, 64]


@pytest.mark.parametrize("size", SIZES)
def test_the_square_of_relu_in_closed_form(size):
    """Homogeneous functions of a Gaussian vector: kernels of the angle between two entries."""
    angle = np.arccos(-1 / (size - 1))
    away, sine, cosine = np.pi - angle, np.sin(angle), np.cos(angle)
    first = (sine + away * cosine) / (2 * np.pi)
    second = (3 * sine * cosine + away * (1 + 2 * cosine**2)) / (2 * np.pi)
    c = (size - 1) / (size + 1)
    slopes = 2 * (size - 1) - 6 * c + 4 * first + 4 * c * second
    expected = slopes / ((size - 3) * c * (1.5 - second))
    # It has no kink but a bent slope, which a fixed number of nodes missed by 1e-4 at size 4.
    assert growth_rate(lambda z: torch.relu(z) ** 2, size) == pytest.approx(expected, rel=ACCURACY)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steepness", [1.0, 5.0, 10.0])
def test_steep_functions_against_many_nodes(size, steepness, monkeypatch):
    nodes = np.polynomial.legendre.leggauss(1200)
    monkeypatch.setattr(np.polynomial.legendre, "leggauss", lambda _: nodes)
    expected = textbook.growth_rate_of_a_batch(
        lambda z: np.tanh(steepness * z),
        lambda z: steepness / np.cosh(steepness * z) ** 2,
        size,
    )
    monkeypatch.undo()
    found = growth_rate(lambda z: torch.tanh(steepness * z), size)
    # Steepness 5 was off by 5e-6 at size 4.
    assert found == pytest.approx(expected, rel=ACCURACY)


@pytest.mark.parametrize("size", [4, 7, 12, 60])
def test_more_points_on_a_panel_change_nothing(size):
    for activation in ("gelu", "relu", lambda z: torch.relu(z - 1.5), lambda z: torch.sin(3 * z)):
        function = Standardized(Function(activation))
        edges, kinks = panels.breakpoints(function, min((size - 1) ** 0.5, 12.0))
        fine = sphere._moments(function, size, sphere.pairs(size, edges, kinks, 2, 14))
        found = sphere.moments(function, size)
        np.testing.assert_allclose(found, fine, rtol=ACCURACY, atol=ACCURACY * fine.variance)


@pytest.mark.parametrize("size", [4, 9, 12, 100])
def test_pairs_have_the_moments_of_the_sphere(size):
    function = Standardized(Function("tanh"))
    edges, kinks = panels.breakpoints(function, min((size - 1) ** 0.5, 12.0))
    h, k, weights = sphere.pairs(size, edges, kinks)
    one = weights.sum(axis=1)
    # Twelve points on a panel leave only the rounding of sums over as many nodes.
    rounding = len(h) * EPS
    assert one.sum() == pytest.approx(1, abs=rounding)
    assert one @ h**2 == pytest.approx(1, abs=rounding)
    assert one @ h**4 == pytest.approx(3 * (size - 1) / (size + 1), rel=rounding, abs=0)
    assert (weights * h[:, None] * k).sum() == pytest.approx(-1 / (size - 1), abs=rounding)
    assert (weights * k**2).sum() == pytest.approx(1, abs=rounding)


def test_structure_that_is_not_resolved_is_refused(monkeypatch):
    monkeypatch.setattr(sphere, "MOST_PAIRS", 40_000)
    with pytest.raises(ValueError, match="pairs of nodes do not resolve in a batch of 4 to 1e-09"):
        growth_rate(lambda z: torch.tanh(5 * z), 4)


def test_the_multiplier_of_a_steep_function_is_refined_too():
    found = [symmetry_multiplier(lambda z, k=k: torch.tanh(k * z), 6) for k in (40.0, 80.0, 160.0)]
    # Towards the sign, whose multiplier is finite, differences halve with the steepness.
    assert abs(found[2] - found[1]) < 0.7 * abs(found[1] - found[0]) + 4 * ACCURACY * found[2]
