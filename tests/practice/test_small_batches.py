"""Small batches: what is centred has mean 0, and nothing else has changed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncore.practice import small_batches

EPS = np.finfo(float).eps


@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 1000))
def test_the_mean_is_zero_and_differences_stay(batch, features, seed):
    x = np.random.default_rng(seed).normal(3, 10, size=(batch, features))
    y = small_batches.centred(x)
    # A rounding error for each of the values summed, and one for the difference.
    tolerance = 4 * EPS * batch * np.abs(x).max()
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=tolerance)
    np.testing.assert_allclose(np.diff(y, axis=0), np.diff(x, axis=0), atol=tolerance)


def test_lists_are_batches():
    np.testing.assert_array_equal(small_batches.centred([[1, 2], [3, 6]]), [[-1, -2], [1, 2]])


def test_what_is_no_batch_is_named(unchecked):
    with pytest.raises(ValueError, match=r"x has shape \(3,\), expected 2 axes"):
        small_batches.centred(np.ones(3))
