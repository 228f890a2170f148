"""Arms are trained until none gains, and judged by means of several moments."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from bncore.chapters.practice.placement import horizon


@given(st.integers(40, 5000))
def test_moments_lie_in_the_tenths_before_the_half_and_before_the_end(steps):
    found = np.array(horizon.moments(steps))
    assert (np.diff(found) > 0).all()
    for chosen, end in ((found[:5], steps // 2), (found[5:], steps)):
        assert len(chosen) == 5
        assert chosen[-1] == end
        assert end - chosen[0] <= steps / 10


@given(st.integers(1, 200))
def test_moments_are_fit_for_training_however_few_the_steps(steps):
    found = horizon.moments(steps)
    assert list(found) == sorted(set(found))
    assert found[0] >= 0
    assert found[-1] == steps


@given(st.integers(40, 1000), st.floats(0, 1), st.floats(0, 1))
def test_each_half_is_the_mean_of_its_moments(steps, half, end):
    first = np.array(horizon.moments(steps)) <= steps // 2
    noise = np.array([-2, -1, 0, 1, 2, 2, 1, 0, -1, -2])
    values = np.stack([np.where(first, half, end) + scale * noise for scale in (0, 0.1)])
    found = horizon.settled(values, steps)
    np.testing.assert_allclose(found["half"], [half, half], atol=1e-12)
    np.testing.assert_allclose(found["accuracy"], [end, end], atol=1e-12)


def study(gains):
    """One arm for each gain, with seeds that differ by more than it."""
    half = np.array([[0.5, 0.7]] * len(gains))
    dims, more = ("arm", "seed"), np.array(gains)[:, None] + [-0.05, 0.05]
    fresh = {"half": (dims, half), "accuracy": (dims, half + more)}
    return {"fresh": xr.Dataset(fresh)}


def test_what_is_gained_is_a_mean_over_the_seeds():
    np.testing.assert_allclose(horizon.gained(study([0.02, -0.1])["fresh"]), [0.02, -0.1])


@pytest.mark.parametrize(("doublings", "expected"), [(0, 100), (1, 200), (2, 400), (5, 800)])
def test_steps_are_doubled_while_an_arm_of_any_study_gains(doublings, expected):
    """By 8/steps in one arm of the second study: done at 800."""

    def run(steps):
        return {"one": study([0.0, -0.2]), "other": study([0.001, 7.9 / steps])}

    found = horizon.until_done(run, 100, doublings)
    assert list(found) == ["one", "other"]
    for name, one in found.items():
        assert one["steps"] == expected
        assert one["fresh"].identical(run(expected)[name]["fresh"])
