"""The recorded run of the chapter on smoothness: it repeats, and it says what the chapter says of it."""

import numpy as np
import pytest
import torch
import xarray as xr
from again import assert_run_again

from bncore.chapters.explanations.smoothness import experiments, full_size, records
from bncore.explanations import landscape
from bncore.lab import data, networks, recorded

SINGLE = float(np.finfo(np.float32).eps)
RECORDED = 1e-2 / 2  # Half a unit of the last of three digits, of which the first is at least 1.


def test_the_recorded_run_repeats_at_its_reduced_size():
    found, stored = full_size.run(full_size.REDUCED), records.record()["reduced"]
    assert records.record()["configuration"] == full_size.CONFIGURATION
    # Nodes inside the bulk are not well determined; the ends of every quadrature are.
    assert_run_again(found, stored, but={"nodes", "weights"})
    for name in ("start density", "end density"):
        ends = [{name: some[name][["nodes"]].isel(node=[0, -1])} for some in (found, stored)]
        assert_run_again(*ends, atol={"nodes": 0.02})


def test_finished_runs_are_kept_apart_by_their_arguments(tmp_path):
    small = full_size.REDUCED | {"steps": 4, "every": 2, "vgg_steps": 2, "lanczos": [8, 1]}
    small["tuned"] = small["tuned"] | {"moments": [0, 2, 4]}
    first = full_size.run(small, tmp_path)
    other = full_size.run(small | {"steps": 2}, tmp_path)
    again = full_size.run(small, tmp_path)
    xr.testing.assert_identical(first["end"], again["end"])
    assert not first["end"].equals(other["end"])


def test_the_command_for_the_papers_size_walks_in_its_networks(small_images, monkeypatch, command):
    small = {"width": 2, "hidden": [4], "seeds": [0, 3], "steps": 4, "every": 2, "rates": [0.02]}
    small |= {"batch_size": 8, "walk_on": 16, "device": "cpu"}
    monkeypatch.setattr(full_size, "PAPER", full_size.PAPER | small)
    kept = command("explanations/smoothness", "--paper", "--cache", "somewhere")
    assert set(small_images) == {("cifar10", "somewhere")}
    assert kept["configuration"] == full_size.PAPER
    one = kept["full"]["walks"].sel(kind="batch norm", learning_rate=0.02, seed=3)
    assert one.sizes["record"] == 3
    model = experiments.vgg("batch norm", 11, 3, width=2, hidden=[4])
    split = data.openml("cifar10")
    found = landscape.along_gradient(
        model, split.x_train[:16], split.y_train[:16], experiments.RATES
    )
    smoothness = pytest.approx(found.smoothness, rel=RECORDED + 1e4 * SINGLE, abs=0)
    assert one.absolute[0].item() == smoothness
    assert one.loss[0].item() == pytest.approx(found.loss, rel=RECORDED + 64 * SINGLE, abs=0)


def test_the_papers_network_is_a_vgg_of_full_width():
    c = full_size.PAPER
    with torch.device("meta"):
        model = networks.vgg(c["depth"], width=c["width"], hidden=c["hidden"])
    widths = [p.shape[0] for p in landscape.weights(model).values()]
    assert widths == [64, 128, 256, 256, 512, 512, 512, 512, 512, 10]
    assert set(c["kinds"]) == set(experiments.KINDS[:2])
    assert c["steps"] % c["every"] == 0


def test_all_but_the_tuning_can_be_repeated(monkeypatch, tmp_path, command):
    path = tmp_path / "recorded.json"
    before = records.record()
    recorded.save(path, **{part: before[part] for part in ("configuration", "full", "reduced")})
    monkeypatch.setattr(records, "RECORDED", path)
    monkeypatch.setattr(full_size, "walks", lambda configuration, tuned, store: {"new": 1})
    command("explanations/smoothness", "--walks")
    after = recorded.load(path)
    for part in ("full", "reduced"):
        assert after[part].keys() == {"tuned", "new"}
        for name, theirs in before[part]["tuned"].items():
            xr.testing.assert_identical(after[part]["tuned"][name], theirs)
