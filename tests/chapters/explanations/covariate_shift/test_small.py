"""Experiments of a second or two of the chapter on covariate shift."""

import numpy as np
import pytest

from bncore.chapters.explanations.covariate_shift import small

EPS = float(np.finfo(np.float64).eps)


@pytest.mark.parametrize("factor", [0.5, 4, 16])
def test_scaled_weights_shift_like_the_others_at_the_scaled_rate(factor):
    """Theorem "Scale trades for learning rate"; the norms' epsilon of 1e-12 breaks it a little."""
    scaled = small.rescaled((factor,), factor**2)
    plain = small.rescaled((1,), 1.0)
    # Epsilon over the smallest variances, some 0.01, and sums over 64 examples in three layers.
    rounding = 1e-9 + 64**2 * EPS
    for name in ("loss", "relative"):
        assert scaled[name].item() == pytest.approx(plain[name].item(), rel=rounding)


def test_at_a_fixed_rate_larger_weights_shift_less():
    found = small.rescaled((1, 4, 16))
    assert (np.diff(found.relative) < 0).all()
