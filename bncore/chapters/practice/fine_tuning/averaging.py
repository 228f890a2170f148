"""Averaged weights, and which statistics they are given."""

from torch.optim.swa_utils import AveragedModel

from bncore.lab import networks, probes, training
from bncore.lab.data import digits
from bncore.practice.recalibration import recalibrated

STEPS = 1200
EVERY = 25


def averaged(weights, learning_rate, seed, steps=STEPS, every=EVERY):
    """Test accuracy and loss of the last weights, or of the average over the last half of training.

    Each with its own statistics ("kept": the last weights' running ones; for the average,
    "averaged": the average of the running ones) and recalibrated on the training set.
    """
    split = digits(seed)
    model = networks.mlp((64, 64, 32, 10), "relu", "batch", seed=seed)
    ends = [AveragedModel(model, use_buffers=use) for use in (False, True)]
    taken = []

    def take(model, split):
        taken.append(None)
        if len(taken) * every > steps // 2:
            for one in ends:
                one.update_parameters(model)
        return 0.0

    training.train(model, split, steps, 16, learning_rate, seed, {"take": take}, every=every)
    kept, both = (model, model) if weights == "last" else ends
    found = {"kept": kept, "averaged": both, "recalibrated": recalibrated(kept, [split.x_train])}
    measured = {}
    for name, one in found.items():
        measured[name] = probes.test_accuracy(one, split)
        measured[f"loss_{name}"] = probes.loss("test")(one, split)
    return measured
