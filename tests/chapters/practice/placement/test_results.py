"""A lead is a difference of accuracies in points, with the allowance for all that was looked at."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from bncore.chapters.practice.placement import results
from bncore.lab.intervals import Interval


def full(apart):
    accuracy = xr.DataArray(
        np.stack([[0.5 + np.array(apart), np.full(len(apart), 0.5)]]),
        dims=("activation", "placement", "seed"),
        coords={
            "activation": ["relu"], "placement": ["after", "before"], "seed": range(len(apart)),
        },
    )  # fmt: skip
    return {"placement": {"two layers": {"fresh": xr.Dataset({"accuracy": accuracy})}}}


def test_a_lead_is_students_interval_in_points():
    apart = [0.01, 0.03, 0.02, 0.06]
    found = results.lead(full(apart), "two layers", "relu", "after", "before")
    points = 100 * np.array(apart)
    half = stats.sem(points) * stats.t.isf(0.025 / results.LOOKED_AT, 3)
    assert tuple(found) == pytest.approx((3, 3 - half, 3 + half))
    reverse = results.lead(full(apart), "two layers", "relu", "before", "after")
    assert tuple(reverse) == pytest.approx((-3, -3 - half, -3 + half))


def test_every_comparison_of_the_chapter_is_allowed_for():
    """Three arms beside one another in eight networks, and two more in both recurrent ones."""
    unordered = {(*one[:2], frozenset(one[2:])) for one in results.COMPARED}
    assert len(unordered) == len(results.COMPARED) == results.LOOKED_AT == 8 * 3 + 2 * 3


@pytest.mark.parametrize(
    "pair", [("shared", "none"), ("before", "before"), ("input", "shared"), ("nowhere", "none")]
)
def test_what_is_not_allowed_for_is_refused(pair):
    with pytest.raises(
        ValueError, match=f"first is '{pair[0]}' and second '{pair[1]}' in recurrent"
    ):
        results.lead({}, "recurrent", "relu", *pair)
    with pytest.raises(ValueError, match="expected two placements among COMPARED"):
        results.lead({}, "two layers", "relu", "input", "none")


def test_a_lead_is_said_with_its_ends():
    assert results.said(Interval(1.04, -0.26, 2.34)) == "+1.0 (−0.3 to +2.3)"
