"""Rates have exact intervals, and experiments count what they say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncore.chapters.practice.diagnosis import experiments, full_size, sick
from bncore.practice.diagnosis import CODES


def at_least(k, n, p):
    """The probability of k or more among n, summed."""
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


@given(st.integers(1, 60), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_ends_of_a_rate_are_where_the_count_becomes_unlikely(n, data, confidence):
    k = data.draw(st.integers(0, n))
    found = experiments.rate([True] * k + [False] * (n - k), confidence)
    assert (found.count, found.of) == (k, n)
    outside = (1 - confidence) / 2
    if k:
        assert at_least(k, n, found.low) == pytest.approx(outside, rel=1e-6)
    else:
        assert found.low == 0
    if k < n:
        assert 1 - at_least(k + 1, n, found.high) == pytest.approx(outside, rel=1e-6)
    else:
        assert found.high == 1


@given(st.lists(st.tuples(st.booleans(), st.floats(-0.1, 0.9)), min_size=1, max_size=80))
def test_every_case_is_in_one_class_of_costs(cases):
    happened, cost = (np.array(one) for one in zip(*cases, strict=True))
    ends = (-math.inf, *experiments.COSTS, math.inf)
    for i, found in enumerate(experiments.by_cost(happened, cost)):
        inside = [h for h, c in cases if ends[i] <= c < ends[i + 1]]
        assert (found.count, found.of) == (sum(inside), len(inside))


def test_alarms_are_all_codes_but_the_notes():
    assert set(CODES) - set(experiments.ALARMS) == {"redundant-bias", "decayed-affine"}


def test_pieces_of_a_loss_are_its_means():
    losses = np.random.default_rng(0).random(sick.STEPS)
    losses[sick.STEPS // 2] = np.nan
    width = sick.STEPS // experiments.PIECES
    expected = [np.nanmean(losses[i : i + width]) for i in range(0, sick.STEPS, width)]
    np.testing.assert_allclose(experiments._in_pieces(losses), expected, rtol=1e-12)


def test_a_patient_is_found_and_its_twin_is_not():
    rows = experiments.on_patient("momentum", seed=5)
    place = experiments.ALARMS.index("stale-statistics")
    assert rows["found"].shape == (2, len(experiments.ALARMS))
    assert rows["found"][0, place] == 1
    assert rows["found"][1].sum() == 0
    assert rows["loss"].shape == (2, experiments.PIECES)
    assert rows["accuracy"].shape == (2, sick.STEPS // sick.EVERY + 1)


def test_a_healthy_network_is_examined():
    rows = experiments.on_healthy("perceptron", seed=45)
    assert rows["found"].shape == (len(experiments.ALARMS),)
    assert rows["learned"] == (rows["loss"] < 0.8)
    assert abs(rows["cost"]) < 0.1


@pytest.mark.parametrize(("level", "cost"), [(0, 0.05), (4, 1.0)])
def test_graded_cases_are_examined_with_labels_and_without(level, cost):
    rows = experiments.on_graded("contrast", level, seed=6)
    assert rows["cost"] < cost
    assert rows["found"] == rows["unlabelled"] == rows["blamed"] == (level > 0)


def test_many_layers_take_time():
    assert experiments.on_many_layers(3, seed=0)["seconds"] > 0


def test_the_recorded_seeds_are_fresh():
    for part in ("healthy", "patients", "graded"):
        assert min(full_size.CONFIGURATION[part]["seeds"]) >= 1000
