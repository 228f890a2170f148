"""The recorded runs of the chapter on feature scaling."""

import pytest
from again import assert_run_again

from bncore.chapters.mechanics.scaling import experiments, full_size
from bncore.lab import studies

PARTS = {"first": ("last", False), "whitened": ("loss", True)}


def test_the_record_is_of_this_configuration(record):
    c = full_size.CONFIGURATION
    assert record["configuration"] == c
    for part in PARTS:
        for name, seeds in (("tuning", c["seeds"]), ("fresh", c["fresh_seeds"])):
            found = record["full"][part][name]
            assert found.seed.values.tolist() == seeds
            for axis in set(c[part]) - {"learning_rates", "moments"}:
                assert found[axis].values.tolist() == c[part][axis]


def test_a_part_of_the_record_can_be_run_again(record):
    """Logistic regression and small networks, soon done: an accuracy moves by less than one row."""
    assert_run_again(full_size.run(full_size.REDUCED), record["reduced"], rtol=1e-3)


@pytest.mark.parametrize("part", PARTS)
def test_the_best_rates_lie_inside_their_grids(record, part):
    score, smaller = PARTS[part]
    chosen = studies.best(record["full"][part]["tuning"], score, smaller=smaller)
    assert not chosen.at_an_end.any()
    assert record["full"][part]["fresh"].learning_rate.equals(chosen.learning_rate)


def test_the_best_way_to_scale_is_done_or_nearly_so(record):
    """Half a point a doubling is what still counts; on the sum, the chapter says, it is almost one."""
    medians = record["full"]["first"]["fresh"].accuracy.median("seed")
    best = medians.isel(first=medians.isel(steps=-1, drop=True).argmax("first"))
    gain = best.isel(steps=-1, drop=True) - best.isel(steps=-2, drop=True)
    assert (gain.sel(source=["breast cancer", "product"]) < 0.005).all()
    assert 0.005 < gain.sel(source="sum") < 0.0095


def test_the_tables_are_in_two_classes_of_like_size():
    for source in full_size.CONFIGURATION["first"]["source"]:
        split = experiments.skewed_table(source, seed=0)
        assert len(split.x_test) > 100
        assert 0.3 < split.y_train.double().mean() < 0.7
