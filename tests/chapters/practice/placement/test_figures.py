"""The figures of the chapter on placement show what they are given."""

import numpy as np
import pytest
import torch
import xarray as xr

from bncore.chapters.practice.placement import figures, results


@pytest.fixture
def full():
    """Accuracies in which after leads before by a point more in each network than in the last."""
    found, rng = {}, np.random.default_rng(0)
    for place, name in enumerate(results.ARCHITECTURES):
        places = ["none", "before", "after", "input", "shared"]
        accuracy = 0.8 + 0.001 * rng.normal(size=(2, len(places), 8))
        accuracy[:, 2] += 0.01 * place
        dims = ("activation", "placement", "seed")
        coords = {"activation": ["sigmoid", "relu"], "placement": places, "seed": range(8)}
        one = xr.DataArray(accuracy, dims=dims, coords=coords)
        found[name] = {"fresh": xr.Dataset({"accuracy": one})}
    return {"placement": found}


@pytest.mark.parametrize("shift", [-2, 0, 3])
@pytest.mark.parametrize("activation", ["ReLU", "sigmoid"])
def test_the_next_layer_receives_what_torch_computes(activation, shift):
    found = figures.received(activation, shift)
    z = torch.tensor(np.sort(np.random.default_rng(1).normal(shift, 1, 64)))[:, None]
    z = z - z.mean() + shift
    function = {"ReLU": torch.relu, "sigmoid": torch.sigmoid}[activation]

    def norm(x):
        return torch.nn.functional.batch_norm(x, None, None, training=True)

    for name, expected in (
        ("none", function(z)), ("before", function(norm(z))), ("after", norm(function(z))),
    ):  # fmt: skip
        # Means of 64 values, divided by a deviation of 1e-3 or more.
        np.testing.assert_allclose(found[name], expected[:, 0], atol=64 * 1e-13)


def test_a_shift_is_nothing_before_and_all_that_is_left_after():
    apart = [figures.received("ReLU", shift) for shift in (-2, 2)]
    np.testing.assert_allclose(apart[0]["before"], apart[1]["before"], atol=1e-12)
    assert (apart[0]["none"] > 0).mean() < 0.1
    assert abs((apart[0]["before"] > 0).mean() - 0.5) < 0.1
    assert apart[0]["after"].max() > 5


@pytest.mark.parametrize("shift", [-3, -2, 0, 2, 3])
@pytest.mark.parametrize("activation", ["ReLU", "sigmoid"])
def test_a_unit_is_drawn_as_it_is_received(activation, shift):
    fig, received = figures.unit(activation, shift), figures.received(activation, shift)
    low, high = fig.axes[0].get_xlim()
    for ax, (name, values) in zip(fig.axes, received.items(), strict=True):
        assert low < values.min()
        assert values.max() < high
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), values)
        assert ("no batch norm" if name == "none" else name) in ax.get_title(loc="left")
        assert f"deviation {values.std():.1f}" in ax.get_title(loc="left")


def test_the_noise_of_rare_units_is_larger_after_than_before():
    found = figures.units(draws=200)
    rare = found["active"] < 0.3
    assert rare.sum() > 5
    assert np.median(found["after"][rare] / found["before"][rare]) > 2
    often = found["active"] > 0.9
    assert np.median(found["after"][often] / found["before"][often]) < 1.2
    marks = figures.noise(found).axes[0].lines
    np.testing.assert_array_equal(marks[1].get_ydata(), found["before"])
    np.testing.assert_array_equal(marks[4].get_ydata(), found["after"])
    # Normal sums: sqrt(2 / 31).
    np.testing.assert_allclose(marks[0].get_ydata(), (2 / 31) ** 0.5)


def test_every_seed_and_every_mean_are_drawn(full):
    ax = figures.placements(full, "relu").axes[0]
    assert len(ax.lines) == 2 * 3 * 4
    values = results.points(full, "two layers", "relu", "none").values
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), values)
    assert ax.lines[1].get_xdata() == pytest.approx(values.mean())


def test_leads_are_drawn_with_their_intervals(full):
    ax = figures.leads(full).axes[0]
    for place, network in enumerate(results.NETWORKS):
        mean, low, high = results.lead(full, *network, "after", "before")
        ends, middle = ax.lines[2 * place : 2 * place + 2]
        np.testing.assert_allclose(ends.get_xdata(), (low, high))
        assert middle.get_xdata() == pytest.approx(mean)
        assert network[0] in ax.get_yticklabels()[place].get_text()


def test_recurrences_are_drawn_pair_by_pair(full):
    fig = figures.recurrences(full)
    for ax, activation in zip(fig.axes, ("sigmoid", "relu"), strict=True):
        for place, (name, pair) in enumerate(figures.RECURRENCES.items()):
            mean = results.lead(full, "recurrent", activation, *pair).mean
            assert ax.lines[2 * place + 1].get_xdata() == pytest.approx(mean)
            assert ax.get_yticklabels()[place].get_text() == name
