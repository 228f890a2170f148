"""How far statistics of batches scatter: drawn batches against the exact formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.nn.functional import conv2d

from bncore.chapters.explanations.noise import experiments, scatter
from bncore.explanations import variance_shift
from bncore.explanations.noise import GaussianOutput, mean_variance
from bncore.lab import data, networks

EPS, SINGLE = (float(np.finfo(kind).eps) for kind in (np.float64, np.float32))


@pytest.mark.parametrize(("z", "m"), [(0, 4), (1, 16), (3, 8)])
def test_companies_follow_the_exact_distribution(z, m):
    assert stats.kstest(scatter.companies(z, m), GaussianOutput(z, m).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", list(scatter.populations()))
def test_measured_scatter_is_the_exact_one(name):
    sizes = [2, 8, 64, 128]
    measured, exact = scatter.batch_statistics(scatter.populations()[name], sizes)
    for way, values in measured.items():
        expected = exact[way][:, np.array(sizes) - sizes[0]]
        np.testing.assert_allclose(values, expected, rtol=0.2)


@given(st.floats(0.1, 1), st.floats(-2, 2), st.floats(0, 16))
def test_alike_inputs_have_the_formula_of_the_chapter(keep, mean, pull):
    ones = 1 + pull
    expected = ones / ((1 + (1 - keep) * mean**2) / keep + pull)
    assert scatter.alike(keep, mean, pull) == pytest.approx(expected, rel=16 * EPS, abs=0)


@pytest.mark.parametrize(
    ("mean", "pull", "inputs"), [(0, 0, 17), (1, 4, 17), (2, 4, 17), (1, 1.5, 3)]
)
def test_the_measured_shift_is_the_predicted_one(mean, pull, inputs):
    found = scatter.measured_shift(0.4, mean, pull, inputs)
    expected = (variance_shift.direct(0.4, mean, 1.0), scatter.alike(0.4, mean, pull, inputs))
    np.testing.assert_allclose(found, expected, rtol=0.06)


def normal(count, pixels=1):
    return np.random.default_rng(1).normal(size=(count, 2, pixels))


def test_the_share_of_noise_among_normal_values_is_the_exact_one():
    found = scatter.share_of_noise(normal(2000), 8)
    assert found == pytest.approx(scatter.exact_share(8), rel=0.1)
    moved = scatter.share_of_noise(3 * normal(2000) + 5, 8)
    assert moved == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("m", [4, 16, 128])
def test_the_exact_share_is_what_the_signal_lacks(m):
    """The mean square is 1 in every batch, so noise and mean outputs add up to it."""
    z, step = np.linspace(-7, 7, 57, retstep=True)
    weight = step * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    signal = sum(
        w * GaussianOutput(float(one), m).moments()[0] ** 2
        for one, w in zip(z, weight, strict=True)
    )
    assert scatter.exact_share(m) == pytest.approx(1 - signal, abs=1e-5)


def test_independent_pixels_count_as_examples():
    """Of the mP values of a batch the P of the example itself stay the same."""
    few, many = (scatter.share_of_noise(normal(1000, pixels), 4) for pixels in (8, 32))
    assert few == pytest.approx(3 / (2 * 4 * 8) * 3 / 4, rel=0.1)
    assert many == pytest.approx(3 / (2 * 4 * 32) * 3 / 4, rel=0.1)


@given(st.integers(0, 10**6), st.integers(2, 8))
def test_the_mean_of_a_batch_of_images_scatters_by_what_lies_between_them(seed, m):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(9, 1, 5)) + rng.normal(size=(9, 1, 1))
    means = values.mean(axis=2)[:, 0]
    share = scatter.between_images(values)
    expected = share * values.var() * mean_variance(m, 1.0, 9)
    assert mean_variance(m, means.var(), 9) == pytest.approx(expected, rel=64 * EPS)


def test_masks_that_keep_all_bring_no_noise_and_others_bring_some():
    rng = np.random.default_rng(0)
    inputs, weight = rng.normal(size=(40, 12)), rng.normal(size=(5, 12))
    assert scatter.noise_of_masks(inputs, weight, 1.0, 8) < 1e-12
    half, most = (scatter.noise_of_masks(inputs, weight, keep, 8) for keep in (0.5, 0.9))
    assert 0 < most < half


def test_what_first_reaches_a_batch_norm():
    """A convolution sees each image at 64 places, a dense layer at one."""
    found = scatter.first_layers()
    assert found["dense"].shape[2] == 1
    assert found["convolution"].shape[2] == 64
    dense = networks.mlp(experiments.WIDTHS, "relu", "batch", seed=0).linear1
    kernels = next(networks.residual(1, 16, "batch", seed=0).parameters())
    with torch.no_grad():
        rows = dense(data.digits(0).x_train)[:, :, None]
        maps = conv2d(data.digit_images(seed=0).x_train, kernels, padding=1).flatten(2)
    for name, expected in (("dense", rows), ("convolution", maps)):
        rounding = 64 * SINGLE * expected.abs().max().item()  # sums of 64 terms and fewer
        np.testing.assert_allclose(found[name], expected.numpy(), rtol=0, atol=rounding)
    shares = {name: scatter.share_of_noise(values, 16, 200, 20) for name, values in found.items()}
    assert shares["dense"] == pytest.approx(0.086, rel=0.2)
    assert shares["convolution"] < 3 / (2 * 16 * 64)
    assert round(scatter.between_images(found["convolution"]), 4) == 0.0075
