"""The experiments of the chapter on backward, against formulas, other libraries and the record."""

import numpy as np
import pytest

from bncore.chapters.mechanics.backward import experiments, figures

EPS, SINGLE = (float(np.finfo(kind).eps) for kind in (np.float64, np.float32))


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_the_bias_drifts_on_a_line_unless_the_gradient_or_a_shift_takes_the_level(rate):
    path, losses = experiments.drifting_bias(50, rate, seen=False)
    # In each of 50 steps sums of 16 terms, of the size of the bias.
    rounding = 50 * 16 * EPS * np.abs(path).max()
    np.testing.assert_allclose(path, path[1] * np.arange(50), rtol=0, atol=rounding)
    np.testing.assert_allclose(losses, losses[0], rtol=rounding)
    stays, _ = experiments.drifting_bias(50, rate, seen=True)
    np.testing.assert_allclose(stays, 0, atol=50 * 16 * EPS)
    settles, _ = experiments.drifting_bias(50, rate, seen=False, output_bias=True)
    limit = path[1] / rate
    expected = limit * (1 - (1 - rate) ** np.arange(50))
    np.testing.assert_allclose(settles, expected, rtol=0, atol=rounding)


def test_behind_a_relu_a_trained_shift_settles_and_the_bias_drifts_on():
    path, losses = experiments.drifting_bias(1000, seen=False, output_bias=True, relu=True)
    rng = np.random.default_rng(8)
    u, target = rng.normal(size=16), rng.normal(1.0, 1.0, size=16)
    x_hat = u - u.mean()
    error = np.maximum(x_hat, 0) - target
    error -= error.mean()
    rounding = 1000 * 16 * EPS * np.abs(path).max()
    drift = -0.1 * error[x_hat > 0].sum() / 16
    np.testing.assert_allclose(path[-1] - path[-2], drift, rtol=0, atol=rounding)
    np.testing.assert_allclose(losses[-1], (error**2).mean() / 2, rtol=rounding)


def test_a_division_by_the_deviation_multiplies_the_drift():
    plain, _ = experiments.drifting_bias(2, seen=False, factor=0.1)
    divided, _ = experiments.drifting_bias(2, seen=False, factor=0.1, divide=True)
    u = 0.1 * np.random.default_rng(8).normal(size=16)
    np.testing.assert_allclose(divided[1], plain[1] / u.std(), rtol=16 / 0.1 * EPS)


def test_the_shares_on_digits_sum_to_one_and_a_batch_of_two_keeps_nothing():
    shares = experiments.shares_on_digits([2, 8], seed=0, steps=2)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=8 * EPS)
    # A batch of two keeps nothing but the share of eps, squared, and rounding in float32.
    assert shares[0, 2] < 64 * SINGLE < 0.01 < shares[1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_large_batches_lose_more_than_by_chance_and_less_after_training(seed):
    (fresh,), (trained,) = (experiments.shares_on_digits([256], seed, k) for k in (0, 200))
    assert fresh[2] < trained[2] < 1 - 2 / 256
    assert (trained[:2] < fresh[:2]).all()
    assert (fresh[:2] > 1 / 256).all()


@pytest.mark.parametrize("seed", range(5))
def test_small_batches_keep_more_than_by_chance_in_a_fresh_network_and_large_ones_less(seed):
    kept = experiments.shares_on_digits([4, 8, 128, 256], seed, 0)[:, 2]
    assert kept[0] > 1 - 2 / 4
    assert kept[1] > 1 - 2 / 8
    assert kept[2] < 1 - 2 / 128
    assert kept[3] < 1 - 2 / 256


def test_the_gradients_at_the_nodes_are_named_in_the_order_of_the_figure():
    x, dy = np.random.default_rng(0).normal(size=(2, 6, 1))
    found = experiments.at_nodes(x, dy, np.array([1.5]), np.array([0.5]))
    assert list(found) == figures.STEPS[1:]
    s = np.sqrt(x.var() + 1e-5)
    x_hat = (x - x.mean()) / s
    expected = {
        "∂ℓ/∂y": dy,
        "∂ℓ/∂β": dy.sum(),
        "∂ℓ/∂γ": (dy * x_hat).sum(),
        "∂ℓ/∂x̂": 1.5 * dy,
        "∂ℓ/∂σ²": -0.75 / s**2 * (dy * x_hat).sum(),
        "∂ℓ/∂μ": -1.5 / s * dy.sum(),
        "∂ℓ/∂x": 1.5 / s * (dy - dy.mean() - x_hat * (dy * x_hat).mean()),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].squeeze(), np.squeeze(value), rtol=0, atol=256 * EPS)


@pytest.mark.parametrize("seed", range(3))
def test_hiding_the_mean_lengthens_the_weights_along_the_mean_image(seed):
    plain_losses, plain, off_mean = experiments.hidden_on_digits((), seed)
    losses, blind, towards_mean = experiments.hidden_on_digits(("mean",), seed)
    assert losses.shape == (300,)
    assert losses[-15:].mean() > 2 * plain_losses[-15:].mean()
    assert blind[0] == pytest.approx(plain[0], rel=64 * SINGLE, abs=0)
    assert blind[-1] > 2 * plain[-1]
    assert 0.7 < towards_mean < 0.8
    assert 0.015 < off_mean < 0.025


def test_numerical_derivatives_err_as_predicted():
    steps = np.array([1e-12, 1e-9, 1e-5, 1e-4, 1e-3])
    errors, predicted = experiments.difference_errors(steps)
    for name in ("forward", "central"):
        assert (errors[name] < 10 * predicted[name]).all()
    np.testing.assert_allclose(errors["forward"][2:], predicted["forward"][2:], rtol=0.02)
    np.testing.assert_allclose(errors["central"][3:], predicted["central"][3:], rtol=0.02)
    assert errors["complex step"][0] < 24 * EPS  # a sum of 24 terms


def test_the_loss_with_hidden_statistics_is_the_mean_of_the_last_steps():
    losses, lengths, _ = experiments.hidden_on_digits(("mean",), 0, steps=20, learning_rate=0.1)
    found = experiments.loss_with_hidden("mean", 20, 0.1, 0)
    assert found == {"loss": losses[5:].mean(), "growth": lengths[-1] / lengths[0]}
    assert found != experiments.loss_with_hidden("nothing", 20, 0.1, 0)
