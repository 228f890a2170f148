"""The reference answers of the chapter on scale invariance, against other libraries and the package."""

import numpy as np
import pytest

from bncore.chapters.explanations.scale_invariance import (
    exercises,
)
from bncore.explanations import effective_rate, scale_invariance, weight_length


def test_exercises_agree_with_the_package():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        a, variance, eps = rng.uniform(0.5, 3, size=3) * [rng.choice([-1, 1]), 1, 1]
        defect = scale_invariance.invariance_defect(a, variance, eps)
        assert abs(exercises.factor(a, variance, eps) - 1) == pytest.approx(defect)
        rate, decay, slope, r = rng.uniform(0.1, 0.9, size=4)
        slopes = rng.uniform(0.1, 2, size=4)
        exact = weight_length.squared_lengths(rate, slopes, r, decay)[-1]
        assert exercises.length(r, rate, decay, slopes) == pytest.approx(exact)
        found = effective_rate.equilibrium(rate, decay, slope)
        assert exercises.equilibrium(rate, decay, slope) == pytest.approx(found.length)
        schedule = effective_rate.exponential_schedule(rate, decay, 5)
        np.testing.assert_allclose(
            exercises.changing_decay(rate, np.full(5, decay)), schedule.rates
        )
