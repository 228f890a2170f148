"""The recorded run of the chapter on scale invariance: it repeats, and it says what the chapter says of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bncore.chapters.explanations.scale_invariance import (
    experiments,
    full_size,
)
from bncore.lab import data, networks, recorded

SINGLE = float(np.finfo(np.float32).eps)
RECORDED = 1e-3 / 2  # Half a unit of the last of four digits, of which the first is at least 1.
KEPT = recorded.load(Path(full_size.__file__).with_name("recorded.json"))


def test_the_recorded_run_is_reproduced_by_its_reduced_configuration():
    again, kept = full_size.run(full_size.REDUCED), KEPT["reduced"]
    for arm in experiments.ARMS:
        for i, rate in enumerate(full_size.REDUCED["rates"]):
            if rate == 10 and arm != "batch norm, hidden rate":
                # Diverging float32 sums have no digits that another processor would repeat.
                assert min(again["loss"][arm][i] + kept["loss"][arm][i]) > 1.5
                continue
            # The same steps, added in another order: 40 of them change the loss by less than this.
            assert again["loss"][arm][i] == pytest.approx(kept["loss"][arm][i], rel=0.02)
            assert again["accuracy"][arm][i] == pytest.approx(kept["accuracy"][arm][i], abs=0.02)
    for arm, found in again["frozen"].items():
        assert found["loss"] == pytest.approx(kept["frozen"][arm]["loss"], rel=0.02)
    np.testing.assert_allclose(again["felt"], kept["felt"], rtol=0.02)
    assert again["moments"] == kept["moments"]


def test_the_recorded_run_is_the_configured_one():
    assert KEPT["configuration"] == full_size.CONFIGURATION
    shape = len(full_size.CONFIGURATION["rates"]), len(full_size.CONFIGURATION["seeds"])
    for arm in experiments.ARMS:
        assert np.shape(KEPT["full"]["loss"][arm]) == shape


def test_what_the_chapter_says_of_the_recorded_run():
    full = KEPT["full"]
    rates = np.array(full["rates"])
    worst = {arm: np.max(values, axis=1) for arm, values in full["loss"].items()}
    for least in (0.1, 0.05):
        assert min(min(kept["loss"]) for kept in full["frozen"].values()) > least
        ends = {arm: rates[values < least][[0, -1]] for arm, values in worst.items()}
        assert (ends["batch norm"] == [0.03162, 3.162]).all()
        assert (ends["no batch norm"] == 0.3162).all()
        assert ends["no batch norm, hidden rate"][1] == 1
        hidden = ends["batch norm, hidden rate"]
        assert (hidden == [0.003162 if least == 0.1 else 0.01, 100]).all()
        for arm, values in worst.items():
            inside = (rates >= ends[arm][0]) & (rates <= ends[arm][1])
            assert (inside == (values < least)).all()
    frozen = full["frozen"]["batch norm, hidden rate"]
    assert min(frozen["loss"]) > 0.16
    assert np.median(frozen["accuracy"]) == pytest.approx(0.92, abs=0.01 / 2)  # two digits
    np.testing.assert_allclose(frozen["loss"], 0.2, rtol=0, atol=0.05)
    slowest = full["loss"]["batch norm, hidden rate"][0]
    assert (np.array(slowest) < frozen["loss"]).all()
    np.testing.assert_allclose(full["loss"]["no batch norm, hidden rate"][-3:], np.log(10), 2e-3)
    assert np.min(full["loss"]["no batch norm"], axis=1)[-3:].min() > 2
    assert np.min(full["loss"]["batch norm"], axis=1)[-3:].min() > 1
    felt = np.median(full["felt"], axis=1)
    np.testing.assert_allclose(felt[:3, -1], felt[:3, 0], rtol=0.03)
    np.testing.assert_allclose(felt[3:5, -1], 2, rtol=0, atol=0.25)
    np.testing.assert_allclose(felt[5, 1:], 0.63, rtol=0, atol=0.03)


def test_the_sweep_runs_on_a_downloaded_set(small_images):
    small = {"rates": [0.1], "tracked": [0.1], "seeds": [0, 1], "steps": 2, "widths": [784, 4, 10]}
    found = full_size.run({**small, "data": "mnist", "batch": 8}, "kept")
    with pytest.raises(ValueError, match=r"widths\[0\] is 64, expected 784, the pixels of an"):
        full_size.run({**small, "widths": [64, 10], "data": "mnist"}, "kept")
    assert small_images == [("mnist", "kept")]
    assert np.shape(found["loss"]["batch norm"]) == (1, 2)
    assert np.isfinite(found["loss"]["batch norm"]).all()


def test_the_command_for_the_papers_size_runs_its_configuration(small_images, monkeypatch, command):
    small = full_size.PAPER | {"rates": [1e-9], "tracked": [0.1], "seeds": [0, 1], "steps": 3}
    small |= {"vgg": {"depth": 11, "width": 2, "hidden": [4]}, "batch": 8, "examples": 30}
    small |= {"device": "cpu"}
    monkeypatch.setattr(full_size, "PAPER", small)
    kept = command("explanations/scale_invariance", "--paper", "--cache", "somewhere")
    assert small_images == [("cifar10", "somewhere")]
    assert kept["configuration"] == small
    split = data.standard_images("cifar10", "somewhere")
    for arm, normalization in (("batch norm", "batch"), ("no batch norm", None)):
        assert np.shape(kept["full"]["loss"][arm]) == (1, 2)
        model = networks.vgg(11, normalization, width=2, hidden=[4], seed=1)
        # At this rate the weights stay where they start.
        start = torch.nn.functional.cross_entropy(model(split.x_train[:30]), split.y_train[:30])
        assert kept["full"]["loss"][arm][0][1] == pytest.approx(
            start.item(), rel=RECORDED + 64 * SINGLE, abs=0
        )
    assert np.shape(kept["full"]["felt"]) == (1, 2, 4)
    assert np.isfinite(kept["full"]["felt"]).all()


def test_the_papers_network_is_a_vgg_of_full_width():
    paper = full_size.PAPER
    assert {"rates", "tracked", "seeds", "steps"} <= paper.keys() & full_size.CONFIGURATION.keys()
    with torch.device("meta"):
        model = experiments.vgg(paper["data"], **paper["vgg"])("batch", 0)
    assert [len(p) for p in model.parameters() if p.ndim == 4] == [64, 128, 256, 256] + [512] * 4
    with pytest.raises(ValueError, match="data is 'digits', expected 'mnist' or 'cifar10'"):
        experiments.vgg("digits", **paper["vgg"])
