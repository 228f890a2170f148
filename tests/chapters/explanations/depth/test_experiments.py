"""The experiments of the chapter on depth, against formulas, other libraries and the record."""

import numpy as np
import pytest
import torch
from torch import nn

from bncore.chapters.explanations.depth import experiments
from bncore.explanations import depth, propagation
from bncore.lab import data


@pytest.mark.parametrize("activation", ["silu", "abs"])
def test_width_only_postpones_unlike_examples(activation):
    narrow, wide = (
        np.mean([experiments.asymmetry(activation, 24, width, 64, seed)[0] for seed in (0, 1)], 0)
        for width in (100, 400)
    )
    assert wide[1] < 0.7 * narrow[1]
    assert (narrow > 0.6).argmax() + 2 < (wide > 0.6).argmax()
    assert wide[-1] > 4 * wide[1]


@pytest.mark.parametrize("activation", ["identity", "tanh", "gelu", "silu"])
def test_the_mean_degree_is_the_growth_rate(activation):
    shares = experiments.variance_by_degree(activation, 60)
    degree = np.arange(1, 61)
    assert shares.sum() == pytest.approx(1, abs=1e-4)
    assert shares @ degree == pytest.approx(depth.growth_rate(activation), rel=5e-3)


def test_degrees_of_relu_in_closed_form():
    """E relu(z) z is a half, and E relu(z) (z^2 - 1) is the density at 0."""
    variance = 0.5 - 0.5 / np.pi
    expected = [0.25 / variance, 1 / (4 * np.pi) / variance]
    np.testing.assert_allclose(experiments.variance_by_degree("relu", 2), expected, rtol=1e-8)


def test_thirty_relu_layers_leave_a_ten_thousandth_of_small_differences_of_angles():
    """A layer multiplies them by the share of degree 1, (E φ')^2 / Var φ."""
    share = experiments.variance_by_degree("relu", 1).item()
    assert round(share, 2) == 0.73
    assert round(1e4 * share**30) == 1


@pytest.mark.parametrize(("activation", "seeds"), [("relu", 3), ("gelu", 3), ("identity", 3)])
def test_so_do_they_live(activation, seeds):
    measured = experiments.measured_rates(activation, 512, 64, 24, seeds).mean()
    assert measured == pytest.approx(depth.growth_rate(activation, 64), rel=0.02)


def test_a_wrong_prediction_would_be_noticed():
    measured = experiments.measured_rates("relu", 512, 64, 24, 2).mean()
    for wrong in (depth.growth_rate("relu") ** 0.5, depth.growth_rate("relu", 16), 62 / 61):
        assert abs(measured / wrong - 1) > 0.05


def test_weight_gradients_are_width_times_variance_times_signal_gradients():
    norms = experiments.gradients("tanh", 12, 400, 32, 0)
    factor = 400 * depth.batch_variance("tanh", 32)
    np.testing.assert_allclose((norms.weights / norms.signals)[2:], factor, rtol=0.03)


def test_what_the_chapter_predicts_for_relu():
    """Batches of 8; and batches of 64, from the last block to the first, with skips and without."""
    assert round(depth.growth_rate("relu", 8), 3) == 1.788
    rate, variance = depth.growth_rate("relu", 64), depth.batch_variance("relu", 64)
    for blocks, residual, decades in ((60, 59, np.log10(2e10)), (1000, 4000, 174)):
        grown = depth.residual_growth(rate, blocks, 1 / variance)[1]
        assert grown == pytest.approx(residual, rel=0.1)
        assert (blocks - 1) * np.log10(rate) == pytest.approx(decades, abs=0.1)


@pytest.mark.parametrize(("layers", "least", "most"), [(30, 10**4.5, 10**5.5), (60, 1e10, 1e11)])
def test_the_gradients_of_networks_that_train_and_of_those_that_do_not(layers, least, most):
    for seed in range(3):
        assert least < experiments.dynamic_range(layers, 0.1, seed)[0] < most


def test_a_residual_network_follows_the_power_law():
    runs = [experiments.gradients("tanh", 40, 256, 32, seed, skip=True).weights for seed in (0, 1)]
    measured = np.exp(np.mean(np.log(runs), axis=0))
    rate, variance = depth.growth_rate("tanh", 32), depth.batch_variance("tanh", 32)
    predicted = depth.residual_growth(rate, 40, 1 / variance)[1:]
    np.testing.assert_allclose(measured / measured[-1], predicted, rtol=0.25)
    assert measured[0] / measured[-1] < 30 < rate**39


@pytest.mark.parametrize(("activation", "variance"), [("tanh", 1.0), ("tanh", 4.0), ("relu", 0.8)])
def test_without_batch_norm_gradients_follow_the_mean_field(activation, variance):
    runs = [
        experiments.gradients(
            activation, 16, 256, 32, seed, normalization=None, gain=variance**0.5
        ).signals
        for seed in range(3)
    ]
    measured = np.exp(np.mean(np.log(runs), axis=0))
    growth = propagation.propagate(activation, variance, 16, variance**2).growth
    np.testing.assert_allclose(measured[:-1] / measured[1:], growth[:-1], rtol=0.07)


def test_tanh_keeps_its_examples_alike_and_the_absolute_value_does_not():
    for activation, grows in (("tanh", False), ("abs", True)):
        spread, growth, expected = experiments.asymmetry(activation, 30, 256, 64, 0)
        assert spread.shape == (30,)
        assert growth.shape == expected.shape == (29,)
        assert (spread[-1] > 5 * spread[1]) == grows


@pytest.mark.parametrize("activation", ["abs", "silu", "softplus"])
def test_the_forward_pass_tells_the_error_of_unlike_examples(activation):
    cases = [experiments.asymmetry(activation, 30, 256, 64, seed) for seed in range(3)]
    growth, expected = (np.mean([np.log(case[i][1:]).mean() for case in cases]) for i in (1, 2))
    assert abs(growth - expected) < 0.02 < abs(growth - np.log(depth.growth_rate(activation, 64)))


def test_the_weights_of_the_forward_pass_are_not_fresh():
    """In a linear network gradients shrink towards the input in the early layers, and grow late."""
    cases = [experiments.asymmetry("identity", 30, 256, 64, seed) for seed in range(3)]
    growth, expected = (np.mean([np.log(case[i]) for case in cases], axis=0) for i in (1, 2))
    assert growth[1:8].mean() < -0.01 < 0.01 < growth[-7:].mean()
    assert (expected > growth)[1:].mean() > 0.9
    assert expected[1:].mean() - growth[1:].mean() > 0.03


def test_what_a_layer_of_a_linear_network_hands_down():
    """x' dl/dx below a layer is h' dl/dh, and with the identity that of the layer but for a part."""
    rng = torch.Generator().manual_seed(0)
    x, weight, top = (
        torch.randn(*shape, generator=rng, dtype=torch.float64, requires_grad=True)
        for shape in ((6, 9), (9, 9), (6, 9))
    )
    x = (x - x.mean(0)).detach().requires_grad_()
    h = x @ weight.T
    y = (h - h.mean(0)) / h.std(0, correction=0)
    dx, dh, dy = torch.autograd.grad((y.tanh() * top).sum(), [x, h, y])
    torch.testing.assert_close(x @ dx.T, h @ dh.T)
    along = (y * dy).sum(0)
    handed = y @ (dy - dy.mean(0)).T - (along * y) @ y.T / len(y)
    torch.testing.assert_close(h @ dh.T, handed)


@pytest.mark.parametrize("activation", ["tanh", "abs", "silu", "identity", "softplus", "gelu"])
def test_small_deviations_of_one_example_follow_the_theory(activation):
    found = experiments.deviation_multiplier(activation, 0.02, units=50_000)
    assert found == pytest.approx(depth.symmetry_multiplier(activation, 64), abs=0.02)


def test_a_large_deviation_in_closed_form():
    """In a large batch abs maps the squared distance s^2 to s^2 - (4 s - 2) / pi."""
    found = experiments.deviation_multiplier("abs", 4, batch_size=800, units=6000)
    ratio = (5 - (4 * 5**0.5 - 2) / np.pi) / (1 - 2 / np.pi)
    assert found == pytest.approx((ratio - 1) / 4, rel=0.03)


def test_orthogonal_weights_bring_a_linear_network_to_the_bound():
    for batch_size in (8, 64):
        measured = experiments.orthogonal_rates(128, batch_size, 20, 3).mean()
        assert measured - 1 == pytest.approx(1 / (batch_size - 3), rel=0.2)


def test_large_deviations_grow_with_the_absolute_value():
    assert depth.symmetry_multiplier("abs", 64) < 1
    for seed in range(3):
        small, large = (
            experiments.deviation_multiplier("abs", d, units=20_000, seed=seed) for d in (0.02, 4)
        )
        assert small < 1 < 1.3 < large


def test_what_is_left_of_the_geometry_of_the_digits():
    for seed in range(3):
        plain, norm, residual = (
            experiments.geometry(kind, 30, 64, seed) for kind in experiments.KINDS
        )
        assert norm[0] < 0.4 < 0.9 < residual[0] < plain[0]
        assert abs(norm[1]) < 0.02 < 0.1 < min(plain[1], residual[1])


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_first_batch_norm_divides_by_the_variance_and_each_further_one_explodes(scale):
    none, one, eleven = (
        np.mean([experiments.stacked(n, 14, 256, 64, seed, scale)[0] for seed in range(3)])
        for n in (0, 1, 11)
    )
    assert one / none == pytest.approx(1 / scale**2, rel=0.25)
    assert (eleven / one) ** 0.1 == pytest.approx(depth.growth_rate("relu", 64), rel=0.04)


@pytest.mark.parametrize("layers", [16, 40, 80])
def test_a_step_that_is_long_beside_the_weights_evens_out_the_gradients(layers):
    before, after, _ = experiments.dynamic_range(layers, 10.0, 0)
    assert after < before / 10


def test_a_step_that_is_short_beside_the_weights_leaves_the_gradients():
    before, after, _ = experiments.dynamic_range(16, 1e-5, 0)
    assert after == pytest.approx(before, rel=0.05)


def test_a_step_is_as_long_beside_the_weights_as_it_should_be():
    rate = experiments.dynamic_range(12, 3.0, 1)[2]
    model = experiments.classifier("batch norm", 12, 64, 1)
    old = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    split = data.digits()
    nn.functional.cross_entropy(model(split.x_train[:64]), split.y_train[:64]).backward()
    torch.optim.SGD(model.parameters(), lr=rate).step()
    steps = [
        ((weight - old[name]).norm() / old[name].norm()).item()
        for name, weight in model.named_parameters()
        if name.endswith("linear1.weight")
    ]
    assert len(steps) == 12
    assert max(steps) == pytest.approx(3.0, rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_units_with_two_values_stay_so_and_their_gradients_follow_from_the_two(seed):
    """A layer multiplies squared gradients by (slope / half the step)^2 at 1 and -1, as both are alike."""
    decades, values = experiments.two_valued("batch", seed, layers=20, width=64, batch_size=4000)
    assert np.abs(np.abs(values - values.mean(axis=0)) - 1).max() < 0.1
    assert all(len(np.unique(np.round(unit, 3))) == 2 for unit in values.T)
    high = 1 / (1 + np.exp(-1.0))
    slope, step = high * (1 - high), (2 * high - 1) / 2
    assert decades / 18 == pytest.approx(np.log10((slope / step) ** 2), rel=0.05)
