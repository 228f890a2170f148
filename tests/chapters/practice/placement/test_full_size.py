"""The recorded runs of the chapter on placement and tuning."""

import itertools
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
        assert doubled in [2**k for k in range(C["doublings"][name] + 1)]
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
        mean, chosen = tried.mean("seed"), {dim: fresh[dim].sel(arm).item() for dim in dims}
        best = mean.sel(chosen, method="nearest")
        for dim, value in chosen.items():
            assert best[dim].item() == pytest.approx(value, rel=1e-3)
        assert best.item() > mean.max().item() - 1e-3  # digits that the record leaves out
        rates = tried.learning_rate.values
        assert rates[0] < best.learning_rate.item() < rates[-1]


SAID = (
    ("convolution", "relu", "after", "before"),
    ("convolution", "relu", "before", "after"),
    ("convolution", "relu", "before", "none"),
    ("convolution", "sigmoid", "after", "before"),
    ("eight layers", "relu", "after", "before"),
    ("eight layers", "relu", "before", "after"),
    ("eight layers", "relu", "before", "none"),
    ("eight layers", "sigmoid", "after", "before"),
    ("eight layers", "sigmoid", "before", "none"),
    ("recurrent", "relu", "after", "before"),
    ("recurrent", "relu", "before", "none"),
    ("recurrent", "relu", "input", "before"),
    ("recurrent", "relu", "shared", "before"),
    ("recurrent", "sigmoid", "after", "before"),
    ("recurrent", "sigmoid", "before", "none"),
    ("recurrent", "sigmoid", "input", "before"),
    ("recurrent", "sigmoid", "shared", "before"),
    ("two layers", "relu", "before", "after"),
    ("two layers", "relu", "before", "none"),
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
    for activation in results.ACTIVATIONS:
        for place in ("before", "after"):
            lead = results.lead(full, "eight layers", activation, place, "none")
            assert lead.low > 0
            assert 1 < lead.mean < 2
    leads = {one: results.lead(full, *one, "after", "before") for one in results.NETWORKS}
    told = {one: lead.mean for one, lead in leads.items() if lead.separates}
    assert told == {
        ("two layers", "sigmoid"): pytest.approx(-0.6, abs=0.05),
        ("eight layers", "relu"): pytest.approx(-0.6, abs=0.05),
        ("convolution", "relu"): pytest.approx(-1, abs=0.05),
        ("convolution", "sigmoid"): pytest.approx(2.2, abs=0.05),
    }
    assert all(lead.mean < 0 for (_, name), lead in leads.items() if name == "relu")


def test_one_running_average_for_all_steps_costs_four_and_five_points(record):
    for activation, points in (("sigmoid", 4), ("relu", 5)):
        lead = results.lead(record["full"], "recurrent", activation, "shared", "before")
        assert lead.high < 0
        assert round(lead.mean) == -points
        assert results.lead(record["full"], "recurrent", activation, "input", "none").low < 0


def test_the_best_arm_of_each_network_is_done(record, page):
    gains = []
    for architecture, activation in results.NETWORKS:
        fresh = record["full"]["placement"][architecture]["fresh"].sel(activation=activation)
        best = fresh.accuracy.mean("seed").values.argmax()
        gains.append(100 * horizon.gained(fresh)[best].item())
    assert f"with at most {max(gains):.1f}." in page
    assert max(gains) < 1.15


def test_the_page_says_what_arms_still_gain(record, page):
    """Points of mean accuracy in the second half of the training."""
    for name, steps in C["architectures"].items():
        one = record["full"]["placement"][name]
        gained = 100 * horizon.gained(one["fresh"]).max().item()
        assert f"after {one['steps']} steps: {gained:.1f}" in page
        again = horizon.gained(one["fresh"]).max() > horizon.GAIN
        assert one["steps"] > steps or not again or not C["doublings"][name]


def test_the_best_rate_is_lower_after_the_activation(record, page):
    lower = []
    for architecture, activation in results.NETWORKS:
        fresh = record["full"]["placement"][architecture]["fresh"]
        rates = fresh.learning_rate.sel(activation=activation)
        lower.append((rates.sel(placement="before") / rates.sel(placement="after")).item() > 2.9)
    assert sum(lower) == 7
    assert "In seven of the eight networks the best rate" in page
