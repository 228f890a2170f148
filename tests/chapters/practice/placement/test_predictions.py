"""The moments are integrals over the normal law, and the noise is that of drawn batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy.stats import norm

from bncore.chapters.practice.placement import predictions

SHIFTS = st.floats(-2, 3)


def expected(shift, function):
    return integrate.quad(lambda z: function(z) * norm.pdf(z - shift), 0, shift + 40, limit=200)[0]


@settings(max_examples=30)
@given(SHIFTS)
def test_moments_are_integrals(shift):
    found = predictions.rectified_moments(shift)
    wanted = [expected(shift, lambda z, k=k: z**k) for k in range(5)]
    # quad's own accuracy, and cancellation in the recursion, by at most the size of its terms.
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)


@settings(max_examples=30)
@given(SHIFTS)
def test_kurtosis_is_of_central_moments(shift):
    mean = expected(shift, lambda z: z)
    zero = norm.cdf(-shift)
    second, fourth = (
        expected(shift, lambda z, k=k: (z - mean) ** k) + zero * mean**k for k in (2, 4)
    )
    assert predictions.rectified_kurtosis(shift) == pytest.approx(fourth / second**2, rel=1e-5)


@pytest.mark.parametrize("shift", [-1.0, 0.0, 2.0])
@pytest.mark.parametrize("m", [4, 32])
def test_noise_is_that_of_drawn_batches(shift, m):
    """20 000 batches: a deviation is known to about a hundredth times the root of the kurtosis."""
    draws = np.random.default_rng(m).normal(shift, 1, size=(20_000, m)).clip(0)
    variances = draws.var(axis=1, ddof=1)
    found = predictions.noise_of_variance(predictions.rectified_kurtosis(shift), m)
    assert variances.std() / variances.mean() == pytest.approx(found, rel=0.08)


def test_a_normal_law_far_above_zero_is_not_cut():
    assert predictions.rectified_kurtosis(9.0) == pytest.approx(3, rel=1e-9)


def test_the_page_rounds_the_moments_rightly():
    moments = predictions.rectified_moments(0)
    assert f"{moments[1]:.2f} {moments[2] - moments[1] ** 2:.2f}" == "0.40 0.34"
    assert f"{predictions.rectified_kurtosis(0):.1f}" == "5.4"
    assert f"{predictions.rectified_kurtosis(-2):.0f}" == "192"


def test_two_values_that_are_heads_or_tails_have_the_variance_0_or_2():
    """Equally often, so of mean 1 and deviation 1; their kurtosis is 1."""
    assert predictions.noise_of_variance(1, 2) == pytest.approx(1)
