"""The causes of harm: formulas against integrals and draws, and measurements against formulas."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn.functional import cross_entropy

from bncore.chapters.practice.small_batches import causes
from bncore.lab import data, networks


def test_the_noise_of_a_batch_of_two_is_two_thirds():
    z, weights = np.polynomial.hermite_e.hermegauss(60)
    signal = weights @ (2 * stats.norm.cdf(z) - 1) ** 2 / weights.sum()
    assert causes.predicted(2).noise == pytest.approx(1 - signal, abs=1e-9)


@pytest.mark.parametrize("m", [4, 8])
def test_the_noise_is_that_of_normal_draws(m):
    rng = np.random.default_rng(m)
    z = rng.normal(size=(300, 1))
    batches = rng.normal(size=(300, 400, m))
    batches[:, :, 0] = z
    out = (z - batches.mean(2)) / batches.std(2)
    share = out.var(axis=1, ddof=1)
    spread = 4 * share.std() / 300**0.5
    # Of the mean square, which is 1 over random examples.
    assert abs(share.mean() - causes.predicted(m).noise) < spread + 0.02


@pytest.mark.parametrize("m", causes.SIZES)
def test_what_is_measured_is_near_the_formulas(m):
    found, expected = causes.measured(m), causes.predicted(m)
    assert found.noise == pytest.approx(expected.noise, rel=0.1)
    # Gradients behind a ReLU are not alike in all directions, and draws are without replacement.
    assert 0.6 * expected.stopped < found.stopped < 1.6 * expected.stopped
    assert 0.6 * expected.off < found.off < 1.3 * expected.off


def test_the_running_mean_wanders_as_its_formula_says():
    rng, m = np.random.default_rng(0), 4
    running, squares = np.zeros(2000), []
    for count in range(150):
        running += causes.MOMENTUM * (rng.normal(size=(2000, m)).mean(1) - running)
        squares += [np.mean(running**2)] * (count > 80)
    assert np.mean(squares) ** 0.5 == pytest.approx(causes.predicted(m).off, rel=0.05)


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 0.1])
def test_a_pair_passes_its_gradient_in_bursts_and_in_the_mean_as_much_whatever_epsilon(eps):
    """Of u, half the difference of two normal values: at most eps^(-1/2), and 2 / sqrt(pi V)."""
    var = 2.0
    u = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
    pairs = torch.stack([u, -u]).requires_grad_()
    norm = torch.nn.BatchNorm1d(len(u), eps=eps, affine=False).double()
    (slope,) = torch.autograd.grad(norm(pairs)[0].sum(), pairs)
    along = slope[0] - slope[1]
    expected = eps / (u**2 + eps) ** 1.5
    torch.testing.assert_close(along, expected, rtol=1e-6, atol=1e-9)
    assert along.max() == pytest.approx(eps**-0.5)
    density = np.exp(-(u.numpy() ** 2) / var) / np.sqrt(np.pi * var)
    mean = np.trapezoid(along.detach().numpy() * density, u.numpy())
    # The density is level near 0, but for a part of eps.
    assert mean == pytest.approx(2 / np.sqrt(np.pi * var), rel=4 * eps**0.5)


@pytest.mark.parametrize(
    ("eps", "mean", "spread"), [(1e-5, 1.13, 13), (0.1, 1.0, 1.4), (1.0, 0.68, 1.1)]
)
def test_a_large_epsilon_levels_the_bursts_as_the_page_says(eps, mean, spread):
    """Mean of the slope, and its root mean square over that, for pairs of variance 1."""
    u = np.linspace(-12, 12, 2_400_001)
    weights = np.exp(-(u**2)) / np.sqrt(np.pi) * (u[1] - u[0])
    slope = eps / (u**2 + eps) ** 1.5
    found = weights @ slope
    assert round(found, 2) == mean
    assert float(f"{(weights @ slope**2) ** 0.5 / found:.2g}") == spread


def test_centring_alone_leaves_half_of_a_pair_to_its_company():
    """Where epsilon is far above u, x_hat is u / sqrt(eps), and z is half of u = (z - w) / 2."""
    rng = np.random.default_rng(0)
    z, w = rng.normal(size=(500, 1)), rng.normal(size=2000)
    shares = []
    for eps in (1e-5, 1e3):
        u = (z - w) / 2
        out = u / np.sqrt(u**2 + eps)
        shares.append(1 - out.mean(1).var() / out.var())
    np.testing.assert_allclose(shares, [2 / 3, 1 / 2], atol=0.04)


def test_the_first_layer_has_little_gradient_of_most_pairs_and_much_of_few():
    split, found = data.digits(), {}
    for m in (2, 64):
        model = networks.mlp(causes.WIDTHS, "relu", "batch", gain=2**0.5)
        lengths = []
        for x, y in zip(split.x_train.split(m), split.y_train.split(m), strict=True):
            if len(x) == m:
                (slope,) = torch.autograd.grad(cross_entropy(model(x), y), model.linear1.weight)
                lengths.append(slope.norm().item())
        found[m] = np.median(lengths), np.mean(lengths)
    assert found[2][0] < found[64][0] / 2
    assert found[2][1] > 10 * found[64][1]


def test_outputs_are_those_of_batches():
    z, (out,) = causes.outputs(2)
    seen = ~np.isnan(out[:, 0])
    # Two values that are nearly equal feel epsilon.
    assert np.abs(np.abs(out[seen]) - 1).max() < 0.01
    assert len(z) - seen.sum() == len(z) % 2
