"""The experiments of the chapter on small batches, against networks trained one by one."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.chapters.practice.small_batches import experiments
from bncore.lab import data, networks
from bncore.lab.batches import Batches
from bncore.lab.inference import accuracy

RUNS = [(0.3, 0), (0.1, 1)]


def test_accumulated_gradients_are_those_of_batches_that_are_normalised_one_by_one():
    found = experiments.trained("accumulated", 8, RUNS, examples=320)
    for place, (rate, seed) in enumerate(RUNS):
        split = data.digits(seed)
        model = networks.mlp(experiments.WIDTHS, "relu", "batch", gain=2**0.5, seed=seed)
        descent = torch.optim.SGD(model.parameters(), lr=rate)
        order = Batches(len(split.x_train), 64, seed)
        for _ in range(5):
            descent.zero_grad()
            for part in next(order).split(8):
                loss = cross_entropy(model(split.x_train[part]), split.y_train[part])
                (loss / 8).backward()
            descent.step()
        expected = 1 - accuracy(model, split.x_test, split.y_test)
        assert abs(found["error"][place] - expected) < 0.01


@pytest.mark.parametrize("arm", experiments.ARMS)
def test_each_arm_learns_and_says_what_it_can(arm):
    found = experiments.trained(arm, 8, [(0.3, 0)], examples=1600)
    assert found["error"][0] < 0.5
    of_batches = arm not in ("none", "layer norm")
    assert np.isfinite(found["company"][0]) == of_batches
    assert np.isfinite(found["recalibrated"][0]) == (of_batches and arm != "accumulated")


def test_batches_of_two_classes_hold_two():
    split = data.digits()
    generator = torch.Generator().manual_seed(0)
    drawn = [experiments._of_two(split.x_train, split.y_train, 32, generator)[1] for _ in range(20)]
    assert all(len(y) == 32 and len(y.unique()) <= 2 for y in drawn)
    assert len(torch.cat(drawn).unique()) == 10


def test_company_leaves_the_model_as_it_was():
    x, y = torch.rand(1, 20, 64), torch.zeros(1, 20, dtype=torch.int64)
    model = experiments.SideBySide(experiments.WIDTHS, nn.BatchNorm1d, [0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    experiments.in_company(model, x, y, 8)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert model.norms[0].momentum == 0.1
