"""The recorded runs of the chapter on small batches."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
from again import assert_run_again

from bncore.chapters.practice.small_batches import claims, experiments, full_size, results
from bncore.lab import studies

PAGE = Path(__file__).resolve().parents[4] / "book/practice/small_batches.ipynb"
PARTS = ("sizes", "unlike")


def test_the_record_is_of_this_configuration(record):
    c = full_size.CONFIGURATION
    assert record["configuration"] == c
    assert set(record["full"]) == set(PARTS)
    for part in PARTS:
        pair = record["full"][part]
        assert pair["tuning"].seed.values.tolist() == c["seeds"]
        assert pair["fresh"].seed.values.tolist() == c["fresh_seeds"]
        arms = c[part]["arms"] if part in c else c["arms"]
        assert set(pair["fresh"].arm.values) - {"recalibrated"} == set(arms)
    fresh = record["full"]["sizes"]["fresh"]
    assert fresh.batch_size.values.tolist() == c["batch_sizes"]
    trained = set(fresh.arm.values[fresh.error.sel(batch_size=1).notnull().all("seed")])
    assert trained == set(experiments.OF_ONE)
    assert fresh.error.sel(batch_size=c["batch_sizes"][1:]).notnull().all()


def test_a_part_of_the_record_can_be_run_again(record):
    found = full_size.run(full_size.REDUCED)
    assert_run_again(found, record["reduced"], atol=dict.fromkeys(("error", "half"), 0.01))


@pytest.mark.parametrize("part", PARTS)
def test_the_best_rates_lie_inside_their_grids(record, part):
    tuning, fresh = (record["full"][part][name] for name in ("tuning", "fresh"))
    chosen = studies.best(tuning, "error", smaller=True)
    trained = tuning.ran.any("learning_rate")
    assert not (chosen.at_an_end & trained).any()
    assert fresh.learning_rate.equals(chosen.learning_rate.where(trained))


def test_the_arm_that_errs_least_is_done_from_eight_on_and_the_page_says_where_not(fresh, page):
    mean = fresh.mean("seed")
    gained = mean.half - mean.error
    best = gained.isel(arm=mean.error.fillna(100).argmin("arm"))
    assert (best.sel(batch_size=[8, 16, 32, 64]) < claims.POINT).all()
    one, two, four = (best.sel(batch_size=m).item() for m in (1, 2, 4))
    assert min(one, two, four) > claims.POINT
    assert f"still gained {one:.1f}, {two:.1f} and {four:.1f} points" in page
    assert f"batch norm at two {gained.sel(arm='batch norm', batch_size=2):.1f}." in page


def test_the_page_says_what_was_still_gained_and_seen(fresh, page):
    mean = fresh.mean("seed")
    gained = mean.half - mean.error
    none, layer, batch = (
        gained.sel(arm=arm, batch_size=8).item() for arm in ("none", "layer norm", "batch norm")
    )
    words = f"the first two still gained {none:.1f} and {layer:.1f} points, batch norm {batch:.1f}."
    assert words in page
    for m in (32, 64):
        late = gained.sel(arm="running statistics", batch_size=m).item()
        assert f"they still gained {late:.1f} points at both" in page
    c = full_size.CONFIGURATION
    seen = dict(zip(c["batch_sizes"], c["examples"], strict=True))
    for sizes, words in (
        ((1, 2, 4, 32), "40 960 examples at 1, 2, 4 and 32,"),
        ((8, 16), "20 480 at 8 and 16,"),
        ((64,), "81 920 at 64."),
    ):
        assert {f"{seen[m]:,}".replace(",", " ") for m in sizes} == {words[:6]}
        assert words in page


def test_a_rate_at_an_end_extends_its_grid():
    def call(runs):
        found = {}
        for rate, seed in runs:
            found.setdefault(rate, {})[seed] = {"error": abs(np.log10(rate) - 2)}
        return found

    c = {"learning_rates": [0.1, 1.0, 10.0], "seeds": [0]}
    assert list(full_size._tuned(call, c, ("error",))) == [0.1, 1.0, 10.0, 100.0, 1000.0]


@pytest.fixture(scope="module")
def page():
    cells = nbformat.read(PAGE, as_version=4).cells
    return " ".join(cell.source for cell in cells if cell.cell_type == "markdown")


def said(interval):
    return "{:.1f} points ({:.1f} to {:.1f})".format(*interval)


@pytest.fixture
def fresh(record):
    """In percent, by arm and size."""
    return 100 * results.fresh(record["full"])


def lead(fresh, arm, other, m):
    error = fresh.error.sel(batch_size=m, drop=True)
    return studies.difference(
        error.sel(arm=other, drop=True), error.sel(arm=arm, drop=True), looked_at=claims.LOOKED_AT
    )


def refreshed(fresh, arm, m):
    """What statistics of the whole training set gain."""
    one = fresh.sel(arm=arm, batch_size=m)
    return studies.difference(one.error, one.recalibrated, looked_at=claims.LOOKED_AT)


def test_what_the_page_says_of_errors_is_in_the_record(fresh, page):
    for words, arm, m in (
        ("the network errs on {} of the test set", "none", 1),
        ("with layer norm on {}.", "layer norm", 1),
        ("Running statistics err on {}, but", "running statistics", 1),
        ("Batch norm errs on {}, the", "batch norm", 2),
        ("the network without it on {}.", "none", 2),
        ("With 0.1 the error is {},", "epsilon 0.1", 2),
        ("with 1 {},", "epsilon 1", 2),
        ("with 10 {}: no less from 1 on.", "epsilon 10", 2),
        ("of 1 or 10 brings the error to {},", results.LARGE, 2),
        ("It errs on {}, and", "batch norm", 4),
        ("**Accumulation does not mend two**: {},", "accumulated", 2),
        ("from {} at 1 to", "layer norm", 1),
        ("at 1 to {} at 64", "layer norm", 64),
    ):
        error = fresh.error.sel(arm=arm, batch_size=m).mean()
        assert words.format(f"{error:.1f} %") in page
    for words, m in (("the same ones err on {}", 1), ("taken anew they err on {}", 2)):
        error = fresh.recalibrated.sel(arm="running statistics", batch_size=m).mean()
        assert words.format(f"{error:.1f} %") in page
    company = fresh.company.sel(arm="batch norm", batch_size=4).mean()
    assert f"the same networks err on {company:.1f} %" in page


def test_what_the_page_says_of_differences_is_in_the_record(fresh, page):
    for words, found in (
        ("a gain of {}", refreshed(fresh, "running statistics", 1)),
        ("exact statistics another {}", refreshed(fresh, "renormalised", 2)),
        ("Renormalization gains {}", lead(fresh, "renormalised", "batch norm", 2)),
        ("stop nothing, and gain {}", lead(fresh, "running statistics", "batch norm", 2)),
        ("levels the bursts, and gains {}", lead(fresh, results.LARGE, "batch norm", 2)),
        ("than renormalization, by {}", lead(fresh, results.LARGE, "renormalised", 2)),
        ("An $\\varepsilon$ of 10 costs {}", lead(fresh, "batch norm", "epsilon 10", 4)),
        ("They lose {} and", lead(fresh, "batch norm", "running statistics", 32)),
        ("and {} to batch norm", lead(fresh, "batch norm", "running statistics", 64)),
    ):
        assert words.format(said(found)) in page
        assert found.low > 0
    for m, arm in ((2, "running statistics"), (2, results.LARGE)):
        gained = said(lead(fresh, arm, "batch norm", m))
        assert f"{gained}, to {fresh.error.sel(arm=arm, batch_size=m).mean():.1f} %" in page
    assert f"the network without it on {said(lead(fresh, 'none', 'batch norm', 4))} less" in page
    exact = lead(fresh, "recalibrated", "batch norm", 2)
    assert not exact.separates
    assert f"recalibrated, gain {said(exact)}" in page
    afterwards = lead(fresh, "recalibrated", "batch norm", 4)
    assert f"taken afterwards gain {said(afterwards)}" in page
    pair = fresh.sel(batch_size=2, drop=True).mean("seed")
    left = pair.recalibrated.sel(arm="renormalised") - pair.error.sel(arm="none")
    assert f"Then {left:.1f} points are left" in page
    steady = lead(fresh, "none", "running statistics", 2)
    assert steady.low > 0
    assert steady.mean < 4
    assert not lead(fresh, "none", "layer norm", 2).separates
    assert exact.high < lead(fresh, "renormalised", "batch norm", 2).low
    assert lead(fresh, "none", "accumulated", 2).low > 20
    for m in (4, 8, 16, 32, 64):
        for arm in ("none", "layer norm", results.LARGE, "epsilon 1"):
            assert not lead(fresh, arm, "batch norm", m).separates
    for m in (2, 4, 8, 16, 32):
        assert not lead(fresh, "accumulated", "batch norm", m).separates
    large = lead(fresh, "none", results.LARGE, 2)
    assert 0 < large.low < large.mean < 4
    assert not lead(fresh, "epsilon 10", "epsilon 1", 2).separates


def test_what_the_page_says_of_the_gap_at_two_is_in_the_record(page):
    found, before = (claims._gap("sizes", arm, 2) for arm in ("renormalised", "batch norm"))
    assert f"at two {said(found)} remain of {before.mean:.0f}." in page
    assert found.low > claims.POINT


def test_what_the_page_says_of_sizes_is_in_the_record(page):
    assert f"Against batches of 2, those of 64 gain {said(claims._gain(64, 2))}" in page
    assert claims._gain(64, 2).separates
    assert not any(claims._gain(64, m).separates for m in (4, 8, 16, 32))


def test_what_the_page_says_of_batches_of_two_digits_is_in_the_record(record, page):
    found = 100 * record["full"]["unlike"]["fresh"].mean("seed").squeeze("batch_size")
    batch, renorm = (found.sel(arm=arm) for arm in ("batch norm", "renormalised"))
    assert f"errs on {batch.company:.0f} % of such batches in training mode" in page
    assert f"and on {batch.error:.0f} % of the same examples" in page
    assert f"renormalised, on {renorm.company:.0f} % in both" in page
    assert abs(renorm.company - renorm.error) < 0.5
