"""Statistics of batches against NumPy, and their scatter against many draws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.practice.diagnosis.statistics import Statistics, apart, sampling, typical

EPS = torch.finfo(torch.float64).eps
SHAPES = st.tuples(st.integers(2, 9), st.integers(1, 4), st.integers(1, 5))


def rms(values):
    return values.square().mean().sqrt().item()


def taken(batches):
    met = Statistics()
    for x in batches:
        met.add(x, len(x))
    return met


@given(st.lists(SHAPES, min_size=1, max_size=5), st.integers(0, 999), st.floats(-1e3, 1e3))
def test_pooled_statistics_are_those_of_the_batches(shapes, seed, offset):
    features = shapes[0][1]
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(offset, 2, size=(n, features, length)) for n, _, length in shapes]
    pooled = taken([torch.tensor(x) for x in arrays]).pooled()
    m = np.array([x.shape[0] * x.shape[2] for x in arrays])[:, None]
    means = np.stack([x.mean((0, 2)) for x in arrays])
    biased = np.stack([x.var((0, 2)) for x in arrays])
    every = np.concatenate([x.transpose(1, 0, 2).reshape(features, -1) for x in arrays], axis=1)
    # Each variance is a sum of squares of values that are rounded to the offset's last place.
    tolerance = 64 * EPS * (1 + offset**2) ** 0.5 * len(every[0])
    np.testing.assert_allclose(pooled.mean, (m * means).sum(0) / m.sum(), atol=tolerance)
    unbiased = (m * biased * m / (m - 1)).sum(0) / m.sum()
    np.testing.assert_allclose(pooled.var, unbiased, atol=tolerance, rtol=1e-9)
    np.testing.assert_allclose(pooled.total, every.var(1), atol=tolerance, rtol=1e-9)
    assert pooled.batches == len(shapes)


def test_single_values_are_left_out():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    both, alone = taken([x, x[:1]]).pooled(), taken([x]).pooled()
    assert torch.equal(both.mean, alone.mean)
    assert both.batches == 1
    assert taken([x[:1]]).pooled() is None
    assert Statistics().pooled() is None


@given(st.sampled_from([8, 32]), st.sampled_from([1, 4]), st.floats(0, 0.95), st.integers(0, 9))
@settings(max_examples=10)
def test_scatter_is_predicted_also_where_places_are_alike(n, places, alike, seed):
    """Values of one image share a part; means and variances of batches scatter accordingly."""
    generator = torch.Generator().manual_seed(seed)

    def batch():
        own = torch.randn(n, 64, places, generator=generator, dtype=torch.float64)
        common = torch.randn(n, 64, 1, generator=generator, dtype=torch.float64)
        return alike**0.5 * common + (1 - alike) ** 0.5 * own

    met = taken([batch() for _ in range(100)])
    pooled = met.pooled()
    means, variances = (
        torch.stack(met.means).var(0).mean(),
        torch.stack(met.variances).var(0).mean(),
    )
    assert pooled.mean_scatter.mean().item() == pytest.approx(means.item(), rel=0.2)
    assert pooled.variance_scatter.mean().item() == pytest.approx(variances.item(), rel=0.3)


@given(st.sampled_from([None, 0.1, 0.5, 1.0]), st.sampled_from([16, 64]), st.integers(0, 9))
@settings(max_examples=12)
def test_sampling_predicts_how_far_running_statistics_are_off(momentum, n, seed):
    generator = torch.Generator().manual_seed(seed)
    norm = torch.nn.BatchNorm1d(512, momentum=momentum).double()
    for _ in range(60):
        norm(torch.randn(n, 512, generator=generator, dtype=torch.float64))
    met = taken(torch.randn(8 * n, 512, generator=generator, dtype=torch.float64).split(n)).pooled()
    found = apart(met.mean, met.var, norm.running_mean, norm.running_var, norm.eps)
    expected = sampling(met, momentum, 60, norm.eps)
    assert rms(found) == pytest.approx(rms(expected), rel=0.15)


@given(st.floats(-3, 3), st.floats(0.01, 100))
def test_distance_is_in_deviations_of_what_is_met(shift, scale):
    mean, var = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    found = apart(scale * mean, scale**2 * var, scale * (mean + shift), scale**2 * var, 0.0)
    assert found.item() == pytest.approx(abs(shift), rel=1e-12, abs=1e-12)
    stretched = apart(mean, var, mean, var * scale**2, 0.0)
    assert stretched.item() == pytest.approx(abs(np.log(scale)), rel=1e-9, abs=1e-12)


def test_the_middle_of_what_is_alive_decides():
    distances = torch.tensor([1e9, 0.1, 0.2, 0.3, 5.0])
    assert typical(distances) == pytest.approx(0.3)
    assert typical(distances, torch.tensor([False, True, True, True, False])) == pytest.approx(0.2)
    assert typical(distances, torch.zeros(5, dtype=torch.bool)) == 0


def test_half_precision_is_summed_in_single():
    x = torch.full((4096, 1), 60000.0).half()
    x[::2] = 30000
    pooled = taken([x]).pooled()
    assert pooled.mean.item() == 45000
    assert pooled.total.item() == 15000.0**2
    assert pooled.finite
    assert not taken([torch.full((4, 1), float("inf"))]).pooled().finite
