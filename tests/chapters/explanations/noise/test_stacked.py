"""Networks side by side do what each does alone."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from bncore.chapters.explanations.noise import stacked
from bncore.explanations import ghost_batches
from bncore.lab import networks

SINGLE = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize("normalization", [None, "batch", ghost_batches.ghost(4)])
@pytest.mark.parametrize("training", [True, False])
def test_a_stack_gives_what_its_networks_give(normalization, training):
    models = [networks.mlp((5, 6, 6, 3), "relu", normalization, seed=seed) for seed in range(3)]
    known = normalization if callable(normalization) else torch.nn.BatchNorm1d
    stack = stacked.Stack(models, known).train(training)
    x = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(0))
    found = stack(x)
    for model, inputs, outputs in zip(models, x, found, strict=True):
        expected = model.train(training)(inputs)
        rounding = 256 * SINGLE * expected.abs().max().item()
        torch.testing.assert_close(outputs, expected, rtol=0, atol=rounding)


def test_networks_are_scored_one_by_one():
    scores = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(14).reshape(2, 7) % 3
    accuracies, losses = stacked.scored(lambda x: x, scores, labels)
    for i in range(2):
        assert accuracies[i] == (scores[i].argmax(1) == labels[i]).double().mean().item()
        expected = cross_entropy(scores[i], labels[i]).item()
        assert losses[i] == pytest.approx(expected, rel=64 * SINGLE)
