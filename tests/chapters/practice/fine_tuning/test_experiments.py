"""The experiments of the chapter on fine-tuning do what their words say."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.chapters.practice.fine_tuning import experiments
from bncore.lab import inference, networks, training
from bncore.lab.data import digits
from bncore.practice.freezing import frozen
from bncore.practice.recalibration import recalibrated


@pytest.fixture
def fresh(monkeypatch):
    """A network that has learned nothing, in place of the trained one."""

    def source(seed, steps=None):
        return networks.mlp((64, 16, 16, 10), "relu", "batch", seed=seed).eval()

    monkeypatch.setattr(experiments, "source", source)
    return source


@pytest.mark.parametrize("kind", experiments.CHANGES)
def test_a_change_by_nothing_is_none(kind):
    x = digits(0).x_test[:20]
    torch.testing.assert_close(experiments.CHANGES[kind](x, 0.0), x)


def test_changes_are_what_they_are_called():
    x = digits(0).x_test[:20]
    one = experiments.moved(x, 1.0).reshape(-1, 8, 8)
    assert torch.equal(one[..., 1:], x.reshape(-1, 8, 8)[..., :-1])
    assert not one[..., 0].any()
    half = experiments.moved(x, 1.5).reshape(-1, 8, 8)
    between = (one + experiments.moved(x, 2.0).reshape(-1, 8, 8)) / 2
    torch.testing.assert_close(half, between)
    torch.testing.assert_close(experiments.inverted(x, 1.0), 1 - x)
    torch.testing.assert_close(experiments.faded(x, 0.8), 0.2 * x + 0.4)
    noise = experiments.noisy(x, 0.5) - x
    assert abs(noise.std().item() - 0.5) < 5 * 0.5 / (2 * noise.numel()) ** 0.5
    assert torch.equal(experiments.noisy(x, 0.5), experiments.noisy(x, 0.5))


def test_what_is_tested_was_not_trained_on():
    split, changed = digits(3), experiments.changed(3, "faded", 0.0)
    assert len(split.x_train) - experiments.SOURCE == len(changed.x_train) > 200
    assert torch.equal(changed.x_train, split.x_train[experiments.SOURCE :])
    assert torch.equal(changed.y_test, split.y_test)


@settings(max_examples=20)
@given(st.floats(0.1, 10), st.floats(-3, 3), st.integers(0, 1000))
def test_recalibration_undoes_a_positive_scale_and_a_shift_of_all_inputs(scale, shift, seed):
    model = networks.mlp((5, 8, 6, 3), "relu", "batch", eps=1e-12, seed=seed).double().eval()
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(40, 5)))
    with torch.no_grad():
        expected = recalibrated(model, [x])(x)
        found = recalibrated(model, [scale * x + shift])(scale * x + shift)
        negative = recalibrated(model, [-scale * x + shift])(-scale * x + shift)
    # Epsilon counts 1 / scale² times as much, beside variances of some 1/30 at least.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert (negative - expected).abs().max() > 1e-3


@settings(max_examples=20)
@given(st.integers(6, 20), st.integers(2, 4), st.integers(0, 1000))
def test_the_steepest_direction_is_that_of_the_jacobian(count, inputs, seed):
    rng = np.random.default_rng(seed)
    x, w = rng.normal(2, 1, size=(count, inputs)), rng.normal(size=inputs)
    mean, var = 3.0, 4.0

    def frozen_unit(w):
        return (torch.from_numpy(x) @ w - mean) / var**0.5

    def unit(w):
        h = torch.from_numpy(x) @ w
        return (h - h.mean()) / h.var(correction=0) ** 0.5

    for one, fixed in ((frozen_unit, var), (unit, None)):
        slope = torch.func.jacrev(one)(torch.from_numpy(w)).numpy()
        expected = np.linalg.eigvalsh(slope.T @ slope / count)[-1]
        np.testing.assert_allclose(experiments.steepest(x, w, fixed), expected, rtol=1e-8)


def test_old_statistics_make_it_less_steep_than_fresh_ones_where_contrast_was_lost(fresh):
    old, new = (experiments.times_as_steep("faded", afresh=afresh) for afresh in (False, True))
    model, x = fresh(0), experiments.changed(0, *experiments.DOMAINS["faded"]).x_train
    var = model.linear1(x).var(0, correction=0).detach() / model.norm1.running_var
    np.testing.assert_allclose(new / old, 1 / var, rtol=1e-4)
    assert (new > 1).all()


LEARNING = {
    "all": ("moving", {"linear1", "norm1", "linear2", "norm2", "output"}),
    "statistics frozen": ("frozen", {"linear1", "norm1", "linear2", "norm2", "output"}),
    "affine frozen": ("moving", {"linear1", "linear2", "output"}),
    "both frozen": ("frozen", {"linear1", "linear2", "output"}),
    "batch norms only": ("moving", {"norm1", "norm2"}),
    "recalibrated first": ("frozen", {"linear1", "norm1", "linear2", "norm2", "output"}),
    "last layer, frozen": ("frozen", {"output"}),
    "last layer, moving": ("moving", {"output"}),
}


@pytest.mark.parametrize("way", experiments.WAYS)
def test_a_way_trains_what_it_names(way, fresh):
    x = digits(0).x_train[:50]
    before = fresh(0).train()
    model = experiments.WAYS[way](copy.deepcopy(before), x)
    statistics, learning = LEARNING[way]
    assert {layer.statistics for layer in frozen(model)} == {statistics}
    found = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert found == learning
    same = torch.equal(model.norm1.running_mean, before.norm1.running_mean)
    assert same == (way != "recalibrated first")


def test_a_network_is_fine_tuned_and_measured(fresh):
    found = experiments.fine_tuned("all", "unchanged", 200, 20, (0.1, 0.001), (0, 1), steps=60)
    assert list(found) == ["halfway", "accuracy", "afresh", "old"]
    assert found["accuracy"][0] > 0.6 > found["accuracy"][1]
    # The domain is the old one.
    assert (found["old"] == found["accuracy"]).all()
    assert (found["accuracy"] != found["halfway"]).all()
    assert (found["afresh"] != found["accuracy"]).any()
    one = experiments.fine_tuned("both frozen", "faded", 20, 4, (0.001,), (0,), steps=4)
    assert one["afresh"] == one["accuracy"]


@pytest.mark.parametrize("way", ["all", "both frozen"])
def test_networks_that_are_fine_tuned_together_are_those_trained_alone(way, fresh):
    rates, seeds = (0.1, 0.01), (0, 1)
    found = experiments.fine_tuned(way, "faded", 20, 4, rates, seeds, steps=10)
    for i, (rate, seed) in enumerate(zip(rates, seeds, strict=True)):
        split = experiments.changed(seed, *experiments.DOMAINS["faded"])
        few = split._replace(x_train=split.x_train[:20], y_train=split.y_train[:20])
        model = experiments.WAYS[way](fresh(seed).train(), few.x_train)
        training.train(model, few, 10, 4, rate, seed)
        expected = inference.accuracy(model, split.x_test, split.y_test)
        assert abs(found["accuracy"][i] - expected) <= 2 / 449


def test_before_and_after_recalibration(fresh):
    found = experiments.untrained("faded", 0, 0)
    split = digits(0)
    model = fresh(0)
    right = (model(split.x_test).argmax(1) == split.y_test).double().mean().item()
    assert found["kept"] == right
    assert found["recalibrated"] != right


@pytest.mark.parametrize("classes", [1, 3, 10])
def test_a_test_batch_holds_so_many_classes(classes, fresh, monkeypatch):
    seen = []

    def accuracy(model, x, y, statistics="running"):
        seen.append((statistics, len(x), len(set(y.tolist()))))
        return 0.25 if statistics == "batch" else 0.75

    monkeypatch.setattr(experiments, "accuracy", accuracy)
    found = experiments.at_test_time("faded", classes, 64, 0)
    assert found == {"batch": 0.25, "kept": 0.75}
    *batches, whole = seen
    assert {kind[:2] for kind in batches} == {("batch", 64)}
    assert len(batches) == 8
    assert {kind[2] for kind in batches} <= {classes, classes - 1}
    assert whole == ("running", 449, 10)
