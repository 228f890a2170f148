"""Signal and gradient without normalisation, against closed forms and an adaptive integrator."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from bncore.explanations import panels
from bncore.explanations.propagation import propagate

EPS = np.finfo(np.float64).eps
ACCURACY = 1e-9  # what ``panels.gaussian`` says of expectations


def gaussian(f, kinks=()):
    """E f(z) by scipy's adaptive rule."""
    density = lambda z: f(z) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)  # noqa: E731
    ends = [-12.0, *kinks, 12.0]
    return sum(
        quad(density, a, b, epsabs=1e-13, epsrel=1e-12, limit=400)[0] for a, b in pairwise(ends)
    )


@pytest.mark.parametrize("power", [-40, -12, 3, 40])
def test_propagation_of_an_activation_of_any_size(power):
    """With a kink where no panel ends."""
    size = 10.0**power
    (growth,) = propagate(lambda z: size * torch.relu(z - 0.3), 1.0, 1).growth
    # Of the panel that holds the kink all may be missed.
    missed = panels.NARROWEST * stats.norm.pdf(0.3) / stats.norm.sf(0.3)
    assert growth == pytest.approx(size**2 * stats.norm.sf(0.3), rel=missed, abs=0)


@pytest.mark.parametrize("weight", [0.5, 1.0, 2.0, 3.0])
def test_relu_without_normalisation(weight):
    found = propagate("relu", weight, 10, variance=0.7)
    # A panel ends at the kink; each layer multiplies by the same expectation.
    np.testing.assert_allclose(found.growth, weight / 2, rtol=panels.TOLERANCE)
    expected = 0.7 * (weight / 2) ** np.arange(10)
    np.testing.assert_allclose(found.variance, expected, rtol=10 * panels.TOLERANCE)


def test_tanh_without_normalisation_against_an_adaptive_integrator():
    found = propagate("tanh", 1.7, 4, variance=0.9, bias_variance=0.2)
    q = 0.9
    # Each layer adds the error of an expectation.
    for variance, growth in zip(found.variance, found.growth, strict=True):
        assert variance == pytest.approx(q, rel=4 * ACCURACY)
        slope = gaussian(lambda z, q=q: (1 - np.tanh(np.sqrt(q) * z) ** 2) ** 2)
        assert growth == pytest.approx(1.7 * slope, rel=4 * ACCURACY)
        q = 1.7 * gaussian(lambda z, q=q: np.tanh(np.sqrt(q) * z) ** 2) + 0.2


def test_arguments_of_propagate_are_refused(unchecked):
    with pytest.raises(ValueError, match="weight_variance is -1, expected"):
        propagate("relu", -1, 3)
    with pytest.raises(ValueError, match="bias_variance is -1, expected"):
        propagate("relu", 1, 3, bias_variance=-1)
    with pytest.raises(ValueError, match="variance is 0, expected"):
        propagate("relu", 1, 3, variance=0)
    with pytest.raises(TypeError, match="layers is a float, expected an integer"):
        propagate("relu", 1, 3.0)
    with pytest.raises(ValueError, match=r"the variance of layer 14 is 1.64e-13, expected between"):
        propagate("relu", 0.2, 20, variance=1.64)
    with pytest.raises(ValueError, match="grows so fast"):
        propagate(lambda z: torch.exp(z * z / 8), 1.0, 2, variance=2.5)
    with pytest.raises(ValueError, match="activation is constant"):
        propagate(lambda z: 2 + 0 * z, 1.0, 3)
    for size, factor in ((1e200, "inf"), (1e-200, "0")):
        with pytest.raises(ValueError, match=f"change by a factor of {factor} in layer 1, beyond"):
            propagate(lambda z, size=size: size * z, 1.0, 1)
