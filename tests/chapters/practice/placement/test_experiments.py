"""Networks start alike wherever batch norm stands, and each arm runs at its own best."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bncore.chapters.practice.placement import experiments, horizon
from bncore.lab import networks, training


def places(architecture):
    recurrent = architecture == "recurrent"
    return experiments.RECURRENCES if recurrent else experiments.PLACEMENTS


def norms(model):
    return [module for module in model.modules() if hasattr(module, "running_mean")]


@settings(max_examples=5)
@given(st.integers(0, 10**6))
@pytest.mark.parametrize("architecture", [*experiments.ARCHITECTURES, "recurrent"])
def test_all_placements_start_from_the_same_weights(architecture, seed):
    start = {}
    for place in places(architecture):
        model = experiments.network(architecture, "relu", place, 2.0, seed)
        weights = [p.detach() for p in model.parameters() if p.ndim > 1]
        start.setdefault("none", weights)
        assert len(weights) == len(start["none"])
        for one, other in zip(weights, start["none"], strict=True):
            assert torch.equal(one, other)
        assert bool(norms(model)) == (place != "none")


@pytest.mark.parametrize("architecture", [*experiments.ARCHITECTURES, "recurrent"])
@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_batch_norm_is_given_sums_before_and_activations_after(architecture, activation):
    split = experiments.split(architecture, 0)
    for place in ("before", "after"):
        model, seen = experiments.network(architecture, activation, place, 1.0, 0), []
        for norm in norms(model):
            norm.register_forward_hook(lambda _, given, __, seen=seen: seen.append(given[0].min()))
        model(split.x_train[:64])
        assert seen
        assert (min(seen) < 0) == (place == "before")


def test_half_of_the_digits_are_for_the_test():
    for architecture in ("two layers", "convolution"):
        split = experiments.split(architecture, 3)
        assert abs(len(split.x_train) - len(split.x_test)) <= 1
    assert split.x_train.shape[1:] == (1, 8, 8)


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_accuracy_is_the_share_of_digits_named_right(seed):
    split = experiments.split("two layers", seed)
    model = networks.mlp((64, 4, 10), "relu", "batch", seed=seed)
    right = model.eval()(split.x_test).argmax(1) == split.y_test
    assert experiments.accuracy(model.train(), split) == pytest.approx(right.double().mean().item())


def test_a_network_that_has_diverged_names_the_first_class():
    split = experiments.split("two layers", 0)
    model = nn.Linear(64, 10)
    nn.init.constant_(model.weight, math.nan)
    first = (split.y_test == 0).double().mean().item()
    assert experiments.accuracy(model, split) == pytest.approx(first)


def test_training_is_measured_around_the_half_and_at_the_end():
    """Rounding decides a digit in a hundred at most."""
    seeds, steps = [0, 1], 40
    found = experiments.trained(
        "two layers", "relu", "before", [1.4, 1.4], [0.1, 0.3], seeds, steps=steps
    )
    for i, (seed, rate) in enumerate(zip(seeds, (0.1, 0.3), strict=True)):
        each = []
        for moment in horizon.moments(steps):
            model = experiments.network("two layers", "relu", "before", 1.4, seed)
            split = experiments.split("two layers", seed)
            training.train(model, split, moment, experiments.BATCH_SIZE, rate, seed)
            each.append(experiments.accuracy(model, split))
        assert found["half"][i] == pytest.approx(np.mean(each[:5]), abs=0.01)
        assert found["accuracy"][i] == pytest.approx(np.mean(each[5:]), abs=0.01)


def test_a_network_that_diverges_ends_at_chance():
    found = experiments.trained("two layers", "relu", "before", [1.4], [1e9], [0], steps=20)
    assert found["accuracy"] < 0.2


def test_a_study_takes_the_gain_and_the_rate_at_which_tuning_was_best(monkeypatch):
    """A run whose accuracy has one peak, by placement at another gain and rate."""
    best = {"none": (4.0, 0.1), "before": (1.0, 0.3), "after": (4.0, 3.0)}

    def trained(architecture, activation, placement, gains, rates, seeds, *, steps):
        at_gain, at_rate = best[placement]
        away = np.abs(np.log10(np.array(rates) / at_rate)) + (np.array(gains) != at_gain)
        return {"accuracy": -away + 1e-3 * np.array(seeds), "half": 0.0 * away}

    monkeypatch.setattr(experiments, "trained", trained)
    c = {
        "architectures": {"two layers": 2},
        "doublings": {"two layers": 0},
        "activations": ["sigmoid"],
        "placements": list(best),
        "recurrences": [],
        "learning_rates": [0.01, 0.03, 0.1, 0.3, 1.0],
        "seeds": [0, 1],
        "fresh_seeds": [2, 3],
    }
    found = experiments.study(c)["two layers"]
    assert found["steps"] == 2
    fresh = found["fresh"].sel(activation="sigmoid")
    for place, (gain, rate) in best.items():
        one = fresh.sel(placement=place)
        assert one.gain.item() == gain
        assert abs(math.log10(one.learning_rate.item() / rate)) < 0.1
        assert one.accuracy.notnull().all()
    assert fresh.seed.values.tolist() == [2, 3]
    tried = found["tuning"].accuracy.sel(activation="sigmoid")
    assert tried.sel(placement="after").sel(learning_rate=3.33, method="nearest").notnull().all()
    assert tried.sel(placement="before").dropna("learning_rate", how="all").sizes == {
        "gain": 2, "learning_rate": 5, "seed": 2,
    }  # fmt: skip


def test_an_architecture_of_which_an_arm_gains_is_run_again_as_a_whole(monkeypatch):
    """With 7/steps in one arm only: of 500 and 1000 steps the second is enough."""

    def trained(architecture, activation, placement, gains, rates, seeds, *, steps):
        score = -np.abs(np.log10(rates)) + steps / 1000
        gain = 7 / steps if (architecture, placement) == ("convolution", "none") else 0.0
        return {"accuracy": score, "half": score - gain}

    monkeypatch.setattr(experiments, "trained", trained)
    c = {
        "architectures": {"two layers": 500, "convolution": 500},
        "doublings": {"two layers": 2, "convolution": 2},
        "activations": ["relu"],
        "placements": ["none", "before"],
        "recurrences": [],
        "learning_rates": [0.3, 1.0, 3.0],
        "seeds": [0],
        "fresh_seeds": [1, 2],
    }
    found = experiments.study(c)
    assert {name: one["steps"] for name, one in found.items()} == {
        "two layers": 500, "convolution": 1000,
    }  # fmt: skip
    for name, steps in (("two layers", 500), ("convolution", 1000)):
        assert (found[name]["fresh"].accuracy == steps / 1000).all()


def test_the_early_loss_falls_at_a_fair_rate_and_not_at_a_wild_one():
    fair, wild = (experiments.early_loss("relu", "after", rate, 0)["loss"] for rate in (0.1, 100.0))
    assert fair < 1
    assert not wild < 1
    grid = {"activation": ["identity"], "placement": ["none"], "learning_rate": [0.1]}
    one = experiments.early_losses({"grid": grid, "seeds": [0]}).loss.item()
    assert one == pytest.approx(
        experiments.early_loss("identity", "none", 0.1, 0)["loss"], rel=1e-3
    )
