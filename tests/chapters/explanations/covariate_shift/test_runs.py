"""One run of each study of the chapter on covariate shift."""

import numpy as np
import pytest
import torch

from bncore.chapters.explanations.covariate_shift import (
    experiments,
    full_size,
    measures,
    readings,
    runs,
)
from bncore.explanations.noisy_batch_norm import NoisyBatchNorm
from bncore.lab import data, networks, training

SINGLE = float(np.finfo(np.float32).eps)


def test_moved_distributions_are_those_of_plain_batch_norm_where_nothing_moves():
    found = runs.moved_run(0, 1, 0.1, 3, steps=12)["loss"]
    model = networks.mlp([64, 32, 32, 32, 32, 10], "relu", "batch", gain=2**0.5, seed=3)
    losses = training.train(model, data.digits(3), 12, 64, 0.1, 3).losses
    np.testing.assert_allclose(found, losses[-10:].mean(), rtol=64 * SINGLE)  # sums of 64 terms
    assert abs(runs.moved_run(2, 1, 0.1, 3, steps=12)["loss"] / found - 1) > 0.01


def test_the_end_of_a_run_is_the_mean_of_its_last_two_windows():
    named = {"configuration": full_size.REDUCED | {"every": 2}, "network": "linear"}
    found = runs.loss_run("batch norm", 0.003, 4, **named)
    losses = experiments.train(runs.task_of(full_size.REDUCED, "linear"), "batch norm", 0.003, 4)
    rounding = 64 * SINGLE
    assert found["end"] == pytest.approx(losses[2].losses[-8:].mean(), rel=rounding, abs=0)
    assert found["losses"].shape == (3,)


def test_stronger_noise_is_measured_in_a_network_with_stronger_noise():
    named = {"configuration": full_size.REDUCED, "learning_rate": 0.03}
    drifts = [runs.noise_run(strength, 0, **named)["drift"].mean() for strength in (1, 4)]
    assert 2 < drifts[1] / drifts[0] < 5


def test_distances_are_those_of_the_next_step_at_each_record():
    small = full_size.REDUCED | {"vgg": full_size.REDUCED["vgg"] | {"records": [1, 4], "steps": 5}}
    found = runs.distance_run("batch norm", 0.1, 3, configuration=small)["distance"]
    for steps, theirs in zip((1, 4), found, strict=True):
        task = runs.task_of(small, "vgg")._replace(steps=steps)
        model, split, _ = experiments.train(task, "batch norm", 0.1, 3)
        assert theirs == np.median(measures.distance_of_step(model, split, 0.1))


@pytest.fixture
def shifts(monkeypatch):
    """What the noise of each layer is set to, pass after pass."""
    seen, forward = [], NoisyBatchNorm.forward

    def followed(norm, x):
        if norm.training:
            seen.append(norm.shift)
        return forward(norm, x)

    monkeypatch.setattr(NoisyBatchNorm, "forward", followed)
    return seen


def test_means_are_moved_as_far_as_is_asked_for_in_each_layer_at_each_step(shifts):
    small = full_size.REDUCED | {"vgg": full_size.REDUCED["vgg"] | {"records": [0, 4]}}
    drift = np.random.default_rng(0).uniform(0.01, 1, size=(2, 9))
    runs.returned_run(2, 0.1, 3, drift=drift, configuration=small)
    steps = small["vgg"]["steps"]
    asked = 2 * readings.between([0, 4], drift, steps)[:steps]
    found = np.reshape(shifts[: 9 * steps], (steps, 9))
    np.testing.assert_allclose(found, 1.5 * asked, rtol=1e-12)


@pytest.mark.parametrize("size", [0.1, 2.0])
def test_two_draws_of_a_mean_are_two_thirds_of_its_range_apart(size):
    norm, x = NoisyBatchNorm(20_000, 1.5 * size, 1.0, 0.0), torch.randn(4, 20_000)
    first, second = (norm(x).mean(dim=0) for _ in range(2))
    assert (first - second).abs().mean().item() == pytest.approx(size, rel=0.03)


def test_means_that_are_not_moved_are_those_of_plain_batch_norm():
    small, drift = full_size.REDUCED, np.ones((1, 9))
    named = {"configuration": small, "network": "vgg"}
    still, moved = (
        runs.returned_run(times, 0.1, 3, drift=drift, configuration=small)["end"]
        for times in (0, 1)
    )
    # Rounding of single precision grows over twelve steps.
    assert still == pytest.approx(
        runs.shift_run("batch norm", 0.1, 3, **named)["losses"].mean(), 0.01
    )
    assert abs(moved / still - 1) > 0.05
