"""The recorded run of the chapter on scale invariance: it repeats, and it says what the chapter says of it."""

import numpy as np
import pytest
import torch
from again import assert_run_again

from bncore.chapters.explanations.scale_invariance import experiments, full_size, rates
from bncore.lab import data, networks, studies

SINGLE = float(np.finfo(np.float32).eps)
RECORDED = 1e-3 / 2  # Half a unit of the last of four digits, of which the first is at least 1.


def test_a_part_of_the_record_can_be_run_again(record):
    assert_run_again(full_size.run(full_size.REDUCED), record["reduced"])


def test_the_recorded_run_is_the_configured_one(record):
    c, full = full_size.CONFIGURATION, record["full"]
    assert record["configuration"] == c
    for name, part in {**c["tuned"], **c["swept"]}.items():
        assert full[name].arm.values.tolist() == part["arms"]
        assert full[name].seed.values.tolist() == c["seeds"]
        assert full[name].steps.values.tolist() == part["moments"]
        assert set(part["rates"]) <= set(full[name].learning_rate.values.tolist())
    assert full["felt"].learning_rate.values.tolist() == c["tracked"]["rates"]


@pytest.mark.parametrize("level", ["to 0.1", "to 0.01"])
@pytest.mark.parametrize("name", full_size.CONFIGURATION["tuned"])
def test_arms_are_compared_at_best_rates_inside_their_grids_on_fresh_seeds(name, level, record):
    chosen = studies.best(record["full"][name], level, smaller=True)
    assert not chosen.at_an_end.any()
    fresh = record["full"][f"{name}, fresh {level}"]
    assert fresh.learning_rate.equals(chosen.learning_rate)
    assert fresh.seed.values.tolist() == full_size.CONFIGURATION["fresh_seeds"]
    assert fresh[level].notnull().all()


def test_what_the_chapter_says_of_the_recorded_run(record):
    full = record["full"]
    meets = {
        ("one rate", "batch norm"): (0.01, 3.162),
        ("one rate", "no batch norm"): (0.03162, 0.3162),
        ("hidden rate", "batch norm, hidden rate"): (0.01, 100),
    }
    for (name, arm), (least, most) in meets.items():
        loss = full[name].loss.isel(steps=-1).sel(arm=arm, learning_rate=slice(1e-9, None))
        inside = (loss.learning_rate >= least) & (loss.learning_rate <= most)
        assert ((loss < 0.1).all("seed") == inside).all()
    one, hidden = full["one rate"], full["hidden rate"].sel(steps=500)
    unsure = one.sel(arm="no batch norm", learning_rate=1, steps=2000).loss
    assert (unsure < 0.1).sum() == 2
    frozen = hidden.sel(arm="batch norm, hidden rate", learning_rate=0)
    np.testing.assert_allclose(frozen.loss, 0.2, rtol=0, atol=0.05)
    assert frozen.accuracy.median() == pytest.approx(0.92, abs=0.01 / 2)
    slowest = hidden.sel(arm="batch norm, hidden rate", learning_rate=0.001)
    assert slowest.loss.median() == pytest.approx(0.17, abs=0.01 / 2)
    failed = hidden.sel(arm="no batch norm, hidden rate", learning_rate=slice(10, None)).loss
    np.testing.assert_allclose(failed, np.log(10), rtol=0.01)
    torchs = full["torch's weights"].loss.sel(steps=500, learning_rate=0.01).median("seed")
    ours = one.loss.sel(steps=500, learning_rate=0.01).median("seed")
    np.testing.assert_allclose(torchs, [0.22, 2.20], rtol=0, atol=0.01 / 2)
    np.testing.assert_allclose(ours, [0.33, 0.64], rtol=0, atol=0.01 / 2)
    felt = full["felt"].felt.median("seed")
    np.testing.assert_allclose(felt[:4, -1], felt[:4, 0], rtol=0.1)
    np.testing.assert_allclose(felt[5, 1:], 0.6, rtol=0, atol=0.05)
    spread = felt[3:].max("learning_rate") / felt[3:].min("learning_rate")
    np.testing.assert_allclose(spread[[0, -1]], (100, 3.5), rtol=0.05 / 3.5)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("batch norm", "no batch norm", (0.17, 0.15, 0.19)),
        ("weight norm", "no batch norm", (0.99, 0.97, 1.01)),
        (
            "weight norm, normalised start",
            "no batch norm, normalised start",
            (1.1, 0.9, 1.3),
        ),
        ("no batch norm, normalised start", "no batch norm", (0.29, 0.24, 0.36)),
        ("deviation only", "no batch norm", (0.79, 0.58, 1.08)),
    ],
)
def test_the_chapter_says_how_many_times_the_steps_an_arm_takes(first, second, said, record):
    """Each at its best rate; the intervals allow for ten that were looked at."""
    logs = []
    for arm in (first, second):
        name = next(name for name in ("one rate", "split") if arm in record["full"][name].arm)
        logs.append(np.log10(record["full"][f"{name}, fresh to 0.01"]["to 0.01"].sel(arm=arm)))
    found = 10 ** np.array(studies.difference(*logs, looked_at=10))
    np.testing.assert_allclose(found, said, rtol=0, atol=0.05 if said[0] > 1 else 0.01 / 2)


def test_the_chapter_says_in_how_many_steps_the_fresh_seeds_get_to_a_loss(record):
    said = {
        ("one rate", "batch norm"): 105,
        ("one rate", "no batch norm"): 618,
        ("split", "weight norm"): 608,
        ("split", "deviation only"): 458,
        ("split", "no batch norm, normalised start"): 178,
        ("split", "weight norm, normalised start"): 190,
    }
    for (name, arm), steps in said.items():
        found = record["full"][f"{name}, fresh to 0.01"]["to 0.01"].sel(arm=arm)
        assert abs(float(found.median()) - steps) <= 1 / 2


@pytest.mark.parametrize(("rate", "ratio"), [(0.03162, 0.45), (0.1, 0.44), (0.3162, 0.40)], ids=str)
def test_the_chapter_says_how_far_batch_norm_is_ahead_at_one_rate(rate, ratio, record):
    steps = np.log10(record["full"]["one rate"]["to 0.1"].sel(learning_rate=rate))
    arms = (steps.sel(arm=arm) for arm in ("batch norm", "no batch norm"))
    found = 10 ** np.array(studies.difference(*arms, looked_at=3))
    assert found[0] == pytest.approx(ratio, abs=0.01 / 2)
    assert np.abs(found - found[0]).max() < 0.075


def test_the_chapter_says_what_the_larger_rate_brings(record):
    own, other = (
        record["full"][f"one rate, {how} to 0.01"]["to 0.01"] for how in ("fresh", "exchanged")
    )
    for first, second, said in (
        (other.sel(arm="batch norm"), own.sel(arm="no batch norm"), (0.39, 0.37, 0.41)),
        (own.sel(arm="batch norm"), other.sel(arm="batch norm"), (0.43, 0.40, 0.46)),
    ):
        found = studies.difference(np.log10(first), np.log10(second), looked_at=2)
        np.testing.assert_allclose(10 ** np.array(found), said, rtol=0, atol=0.011 / 2)


@pytest.mark.parametrize("level", ["to 0.1", "to 0.01"])
def test_each_network_is_run_at_the_best_rate_of_the_other(level, record):
    fresh, exchanged = (
        record["full"][f"one rate, {how} {level}"] for how in ("fresh", "exchanged")
    )
    assert exchanged.learning_rate.values.tolist() == fresh.learning_rate.values.tolist()[::-1]
    assert exchanged.seed.equals(fresh.seed)


def test_arms_are_exchanged_at_their_best_rates(monkeypatch):
    """A network whose number of steps has its least at the rate 10 with batch norm, 1 without."""

    def quick(arm, learning_rate, seed, **_):
        steps = 1 + abs(np.log10(learning_rate) - (arm == "batch norm"))
        return {"loss": [steps], "accuracy": [0.5], "to 0.1": steps, "to 0.01": steps}

    monkeypatch.setattr(rates, "trained", quick)
    part = {"arms": ["batch norm", "no batch norm"], "rates": [0.1, 1.0, 10.0], "moments": [1]}
    small = {"tuned": {"one rate": part | {"exchanged": True}}, "swept": {}, "every": 1}
    small |= {"tracked": {"rates": [0.1], "steps": 1}, "seeds": [0], "fresh_seeds": [1, 2]}
    found = full_size.run({**small, "widths": [64, 4, 10]})
    assert found["one rate, fresh to 0.01"].learning_rate.values.tolist() == [10, 1]
    assert found["one rate, exchanged to 0.01"].learning_rate.values.tolist() == [1, 10]
    assert found["one rate, exchanged to 0.1"]["to 0.1"].values.tolist() == [[2, 2], [2, 2]]


def test_the_best_network_is_done(record):
    """Half a point of accuracy a doubling of the steps is what still counts."""
    found = record["full"]["one rate"].sel(arm="batch norm")
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
