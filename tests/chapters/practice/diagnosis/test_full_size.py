"""The recorded run of the chapter on diagnosis, and what the page says of it."""

from pathlib import Path

import nbformat
import pytest
from again import assert_run_again

from bncore.chapters.practice.diagnosis import experiments, full_size, healthy, peers, sick

PAGE = Path(__file__).resolve().parents[4] / "book/practice/diagnosis.ipynb"


def test_the_record_is_of_this_configuration(record):
    assert record["configuration"] == full_size.CONFIGURATION
    for part, along in (
        ("healthy", "kind"),
        ("patients", "patient"),
        ("graded", "fault"),
        ("many", "layers"),
    ):
        c, found = full_size.CONFIGURATION[part], record["full"][part]
        assert found.seed.values.tolist() == c["seeds"]
        assert found[along].values.tolist() == c[along]
    first = full_size.CONFIGURATION["patients"]["seeds"][: full_size.CONFIGURATION["curves"]]
    assert record["full"]["curves"].seed.values.tolist() == first


def test_a_part_of_the_record_can_be_run_again(record):
    assert_run_again(full_size.run(full_size.REDUCED), record["reduced"], atol={"loss": 0.02})


@pytest.fixture(scope="module")
def page():
    cells = nbformat.read(PAGE, as_version=4).cells
    return " ".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.fixture(scope="module")
def learned(record):
    rows = record["full"]["healthy"].stack(one=("kind", "seed"))
    return rows.where(rows.learned == 1, drop=True)


def test_what_the_page_says_of_healthy_networks_is_in_the_record(record, learned, page):
    costly = learned.cost.values >= healthy.COSTLY
    rate = experiments.rate(learned.found.any("code").values[~costly])
    assert rate.of > 100
    words = {0: "no alarm", 1: "one alarm"}.get(rate.count, f"{rate.count} alarms")
    assert f"on {rate.of} healthy networks, no two alike, it raised {words}" in page
    drawn = record["full"]["healthy"].learned.size
    assert f"Of {drawn} networks drawn {len(costly)} had learned, and {costly.sum()} of" in page
    _, _, some, *_ = experiments.by_cost(learned.found.any("code").values, learned.cost.values)
    assert f"Of the {some.of} that lose two to five points {some.count} was found" in page
    assert f"{some.of - some.count} of {some.of} networks drawn at random" in page


def test_what_the_page_says_of_graded_faults_is_in_the_record(record, page):
    rows = record["full"]["graded"]
    cost = rows.cost.values.ravel()
    found, unlabelled = (
        experiments.by_cost(rows[name].values.ravel() == 1, cost)
        for name in ("found", "unlabelled")
    )
    # Classes from five points on are the last three.
    assert all(one.count == one.of for one in found[3:])
    assert f"all {sum(one.of for one in found[3:])} networks that lose five points" in page
    assert f"{found[2].count} of the {found[2].of} that lose two to five" in page
    assert f"Below one point {found[0].count} of {found[0].of} are found" in page
    assert unlabelled[-1].count == unlabelled[-1].of
    assert unlabelled[-2].count < unlabelled[-2].of
    some, more = found[2], unlabelled[3]
    assert f"{some.of - some.count} of {some.of} faults that cost two to five were missed" in page
    assert f"{more.of - more.count} of {more.of} faults of five to ten" in page
    worst = 100 * rows.cost.sel(level=rows.level.max()).mean("seed")
    low, high = float(worst.min()), float(worst.max())
    assert worst.idxmin("fault") == "averaged"
    assert worst.idxmax("fault") == "sorted"
    assert f"costs from {low:.0f} points on average (weights averaged) to {high:.0f} (" in page


def test_data_are_blamed_where_data_are_others(record):
    rows = record["full"]["graded"]
    data = rows.fault.isin(["contrast", "brightness"])
    assert (rows.blamed == rows.found.where(data, 0)).all()


def test_twins_are_healthy(record, page):
    found = record["full"]["patients"].found.sel(course="twin")
    assert not found.any()
    assert "On the twins nothing was found either, over twenty seeds" in page
    assert found.sizes["seed"] == 20


def test_the_other_tools_had_fewer_seeds(page):
    assert peers.read()["seeds"] == 2


def test_versions_of_the_page_are_those_of_the_record(page):
    for tool, version in peers.read()["versions"].items():
        if tool != "torch":
            assert f"`{tool}` {version}" in page


def test_every_patient_is_found_in_most_seeds(record):
    shares = peers.shares(record["full"]["patients"])["examine"]
    low = dict(zip(sick.MISTAKES, shares, strict=True))
    assert all(share > 0.9 for share in shares), low


def test_a_thousand_layers_take_under_ten_seconds(record):
    assert record["full"]["many"].seconds.sel(layers=1000).max() < 10
