"""The experiments of the chapter on forward, against formulas, other libraries and the record."""

import numpy as np
import pytest

from bncore.chapters.mechanics.forward import experiments


def test_a_sweep_puts_every_run_in_its_place():
    names = ["sigmoid, batch norm", "ReLU, gain √2"]
    table = experiments.sweep(names, (0.1, 0.3), (0, 1), steps=30)
    assert set(table) == set(names)
    for name in names:
        for i, rate in enumerate((0.1, 0.3)):
            for j, seed in enumerate((0, 1)):
                assert table[name][i, j] == experiments.accuracy(name, rate, seed, steps=30)
    assert table[names[0]].std() > 0


def test_the_recorded_sweep_is_that_of_the_code():
    record = experiments.recorded()
    settings = record["configuration"]
    assert settings["widths"] == list(experiments.WIDTHS)
    assert settings["networks"] == experiments.NETWORKS
    assert settings["learning_rates"] == list(experiments.LEARNING_RATES)
    assert (settings["steps"], settings["patient_steps"]) == (
        experiments.STEPS,
        experiments.PATIENCE,
    )
    shape = (len(experiments.LEARNING_RATES), len(experiments.SEEDS))
    tables = [*record["accuracy"].values(), record["accuracy_patient"]]
    assert all(np.shape(table) == shape for table in tables)
    assert set(record["accuracy"]) == set(experiments.NETWORKS)


@pytest.mark.parametrize("network", ["sigmoid", "sigmoid, batch norm", "ReLU, gain √2"])
def test_a_recorded_run_can_be_run_again(network):
    rate = experiments.LEARNING_RATES.index(0.1)
    recorded = experiments.recorded()["accuracy"][network][rate][1]
    assert experiments.accuracy(network, 0.1, seed=1) == pytest.approx(recorded, abs=0.03)


def test_the_full_sweep_writes_what_is_recorded(monkeypatch):
    monkeypatch.setattr(experiments, "LEARNING_RATES", (0.1,))
    monkeypatch.setattr(experiments, "SEEDS", (0,))
    monkeypatch.setattr(experiments, "STEPS", 2)
    monkeypatch.setattr(experiments, "PATIENCE", 3)
    small, record = experiments.full(), experiments.recorded()
    assert small.keys() == record.keys()
    assert small["configuration"].keys() == record["configuration"].keys()
    again = experiments.accuracy("sigmoid", 0.1, 0, steps=3)
    assert small["accuracy_patient"] == [[round(again, 4)]]
