"""Estimates of a variance from batches drawn in several ways, and averaged on the way."""

import numpy as np
import pytest
import torch

from bncore.chapters.mechanics.inference import estimates
from bncore.lab import data
from bncore.mechanics import averaging


@pytest.fixture(scope="module")
def ratios():
    return {way: np.array(row) for way, row in estimates.variance_ratios(data.digits()).items()}


def test_independent_batches_miss_one_in_m(ratios):
    m = np.array(list(estimates.PATCHES))
    # 800 batches, 32 correlated features: some per cent in batches of two.
    np.testing.assert_allclose(ratios["independent"], (m - 1) / m, rtol=0.05)


def test_sorted_batches_and_neighbours_miss_more_until_a_patch_is_the_image(ratios):
    m = np.array(list(estimates.PATCHES))
    corrected = {way: m / (m - 1) * row for way, row in ratios.items()}
    assert (corrected["sorted by class"] < 0.7).all()
    assert (np.diff(corrected["neighbours in one image"]) > 0).all()
    assert corrected["neighbours in one image"][0] < 0.7 < 0.95
    assert corrected["neighbours in one image"][-1] > 0.95


def test_a_patch_of_four_is_a_square_of_neighbours(ratios):
    x = data.digits().x_train.double().reshape(-1, 1, 8, 8)
    kernels = torch.tensor(np.random.default_rng(0).normal(size=(16, 1, 3, 3)))
    maps = torch.nn.functional.conv2d(x, kernels, padding=1)
    squares = torch.stack([maps[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)])
    inside = squares.var(0, correction=0).mean((0, 2, 3))
    expected = (inside / maps.var((0, 2, 3), correction=0)).mean().item()
    np.testing.assert_allclose(ratios["neighbours in one image"][1], expected, rtol=1e-9)


def test_units_in_both_orders_are_the_same_values():
    shuffled, by_class = estimates.units(data.digits())
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(by_class, axis=0))
    parts = by_class[: len(by_class) // 32 * 32].reshape(-1, 32, 32)
    between = parts.mean(axis=1).var(axis=0).mean()
    others = shuffled[: len(by_class) // 32 * 32].reshape(-1, 32, 32)
    assert between > 3 * others.mean(axis=1).var(axis=0).mean()


@pytest.mark.parametrize("batch_size", [4, 16])
@pytest.mark.parametrize("momentum", [0.03, 0.1, 1.0])
def test_a_running_variance_has_the_predicted_mean_and_deviation(momentum, batch_size):
    found = estimates.running(momentum, updates=40, batch_size=batch_size, seeds=2000)
    assert found.paths.shape == (2000, 41)
    assert (found.paths[:, 0] == estimates.START).all()
    weights = averaging.weights(momentum, 40)
    expected = weights[0] * estimates.START + weights[1:].sum() * estimates.TRUTH
    np.testing.assert_allclose(found.mean[-1], expected, rtol=1e-12)
    # Four standard errors of 2000 seeds.
    apart = np.abs(found.paths.mean(axis=0) - found.mean)
    assert (apart <= 4 * found.deviation / 2000**0.5 + 1e-12).all()
    deviation = found.paths.std(axis=0)[1:]
    # Again four, by the kurtosis 3 + 12 / (m - 1) of the variance of one batch.
    missed = 4 * ((2 + 12 / (batch_size - 1)) / (4 * 2000)) ** 0.5
    np.testing.assert_allclose(deviation, found.deviation[1:], rtol=missed)
