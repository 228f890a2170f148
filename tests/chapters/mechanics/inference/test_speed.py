"""What folding is worth: the folded networks compute the same, and are timed."""

import pytest
import torch

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


def test_a_network_is_timed_for_every_number_of_examples():
    found = speed.times_faster(speed.convolutional(), (1, 8, 8), [1, 3], repeats=3)
    assert len(found) == 2
    assert min(found) > 0
