"""What folding is worth: the folded networks compute the same, and are timed."""

import pytest
import torch
from torch import nn

from bncore.chapters.mechanics.inference import faults, speed
from bncore.lab import data
from bncore.lab.inference import folded


@pytest.mark.parametrize("seed", range(3))
def test_folded_networks_are_shorter_and_have_the_same_scores(seed):
    split = data.digits()
    pairs = (
        (faults.trained(split, seed, steps=20), split.x_test, 5),
        (speed.convolutional(seed), split.x_test.reshape(-1, 1, 8, 8), 6),
    )
    for model, x, layers in pairs:
        model.eval()
        short = folded(model, x).eval()
        assert len(short) == layers
        with torch.no_grad():
            torch.testing.assert_close(short(x), model(x), rtol=1e-3, atol=1e-3)


def test_a_network_is_timed_beside_its_folded_form_for_every_number_of_examples(monkeypatch):
    passed, forward, calls = [], nn.BatchNorm2d.forward, []

    def followed(norm, x):
        passed.append(len(x))
        return forward(norm, x)

    def median_seconds(functions, repeats):
        for function in functions:
            passed.clear()
            calls.append((len(function()), list(passed)))
        return 3.0 * repeats, 2.0

    monkeypatch.setattr(nn.BatchNorm2d, "forward", followed)
    monkeypatch.setattr(speed.timing, "median_seconds", median_seconds)
    found = speed.times_faster(speed.convolutional(), (1, 8, 8), [1, 3], repeats=5)
    assert found == [7.5, 7.5]
    assert calls == [(1, [1, 1]), (1, []), (3, [3, 3]), (3, [])]
