"""One run of each study of the chapter on covariate shift."""

import numpy as np
import pytest

from bncore.chapters.explanations.covariate_shift import experiments, full_size, runs
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
