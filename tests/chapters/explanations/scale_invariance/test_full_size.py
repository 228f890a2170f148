"""The recorded run of the chapter on scale invariance: it repeats, and it says what the chapter says of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bncore.chapters.explanations.scale_invariance import experiments, full_size
from bncore.lab import data, networks, recorded, studies

SINGLE = float(np.finfo(np.float32).eps)
RECORDED = 1e-3 / 2  # Half a unit of the last of four digits, of which the first is at least 1.
KEPT = recorded.load(Path(full_size.__file__).with_name("recorded.json"))


def test_a_part_of_the_record_can_be_run_again():
    """The same steps, added in another order: up to 300 of them change a loss by less than this."""
    found = full_size.run(full_size.REDUCED)
    for name, kept in KEPT["reduced"].items():
        again = found[name]
        assert set(again.data_vars) == set(kept.data_vars)
        if ", fresh" in name and not again.learning_rate.equals(kept.learning_rate):
            continue  # Two rates are level, and rounding chooses.
        for kind in {"loss", "felt", "gradient"} & set(kept.data_vars):
            np.testing.assert_allclose(again[kind], kept[kind], rtol=0.05)
        if "accuracy" in kept:
            np.testing.assert_allclose(again.accuracy, kept.accuracy, rtol=0, atol=10 / 449)


def test_the_recorded_run_is_the_configured_one():
    c, full = full_size.CONFIGURATION, KEPT["full"]
    assert KEPT["configuration"] == c
    for name, part in {**c["tuned"], **c["swept"]}.items():
        assert full[name].arm.values.tolist() == part["arms"]
        assert full[name].seed.values.tolist() == c["seeds"]
        assert full[name].steps.values.tolist() == part["moments"]
        assert set(part["rates"]) <= set(full[name].learning_rate.values.tolist())
    assert full["felt"].learning_rate.values.tolist() == c["tracked"]["rates"]


@pytest.mark.parametrize("level", ["to 0.1", "to 0.01"])
@pytest.mark.parametrize("name", full_size.CONFIGURATION["tuned"])
def test_arms_are_compared_at_best_rates_inside_their_grids_on_fresh_seeds(name, level):
    chosen = studies.best(KEPT["full"][name], level, smaller=True)
    assert not chosen.at_an_end.any()
    fresh = KEPT["full"][f"{name}, fresh {level}"]
    assert fresh.learning_rate.equals(chosen.learning_rate)
    assert fresh.seed.values.tolist() == full_size.CONFIGURATION["fresh_seeds"]
    assert fresh[level].notnull().all()


@pytest.mark.parametrize("level", ["to 0.1", "to 0.01"])
def test_each_network_is_run_at_the_best_rate_of_the_other(level):
    fresh, exchanged = (KEPT["full"][f"one rate, {how} {level}"] for how in ("fresh", "exchanged"))
    assert exchanged.learning_rate.values.tolist() == fresh.learning_rate.values.tolist()[::-1]
    assert exchanged.seed.equals(fresh.seed)


def test_the_best_network_is_done():
    """Half a point of accuracy a doubling of the steps is what still counts."""
    found = KEPT["full"]["one rate"].sel(arm="batch norm")
    accuracy = found.accuracy.median("seed")
    before, after = accuracy.isel(steps=-2).max(), accuracy.isel(steps=-1).max()
    doublings = np.log2(found.steps.values[-1] / found.steps.values[-2])
    assert (after - before) / doublings < 0.005


def test_the_sweep_runs_on_a_downloaded_set(small_images):
    part = {"arms": ["batch norm"], "rates": [0.1], "moments": [2]}
    small = {
        "tuned": {},
        "swept": {"one": part},
        "tracked": {"rates": [0.1], "steps": 2},
        "every": 1,
    }
    small |= {"seeds": [0, 1], "fresh_seeds": [], "source": "mnist", "batch": 8}
    found = full_size.run({**small, "widths": [784, 4, 10]}, "kept")
    assert small_images == [("mnist", "kept")]
    assert found["one"].loss.shape == (1, 1, 2, 1)
    assert np.isfinite(found["one"].loss).all()


def test_the_command_for_the_papers_size_runs_its_configuration(small_images, monkeypatch, command):
    few = {"arms": ["batch norm", "no batch norm"], "rates": [1e-9, 2e-9, 4e-9], "moments": [3]}
    small = full_size.PAPER | {"tuned": {"one rate": few}, "swept": {}, "every": 3, "device": "cpu"}
    small |= {"tracked": {"rates": [0.1], "steps": 3}, "seeds": [0, 1], "fresh_seeds": [2]}
    small |= {"vgg": {"depth": 11, "width": 2, "hidden": [4]}, "batch": 8, "examples": 30}
    monkeypatch.setattr(full_size, "PAPER", small)
    kept = command("explanations/scale_invariance", "--paper", "--cache", "somewhere")
    assert small_images == [("cifar10", "somewhere")]
    assert kept["configuration"] == small
    split = data.standard_images("cifar10", "somewhere")
    for arm, normalization in (("batch norm", "batch"), ("no batch norm", None)):
        loss = kept["full"]["one rate"].loss.sel(arm=arm, learning_rate=1e-9, seed=1).item()
        model = networks.vgg(11, normalization, width=2, hidden=[4], seed=1)
        # At this rate the weights stay where they start.
        start = torch.nn.functional.cross_entropy(model(split.x_train[:30]), split.y_train[:30])
        assert loss == pytest.approx(start.item(), rel=RECORDED + 64 * SINGLE, abs=0)
    assert np.isfinite(kept["full"]["felt"].felt).all()


def test_the_papers_network_is_a_vgg_of_full_width():
    paper = full_size.PAPER
    assert paper["tuned"].keys() <= full_size.CONFIGURATION["tuned"].keys()
    with torch.device("meta"):
        model = experiments.vgg(paper["source"], **paper["vgg"])("batch", 0)
    assert [len(p) for p in model.parameters() if p.ndim == 4] == [64, 128, 256, 256] + [512] * 4
    with pytest.raises(ValueError, match="data is 'digits', expected 'mnist' or 'cifar10'"):
        experiments.vgg("digits", **paper["vgg"])
