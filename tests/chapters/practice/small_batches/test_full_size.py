"""The recorded runs of the chapter on small batches."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
from again import assert_run_again

from bncore.chapters.practice.small_batches import full_size
from bncore.lab import studies

PAGE = Path(__file__).resolve().parents[4] / "book/practice/small_batches.ipynb"
PARTS = ("sizes", "longer", "unlike")


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
    assert record["full"]["sizes"]["fresh"].batch_size.values.tolist() == c["batch_sizes"]


def test_a_part_of_the_record_can_be_run_again(record):
    found = full_size.run(full_size.REDUCED)
    assert_run_again(found, record["reduced"], atol=dict.fromkeys(("error", "half"), 0.01))


@pytest.mark.parametrize("part", PARTS)
def test_the_best_rates_lie_inside_their_grids(record, part):
    chosen = studies.best(record["full"][part]["tuning"], "error", smaller=True)
    assert not chosen.at_an_end.any()
    assert record["full"][part]["fresh"].learning_rate.equals(chosen.learning_rate)


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


def test_what_the_page_says_of_errors_is_in_the_record(record, page):
    fresh = 100 * record["full"]["sizes"]["fresh"]
    error = fresh.error

    def lead(arm, other, m):
        return studies.difference(
            error.sel(arm=other, batch_size=m), error.sel(arm=arm, batch_size=m), looked_at=36
        )

    for words, arm, m in (
        ("Batch norm errs on {} of the test set, the", "batch norm", 2),
        ("the network without it on {}.", "none", 2),
        ("Batch norm errs on {} and is not told", "batch norm", 4),
        ("**Accumulation changes nothing at two** ({})", "accumulated", 2),
        ("from {} at 2 to", "layer norm", 2),
        ("at 2 to {} at 64", "layer norm", 64),
    ):
        assert words.format(f"{error.sel(arm=arm, batch_size=m).mean():.1f} %") in page
    company = fresh.company.sel(arm="batch norm", batch_size=4).mean()
    assert f"the same networks err on {company:.1f} %" in page
    for words, arm, other, m in (
        ("recalibrated, gain {}", "recalibrated", "batch norm", 2),
        ("Renormalization gains {}", "renormalised", "batch norm", 2),
        ("stop nothing, and gain {}", "running statistics", "batch norm", 2),
        ("They lose {} to", "batch norm", "running statistics", 64),
        ("leads by {}", "renormalised", "batch norm", 32),
    ):
        assert words.format(said(lead(arm, other, m))) in page
    assert not lead("recalibrated", "batch norm", 2).separates
    assert not lead("accumulated", "batch norm", 2).separates
    for arm in set(error.arm.values) - {"batch norm"}:
        assert not lead(arm, "batch norm", 4).separates
    for m in (8, 16, 32):
        assert not lead("accumulated", "batch norm", m).separates
    mean = error.mean("seed")
    assert mean.sel(arm="renormalised", batch_size=32) == mean.min()
    rates = record["full"]["sizes"]["fresh"].learning_rate.sel(arm="batch norm")
    assert rates.sel(batch_size=32) == 3 > rates.sel(batch_size=[16, 64]).max()


def test_what_the_page_says_of_sizes_is_in_the_record(record, page):
    error = 100 * record["full"]["sizes"]["fresh"].error.sel(arm="batch norm")

    def gain(m):
        return studies.difference(
            error.sel(batch_size=m), error.sel(batch_size=64), looked_at=36
        )  # fmt: skip

    assert f"Against batches of 4, those of 64 gain {said(gain(4))}" in page
    assert gain(4).separates
    assert not gain(8).separates
    assert not gain(16).separates


def test_twice_the_examples_do_not_help_the_best_arm(record):
    full = record["full"]
    once, twice = (
        full[part]["fresh"].error.sel(arm="renormalised") for part in ("sizes", "longer")
    )
    assert (twice.mean("seed") >= once.mean("seed").sel(batch_size=twice.batch_size)).all()


def test_what_the_page_says_of_batches_of_two_digits_is_in_the_record(record, page):
    found = 100 * record["full"]["unlike"]["fresh"].mean("seed").squeeze("batch_size")
    batch, renorm = (found.sel(arm=arm) for arm in ("batch norm", "renormalised"))
    assert f"errs on {batch.company:.0f} % of such batches in training mode" in page
    assert f"and on {batch.error:.0f} % of the same examples" in page
    assert f"renormalised, on {renorm.company:.0f} % in both" in page
    assert abs(renorm.company - renorm.error) < 0.5
