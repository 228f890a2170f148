"""The experiments of the chapter on forward, against formulas, other libraries and the record."""

import pytest

from bncore.chapters.mechanics.forward import experiments
from bncore.lab import data, networks, probes, training


@pytest.mark.parametrize("network", experiments.NETWORKS)
def test_accuracies_are_those_of_runs_that_end_there(network):
    """Three runs of their own, one for each moment, end where the one run passed by."""
    moments = [4, 6, 20]
    found = experiments.accuracies(network, 0.3, 1, moments=moments)
    split = data.digits(1)
    for steps, accuracy in zip(moments, found["accuracy"], strict=True):
        model = networks.mlp(experiments.WIDTHS, **experiments.NETWORKS[network], seed=1)
        training.train(model, split, steps, 64, 0.3, 1)
        assert accuracy == probes.test_accuracy(model, split)
    assert found["last"] == found["accuracy"][-1]


def test_the_accuracy_after_training_is_that_of_the_test_set():
    first, again = (experiments.accuracy("sigmoid, batch norm", 0.3, 0, 30) for _ in range(2))
    assert first == again
    assert 0 <= first <= 1
    assert first != experiments.accuracy("sigmoid, batch norm", 0.3, 1, 30)
