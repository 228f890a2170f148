"""The recorded runs of the backward chapter."""

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
