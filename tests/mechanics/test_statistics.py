"""Sums over the batch keep their digits wherever the values lie."""

import numpy as np
import pytest

from bncore.mechanics._statistics import statistics


@pytest.mark.parametrize(
    ("dtype", "first", "rest"),
    [
        (np.float32, 5e3, 1e4),
        (np.float32, 9.9e5, 1e6),
        (np.float64, 5e8, 1e9),
        (np.float64, -9.9e13, 1e14),
    ],
)
def test_a_batch_that_begins_unlike_its_rest_keeps_its_variance(dtype, first, rest):
    """The few values that give the first shift are far from the mean, and the shift moves on."""
    noise = np.random.default_rng(0).normal(size=(20_000, 2))
    x = (rest + noise).astype(dtype)
    x[:16] = first
    wide = x.astype(np.longdouble)
    mean = wide.mean(axis=0)
    var = ((wide - mean) ** 2).mean(axis=0)
    shift, residual, found = statistics(x)
    # Short sums in the precision of the batch, then 625 of them in double precision.
    rounding = 16 * np.finfo(dtype).eps + 625 * np.finfo(np.float64).eps
    assert (np.abs(found - var) <= rounding * var).all()
    assert (np.abs(shift.astype(np.longdouble) + residual - mean) <= rounding * var**0.5).all()
