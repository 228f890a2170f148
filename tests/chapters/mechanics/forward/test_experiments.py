"""The experiments of the chapter on forward, against formulas, other libraries and the record."""

import numpy as np
import pytest

from bncore.chapters.mechanics.forward import experiments
from bncore.lab import data, networks, probes, training


@pytest.mark.parametrize("network", experiments.NETWORKS)
def test_accuracies_are_those_of_runs_that_end_there(network):
    """Three runs of their own, one for each moment, end where the one run passed by."""
    moments = [4, 6, 20]
    found = experiments.accuracies(network, 0.3, 1, moments=moments)
    split = data.digits(1)
    for steps, accuracy in zip(moments, found["accuracy"], strict=True):
        model = networks.mlp(experiments.WIDTHS, **experiments.NETWORKS[network], seed=1)
        training.train(model, split, steps, 64, 0.3, 1)
        assert accuracy == probes.test_accuracy(model, split)
    assert found["last"] == found["accuracy"][-1]


@pytest.mark.parametrize("normalization", [None, "batch"])
def test_deviations_are_those_of_the_sums_that_enter_the_sigmoids(normalization):
    found = experiments.deviations(normalization, 2.0, seeds=[3, 4], depth=3)
    assert found.shape == (2, 3)
    x = data.digits().x_train.double()
    for row, seed in zip(found, (3, 4), strict=True):
        widths = (64, 50, 50, 50, 10)
        model = networks.mlp(widths, "sigmoid", normalization, gain=2.0, seed=seed).double()
        expected, entering = [], x
        for name, layer in model.named_children():
            if name.startswith("activation"):
                expected.append(entering.var(0, correction=0).mean().sqrt().item())
            entering = layer(entering)
        np.testing.assert_allclose(row, expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_units_of_a_plain_network_start_in_the_middle_of_the_sigmoid_and_do_not_tell_images_apart(
    seed,
):
    x = data.digits(seed).x_train
    model = networks.mlp(experiments.WIDTHS, "sigmoid", seed=seed)
    last = probes.inputs_of(model, ["activation5"], x)["activation5"]
    assert np.abs(last).max() < 2
    assert last.std(axis=0).max() < 1e-3


def test_at_the_rate_of_three_tenths_they_stay_there_and_at_three_they_go_to_the_ends(record):
    """Inputs of the last layer's sigmoids beyond ±4, as the fold on saturation says."""
    plain, normalised = (
        record["full"]["saturation"].sel(normalization=name) for name in ("none", "batch")
    )
    middle, ends = (plain.sel(learning_rate=rate) for rate in (0.3, 3.0))
    assert plain.steps.values.tolist() == [100, 300, 1000, 3000]
    assert middle.share.max() == 0
    assert middle.accuracy.max() < 0.15
    assert ends.share.mean("steps").min() > 0.5
    late = normalised.sel(learning_rate=3.0, steps=3000).share.mean()
    assert 1 / 8 < late < 1 / 6


@pytest.mark.parametrize(("name", "normalization"), [("none", None), ("batch", "batch")])
def test_inputs_wander_as_far_as_their_percentiles_say(name, normalization):
    found = experiments.wandering(name, 0.3, 2, steps=20, every=10)
    split = data.digits(2)
    records = experiments.percentile_run(normalization, split, 20, 10, 2, 0.3).records
    medians, widths = records["percentiles"][..., 1], np.diff(records["percentiles"][..., ::2])
    far = (medians.max(0) - medians.min(0)) / widths[..., 0].mean(0)
    assert found["wandered"] == pytest.approx(np.median(far))
    assert found["accuracy"] == records["accuracy"][-1]
    assert found["wandered"] != experiments.wandering(name, 1.0, 2, steps=20, every=10)["wandered"]
