"""The recorded run of the chapter on noise: it repeats, and it says what the chapter says of it."""

import copy

import numpy as np
import pytest
import torch
from again import assert_run_again

from bncore.chapters.explanations.noise import (
    dropout,
    experiments,
    full_size,
    overfitting,
    sampling,
)
from bncore.lab import data, networks, probes, studies

DECIMAL = 1e-4  # The last with which numbers are recorded.
SINGLE = float(np.finfo(np.float32).eps)
STUDIES = {"overfitting": "last", "refitting": "accuracy"}


@pytest.fixture(scope="module")
def again():
    return full_size.run(full_size.REDUCED)


@pytest.fixture(scope="module")
def reduced(record):
    return record["reduced"]


def test_a_part_of_the_sampling_can_be_run_again(again, reduced):
    """Float32 sums in another order differ by less than 0.02, and move some answers to other bins."""
    close(again["sampling"], reduced["sampling"])


def close(found, kept, path=""):
    if isinstance(kept, dict):
        assert set(found) == set(kept), path
        for key in kept:
            close(found[key], kept[key], f"{path}/{key}")
    elif "/bins" in path:
        counts, kept = found[2], np.array(kept[2], dtype=float)
        assert counts.sum() == kept.sum(), path
        assert np.abs(counts - kept).sum() <= 0.05 * kept.sum(), path
    else:
        np.testing.assert_allclose(found, kept, atol=0.02, rtol=0.02, err_msg=path)


def test_a_part_of_the_trainings_can_be_run_again(again, reduced):
    for part in ("overfitting", "refitting", "dropout"):
        assert_run_again({part: again[part]}, {part: reduced[part]})


def test_the_record_is_of_the_full_configuration(full, record):
    c = full_size.CONFIGURATION
    assert record["configuration"] == c
    part, found = c["overfitting"], full["overfitting"]
    assert found["tuning"].network.values.tolist() == part["networks"]
    for name in ("fresh", "curves"):
        assert set(found[name].network.values) == set(overfitting.LABELS)
        assert found[name].pixel_noise.values.tolist() == part["pixel_noise"]
    assert found["curves"].steps.values.tolist() == part["moments"]
    for name in STUDIES:
        assert full[name]["tuning"].seed.values.tolist() == c[name]["seeds"]
        assert full[name]["fresh"].seed.values.tolist() == c[name]["fresh_seeds"]
        assert set(c[name]["learning_rates"]) <= set(full[name]["tuning"].learning_rate.values)
    assert set(full["dropout"].keep.values) == set(c["dropout"]["keep"])
    assert full["dropout"].sizes["seed"] == c["seeds"]


@pytest.mark.parametrize(("part", "score"), STUDIES.items())
def test_the_best_rates_lie_inside_their_grids(full, part, score):
    chosen = studies.best(full[part]["tuning"], score, smaller=False)
    assert not chosen.at_an_end.any()


def test_fresh_seeds_are_run_at_the_strengths_and_rates_that_were_chosen(full):
    found = full["overfitting"]
    chosen = studies.best(found["tuning"], "last", smaller=False)
    for level in found["fresh"].pixel_noise.values:
        at = chosen.sel(pixel_noise=level)
        for name in overfitting.strongest(at):
            one = found["fresh"].sel(pixel_noise=level, network=overfitting.family(name))
            assert one.strength == overfitting.strength(name)
            assert one.learning_rate == at.learning_rate.sel(network=name)
    chosen = studies.best(full["refitting"]["tuning"], "accuracy", smaller=False)
    assert full["refitting"]["fresh"].learning_rate.equals(chosen.learning_rate)


def test_networks_that_start_alike_are_paired(full):
    start = full["overfitting"]["curves"]["test loss"].sel(steps=0)
    normalised = start.sel(network=[name for name in overfitting.LABELS if "no " not in name])
    assert (normalised == normalised.sel(network=overfitting.BASE)).all()


def test_the_command_for_the_papers_size_runs_its_configuration(small_images, monkeypatch, command):
    small = copy.deepcopy(full_size.PAPER) | {"seeds": 2, "device": "cpu"}
    for part in ("overfitting", "sampling"):
        small[part]["network"] |= {"width": 2, "hidden": [4]}
    for part in ("dropout", "refitting"):
        small[part]["network"] |= {"blocks": 1, "width": 2, "stages": 2}
    few = {"learning_rates": [0.01, 0.05, 0.25], "seeds": [0], "fresh_seeds": [1]}
    small["overfitting"] |= few | {"moments": [0, 1, 2], "batch": 32}
    small["overfitting"]["networks"] = ["whole batch", "ghost 8", "whole batch, L2 0.01"]
    small["refitting"] |= few | {"steps": 2, "batch": 8}
    small["dropout"] |= {"steps": 2, "batch": 8, "keep": [1.0, 0.5]}
    small["sampling"] |= {"steps": 2, "batch": 8, "draws": 2, "sizes": [4], "angles": [30]}
    monkeypatch.setattr(full_size, "PAPER", small)
    kept = command("explanations/noise", "--paper", "--cache", "somewhere")
    assert small_images == [("cifar10", "somewhere")]
    assert kept["configuration"] == small
    found = kept["full"]["overfitting"]
    assert found["fresh"].network.values.tolist() == [
        overfitting.family(name) for name in small["overfitting"]["networks"]
    ]
    split = data.standard_images("cifar10", "somewhere")
    model = networks.vgg(11, "batch", width=2, hidden=[4], seed=1)
    half = DECIMAL / 2 + 64 * SINGLE * 3
    for name, measure in (("test loss", "test"), ("training loss", "train")):
        start = found["curves"][name].sel(steps=0)
        np.testing.assert_allclose(start, probes.loss(measure)(model, split), rtol=2e-4, atol=half)
    ends = found["curves"]["training loss"].sel(steps=2, pixel_noise=0)
    assert len(set(ends.values.tolist())) == 3
    found = kept["full"]["dropout"]
    assert found.place.values.tolist() == list(dropout.PLACES)
    assert found.keep.values.tolist() == [0.5, 1.0]
    assert np.isfinite(found.loss).all()
    assert np.isfinite(kept["full"]["refitting"]["fresh"]["fitted loss"]).all()
    numbers = kept["full"]["sampling"]["0.0"]["numbers"]
    assert set(numbers) == {"running", "temperature", "sampled 4"}
    assert np.shape(numbers["sampled 4"]) == (2, 2, 3)
    assert np.sum(kept["full"]["sampling"]["0.0"]["bins"]["running"][2]) == 2 * 12


def test_the_papers_networks_are_of_full_size():
    ours, paper = full_size.CONFIGURATION, full_size.PAPER
    for part in ours.keys() - {"seeds"}:
        own = paper[part].keys() - ours[part].keys()
        assert own <= {"network", "learning_rate"}
        assert "network" in own
        assert ours[part].keys() < paper[part].keys()
    models = {}
    for part in ("overfitting", "dropout"):
        task = experiments.on_images("cifar10", device="cuda", **paper[part]["network"])
        assert task.device == "cuda"
        with torch.device("meta"):
            models[part] = task.network("batch", 0)
    kernels = [p for p in models["overfitting"].parameters() if p.ndim == 4]
    assert [len(p) for p in kernels] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert kernels[0].shape[1] == 3
    body = [name for name, p in models["dropout"].named_parameters() if p.ndim == 4]
    # 18 in blocks, one before them; the paper's count of 20 adds the linear layer.
    assert sum("shortcut" not in name for name in body) == 19


def rounded(interval):
    return tuple(round(value, 1) for value in interval)


def test_what_the_text_says_of_gains(full):
    fresh, of = full["overfitting"]["fresh"], overfitting.gained
    assert round(of(fresh, 0.0, "whole batch", "no batch norm").median, 1) == 0.7
    kinds = [of(fresh, 0.0, network) for network in overfitting.KINDS]
    assert not any(interval.separates for interval in kinds)
    assert rounded(of(fresh, 0.0, overfitting.KINDS))[1:] == (-0.2, 0.7)
    assert rounded(of(fresh, 0.3, overfitting.KINDS)) == (-1.9, -3.3, -1.1)
    assert not of(fresh, 0.3, "whole batch", "no batch norm").separates
    dropout = of(fresh, 0.3, "no batch norm, dropout")
    assert rounded(dropout) == (2.0, 1.1, 3.0)
    assert rounded(of(fresh, 0.3, "no batch norm, L2")) == (1.4, 0.2, 3.2)
    costs = {name: of(fresh, 0.3, name) for name in (*overfitting.GHOSTS, "borrowed 16")}
    assert all(interval.high < 0 for interval in costs.values())
    assert [round(interval.median, 1) for interval in costs.values()] == [
        -2.6,
        -2.1,
        -1.8,
        -1.4,
        -2.9,
    ]
    assert not of(fresh, 0.3, "injected 16").separates
    assert rounded(of(fresh, 0.3, "injected 16", "ghost 16")) == (1.7, 0.1, 3.3)
    assert round(of(fresh, 0.3, "batch of 16", "gradients of 16").median, 1) == -2.5
    assert not of(fresh, 0.3, "gradients of 16").separates


def test_what_the_text_says_of_regularisers(full):
    fresh, of = full["overfitting"]["fresh"], overfitting.gained
    for level in (0.0, 0.3):
        for how in ("dropout", "L2"):
            plain = (f"no batch norm, {how}", "no batch norm")
            assert not of(fresh, level, f"whole batch, {how}").separates
            assert not of(fresh, level, f"whole batch, {how}", less=plain).separates
            assert abs(of(fresh, level, *plain).median) < 1.1
    assert rounded(of(fresh, 0.0, "whole batch, dropout")) == (-0.3, -0.7, 0.6)
    assert rounded(of(fresh, 0.3, "whole batch, dropout")) == (0.2, -1.3, 1.6)
    strengths = fresh.strength.sel(pixel_noise=0.3)
    assert strengths.sel(network="whole batch, dropout") == 0.8
    assert strengths.sel(network="no batch norm, L2") == 0.03
    assert (fresh.strength.isin([0.8, 0.03])).sum() == 2


def test_what_the_text_says_of_learning_by_heart(full):
    found, level = full["overfitting"], {"pixel_noise": 0.3}
    by_heart = found["fresh"]["by heart"]
    low = by_heart.mean("seed") < 0.99
    assert low.sum() == 2
    assert low.sel(level).sel(network="no batch norm, L2")
    assert round(by_heart.sel(level).sel(network="no batch norm, L2").mean().item(), 2) == 0.95
    diverged = by_heart.sel(pixel_noise=0.0, network="no batch norm, dropout")
    assert sorted(diverged.values)[0] < 0.2
    assert sorted(diverged.values)[1] > 0.99
    losses = found["curves"]["test loss"].sel(level).sel(network="whole batch", steps=[100, 600])
    assert losses.round(2).values.tolist() == [0.74, 0.88]
    for noise in (0.0, 0.3):
        curves = found["curves"].accuracy.sel(pixel_noise=noise)
        best = curves.isel(network=int(curves.sel(steps=600).argmax("network")))
        assert round(100 * float(best.sel(steps=600) - best.sel(steps=300)), 1) == 0.4


def test_what_the_text_says_of_fitting_again(full):
    fresh = full["refitting"]["fresh"]
    for level, expected in ((0.0, (0.0, -0.1, 0.2)), (0.3, (0.0, -0.3, 0.3))):
        one = 100 * fresh.sel(pixel_noise=level, drop=True)
        interval = studies.difference(one["fitted accuracy"], one["accuracy"], looked_at=2)
        assert rounded(interval) == expected
        assert -0.3 < interval.low < 0 < interval.high < 0.3
    found = full["dropout"].sel(place="before batch norms", keep=0.3).mean("seed")
    none = full["dropout"].sel(place="before batch norms", keep=1.0).mean("seed")
    assert found["loss"] - found["fitted loss"] < (found["loss"] - none["loss"]) / 2
    assert abs(found["fitted accuracy"] - found["accuracy"]) < 0.005
    loss, kept = (full["dropout"][name].mean("seed") for name in ("loss", "fitted loss"))
    before = {"place": "before batch norms", "keep": 0.3}
    assert (round(float(loss.sel(before)), 2), round(float(kept.sel(before)), 2)) == (0.33, 0.25)
    gained = (loss - kept).sel(place="before batch norms").sel(keep=slice(0.5, None))
    assert 0 < gained.min() < gained.max() < 0.01
    ratio = full["dropout"]["ratio"]
    shifted = ratio.sel(place="before batch norms").where(ratio.keep < 1, drop=True)
    assert (shifted > shifted.keep).all()
    assert abs(ratio.sel(place="after the last one") - 1).max() < 0.01


def test_what_the_text_says_of_sampling(full):
    clean, noisy = (full["sampling"][level] for level in ("0.0", "0.3"))
    assert (clean["temperature"] < 1).all()
    assert (noisy["temperature"] > 1).all()

    def helped(part, condition):
        """Sizes at which the likelihood is better, and those at which it is worse."""
        numbers, found = part["numbers"], {-1: [], 0: [], 1: []}
        for way in [way for way in numbers if way.startswith("sampled")]:
            apart = numbers[way][:, condition, 1] - numbers["running"][:, condition, 1]
            interval = sampling.interval(apart)
            side = np.sign(interval.mean) if interval.separates else 0
            found[int(side)].append(int(way.split()[1]))
        return found[-1], found[1]

    assert helped(clean, 0) == ([], [8, 16, 32])
    assert helped(clean, 2) == ([], [])
    assert helped(clean, 3) == ([8, 16, 32], [])
    better, worse = helped(noisy, 0)
    assert {32, 64} <= set(better)
    assert worse == []
    assert 8 not in better
    for numbers in clean["numbers"].values():
        accuracy, _, error = numbers[:, 4].mean(axis=0)
        assert accuracy < 0.2
        assert error > 0.4
