"""The recorded runs of the neural networks chapter."""

import numpy as np
import pytest
from again import assert_run_again

from bncore.chapters.convergence.neural_networks import deep, full_size
from bncore.lab import studies


def test_the_record_is_of_this_configuration(record):
    c = full_size.CONFIGURATION
    assert record["configuration"] == c
    for name, seeds in (("tuning", c["seeds"]), ("fresh", c["fresh_seeds"])):
        found = record["full"][name]
        assert found.kind.values.tolist() == c["kinds"]
        assert found.seed.values.tolist() == seeds
        for axis, labels in deep.LABELS.items():
            assert found[axis].values.tolist() == labels


def test_a_part_of_the_record_can_be_run_again(record):
    assert_run_again(full_size.run(full_size.REDUCED), record["reduced"])


def test_both_kinds_have_their_best_rate_inside_the_grid_and_train_at_it_on_fresh_seeds(record):
    chosen = studies.best(record["full"]["tuning"], "loss", smaller=True)
    assert not chosen.at_an_end.any()
    assert (chosen.learning_rate == deep.RATE).all()
    assert record["full"]["fresh"].learning_rate.equals(chosen.learning_rate)


def test_a_ratio_is_that_of_geometric_means_with_an_interval_for_all(record):
    fresh = record["full"]["fresh"]
    found = deep.recorded_ratio(fresh, "blocks", "later", 3)
    kinds = [fresh.blocks.sel(kind=kind, when="later", layer=3) for kind in ("batch norm", "none")]
    logs = np.log(kinds[0].values / kinds[1].values)
    assert found.mean == pytest.approx(logs.mean(), rel=1e-12)
    assert record["full"]["tuning"].learning_rate.size * 2 * 20 == deep.LOOKED_AT
    over_all = deep.recorded_ratio(fresh, "blocks", "later")
    each = [deep.recorded_ratio(fresh, "blocks", "later", layer).mean for layer in deep.OTHERS]
    assert over_all.mean == pytest.approx(np.mean(each), rel=1e-12)


def test_moves_of_equal_length_change_no_less_later_and_at_three_percent_as_much(record):
    fresh = record["full"]["fresh"]
    later = {move: deep.recorded_ratio(fresh, "moved", "later", move) for move in deep.MOVES}
    assert [move for move, ratio in later.items() if not ratio.separates] == [0.03]
    assert min(ratio.mean for ratio in later.values()) > 0
    start = {move: deep.recorded_ratio(fresh, "moved", "start", move) for move in deep.MOVES}
    assert [move for move, ratio in start.items() if not ratio.low > 0] == [0.03, 0.1]
