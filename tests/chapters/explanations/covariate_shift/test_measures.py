"""What is measured in the networks of the chapter on covariate shift."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.chapters.explanations.covariate_shift import experiments, measures
from bncore.explanations.noisy_batch_norm import NoisyBatchNorm
from bncore.lab import networks

SINGLE = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize("move", [0.001, 0.1])
def test_the_rate_for_a_move_moves_the_parameters_so_far(move):
    model = networks.mlp([64, 16, 10], "relu", "batch")
    x, y = torch.randn(32, 64), torch.arange(32) % 10
    kept = copy.deepcopy(model.state_dict())
    rate = measures.rate_for(model, cross_entropy, x, y, move)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    start = nn.utils.parameters_to_vector(model.parameters()).detach()
    cross_entropy(model(x), y).backward()
    torch.optim.SGD(model.parameters(), rate).step()
    end = nn.utils.parameters_to_vector(model.parameters()).detach()
    rounding = 8 * SINGLE / move  # A short move is the difference of rounded weights.
    assert ((end - start).norm() / start.norm()).item() == pytest.approx(move, rel=rounding, abs=0)


def test_what_is_measured_has_the_layers_of_the_network(measured):
    for found in measured.values():
        assert found.losses.shape == (6,)
        for values in (found.norm, found.relative, found.cosine):
            assert values.shape == (2, 3, 10)
        assert found.other_batch.shape == (2, 10)
        assert found.drift.shape == (2, 9)
        np.testing.assert_array_equal(found.norm[..., 0], 0)
        # Training and common learning rate are the same here, a move is another step.
        np.testing.assert_array_equal(found.norm[:, 0], found.norm[:, 1])
        assert (found.norm[:, 2, 1:] != found.norm[:, 0, 1:]).any()


def test_percentiles_are_those_of_the_inputs_that_pytorch_sees():
    task = experiments.vgg(2, 8, 5)
    found = measures.percentiles(task, "batch norm", 0.03, 0, 2)
    assert found.shape == (3, 9, 3)
    model, split = task.network("batch", 0), task.split(0)
    seen = []
    relu = next(module for module in model.modules() if isinstance(module, nn.ReLU))
    relu.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0]))
    model(split.x_train[: measures.PROBED])
    values = seen[0][:, 0].detach().numpy().ravel()
    rounding = 16 * SINGLE * np.abs(values).max()
    np.testing.assert_allclose(
        found[0, 0], np.percentile(values, measures.QUANTILES), rtol=0, atol=rounding
    )


def test_the_noise_moves_distributions_that_batch_norm_holds(measured):
    assert (measured["batch norm"].drift < 0.1).all()
    assert (measured["noisy batch norm"].drift > 0.1).all()


def test_measuring_does_not_change_the_run(measured):
    task = experiments.vgg(2, 8, 6)
    for name, found in measured.items():
        model, split, history = experiments.train(task, name, 0.03, 0)
        np.testing.assert_array_equal(history.losses, found.losses)
        torch.rand(1)  # another state outside must not matter
        assert measures.accuracies(model, split) == found.accuracies


def test_a_run_that_diverges_is_measured_as_nan():
    task = experiments.linear(16, 12, depth=8)
    found = measures.measure(task, "no batch norm", 10.0, 0, [0, 11], 0.01, 0.01, drift=False)
    assert np.isfinite(found.norm[0, 1:]).all()
    assert np.isnan(found.norm[1]).all()


def test_the_distance_of_a_step_is_kolmogorovs_averaged_over_units(monkeypatch):
    before, rng = np.arange(10.0), np.random.default_rng(0)
    first = np.stack([before, before], axis=1), np.stack([before, before + 3], axis=1)
    second = rng.normal(size=(40, 1)).round(1), rng.normal(1, 2, size=(40, 1)).round(1)
    around = [list(pair) for pair in zip(first, second, strict=True)]
    monkeypatch.setattr(measures, "_around_step", lambda *which: around)
    known = [0.15, stats.ks_2samp(*(one.ravel() for one in second)).statistic]
    assert measures.distance_of_step(None, None) == pytest.approx(known, rel=1e-12)
    halved = measures.distance_of_step(None, None, sample=20)[1]
    assert halved == pytest.approx(
        stats.ks_2samp(*(one.ravel()[::2] for one in second)).statistic, rel=1e-12
    )


def test_another_draw_changes_the_gradient_only_where_there_is_noise(monkeypatch):
    task = experiments.vgg(2, 8, 1)
    state = torch.get_rng_state()
    found = measures.other_draw(task)
    assert found > 0.1
    assert torch.equal(torch.get_rng_state(), state)
    # Relative: no matter in what units the loss is. A power of two changes no digit.
    longer = task._replace(loss=lambda outputs, targets: 4 * cross_entropy(outputs, targets))
    assert measures.other_draw(longer) == pytest.approx(found, rel=64 * SINGLE, abs=0)
    still = partial(NoisyBatchNorm, shift=0.0, stretch=1.0, jitter=0.0)
    monkeypatch.setattr(measures, "NoisyBatchNorm", still)
    assert measures.other_draw(task) == 0
