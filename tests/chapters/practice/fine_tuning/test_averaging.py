"""Averaged weights are those of the last half of training, with the statistics that are named."""

import numpy as np
import pytest
import torch

from bncore.chapters.practice.fine_tuning import averaging
from bncore.lab import probes


def test_the_last_weights_have_one_kind_of_running_statistics():
    found = averaging.averaged("last", 0.1, 0, steps=40, every=10)
    assert found["kept"] == found["averaged"]
    assert found["loss_kept"] == found["loss_averaged"] != found["loss_recalibrated"]


def test_weights_and_statistics_are_averaged_over_the_last_half(monkeypatch):
    seen, models = [], []
    real = averaging.training.train

    def train(model, split, *args, **options):
        take = options.pop("record", None) or args[-1]["take"]

        def taking(model, split):
            seen.append({name: value.clone() for name, value in model.state_dict().items()})
            return take(model, split)

        return real(model, split, *args[:-1], {"take": taking}, **options)

    def loss(part):
        return lambda model, split: models.append(model) or 0.0

    monkeypatch.setattr(averaging.training, "train", train)
    monkeypatch.setattr(averaging.probes, "loss", loss)
    averaging.averaged("averaged", 0.1, 0, steps=40, every=10)
    assert len(seen) == 5
    kept, both, _ = (one.module.state_dict() for one in models)
    late = seen[2:]
    for name in ("linear1.weight", "norm1.running_mean"):
        mean = torch.stack([state[name] for state in late]).mean(0)
        torch.testing.assert_close(both[name], mean)
    torch.testing.assert_close(kept["linear1.weight"], both["linear1.weight"])
    assert torch.equal(kept["norm1.running_mean"], late[-1]["norm1.running_mean"])
    assert probes is averaging.probes
    assert np.isfinite(len(models))


@pytest.mark.parametrize("weights", ["last", "averaged"])
def test_the_same_seed_gives_the_same(weights):
    one, other = (averaging.averaged(weights, 0.1, 1, steps=20, every=5) for _ in range(2))
    assert one == other
