"""Epsilon is chosen on the seeds that choose the rate, and on no other."""

import numpy as np
import pytest
import xarray as xr

from bncore.chapters.practice.small_batches import results
from bncore.chapters.practice.small_batches.experiments import EPSILONS


@pytest.mark.parametrize("seed", range(5))
def test_a_large_epsilon_is_the_best_on_the_tuning_seeds(seed):
    rng = np.random.default_rng(seed)
    arms, sizes, rates = ["batch norm", *EPSILONS], [1, 2, 4, 8], [0.1, 1.0]
    tried = rng.uniform(size=(len(arms), len(sizes), len(rates), 3))
    tried[:, 0] = np.nan
    tried[2, 1:, 0] = np.nan
    errors = rng.uniform(size=(len(arms), len(sizes), 4))
    errors[:, 0] = np.nan
    axes = ("arm", "batch_size", "learning_rate", "seed")
    coordinates = {"arm": arms, "batch_size": sizes}
    tuning = xr.Dataset({"error": (axes, tried)}, coordinates | {"learning_rate": rates})
    fresh = xr.Dataset(
        {"error": (("arm", "batch_size", "seed"), errors)}, coordinates | {"seed": range(4)}
    )
    found = results.fresh({"sizes": {"tuning": tuning, "fresh": fresh}})
    assert found.error.sel(arm=arms).equals(fresh.error)
    one = found.sel(arm=results.LARGE)
    assert one.error.sel(batch_size=1).isnull().all()
    for place, m in enumerate(sizes[1:], 1):
        scores = [min(map(np.median, tried[arm, place])) if arm != 2 else np.median(tried[2, place, 1])
                  for arm in range(1, len(arms))]  # fmt: skip
        best = int(np.argmin(scores)) + 1
        np.testing.assert_array_equal(one.error.sel(batch_size=m), errors[best, place])
        assert one.epsilon.sel(batch_size=m) == EPSILONS[arms[best]]
