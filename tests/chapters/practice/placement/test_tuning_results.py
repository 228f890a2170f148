"""What is read from the record of the page on tuning."""

import numpy as np
import pytest
import xarray as xr

from bncore.chapters.practice.placement import tuning_results as results


def test_effects_are_points_ahead_of_the_reference():
    values = {"none": 0.80, "first": 0.90, "all": 0.95}
    last = xr.DataArray(
        [[value, value + 0.02] for value in values.values()],
        coords={"where": list(values), "seed": [1, 2]},
        dims=("where", "seed"),
    )
    found = results.effects({"layers": {"fresh": xr.Dataset({"accuracy": last})}}, "layers")
    assert list(found) == [("none",), ("first",)]
    assert found[("none",)].mean == pytest.approx(-15)
    assert found[("first",)].mean == pytest.approx(-5)


def test_widths_count_half_decades():
    last = xr.DataArray(
        np.array([[[0.95, 0.2], [0.9, 0.9], [0.1, 0.99]]]),
        dims=("normalization", "learning_rate", "seed"),
    )
    assert results.widths(xr.Dataset({"accuracy": last})).values.tolist() == [[1.0, 1.0]]
    assert results.widths(xr.Dataset({"accuracy": last}), 0.15).values.tolist() == [[1.0, 1.5]]
