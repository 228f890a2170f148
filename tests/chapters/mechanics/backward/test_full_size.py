"""The recorded runs of the backward chapter."""

import numpy as np
from again import assert_run_again

from bncore.chapters.mechanics.backward import experiments, full_size
from bncore.lab import studies


def test_the_record_is_of_this_configuration(record):
    c = full_size.CONFIGURATION
    assert record["configuration"] == c
    for name, seeds in (("tuning", c["seeds"]), ("fresh", c["fresh_seeds"])):
        found = record["full"][name]
        assert found.hidden.values.tolist() == c["hidden"] == list(experiments.HIDDEN)
        assert found.steps.values.tolist() == c["steps"]
        assert found.seed.values.tolist() == seeds


def test_a_part_of_the_record_can_be_run_again(record):
    assert_run_again(full_size.run(full_size.REDUCED), record["reduced"])


def test_the_best_rates_lie_inside_their_grids(record):
    chosen = studies.best(record["full"]["tuning"], "loss", smaller=True)
    assert not chosen.at_an_end.any()
    assert record["full"]["fresh"].learning_rate.equals(chosen.learning_rate)


def test_hiding_the_mean_costs_at_every_length_and_more_than_the_variance_at_two(record):
    logs = np.log(record["full"]["fresh"].loss)

    def ends(one, other, steps):
        pair = (logs.sel(hidden=kind, steps=steps) for kind in (one, other))
        _, low, high = studies.difference(*pair, looked_at=15)
        return low, high

    for steps in logs.steps.values:
        assert ends("mean", "nothing", steps)[0] > 0
        assert ends("both", "nothing", steps)[0] > 0
    assert min(ends("mean", "variance", steps)[0] for steps in (100, 300)) > 0
    low, high = ends("mean", "variance", 1000)
    assert low < 0 < high
    ratio = np.exp(logs.mean("seed").sel(hidden="mean") - logs.mean("seed").sel(hidden="nothing"))
    assert ratio.round(1).values.tolist() == [2.8, 7.5, 2.9]
