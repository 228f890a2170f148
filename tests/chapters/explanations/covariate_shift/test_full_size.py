"""The recorded run of the chapter on covariate shift: it repeats, and it says what the chapter says of it."""

import copy

import numpy as np
import pytest

from bncore.chapters.explanations.covariate_shift import (
    experiments,
    full_size,
)
from bncore.lab import recorded

SINGLE = float(np.finfo(np.float32).eps)


def test_the_reduced_run_is_reproduced():
    kept = recorded.load(full_size.PATH)["reduced"]
    found = full_size.run(full_size.REDUCED)
    assert found.keys() == kept.keys()
    noise = kept.pop("noise")
    np.testing.assert_allclose(found["noise"]["losses"], noise["losses"], rtol=0.05)
    for network, models in kept.items():
        assert found[network].keys() == models.keys()
        for name, expected in models.items():
            ours = found[network][name]
            assert ours.keys() == expected.keys()
            assert ours["rate"] == expected["rate"]
            # float32 sums in another order move the last digits, and 12 steps amplify them.
            np.testing.assert_allclose(ours["losses"], expected["losses"], rtol=0.05)
            start = [np.array(values["relative"])[:, 0] for values in (ours, expected)]
            np.testing.assert_allclose(*start, rtol=0.05, atol=1000 * SINGLE)


def test_the_recorded_configuration_is_the_one_in_the_code():
    kept = recorded.load(full_size.PATH)
    assert kept["configuration"] == full_size.CONFIGURATION


@pytest.mark.parametrize("depth", [11, 16])
def test_the_command_for_the_papers_size_runs_its_configuration(
    depth, small_images, monkeypatch, command
):
    small = copy.deepcopy(full_size.PAPER)
    small["vgg"] |= {"width": 2, "depth": depth, "batch_size": 8, "steps": 3}
    small["linear"] |= {"width": 4, "examples": 8, "depth": 4, "steps": 3}
    for network in ("vgg", "linear"):
        small[network] |= {"rates": [0.003], "records": [0, 2], "tuning_seeds": [100]}
    small |= {"seeds": [0], "every": 1, "device": "cpu"}
    small["noise"] = {"strengths": [2], "seeds": [0], "record": 1}
    monkeypatch.setattr(full_size, "PAPER", small)
    kept = command("explanations/covariate_shift", "--paper", "--cache", "somewhere")
    assert small_images == [("cifar10", "somewhere")]
    assert kept["configuration"] == small
    layers = {"vgg": {11: 10, 16: 15}[depth], "linear": 2}
    for network, models in layers.items():
        found = kept["full"][network]["batch norm"]
        assert np.array(found["relative"]).shape == (1, 2, 3, models)
        assert np.isfinite(found["losses"]).all()
    assert np.array(kept["full"]["vgg"]["batch norm"]["percentiles"]).shape[0] == 4


def test_the_papers_configuration_has_the_fields_of_the_recorded_one():
    ours, paper = full_size.CONFIGURATION, full_size.PAPER
    assert paper.keys() == ours.keys() == full_size.REDUCED.keys()
    for network in ("vgg", "linear"):
        assert paper[network].keys() == ours[network].keys() == full_size.REDUCED[network].keys()
        assert max(paper[network]["records"]) < paper[network]["steps"]
    task = full_size._task(paper, "vgg")
    assert (task.batch_size, task.steps, task.device) == (128, 15_000, "cuda")
    model = task.network("batch", 0)
    assert model.conv1.weight.shape == (64, 3, 3, 3)
    assert sum(name.startswith("conv") for name, _ in model.named_children()) == 8


def test_the_recorded_rates_are_the_best_of_their_grid():
    configuration, full = full_size.record()
    for network in ("vgg", "linear"):
        for kept in full[network].values():
            ends = np.array(kept["tuning"], dtype=float)[..., -2:].mean(axis=(1, 2))
            best = configuration[network]["rates"][np.nanargmin(ends)]
            assert kept["rate"] == best


def test_the_vggs_are_recorded_at_one_best_rate_and_the_linear_networks_at_two():
    _, full = full_size.record()
    assert {kept["rate"] for kept in full["vgg"].values()} == {0.1}
    assert [kept["rate"] for kept in full["linear"].values()] == [0.01, 0.03]


def test_the_shift_of_the_linear_network_is_recorded_as_larger_with_batch_norm():
    ratios = {}
    for compared in ("own rate", "one rate"):
        batch, none = (
            full_size.medians("linear", name, "relative", compared)
            for name in ("batch norm", "no batch norm")
        )
        ratios[compared] = (batch / none)[:, 1:]
    own, one = (np.median(some, axis=0) for some in ratios.values())
    assert own.min() > 8
    assert own.max() < 21
    assert one.min() > 2.5
    assert one.max() < 7.5
    np.testing.assert_allclose(own / one, 3, rtol=0.2)
    assert 1.5 < ratios["own rate"].min() < ratios["own rate"].max() < 31


def test_a_move_of_one_per_cent_is_recorded_as_a_long_shift_in_both_linear_networks():
    for name, bound in (("no batch norm", 0.25), ("batch norm", -0.25)):
        assert full_size.medians("linear", name, "relative", "one move")[:, 1:].min() > 1
        assert full_size.medians("linear", name, "cosine", "one move")[:, 1:].max() < bound


def test_the_drift_is_recorded_as_the_chapter_says():
    none, batch, noisy = (
        full_size.column("vgg", name, "drift")[:, :3] for name in experiments.NORMALIZATIONS
    )
    deep = np.median(none[..., 6:], axis=(1, 2))
    assert 1.5 < deep.min() < deep.max() < 3.1
    assert batch[..., 6:].max() < 0.01
    assert np.median(noisy[:, 2] / batch[:, 2], axis=1).min() > 500
    assert (none[..., 8] > 10 * none[..., 1]).all()


def test_equal_losses_lie_between_the_records_that_the_chapter_names():
    records = full_size.CONFIGURATION["vgg"]["records"]
    for name, before, after in (("no batch norm", 100, 180), ("batch norm", 5, 20)):
        lowest = np.minimum.accumulate(full_size.column("vgg", name, "losses"), axis=1)
        windows = np.array(records) // full_size.CONFIGURATION["every"]
        heights = dict(zip(records, lowest[:, windows].T, strict=True))
        assert (heights[before] > 0.5).all()
        assert (heights[after] < 0.4).all()
