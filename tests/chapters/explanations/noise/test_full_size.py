"""The recorded run of the chapter on noise: it repeats, and it says what the chapter says of it."""

import copy

import numpy as np
import pytest
import torch

from bncore.chapters.explanations.noise import experiments, full_size
from bncore.lab import data, networks, probes, recorded

DECIMAL = 1e-4  # The last with which numbers are recorded.
SINGLE = float(np.finfo(np.float32).eps)


def close(found, kept, path=""):
    """Whether two nested results agree; float32 sums in another order differ by less than 0.02."""
    if isinstance(kept, dict):
        assert set(found) == set(kept), path
        for key in kept:
            close(found[key], kept[key], f"{path}/{key}")
        return
    kept = np.array(kept, dtype=float)
    counts = "/bins" in path  # A single answer may cross into the next bin of the confidence.
    if counts:
        np.testing.assert_allclose(found[2].sum(), kept[2].sum(), err_msg=path)
        assert np.abs(found[2] - kept[2]).sum() <= 0.05 * kept[2].sum(), path
    else:
        np.testing.assert_allclose(found, kept, atol=0.02, rtol=0.02, err_msg=path)


def test_the_reduced_run_is_what_was_recorded():
    close(full_size.run(full_size.REDUCED), recorded.load(experiments.RECORD)["reduced"])


def test_the_record_is_of_the_full_configuration(full):
    assert recorded.load(experiments.RECORD)["configuration"] == full_size.CONFIGURATION
    part, count = full_size.CONFIGURATION["noise"], full_size.CONFIGURATION["seeds"]
    records = part["steps"] // part["every"] + 1
    for runs in full["noise"].values():
        assert set(runs) == set(experiments.arms(part["batch"], part["small"]))
        for values in runs.values():
            assert values.shape == (count, records, 3)


def test_seeds_and_arms_are_paired(full):
    starts = {name: runs[:, 0] for name, runs in full["noise"]["0.0"].items() if "no " not in name}
    first = starts.pop("whole batch")
    for values in starts.values():
        np.testing.assert_array_equal(values, first)


def test_the_command_for_the_papers_size_runs_its_configuration(small_images, monkeypatch, command):
    small = copy.deepcopy(full_size.PAPER) | {"seeds": 2, "device": "cpu"}
    for part in ("noise", "sampling"):
        small[part]["network"] |= {"width": 2, "hidden": [4]}
    small["dropout"]["network"] |= {"blocks": 1, "width": 2, "stages": 2}
    small["noise"] |= {"steps": 2, "every": 1, "batch": 32, "small": 8}
    small["dropout"] |= {"steps": 2, "batch": 8, "keep": [0.5]}
    small["sampling"] |= {"steps": 2, "batch": 8, "draws": 2, "sizes": [4], "angles": [30]}
    monkeypatch.setattr(full_size, "PAPER", small)
    kept = command("explanations/noise", "--paper", "--cache", "somewhere")
    assert small_images == [("cifar10", "somewhere")]
    assert kept["configuration"] == small
    runs = kept["full"]["noise"]["0.0"]
    assert set(runs) == set(experiments.arms(32, 8))
    assert {name.split()[0] for name in experiments.kinds_of_noise(runs)} == {
        "ghost", "borrowed", "injected",
    }  # fmt: skip
    split = data.standard_images("cifar10", "somewhere")
    model = networks.vgg(11, "batch", width=2, hidden=[4], seed=1)
    expected = [
        probes.test_accuracy(model, split),
        probes.loss("test")(model, split),
        probes.loss("train")(model, split),
    ]
    half = DECIMAL / 2 + 64 * SINGLE * max(expected)
    for arm in ("whole batch", "ghost 8", "borrowed 16", "batch of 8"):
        assert np.shape(runs[arm]) == (2, 3, 3)
        np.testing.assert_allclose(runs[arm][1][0], expected, rtol=0, atol=half)
    assert runs["ghost 8"][1][-1] != runs["whole batch"][1][-1]
    assert set(kept["full"]["dropout"]) == {
        "none", "before batch norms, 0.5", "after the last one, 0.5",
    }  # fmt: skip
    assert np.isfinite(kept["full"]["dropout"]["before batch norms, 0.5"]).all()
    numbers = kept["full"]["sampling"]["0.0"]["numbers"]
    assert set(numbers) == {"running", "temperature", "sampled 4"}
    assert np.shape(numbers["sampled 4"]) == (2, 2, 3)
    assert np.sum(kept["full"]["sampling"]["0.0"]["bins"]["running"][2]) == 2 * 12


def test_the_papers_networks_are_of_full_size():
    ours, paper = full_size.CONFIGURATION, full_size.PAPER
    for part in ("noise", "dropout", "sampling"):
        assert paper[part].keys() - ours[part].keys() == {"network", "learning_rate"}
        assert ours[part].keys() < paper[part].keys()
    models = {}
    for part in ("noise", "dropout"):
        task = experiments.on_images("cifar10", device="cuda", **paper[part]["network"])
        assert task.device == "cuda"
        with torch.device("meta"):
            models[part] = task.network("batch", 0)
    kernels = [p for p in models["noise"].parameters() if p.ndim == 4]
    assert [len(p) for p in kernels] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert kernels[0].shape[1] == 3
    body = [name for name, p in models["dropout"].named_parameters() if p.ndim == 4]
    # 18 in blocks, one before them; the paper's count of 20 adds the linear layer.
    assert sum("shortcut" not in name for name in body) == 19


def test_what_the_text_says_of_gains(full):
    clean, noisy = full["noise"]["0.0"], full["noise"]["0.3"]
    kinds = experiments.kinds_of_noise(clean)
    assert len(kinds) == 11
    found = [experiments.paired(clean, name, "test accuracy") for name in kinds]
    largest = {
        kind: max(mean for (mean, _), name in zip(found, kinds, strict=True) if kind in name)
        for kind in ("ghost", "borrowed")
    }
    assert round(100 * largest["ghost"], 2) == 0.22
    assert 0.33 <= round(100 * max(mean for mean, _ in found), 3) <= 0.335
    assert max(mean for mean, _ in found) == largest["borrowed"]
    assert 200 * min(error for _, error in found) > 0.09
    assert 200 * max(error for _, error in found) < 0.33
    mean, error = experiments.pooled(clean, "test accuracy")
    assert (round(100 * mean, 2), round(100 * error, 2)) == (0.15, 0.06)
    assert (clean["injected 8"][:, -1, 1] > clean["whole batch"][:, -1, 1]).all()
    costs = {name: experiments.paired(noisy, name, "test accuracy")[0] for name in kinds}
    assert min(costs, key=costs.get) == "ghost 8"
    assert round(100 * costs["ghost 8"], 1) == -2.4


def test_what_the_text_says_of_speed(full):
    runs = full["noise"]["0.3"]

    def kept(name, loss):
        end = experiments.paired(runs, name, "test loss")[0]
        return experiments.at_training_loss(runs, name, loss)[0] / end

    assert 0.8 < kept("ghost 8", 0.006) < 1
    assert kept("ghost 16", 0.006) == pytest.approx(0.5, abs=0.05)
    assert kept("ghost 32", 0.006) < 1 / 3
    assert 0.6 < kept("borrowed 32", 0.006) < 1
    assert 0.6 < kept("borrowed 64", 0.006) < 1
    assert kept("borrowed 16", 0.01) > 1
    assert kept("injected 8", 0.02) < 0
    assert kept("injected 16", 0.01) < 1 / 3
    assert kept("injected 32", 0.006) > 0.6
    for name in ("ghost 16", "ghost 32"):
        mean, error = experiments.at_training_loss(runs, name, 0.1)
        assert mean < -2 * error
    assert (runs["injected 8"][:, :, 2] > 0.01).all()
    for name, loss in (("injected 16", 0.01), ("injected 32", 0.006)):
        mean, error = experiments.at_training_loss(runs, name, loss)
        assert -2 * error < mean < 0
    own, injected = (
        experiments.at_training_loss(runs, f"{kind} 8", 0.02) for kind in ("ghost", "injected")
    )
    assert [round(mean, 3) for mean, _ in (own, injected)] == [0.037, 0.002]
    assert max(error for _, error in (own, injected)) < 0.01
