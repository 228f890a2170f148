"""The reference answers of the chapter on placement: a unit that never passes, and an integral."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from scipy.stats import norm

from bncore.chapters.practice.placement import exercises
from bncore.mechanics import transform


@given(st.floats(0.2, 3), st.floats(-3, 3))
def test_the_mean_is_the_integral(gamma, beta):
    expected, _ = integrate.quad(
        lambda x: (gamma * x + beta) * norm.pdf(x), -beta / gamma, 40, limit=200
    )
    assert exercises.rectified(gamma, beta) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(st.integers(0, 1000), st.sampled_from([-1.0, 1.0]))
def test_no_unit_is_dead_whose_shift_is_not_negative(seed, sign):
    """Proposition 2, with a scale of either sign."""
    rng = np.random.default_rng(seed)
    x_hat, _ = transform.forward(rng.normal(size=(4, 5)))
    gamma, beta = sign * rng.uniform(0.1, 2, 5), rng.uniform(0, 1, 5)
    assert not exercises.dead(x_hat, gamma, beta).any()
    assert exercises.dead(x_hat, gamma, beta - 20).all()
