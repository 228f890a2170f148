"""The recorded runs of the chapter on placement and tuning."""

import itertools
import math
import re
from pathlib import Path

import nbformat
import pytest
from again import assert_run_again

from bncore.chapters.practice.placement import (
    full_size,
    horizon,
    results,
    tuning_results,
)

C = full_size.CONFIGURATION["placement"]
PAGE = Path(__file__).resolve().parents[4] / "book/practice/placement.ipynb"


def test_the_record_is_of_this_configuration(record):
    assert record["configuration"] == full_size.CONFIGURATION
    for name in C["architectures"]:
        for part, seeds in (("tuning", C["seeds"]), ("fresh", C["fresh_seeds"])):
            found = record["full"]["placement"][name][part]
            assert found.seed.values.tolist() == seeds
            assert found.activation.values.tolist() == C["activations"]
        doubled = record["full"]["placement"][name]["steps"] / C["architectures"][name]
        assert doubled in [2**k for k in range(C["doublings"] + 1)]
    rates = record["full"]["rates"]
    for axis, values in full_size.CONFIGURATION["rates"]["grid"].items():
        assert rates[axis].values.tolist() == values


@pytest.mark.parametrize("part", ["placement", "rates"])
def test_a_part_of_the_record_can_be_run_again(record, part):
    found = full_size.run({part: full_size.REDUCED[part]})
    assert_run_again(found, {part: record["reduced"][part]})


@pytest.mark.parametrize("name", C["architectures"])
def test_the_best_rates_lie_inside_their_grids(record, name):
    found = record["full"]["placement"][name]
    fresh, dims = found["fresh"], ("gain", "learning_rate")
    for activation, place in itertools.product(C["activations"], fresh.placement.values):
        arm = {"activation": activation, "placement": place}
        tried = found["tuning"].accuracy.sel(arm)
        tried = tried.dropna("gain", how="all").dropna("learning_rate", how="all")
        at = tried.mean("seed").argmax(dims)
        for dim in dims:
            chosen = tried[dim][at[dim].item()].item()
            assert fresh[dim].sel(arm).item() == pytest.approx(chosen, rel=1e-3)
        assert 0 < at["learning_rate"] < tried.sizes["learning_rate"] - 1


SAID = (
    ("convolution", "relu", "after", "before"),
    ("eight layers", "relu", "after", "before"),
    ("eight layers", "relu", "before", "after"),
    ("eight layers", "relu", "before", "none"),
    ("eight layers", "sigmoid", "after", "before"),
    ("eight layers", "sigmoid", "before", "none"),
    ("recurrent", "relu", "before", "none"),
    ("recurrent", "relu", "shared", "before"),
    ("recurrent", "sigmoid", "before", "none"),
    ("recurrent", "sigmoid", "shared", "before"),
    ("two layers", "relu", "before", "after"),
    ("two layers", "sigmoid", "after", "before"),
)


@pytest.fixture(scope="module")
def page():
    cells = nbformat.read(PAGE, as_version=4).cells
    return " ".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_every_lead_of_the_page_is_in_the_record(record, page):
    for one in SAID:
        assert results.said(results.lead(record["full"], *one)) in page
    tuned = tuning_results.decisions(record["full"]["tuning"])
    for question, _, effect, *_ in tuned:
        assert results.said(effect) in page, question
    written = set(re.findall(r"[+−]\d+\.\d \([+−]\d+\.\d to [+−]\d+\.\d\)", page))
    assert len(written) == len(SAID) + len(tuned)


def test_the_leads_in_the_headline_are_told_from_chance(record):
    full = record["full"]
    assert results.lead(full, "eight layers", "relu", "before", "after").low > 0
    assert results.lead(full, "eight layers", "relu", "before", "none").mean > 14.5
    for activation in results.ACTIVATIONS:
        assert results.lead(full, "recurrent", activation, "shared", "before").high < 0
        assert results.lead(full, "recurrent", activation, "shared", "before").mean < -5
    others = [one for one in results.NETWORKS if one != ("eight layers", "relu")]
    for one in others:
        assert not results.lead(full, *one, "after", "before").separates


def test_arms_are_done_and_the_page_says_what_they_still_gain(record, page):
    """Points of mean accuracy in the second half of the training."""
    gained = {}
    for name in C["architectures"]:
        one = record["full"]["placement"][name]
        gained[name] = 100 * horizon.gained(one["fresh"]).max().item()
        assert f"{one['steps']} steps" in page
    assert max(gained.values()) <= 100 * horizon.GAIN
    assert f"gains more than {math.ceil(10 * max(gained.values())) / 10:.1f} points" in page


def test_the_rate_of_three_is_for_batch_norm_before(record, page):
    kept = {"before": 0, "after": 0}
    for architecture, activation in results.NETWORKS[:6]:
        tuning = record["full"]["placement"][architecture]["tuning"].accuracy
        mean = tuning.sel(activation=activation, learning_rate=3.0).mean("seed").max("gain")
        for place in kept:
            kept[place] += bool(mean.sel(placement=place) > 0.7)
    assert kept == {"before": 5, "after": 0}
    assert "five of the six networks without a recurrence stayed above 70 %" in page
