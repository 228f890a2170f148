"""Paired intervals whose level allows for all that was looked at."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bncore.lab.intervals import Interval, difference, median_difference

EPS = np.finfo(float).eps


def over_seeds(values):
    return xr.DataArray(values, dims="seed", coords={"seed": range(len(values))})


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 30))
def test_the_interval_is_that_of_a_paired_test_at_the_corrected_level(seed, n, looked_at):
    """The difference separates exactly where SciPy's test is significant with Bonferroni's level."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0.7, 1, size=n), rng.normal(size=n)
    found = difference(over_seeds(a), over_seeds(b), looked_at=looked_at)
    oracle = stats.ttest_rel(a, b)
    expected = oracle.confidence_interval(1 - 0.05 / looked_at)
    # The oracle's level is 1 minus a small number, which rounds that number.
    rounding = 16 * EPS * looked_at / 0.05 * (abs(found.high) + abs(found.low))
    np.testing.assert_allclose(found, [np.mean(a - b), *expected], rtol=0, atol=rounding)
    assert found.separates == (found.low > 0 or found.high < 0)
    if abs(oracle.pvalue * looked_at - 0.05) > 1e-9:
        assert found.separates == (oracle.pvalue * looked_at < 0.05)


def test_what_cannot_be_paired_is_refused():
    one = over_seeds([1.0, 2.0])
    with pytest.raises(ValueError, match="expected the same ones"):
        difference(one, over_seeds([1.0, 2.0, 3.0]), looked_at=1)
    with pytest.raises(ValueError, match=r"second has the axes \('arm', 'seed'\), expected seed"):
        difference(one, one.expand_dims(arm=["a"]), looked_at=1)
    with pytest.raises(ValueError, match=r"first - second\[1\] is nan"):
        difference(one, over_seeds([1.0, np.nan]), looked_at=1)
    with pytest.raises(ValueError, match="looked_at is 0"):
        difference(one, one, looked_at=0)
    assert not Interval(0.1, -0.1, 0.3).separates


@given(st.integers(12, 60), st.integers(1, 50), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_the_interval_of_a_median_is_that_of_the_sign_test(n, looked_at, seed):
    """A median is outside exactly where a binomial test of the signs about it is significant."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_cauchy(size=n), rng.normal(size=n)
    found = median_difference(over_seeds(a), over_seeds(b), looked_at=looked_at)
    apart = np.sort(a - b)
    assert found.median == np.median(apart)
    for end, sign in ((found.low, 1), (found.high, -1)):
        beyond = (sign * apart > sign * end).sum()
        assert stats.binomtest(beyond, n).pvalue * looked_at > 0.05
        assert stats.binomtest(beyond + 1, n).pvalue * looked_at <= 0.05
    if found.low > apart[0]:
        far = np.where(apart == apart[0], -1e9, apart)
        assert median_difference(over_seeds(far), over_seeds(0 * b), looked_at=looked_at) == found
    assert found.separates == (found.low > 0 or found.high < 0)


def test_too_few_seeds_for_a_median_are_refused():
    one = over_seeds([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="first has 3 seeds, expected more"):
        median_difference(one, 0 * one, looked_at=1)
