"""The recorded runs of the chapter on fine-tuning, and what the page says of them."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
from again import assert_run_again

from bncore.chapters.practice.fine_tuning import claims, full_size
from bncore.lab import studies

PARTS = ["faded", "moved", "small"]


def test_the_record_is_of_this_configuration(record):
    c, full = full_size.CONFIGURATION, record["full"]
    assert record["configuration"] == c
    assert set(full) == set(c) == set(full_size.PARTS)
    for part, configuration in c.items():
        kept = full[part] if isinstance(full[part], dict) else {"tuning": full[part]}
        for name, found in kept.items():
            seeds = configuration["seeds" if name == "tuning" else "fresh_seeds"]
            assert found.seed.values.tolist() == seeds
            for axis, values in configuration.items():
                if axis in found.dims and axis != "learning_rate":
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
    pair = record["full"][part]
    chosen = studies.best(pair["tuning"], "accuracy", smaller=False)
    # Recorded to four digits, which may make level what was not.
    tried = pair["tuning"].accuracy.median("seed")
    rate = tried.learning_rate.sel(learning_rate=pair["fresh"].learning_rate, method="nearest")
    at_it = tried.sel(learning_rate=rate)
    np.testing.assert_allclose(at_it, chosen.accuracy.median("seed"), rtol=0, atol=2e-4)
    assert not chosen.at_an_end.any()


@pytest.mark.parametrize("part", PARTS)
def test_the_best_way_is_done(record, part):
    """Half a point for the second half of training is what counts."""
    fresh = record["full"][part]["fresh"].mean("seed")
    best = fresh.isel(way=fresh.accuracy.argmax("way"))
    assert (best.accuracy - best.halfway).max() < 0.005


def test_readers_are_at_their_best_rates_inside_their_grid(record):
    pair = record["full"]["padded"]
    chosen = studies.best(pair["tuning"], "accuracy", smaller=False)
    assert pair["fresh"].learning_rate.equals(chosen.learning_rate)
    assert not chosen.at_an_end.any()


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


def left(record, kind, step):
    """Accuracy that a change costs although the statistics are those of the changed digits."""
    found = record["full"]["untrained"].sel(kind=kind)
    return studies.difference(
        found.kept.sel(step=0), found.recalibrated.sel(step=step), looked_at=claims.CHANGES
    )


def test_what_the_page_says_of_changes_is_in_the_record(record, page):
    mean, ends = points(claims._gained("faded", 4))
    assert f"{mean} of accuracy (95 % interval {ends[1:-1]}" in page
    assert said(left(record, "faded", 4)) in page
    assert said(claims._gained("noisy", 3)) in page


# Eight ways on four kinds of faded runs, four ways on two of moved ones.
COMPARED = 40


def lead(found, one, other, of="accuracy"):
    pair = (found[of].sel(way=way, drop=True) for way in (one, other))
    return studies.difference(*pair, looked_at=COMPARED)


def test_what_the_page_says_of_ways_to_train_is_in_the_record(record, page):
    full = record["full"]
    faded = full["faded"]["fresh"].squeeze("domain", drop=True)
    moved, small = (full[part]["fresh"].squeeze(drop=True) for part in PARTS[1:])
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
    apart = lead(moved, "all", "statistics frozen")
    assert apart.low > 0
    assert f"lead frozen ones by {said(apart)} in batches of 20" in page
    apart = lead(small, "all", "statistics frozen")
    assert not apart.separates
    assert f"not told apart, {said(apart)}." in page
    frozen = faded.sel(examples=200, way="statistics frozen").mean("seed")
    late = 100 * (frozen.accuracy - frozen.halfway)
    words = f"{late.sel(batch_size=20):.1f} and {late.sel(batch_size=4):.1f} points"
    assert f"the frozen ones still gained {words}" in page
    assert f"{said(lead(moved, 'all', 'batch norms only'))} behind" in page
    assert said(lead(moved, "statistics frozen", "all", of="old"), 0) in page
    middle = faded.sel(examples=20, batch_size=20, drop=True)
    kept = lead(middle, "statistics frozen", "all", of="old")
    paid = lead(middle, "all", "statistics frozen")
    assert f"keep {said(kept, 0)} more on the old ones, and pay {said(paid, 0)} on" in page
    assert min(kept.low, paid.low) > 0
    by_fours = [faded.sel(examples=n, batch_size=4, drop=True) for n in (20, 200)]
    for found in (*by_fours, small):
        assert not lead(found, "statistics frozen", "all", of="old").separates
    head = lead(few, "last layer, moving", "last layer, frozen")
    assert f"cost more: {said(head, 0)} with" in page


def test_what_the_page_says_of_best_rates_is_in_the_record(record, page):
    rate = record["full"]["faded"]["fresh"].learning_rate.squeeze("domain", drop=True)
    for way, words in (
        ("statistics frozen", "{:.0f} to {:.0f} times smaller with old ones"),
        ("recalibrated first", "{:.0f} to {:.0f} times with fresh ones"),
    ):
        ratio = rate.sel(way="all", drop=True) / rate.sel(way=way, drop=True)
        least, most = (float(f"{end:.2g}") for end in (ratio.min(), ratio.max()))
        assert words.format(least, most) in page


def test_what_the_page_says_of_batches_of_one_class_is_in_the_record(record, page):
    one = record["full"]["at_test_time"].sel(domain="faded", classes=1, batch_size=8, drop=True)
    lost = studies.difference(one.kept, one.batch, looked_at=claims.BATCHES)
    assert f"lose even there, {said(lost, 0)} in batches of 8" in page
    assert lost.low > 0


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
    late = 100 * (unmasked.accuracy - unmasked.halfway).mean()
    assert f"the unmasked ones still gained {late:.1f} points" in page
    assert unmasked.accuracy.mean() > masked.accuracy.mean()
    assert f"cost {said(studies.difference(*ends, looked_at=4))}" in page
    ends = (masked.recalibrated.sel(padded_to=n, drop=True) for n in (24, 96))
    assert np.abs(np.subtract(*ends)).max() < 0.003
