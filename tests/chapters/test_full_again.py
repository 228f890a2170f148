"""Runs that repeat pass, and those of other code do not."""

import functools

import numpy as np
import pytest
import xarray as xr
from again import assert_run_again
from hypothesis import given
from hypothesis import strategies as st

from bncore.lab import studies

ARMS, RATES = {"kind": ["plain", "batch"]}, (0.1, 0.3, 1.0)


def trained(kind, learning_rate, seed):
    loss = (1 + seed) / learning_rate + len(kind)
    return {"losses": np.array([1.0, loss]), "best": (learning_rate - 0.3) ** 2}


@functools.cache
def made(rates):
    arguments = ARMS, rates, [0], [1], "best"
    return studies.at_best_rates(trained, *arguments, smaller=True, axes={"losses": ("steps",)})


def study(rates=RATES):
    return {name: one.copy(deep=True) for name, one in made(rates).items()}


@given(st.sets(st.integers(0, 5)), st.floats(0.02, 1e6), st.sampled_from([1, -1]))
def test_a_quantity_repeats_if_more_than_half_of_its_runs_do(places, moved, sign):
    kept, found = study(), study()
    for place in places:
        found["tuning"].losses[place // 3, place % 3, 0, 1] *= 1 + sign * moved
    if len(places) < 4:
        assert_run_again({"part": found}, {"part": kept})
    else:
        with pytest.raises(AssertionError, match=f"losses of part: {8 - len(places)} of 8 runs"):
            assert_run_again({"part": found}, {"part": kept})


@given(st.floats(0, 0.009), st.floats(0.011, 1))
def test_the_tolerance_is_relative_or_absolute(less, more):
    kept = study()
    near, far = (
        {name: one.assign(losses=one.losses * (1 + moved)) for name, one in kept.items()}
        for moved in (less, more)
    )
    assert_run_again(near, kept)
    with pytest.raises(AssertionError, match="0 of 8 runs"):
        assert_run_again(far, kept)
    assert_run_again(far, kept, but={"losses"})
    assert_run_again(far, kept, atol={"losses": 1000})


def test_runs_at_rates_that_only_one_of_both_tried_are_not_compared():
    kept, found = study(), study(rates=(0.03, 0.1, 0.3, 3.0))
    found["tuning"].losses.loc[{"learning_rate": [0.03, 3.0]}] = 7
    found["fresh"] = found["fresh"].assign(learning_rate=("kind", [3.0, 3.0]))
    found["fresh"].losses[:] = 7
    assert_run_again(found, kept)
    with pytest.raises(AssertionError):
        assert_run_again(study(rates=(0.7, 1.4, 2.8)), kept)


def test_what_is_no_number_in_both_repeats():
    kept = {"one": xr.Dataset({"steps": ("seed", [np.inf, np.nan, 3.0])})}
    assert_run_again(kept, kept)
    with pytest.raises(AssertionError, match="steps of all: 1 of 3 runs"):
        assert_run_again({"one": kept["one"].fillna(1).clip(max=9)}, kept)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: {"tuning": one["tuning"]},
        lambda one: one | {"tuning": one["tuning"].drop_vars("losses")},
        lambda one: one | {"tuning": one["tuning"].assign_coords(seed=[5])},
        lambda one: one | {"tuning": one["tuning"].isel(steps=[0])},
        lambda one: one | {"tuning": one["tuning"].transpose()},
    ],
)
def test_other_parts_quantities_cases_and_axes_fail(change):
    kept = study()
    with pytest.raises(AssertionError):
        assert_run_again(change(kept), kept)
