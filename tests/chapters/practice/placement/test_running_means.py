"""Noise and drift of running means."""

import itertools

import numpy as np
import pytest
import xarray as xr

from bncore.chapters.practice.placement.running_means import errors, noise

EPS = np.finfo(float).eps


def every_order(weights, m, n):
    """The variance of the weighted sum of batch means over all orders of n values of variance 1."""
    values = np.arange(n) - (n - 1) / 2
    values /= values.std()
    sums = [
        sum(w * np.mean(order[m * k : m * k + m]) for k, w in enumerate(weights))
        for order in itertools.permutations(values)
    ]
    return np.var(sums)


@pytest.mark.parametrize(
    ("weights", "m", "n"), [([0.2, 0.7], 2, 4), ([1.0, -0.5, 0.1], 2, 6), ([0.9], 2, 5)]
)
def test_noise_is_that_of_all_orders_of_an_epoch(weights, m, n):
    found = noise(np.array(weights), m, n)
    assert found == pytest.approx(every_order(weights, m, n), rel=1e3 * EPS)


def test_noise_of_epochs_adds_up_and_nears_that_of_independent_batches():
    one, other = np.array([0.3, 0.1]), np.array([0.2, 0.4])
    both = noise(np.concatenate([one, other]), 2, 4)
    assert both == pytest.approx(noise(one, 2, 4) + noise(other, 2, 4))
    weights = np.array([0.5, 0.3])
    assert noise(weights, 4, 10**7) == pytest.approx((weights**2).sum() / 4, rel=1e-5)


def test_a_mean_that_stands_still_drifts_only_from_the_start():
    steps, momentum = 7, [0.1, 0.5]
    grid = {"batch_size": [3], "learning_rate": [0.1], "seed": [0]}
    still = 2.0 * np.ones((1, 1, 1, steps + 1, 1, 2))
    kept = np.array([2 * (1 - (1 - a) ** steps) + 0.6 for a in momentum])
    found = errors(
        xr.Dataset(
            {
                "exact": ((*grid, "steps", "layer", "feature"), still),
                "deviations": ((*grid, "layer", "feature"), 4 * np.ones((1, 1, 1, 1, 2))),
                "kept": (
                    (*grid, "layer", "momentum", "feature"),
                    np.broadcast_to(kept[:, None], (1, 1, 1, 1, 2, 2)),
                ),
            },
            coords={**grid, "momentum": momentum, "layer": [1]},
        ),
        3,
        12,
    )
    for a in momentum:
        left = 2 * (1 - a) ** steps / 4
        at = {"momentum": a, "batch_size": 3, "learning_rate": 0.1, "seed": 0, "layer": 1}
        assert float(found.drift.sel(at)) == pytest.approx(left)
        assert float(found.measured.sel(at)) == pytest.approx(abs(0.6 / 4 - left))
        weights = a * (1 - a) ** np.arange(steps - 1, -1, -1)
        variance = noise(weights, 3, 12)
        assert float(found.noise.sel(momentum=a, batch_size=3)) == pytest.approx(variance**0.5)
