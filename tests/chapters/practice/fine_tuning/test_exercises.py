"""The reference answers of the chapter on fine-tuning, against the package."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bncore.chapters.practice.fine_tuning import exercises
from bncore.practice.recalibration import recalibrated

EPS = np.finfo(float).eps


@settings(max_examples=30)
@given(st.integers(0, 1000), st.lists(st.integers(2, 6), min_size=1, max_size=4))
def test_the_answers_are_what_recalibration_finds(seed, sizes):
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(n, 3)) for n in sizes]
    weight, scale, shift = rng.normal(size=3), *rng.normal(size=2)
    unit = nn.Sequential(nn.Linear(3, 1, bias=False), nn.BatchNorm1d(1)).double()
    unit[0].weight.data = torch.from_numpy(weight)[None]

    def statistics(batches):
        norm = recalibrated(unit, [torch.from_numpy(batch) for batch in batches])[1]
        return norm.running_mean.item(), norm.running_var.item()

    values = [batch @ weight for batch in x]
    counts, means, variances = (np.array([f(v) for v in values]) for f in (len, np.mean, np.var))
    own = statistics(x)
    tolerance = 64 * sum(sizes) * EPS * (1 + max(np.abs(v).max() for v in values)) ** 2
    np.testing.assert_allclose(exercises.pooled(counts, means, variances), own, atol=tolerance)
    found = exercises.faded(*own, weight, scale, shift)
    expected = statistics([scale * batch + shift for batch in x])
    size = (1 + abs(scale) + abs(shift) * np.abs(weight).sum()) ** 2
    np.testing.assert_allclose(found, expected, atol=tolerance * size)
