"""The recorded run of the chapter on diagnosis, and what the page says of it."""

from pathlib import Path

import nbformat
import pytest
from again import assert_run_again

from bncore.chapters.practice.diagnosis import experiments, full_size, peers, sick

PAGE = Path(__file__).resolve().parents[4] / "book/practice/diagnosis.ipynb"


def test_the_record_is_of_this_configuration(record):
    assert record["configuration"] == full_size.CONFIGURATION
    for part, along in (("healthy", "kind"), ("patients", "patient"), ("many", "layers")):
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
def alarms(record):
    rows = record["full"]["healthy"].stack(one=("kind", "seed"))
    return rows.found.any("code").values[rows.learned.values == 1]


def test_what_the_page_says_of_healthy_networks_is_in_the_record(alarms, page):
    rate = experiments.rate(alarms)
    assert rate.of > 100
    words = {0: "none", 1: "one"}.get(rate.count, str(rate.count))
    assert f"on {rate.of} healthy networks, no two alike, it raised {words}" in page


def test_twins_are_healthy(record, page):
    found = record["full"]["patients"].found.sel(course="twin")
    assert f"{int(found.any('code').sum())} of {found.isel(code=0).size} twins" in page


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
