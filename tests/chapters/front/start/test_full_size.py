"""The recorded runs of "Batch norm in ten minutes"."""

from again import assert_run_again

from bncore.chapters.front.start import full_size
from bncore.lab import studies

PARTS = ("tuning", "fresh")


def test_the_record_is_of_this_configuration(record):
    c = full_size.CONFIGURATION
    assert record["configuration"] == c
    full = record["full"]
    for name, seeds in (("tuning", "seeds"), ("fresh", "fresh_seeds"), ("mistakes", "fresh_seeds")):
        assert full[name].seed.values.tolist() == c[seeds]
    assert full["fresh"].norm.values.tolist() == c["norm"]
    assert full["fresh"].loss.sizes["epoch"] == c["epochs"]


def test_the_best_rates_lie_inside_their_grids(record):
    chosen = studies.best(record["full"]["tuning"], "steps", smaller=True)
    assert not chosen.at_an_end.any()
    assert record["full"]["fresh"].learning_rate.equals(chosen.learning_rate)


def test_every_fresh_run_arrives_and_is_done(record):
    fresh = record["full"]["fresh"]
    assert (fresh.steps <= 21 * full_size.CONFIGURATION["epochs"]).all()
    assert (fresh.loss.isel(epoch=-1) < 0.1).all()


def test_a_part_of_the_record_can_be_run_again(record):
    """Another processor rounds differently, and training amplifies that; in 42 steps not far."""
    found, kept = full_size.run(full_size.REDUCED), record["reduced"]
    first = (
        {name: one[name].drop_vars(["steps", "accuracy"]).isel(epoch=0) for name in PARTS}
        for one in (found, kept)
    )
    assert_run_again(*first, rtol=0.02)
