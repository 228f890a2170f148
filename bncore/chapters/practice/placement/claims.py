"""What the literature says about placement and tuning."""

import numpy as np

from bncore.page.claims import at_most, claim
from bncore.practice import placement


@claim("ioffe2015, Algorithm 1", "holds")
def mean_zero():
    """Subtracting the mean of the batch leaves values whose mean is zero."""
    x = np.random.default_rng(0).normal(3, 2, size=(64, 10))
    left = np.abs(placement.centred(x).mean(axis=0)).max()
    yield at_most(
        64 * np.finfo(float).eps,
        left / np.abs(x).max(),
        "largest mean of ten features, as a share of the largest value",
    )
