"""The recorded run of the chapter on covariate shift: it repeats, and it says what the chapter says of it."""

import copy

import numpy as np
import pytest
import xarray as xr
from again import assert_run_again

from bncore.chapters.explanations.covariate_shift import (
    experiments,
    full_size,
    measures,
    readings,
    runs,
)
from bncore.lab import studies, training

SINGLE = float(np.finfo(np.float32).eps)


def test_the_reduced_run_is_reproduced(record):
    """Twelve steps of a VGG decide accuracies and percentiles, of which there is a single run each."""
    found = full_size.run(full_size.REDUCED)
    few = {"accuracies", "percentiles"}
    assert_run_again(found, record["reduced"], but=few, atol={"relative": 1000 * SINGLE})


def test_runs_that_were_interrupted_are_not_made_again(tmp_path, monkeypatch):
    small = copy.deepcopy(full_size.REDUCED)
    small["vgg"] |= {"width": 2, "steps": 3}
    small["linear"] |= {"width": 4, "depth": 4, "examples": 8, "steps": 3}
    small |= {"every": 1, "noise": {"strengths": [2], "seeds": [0], "record": 1}}
    small["moved"] |= {"steps": 2}
    first = full_size.run(small, store=tmp_path)
    full_size.run(
        small | {"move": 0.02}, store=tmp_path
    )  # Another configuration has its own place.
    monkeypatch.setattr(training, "train", None)
    monkeypatch.setattr(experiments, "train", None)
    monkeypatch.setattr(measures, "train", None)
    again = full_size.run(small, store=tmp_path)
    for network in first:
        for part in first[network]:
            xr.testing.assert_identical(first[network][part], again[network][part])


@pytest.mark.parametrize("depth", [11, 16])
def test_the_command_for_the_papers_size_runs_its_configuration(
    depth, small_images, monkeypatch, command
):
    small = copy.deepcopy(full_size.PAPER)
    small["vgg"] |= {"width": 2, "depth": depth, "batch_size": 8, "steps": 3}
    small["linear"] |= {"width": 4, "examples": 8, "depth": 4, "steps": 3}
    for network in ("vgg", "linear"):
        small[network] |= {"rates": [0.001, 0.003, 0.01], "records": [0, 2], "drawn": [2]}
        small[network] |= {"tuning_seeds": [100]}
    small |= {"seeds": [0], "fresh_seeds": [1], "every": 1, "device": "cpu", "extensions": 0}
    small["noise"] = {"strengths": [2], "seeds": [0], "record": 1}
    monkeypatch.setattr(full_size, "PAPER", small)
    kept = command("explanations/covariate_shift", "--paper", "--cache", "somewhere")
    assert small_images == [("cifar10", "somewhere")]
    assert kept["configuration"] == small
    layers = {"vgg": {11: 10, 16: 15}[depth], "linear": 2}
    for network, models in layers.items():
        found = kept["full"][network]
        assert found["layers"].relative.shape == (2, 1, 1, 3, models - 1)
        assert np.isfinite(found["runs"].losses.sel(kind="batch norm")).all()
    assert kept["full"]["vgg"]["percentiles"].sizes["moment"] == 2
    assert "moved" not in kept["full"]


def test_the_papers_configuration_has_the_fields_of_the_recorded_one():
    ours, paper = full_size.CONFIGURATION, full_size.PAPER
    assert paper.keys() == ours.keys() == full_size.REDUCED.keys()
    for network in ("vgg", "linear"):
        assert paper[network].keys() == ours[network].keys() == full_size.REDUCED[network].keys()
        assert max(paper[network]["records"]) < paper[network]["steps"]
    task = runs.task_of(paper, "vgg")
    assert (task.batch_size, task.steps, task.device) == (128, 15_000, "cuda")
    model = task.network("batch", 0)
    assert model.conv1.weight.shape == (64, 3, 3, 3)
    assert sum(name.startswith("conv") for name, _ in model.named_children()) == 8


def test_the_recorded_rates_are_the_best_of_their_grid():
    for network in ("vgg", "linear"):
        chosen = studies.best(readings.runs(network, "tuning"), "end", smaller=True)
        assert not chosen.at_an_end.any()
        for part in ("runs", "fresh"):
            ran = readings.runs(network, part).learning_rate
            assert (ran == chosen.learning_rate.sel(kind=ran.kind)).all()


def test_the_vggs_are_recorded_at_one_best_rate_and_the_linear_networks_at_two():
    assert set(readings.runs("vgg").learning_rate.values) == {0.1}
    assert readings.runs("linear").learning_rate.values.tolist() == [0.01, 0.03]


def test_the_next_rate_of_the_plain_linear_network_diverges_in_half_the_runs_and_is_better_else():
    ends = readings.runs("linear", "tuning").end.sel(kind="no batch norm")
    here, above = (ends.sel(learning_rate=rate) for rate in (0.01, 0.03))
    assert here.notnull().all()
    assert (above.notnull().sum(), above.sizes["seed"]) == (2, 4)
    assert above.max() < here.min()


def ratio(compared):
    """Relative shift of the linear network with batch norm over that without, from step 5 on."""
    found = readings.runs("linear", "fresh").relative.sel(compared=compared, record=slice(5, None))
    return found.sel(kind="batch norm") / found.sel(kind="no batch norm")


def test_the_shift_of_the_linear_network_is_recorded_as_larger_with_batch_norm():
    own, one = (ratio(compared).median("seed") for compared in ("own rate", "one rate"))
    assert own.min() > 8
    assert own.max() < 21
    assert one.min() > 4
    assert one.max() < 7
    np.testing.assert_allclose(own / one, 3, rtol=0.2)
    whole = ratio("own rate")
    assert 0.7 < whole.min() < 1 < whole.max() < 36


def test_the_vgg_is_recorded_as_shifting_more_with_batch_norm_at_first_and_less_at_the_end():
    found = readings.runs("vgg", "fresh").relative.sel(compared="own rate")
    less = found.sel(kind="batch norm") < found.sel(kind="no batch norm")
    assert less.sum("seed").values.tolist() == [0, 0, 11, 7, 13, 14]


def test_the_losses_of_the_fresh_seeds_are_recorded_as_the_chapter_says():
    for network, low, high in (("vgg", 6, 120), ("linear", 7, 24)):
        ends = readings.runs(network, "fresh").losses.isel(window=slice(-4, None)).mean("window")
        lead = ends.sel(kind="no batch norm") / ends.sel(kind="batch norm")
        assert low < lead.min() < lead.max() < high


def test_a_move_of_one_per_cent_is_recorded_as_a_long_shift_in_both_linear_networks():
    for name, bound in (("no batch norm", 0.25), ("batch norm", -0.25)):
        found = readings.runs("linear").sel(kind=name, compared="one move", record=slice(5, None))
        assert found.relative.min() > 1
        assert found.cosine.max() < bound


def test_the_drift_is_recorded_as_the_chapter_says():
    drift = readings.runs("vgg", "drift").drift.isel(record=slice(3))
    none, batch, noisy = (drift.sel(kind=name) for name in experiments.NORMALIZATIONS)
    deep = none.isel(activation=slice(6, None)).median(["record", "activation"])
    assert 1.5 < deep.min() < deep.max() < 3.1
    assert batch.isel(activation=slice(6, None)).max() < 0.01
    assert (noisy / batch).isel(record=2).median("activation").min() > 500
    assert (none.isel(activation=8) > 10 * none.isel(activation=1)).all()


def test_equal_losses_lie_between_the_records_that_the_chapter_names():
    found = readings.runs("vgg", "fresh").losses
    for name, before, after, seeds in (("no batch norm", 100, 185, 14), ("batch norm", 5, 20, 15)):
        losses = found.sel(kind=name).transpose("seed", "window").values
        steps = readings.steps_to(losses, 0.5)
        assert steps.min() > before
        assert (steps <= after).sum() == seeds


def test_moved_inputs_are_recorded_as_slowing_at_the_same_rate_and_weights_too():
    loss = readings.record()[1]["moved"]["fresh"].loss.sel(gain=1)
    raised = loss.sel(strength=2) / loss.sel(strength=0)
    assert 1.3 < raised.min() < raised.max() < 5.1
    own, same = readings.slowdown(4)
    assert (same > own * 0.6).all()
    assert (same <= own).all()


def test_returned_shift_is_recorded_as_slowing_and_as_leaving_the_accuracy():
    found = readings.record()[1]["returned"]["fresh"].isel(times=0)
    tuning = readings.record()[1]["returned"]["tuning"].end.isel(times=0).median("seed")
    assert tuning.idxmin("learning_rate") == found.learning_rate == 0.1
    first, second = (found.steps.isel(level=place) for place in (0, 1))
    assert first.min() == 40
    assert first.median() == 45
    assert second.min() == 70
    assert second.max() == 80
    assert 0.979 < found.accuracies.min() < found.accuracies.max() < 0.995
    steps = {
        name: readings.steps_to(readings.runs("vgg").losses.sel(kind=name).values, 0.5)
        for name in ("no batch norm", "batch norm")
    }
    lost = np.log(first.values / steps["batch norm"]) / np.log(
        steps["no batch norm"] / steps["batch norm"]
    )
    assert 0.4 < lost.min() < lost.max() < 0.55


def test_distances_are_recorded_as_larger_with_batch_norm_at_the_first_step_only():
    found = readings.runs("vgg", "distances").distance
    ratio = found.sel(kind="batch norm") / found.sel(kind="no batch norm")
    middle = ratio.median("seed").values
    assert 1.5 < middle[0] < 2.5
    assert middle[1:].max() < 0.75
    assert middle[-1] < 0.25
