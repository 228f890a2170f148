"""The experiments of the chapter on covariate shift, against formulas, other libraries and the record."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.chapters.explanations.covariate_shift import (
    experiments,
)
from bncore.explanations.noisy_batch_norm import NoisyBatchNorm
from bncore.lab import data, networks, training

EPS, SINGLE = (float(np.finfo(kind).eps) for kind in (np.float64, np.float32))


@pytest.mark.parametrize("move", [0.001, 0.1])
def test_the_rate_for_a_move_moves_the_parameters_so_far(move):
    model = networks.mlp([64, 16, 10], "relu", "batch")
    x, y = torch.randn(32, 64), torch.arange(32) % 10
    kept = copy.deepcopy(model.state_dict())
    rate = experiments.rate_for(model, cross_entropy, x, y, move)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    start = nn.utils.parameters_to_vector(model.parameters()).detach()
    cross_entropy(model(x), y).backward()
    torch.optim.SGD(model.parameters(), rate).step()
    end = nn.utils.parameters_to_vector(model.parameters()).detach()
    rounding = 8 * SINGLE / move  # A short move is the difference of rounded weights.
    assert ((end - start).norm() / start.norm()).item() == pytest.approx(move, rel=rounding, abs=0)


def test_standardized_images_have_mean_0_and_variance_1():
    split = experiments.vgg(2, 8, 1).split(0)
    values = split.x_train.double()
    assert abs(values.mean().item()) < SINGLE
    assert values.std().item() == pytest.approx(1, rel=SINGLE, abs=0)
    assert abs(split.x_test.mean().item()) < 0.1


def test_the_best_rate_is_chosen_and_divergence_is_not():
    task = experiments.linear(8, 20, depth=3, examples=32)
    rate, losses = experiments.choose(task, "no batch norm", [1e-4, 0.05, 1e4], [0, 1])
    assert losses.shape == (3, 2, 20)
    assert not np.isfinite(losses[2]).all()
    assert losses[1, :, -1].mean() < losses[0, :, -1].mean()
    assert rate == 0.05


def test_losses_are_smoothed_and_timed():
    losses = np.array([[4.0, 2.0, 1.0, 1.0, 0.0], [4.0, 4.0, 4.0, 4.0, 4.0]])
    np.testing.assert_array_equal(experiments.smoothed(losses, 2), [[3, 1], [4, 4]])
    np.testing.assert_array_equal(experiments.steps_to(losses, 1.5, 10), [30, np.inf])


def test_values_are_read_off_where_a_run_passes_a_loss():
    # Losses e^0, e^-1, ... a window; the first run comes back up once, which does not count.
    losses = np.exp(-np.array([[0.0, 1.0, 0.5, 3.0], [0.0, 2.0, 4.0, 6.0]]))
    values = np.array([[0.0, 10.0, 20.0, 30.0], [0.0, 10.0, 20.0, 30.0]])
    found = experiments.at_loss(np.exp(-2.0), losses, [0, 5, 10, 19], values)
    np.testing.assert_allclose(found, [25.0, 10.0], rtol=16 * EPS)


@pytest.mark.parametrize("strength", [1, 4])
def test_stronger_noise_is_the_usual_noise_times_so_much(strength):
    layer, usual = experiments.noisier(strength)(3), NoisyBatchNorm(3)
    assert layer.shift == strength * usual.shift
    rounding = 16 * EPS * strength
    assert layer.stretch - 1 == pytest.approx(strength * (usual.stretch - 1), abs=rounding)
    assert layer.jitter == pytest.approx(strength * usual.jitter, abs=rounding)


def test_moved_distributions_are_those_of_plain_batch_norm_where_nothing_moves():
    found = experiments.moved(0, seeds=[3], steps=12, rate=0.1)
    model = networks.mlp([64, 32, 32, 32, 32, 10], "relu", "batch", gain=2**0.5, seed=3)
    losses = training.train(model, data.digits(3), 12, 64, 0.1, 3).losses
    np.testing.assert_allclose(found, losses[-10:].mean(), rtol=64 * SINGLE)  # sums of 64 terms
    assert abs(experiments.moved(2, seeds=[3], steps=12, rate=0.1) / found - 1) > 0.01


def test_numbers_are_rounded_to_significant_digits():
    values = experiments.rounded(np.array([[1234.5, 0.012345], [np.nan, np.inf]]))
    assert values[0] == [1230.0, 0.0123]
    assert np.isnan(values[1][0])
    assert np.isinf(values[1][1])


def test_what_is_measured_has_the_layers_of_the_network(measured):
    for found in measured.values():
        assert found.losses.shape == (6,)
        for values in (found.norm, found.relative, found.cosine):
            assert values.shape == (2, 3, 10)
        assert found.other_batch.shape == (2, 10)
        assert found.drift.shape == (2, 9)
        assert found.percentiles.shape == (2, 9, 3)
        np.testing.assert_array_equal(found.norm[..., 0], 0)
        # Training and common learning rate are the same here, a move is another step.
        np.testing.assert_array_equal(found.norm[:, 0], found.norm[:, 1])
        assert (found.norm[:, 2, 1:] != found.norm[:, 0, 1:]).any()
        # Percentiles are interpolated in float32.
        rounding = 4 * SINGLE * np.abs(found.percentiles).max()
        assert (np.diff(found.percentiles, axis=-1) >= -rounding).all()


def test_the_noise_moves_distributions_that_batch_norm_holds(measured):
    assert (measured["batch norm"].drift < 0.1).all()
    assert (measured["noisy batch norm"].drift > 0.1).all()


def test_measuring_does_not_change_the_run(measured):
    task = experiments.vgg(2, 8, 6)
    for name, found in measured.items():
        model, split, history = experiments.train(task, name, 0.03, 0)
        np.testing.assert_array_equal(history.losses, found.losses)
        torch.rand(1)  # another state outside must not matter
        assert experiments._accuracies(model, split) == found.accuracies


def test_a_run_that_diverges_is_measured_as_nan():
    task = experiments.linear(16, 12, depth=8)
    found = experiments.measure(task, "no batch norm", 10.0, 0, [0, 11], 0.01, 0.01, drift=False)
    assert np.isfinite(found.norm[0, 1:]).all()
    assert np.isnan(found.norm[1]).all()


@pytest.mark.parametrize(
    ("source", "size", "message"),
    [
        ("cifar10", 28, "size is 28, expected 32, that of the images of cifar10"),
        ("mnist", 32, "size is 32, expected 28, that of the images of mnist"),
        ("letters", 32, "source is 'letters', expected 'digits', 'mnist' or 'cifar10'"),
    ],
)
def test_images_that_a_set_does_not_have_are_refused(source, size, message):
    with pytest.raises(ValueError, match=message):
        experiments.vgg(2, size, 1, source=source)
