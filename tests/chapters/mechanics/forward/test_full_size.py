"""The recorded runs of the forward chapter."""

import numpy as np
import pytest

from bncore.chapters.mechanics.forward import experiments, full_size
from bncore.lab import recorded, studies


@pytest.fixture(scope="module")
def record():
    return recorded.load(full_size.PATH)


def test_the_record_is_of_this_configuration(record):
    c = full_size.CONFIGURATION
    assert record["configuration"] == c
    tuning, fresh = record["full"]["tuning"], record["full"]["fresh"]
    for found, seeds in ((tuning, c["seeds"]), (fresh, c["fresh_seeds"])):
        assert found.network.values.tolist() == c["networks"] == list(experiments.NETWORKS)
        assert found.steps.values.tolist() == c["moments"]
        assert found.seed.values.tolist() == seeds
    assert set(c["learning_rates"]) <= set(tuning.learning_rate.values.tolist())


def test_a_part_of_the_record_can_be_run_again(record):
    """Another processor rounds differently, and training amplifies that: some images of 449."""
    found = full_size.run(full_size.REDUCED)
    for name, kept in record["reduced"].items():
        assert found[name].accuracy.dims == kept.accuracy.dims
        np.testing.assert_allclose(found[name].accuracy, kept.accuracy, rtol=0, atol=15 / 449)


def test_the_best_rates_lie_inside_their_grids_and_the_best_network_is_done(record):
    """Half a point a doubling is what still counts. Where nothing learns no rate is the best."""
    tuning = record["full"]["tuning"]
    chosen = studies.best(tuning, "last", smaller=False)
    learns = chosen["last"].median("seed") > 0.5
    assert not (chosen.at_an_end & learns).any()
    medians = chosen.accuracy.median("seed").transpose("network", "steps").values
    before, after = medians[medians[:, -1].argmax(), -2:]
    doublings = np.log2(
        full_size.CONFIGURATION["moments"][-1] / full_size.CONFIGURATION["moments"][-2]
    )
    assert (after - before) / doublings < 0.005


def test_fresh_seeds_are_run_at_the_rates_that_were_chosen(record):
    chosen = studies.best(record["full"]["tuning"], "last", smaller=False)
    assert record["full"]["fresh"].learning_rate.equals(chosen.learning_rate)


def test_runs_of_the_papers_size_take_images_as_rows(monkeypatch):
    """The digits in the shape of the images that are downloaded."""
    asked = []

    def images(name, cache):
        asked.append((name, cache))
        split = experiments.data.digits()
        return split._replace(
            x_train=split.x_train.reshape(-1, 1, 8, 8), x_test=split.x_test.reshape(-1, 1, 8, 8)
        )

    monkeypatch.setattr(experiments.data, "standard_images", images)
    small = {
        "networks": ["sigmoid, batch norm"], "learning_rates": [0.1, 0.3, 1.0], "seeds": [0],
        "fresh_seeds": [1], "moments": [2, 4], "widths": [64, 10, 10, 10, 10],
    }  # fmt: skip
    found = full_size.run(full_size.PAPER | small, "somewhere")
    assert set(asked) == {("mnist", "somewhere")}
    assert found["fresh"].accuracy.shape == (1, 1, 2)
