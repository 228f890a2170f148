"""The recorded runs of the chapter on fine-tuning, and what the page says of them."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
from again import assert_run_again

from bncore.chapters.practice.fine_tuning import claims, full_size
from bncore.lab import studies

PARTS = list(full_size.CONFIGURATION["fine_tuned"])


def test_the_record_is_of_this_configuration(record):
    c, full = full_size.CONFIGURATION, record["full"]
    assert record["configuration"] == c
    pairs = [(full["averaged"], c["averaged"])]
    pairs += [(full["fine_tuned"][part], c["fine_tuned"][part]) for part in PARTS]
    pairs += [({"fresh": full[name]}, c[name]) for name in ("untrained", "at_test_time")]
    for kept, grid in pairs:
        for name, found in kept.items():
            assert found.seed.values.tolist() == c["seeds" if name == "tuning" else "fresh_seeds"]
            for axis, values in grid.items():
                if axis != "steps":
                    assert found[axis].values.tolist() == values


def test_a_part_of_the_record_can_be_run_again(record):
    # One image of 449 more or less.
    again = full_size.run(full_size.REDUCED)
    assert_run_again(again, record["reduced"], atol=dict.fromkeys(("accuracy", "kept"), 0.003))


def test_averages_are_at_the_best_rates_which_lie_inside_their_grid(record):
    pair = record["full"]["averaged"]
    chosen = studies.best(pair["tuning"], "loss_recalibrated", smaller=True)
    assert pair["fresh"].learning_rate.equals(chosen.learning_rate)
    assert not chosen.at_an_end.any()


@pytest.mark.parametrize("part", PARTS)
def test_each_way_is_at_its_best_rate_inside_its_grid(record, part):
    pair = record["full"]["fine_tuned"][part]
    chosen = studies.best(pair["tuning"], "accuracy", smaller=False)
    # Recorded to four digits, which may make level what was not.
    tried = pair["tuning"].accuracy.median("seed")
    rate = tried.learning_rate.sel(learning_rate=pair["fresh"].learning_rate, method="nearest")
    at_it = tried.sel(learning_rate=rate)
    np.testing.assert_allclose(at_it, chosen.accuracy.median("seed"), rtol=0, atol=2e-4)
    assert not chosen.at_an_end.any()


@pytest.mark.parametrize("part", PARTS)
def test_the_best_way_is_done(record, part):
    """A point for the second half of training is what still counts."""
    fresh = record["full"]["fine_tuned"][part]["fresh"].mean("seed")
    best = fresh.isel(way=fresh.accuracy.argmax("way"))
    assert (best.accuracy - best.halfway).max() < 0.01


PAGE = Path(__file__).resolve().parents[4] / "book/practice/fine_tuning.ipynb"


@pytest.fixture(scope="module")
def page():
    cells = nbformat.read(PAGE, as_version=4).cells
    return " ".join(cell.source for cell in cells if cell.cell_type == "markdown")


def points(interval, digits=0):
    mean, low, high = (100 * end for end in interval)
    return f"{mean:.{digits}f} points", f"({low:.{digits}f} to {high:.{digits}f})"


def said(interval, digits=1):
    return " ".join(points(interval, digits))


def test_what_the_page_says_of_changes_is_in_the_record(page):
    mean, ends = points(claims._gained("faded", 4))
    assert f"{mean} of accuracy (95 % interval {ends[1:-1]}" in page
    assert said(claims._left("faded", 4)) in page
    assert said(claims._gained("noisy", 3)) in page


# Eight ways on four kinds of faded runs, four ways on two of moved ones.
COMPARED = 40


def lead(found, one, other, of="accuracy"):
    pair = (found[of].sel(way=way, drop=True) for way in (one, other))
    return studies.difference(*pair, looked_at=COMPARED)


def test_what_the_page_says_of_ways_to_train_is_in_the_record(record, page):
    full = record["full"]
    faded = full["fine_tuned"]["faded"]["fresh"].squeeze("domain", drop=True)
    moved, small = (full["fine_tuned"][part]["fresh"].squeeze(drop=True) for part in PARTS[1:])
    few = faded.sel(examples=20, batch_size=4, drop=True)
    many = faded.sel(examples=200, batch_size=20, drop=True)
    assert f"by {said(lead(few, 'all', 'statistics frozen'), 0)[:-1]}, with allowance" in page
    assert f"by {said(lead(many, 'all', 'statistics frozen'))}, not told" in page
    again = (few[name].sel(way="all", drop=True) for name in ("afresh", "accuracy"))
    assert f"another {said(studies.difference(*again, looked_at=COMPARED))}" in page
    alone = full["untrained"].recalibrated.sel(kind="faded", step=4, drop=True)
    for way in faded.way.values:
        for examples in (20, 200):
            for batch_size in (4, 20):
                of = {"way": way, "examples": examples, "batch_size": batch_size}
                one = faded.accuracy.sel(of, drop=True)
                assert studies.difference(one, alone, looked_at=COMPARED).low < 0
    for found, size in ((moved, 20), (small, 4)):
        apart = lead(found, "all", "statistics frozen")
        assert not apart.separates
        assert f"{said(apart)} in batches of {size}" in page
    assert f"{said(lead(moved, 'all', 'batch norms only'))} behind" in page
    assert said(lead(moved, "statistics frozen", "all", of="old"), 0) in page


def test_what_the_page_says_of_averages_is_in_the_record(record, page):
    nats = "{:.3f} nats ({:.3f} to {:.3f})"
    assert nats.format(*claims._worse("kept")) in page
    assert not claims._worse("averaged").separates


def test_what_the_page_says_of_test_batches_is_in_the_record(record, page):
    found = record["full"]["at_test_time"].sel(domain="unchanged")
    for classes, size, text in (
        (10, 32, "all ten classes cost {} on unchanged digits"),
        (10, 8, "of 8, {}"),
        (1, 32, "of one class {}"),
    ):
        one = found.sel(classes=classes, batch_size=size, drop=True)
        lost = studies.difference(one.kept, one.batch, looked_at=claims.BATCHES)
        assert text.format(said(lost)) in page


def test_what_the_page_says_of_padding_is_in_the_record(record, page):
    fresh = record["full"]["padded"]["fresh"]
    masked, unmasked = (fresh.sel(kind=kind, drop=True) for kind in ("masked", "unmasked"))
    own = studies.difference(masked.accuracy, unmasked.accuracy, looked_at=4)
    ends = (unmasked.recalibrated.sel(padded_to=n, drop=True) for n in (24, 96))
    assert f"nothing that is told from chance: {said(own)}" in page
    assert not own.separates
    assert f"cost {said(studies.difference(*ends, looked_at=4))}" in page
    ends = (masked.recalibrated.sel(padded_to=n, drop=True) for n in (24, 96))
    assert np.abs(np.subtract(*ends)).max() < 0.003
