"""The noise has the moments that it says."""

import numpy as np
import pytest
import torch
from torch import nn

from bncore.explanations.noisy_batch_norm import NoisyBatchNorm


def noisy(shape, **strengths):
    torch.manual_seed(0)
    layer = NoisyBatchNorm(shape[1], **strengths)
    return layer, torch.randn(shape) * 3 + 5


def error_of_variance(values):
    return ((values - values.mean()) ** 2).std().item() / values.numel() ** 0.5


@pytest.mark.parametrize("shape", [(4000, 3), (500, 3, 8), (100, 3, 8, 5)])
def test_the_noise_has_the_moments_that_it_says(shape):
    layer, x = noisy(shape, shift=0.5, stretch=1.25, jitter=0.1)
    axes = [0, *range(2, len(shape))]
    means, deviations = [], []
    for _ in range(400):
        y = layer(x).detach()
        means.append(y.mean(axes))
        deviations.append(y.std(axes))
    means, deviations = torch.stack(means), torch.stack(deviations)
    # The mean of a batch is that of its feature's noise: uniform on (-0.5, 0.5).
    assert means.abs().max() < 0.52
    assert means.abs().max(0).values.min() > 0.45
    # Of 1200 uniform numbers the deviation has the standard error (0.8 / 4 / 1200)^(1/2).
    np.testing.assert_allclose(means.std(), 0.5 / 3**0.5, rtol=4 * (0.2 / 1200) ** 0.5)
    # var = (scale^2 + jitter^2) + jitter^2 / 3, with scale uniform on (1, 1.25).
    spread = deviations**2 - 0.1**2 * (1 + 1 / 3)
    assert 0.95 < spread.min() < spread.max() < 1.25**2 * 1.05
    error = (spread.std() / 1200**0.5).item()
    np.testing.assert_allclose(spread.mean(), (1.25**3 - 1) / 0.75, rtol=0, atol=5 * error)
    # Features and steps are disturbed independently.
    assert np.abs(np.corrcoef(means.numpy().T) - np.eye(3)).max() < 4 / 400**0.5
    assert abs(np.corrcoef(means[1:, 0], means[:-1, 0])[0, 1]) < 4 / 400**0.5


def test_single_values_stray_from_the_noise_of_their_feature():
    layer, _ = noisy((2, 1), shift=0, stretch=1, jitter=1)
    m = layer(torch.zeros(20000, 1)).detach()
    assert 0.99 < m.abs().max() <= 1
    assert m.var().item() == pytest.approx(1 / 3, abs=5 * error_of_variance(m))
    signs = torch.tensor([[1.0], [-1.0]]).repeat(10000, 1)
    s = (layer(signs) * signs).detach()
    assert s.mean().item() == pytest.approx(1, abs=5 * s.std().item() / 20000**0.5)
    assert s.var().item() == pytest.approx(1 + 1 / 3, abs=5 * error_of_variance(s))


def test_the_noise_is_absent_in_evaluation_and_when_its_strengths_are_none():
    layer, x = noisy((64, 3))
    plain = nn.BatchNorm1d(3)
    plain(x), layer(x)
    assert torch.equal(layer.eval()(x), plain.eval()(x))
    quiet, x = noisy((64, 3), shift=0, stretch=1, jitter=0)
    assert torch.equal(quiet(x), nn.BatchNorm1d(3)(x))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_features": 0}, ValueError, "num_features is 0, expected at least 1"),
        ({"num_features": 2.5}, TypeError, "num_features is a float"),
        ({"shift": -1}, ValueError, "shift is -1"),
        ({"stretch": 0.5}, ValueError, "stretch is 0.5, expected at least 1"),
        ({"stretch": 0}, ValueError, "stretch is 0"),
        ({"jitter": "a"}, TypeError, "jitter is a str"),
    ],
)
def test_noise_that_cannot_be_is_refused(unchecked, arguments, error, message):
    with pytest.raises(error, match=message):
        NoisyBatchNorm(**{"num_features": 3, **arguments})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((4, 3)), TypeError, "x is a ndarray, expected a tensor"),
        (
            torch.zeros(3),
            ValueError,
            r"x has shape \(3,\), expected \(batch, features, \*spatial\)",
        ),
        (torch.zeros(4, 2), ValueError, "x has 2 features on axis 1, expected 3, those of"),
        (torch.zeros(1, 3), ValueError, "1 values of each feature, expected at least 2"),
        (torch.zeros(0, 3), ValueError, "0 values of each feature, expected at least 2"),
        (torch.zeros(4, 3).long(), TypeError, "x has dtype torch.int64, expected torch.float32"),
        (torch.zeros(4, 3).double(), TypeError, "dtype torch.float64, expected torch.float32"),
    ],
)
def test_noise_needs_a_batch_that_fits(unchecked, x, error, message):
    with pytest.raises(error, match=message):
        NoisyBatchNorm(3)(x)


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("other", DTYPES)
@pytest.mark.parametrize("own", DTYPES)
def test_noise_takes_the_dtypes_that_torch_mixes(unchecked, own, other, training):
    layer, x = NoisyBatchNorm(3).to(own).train(training), torch.ones(4, 3, dtype=other)
    if own == other or (own == torch.float32 and other in DTYPES[:2]):
        assert layer(x).dtype == other
    else:
        with pytest.raises(TypeError, match=f"x has dtype {other}, expected {own}, that of the"):
            layer(x)


def test_noise_takes_one_example_where_nothing_is_learned():
    assert NoisyBatchNorm(3).eval()(torch.ones(1, 3)).shape == (1, 3)
