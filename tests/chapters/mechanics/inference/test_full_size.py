"""The recorded runs of the inference chapter."""

from pathlib import Path

import nbformat
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


PAGE = Path(__file__).resolve().parents[4] / "book/mechanics/inference.ipynb"


@pytest.fixture(scope="module")
def page():
    cells = nbformat.read(PAGE, as_version=4).cells
    return " ".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_what_the_page_says_of_statistics_is_in_the_record(record, page):
    full = record["full"]
    last = 100 * full["statistics"]["fresh"]["last"]

    def lead(one, other, m):
        pair = (last.sel(statistics=name, batch_size=m) for name in (one, other))
        return studies.difference(*pair, looked_at=5)

    def said(interval):
        return "{:.1f} points ({:.1f} to {:.1f}".format(*interval)

    assert said(lead("whole training set", "batch", 4)) in page
    assert said(lead("batch", "running", 32)) in page
    low, high = lead("whole training set", "batch", 32)[1:]
    assert low < 0 < high
    low, high = lead("running", "batch", 4)[1:]
    assert low < 0 < high
    whole = 100 * full["equal_cost"]["fresh"]["last"].squeeze(drop=True)
    batch = last.sel(statistics="batch", batch_size=32)
    assert said(studies.difference(batch, whole, looked_at=5)) in page


def test_what_the_page_says_of_changes_is_in_the_record(record, page):
    found = record["full"]["changes"]["fresh"].sel(kind="digits")
    norm, none = (found.sel(normalization=kind) for kind in ("batch", "none"))
    more = [
        "{:.0f} {} {:.0f} to {:.0f}".format(mean, "{}", low, high)
        for mean, low, high in (
            studies.difference(
                *(100 * one.lost.sel(change=change) for one in (norm, none)), looked_at=3
            )
            for change in found.change.values
        )
    ]
    for text, between in zip(more, ("points more (95 % interval", "(", "("), strict=True):
        assert text.format(between).replace("( ", "(") in page
    lead = studies.difference(100 * norm.accuracy, 100 * none.accuracy, looked_at=3)
    assert "{:.1f} points ({:.1f} to {:.1f})".format(*lead) in page


def test_what_the_page_says_of_use_is_in_the_record(record, page):
    use = record["full"]["use"]
    alone = use["alone"]["fresh"].sel(kind="convolutional")
    lost = 100 * (alone.kept - alone.own).mean().item()
    assert f"{lost:.0f} points of accuracy" in page
    apart = 100 * use["mismatch"]["fresh"].mismatch.mean("seed")
    renorm, batch = (apart.sel(normalization=name) for name in ("renorm", "batch"))
    assert f"{renorm.sel(batch_size=8):.1f} % of their spread" in page
    assert f"{batch.sel(batch_size=8):.0f} % with batch norm" in page
    assert f"{renorm.sel(batch_size=2):.0f} % remain" in page
