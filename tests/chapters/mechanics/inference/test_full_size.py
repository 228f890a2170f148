"""The recorded runs of the inference chapter."""

import pytest
from again import assert_run_again

from bncore.chapters.mechanics.inference import full_size
from bncore.lab import studies

PARTS = {"statistics": "last", "equal_cost": "last", "changes": "accuracy"}


def test_the_record_is_of_this_configuration(record):
    c = full_size.CONFIGURATION
    assert record["configuration"] == c
    for part in PARTS:
        for name, seeds in (("tuning", c["seeds"]), ("fresh", c["fresh_seeds"])):
            found = record["full"][part][name]
            assert found.seed.values.tolist() == seeds
            for axis in set(c[part]) - {"moments", "steps"}:
                assert found[axis].values.tolist() == c[part][axis]


def test_a_part_of_the_record_can_be_run_again(record):
    assert_run_again(full_size.run(full_size.REDUCED), record["reduced"])


USE = {"mismatch": "accuracy", "alone": "kept", "in_company": "accuracy"}


@pytest.mark.parametrize("part", USE)
def test_networks_in_use_are_those_of_the_best_rates(record, part):
    c, found = full_size.CONFIGURATION["use"], record["full"]["use"][part]
    assert found["tuning"].seed.values.tolist() == c["seeds"]
    assert found["fresh"].seed.values.tolist() == c["fresh_seeds"][part]
    chosen = studies.best(found["tuning"], USE[part], smaller=False)
    assert found["fresh"].learning_rate.equals(chosen.learning_rate)
    assert not chosen.at_an_end.any()
    for axis, values in c[part]["arms"].items():
        assert found["fresh"][axis].values.tolist() == values


@pytest.mark.parametrize("part", PARTS)
def test_the_best_rates_lie_inside_their_grids(record, part):
    chosen = studies.best(record["full"][part]["tuning"], PARTS[part], smaller=False)
    assert not chosen.at_an_end.any()
    assert record["full"][part]["fresh"].learning_rate.equals(chosen.learning_rate)


def test_the_best_statistics_are_done(record):
    """Half a point a doubling is what still counts."""
    kept = record["full"]["statistics"]["fresh"].kept.median("seed")
    best = kept.isel(statistics=kept.isel(steps=-1, drop=True).argmax("statistics"))
    assert (best.isel(steps=-1, drop=True) - best.isel(steps=-2, drop=True) < 0.005).all()
