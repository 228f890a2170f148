"""Networks of the page on tuning: what stands where, and what is measured in them."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from bncore.chapters.practice.placement import horizon
from bncore.chapters.practice.placement import tuning_runs as runs
from bncore.lab import together
from bncore.lab.inference import accuracy

EPS = float(np.finfo(np.float32).eps)
DOUBLE = float(np.finfo(float).eps)
WIDTHS = (5, 4, 4, 3)


@pytest.mark.parametrize("normalised", [(), (0,), (1,), (2,), (1, 2), (0, 1, 2, 3)])
def test_batch_norm_stands_where_it_should_and_weights_are_the_same(normalised):
    model, plain = runs.network(WIDTHS, normalised, 3), runs.network(WIDTHS, (), 3)
    names = [name for name, _ in model.named_children()]
    expected = []
    for i in range(4):
        expected += [("linear1", "linear2", "output")[i - 1]] if i else []
        expected += [f"norm{i}"] if i in normalised else []
        expected += [f"activation{i}"] if i in (1, 2) else []
    assert names == expected
    for i, name in enumerate(("linear1", "linear2", "output"), start=1):
        layer = model.get_submodule(name)
        assert torch.equal(layer.weight, plain.get_submodule(name).weight)
        assert (layer.bias is None) == (i in normalised)


@pytest.mark.parametrize(
    ("place", "before"),
    [
        (runs.PLACES[0], ["norm1", "norm2"]),
        (runs.PLACES[1], ["linear2", "output"]),
        (runs.PLACES[2], ["output"]),
    ],
)
def test_dropout_stands_before(place, before):
    model = runs.network(WIDTHS, (1, 2), 0, drop=(place, 0.3))
    layers = list(model.named_children())
    found = [
        follower
        for (_, layer), (follower, _) in itertools.pairwise(layers)
        if isinstance(layer, nn.Dropout)
    ]
    assert found == before
    assert [layer.p for _, layer in layers if isinstance(layer, nn.Dropout)] == [0.3] * len(before)


def test_many_momenta_are_kept_as_torchs_batch_norm_keeps_each():
    many = runs.ManyMomenta(3)
    each = [nn.BatchNorm1d(3, momentum=momentum) for momentum in runs.MOMENTA]
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        x = 2 + 3 * torch.randn(7, 3, generator=generator)
        assert torch.equal(many(x), each[0](x))
        for one in each[1:]:
            one(x)
    x = torch.randn(7, 3, generator=generator)
    for i, one in enumerate(each):
        many.use(i)
        torch.testing.assert_close(many.eval()(x), one.eval()(x), rtol=32 * EPS, atol=32 * EPS)


@pytest.mark.parametrize("of", ["cancer", "pixels"])
def test_tables_are_of_unlike_scale_until_they_are_standardised(of):
    raw, standardised = (runs.table(of, prepared, 0) for prepared in ("raw", "standardised"))
    deviations = raw.x_train.double().std(0)
    moves = deviations > 0
    assert deviations[moves].max() / deviations[moves].min() > 1e4
    columns = standardised.x_train.double()
    torch.testing.assert_close(
        columns.mean(0)[moves], torch.zeros_like(columns[0, moves]), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        columns.std(0)[moves], torch.ones_like(columns[0, moves]), atol=1e-5, rtol=0
    )
    assert (columns[:, ~moves].abs() < 1e-9).all()
    assert len(set(raw.y_train.tolist())) == {"cancer": 2, "pixels": 10}[of]
    assert not torch.equal(raw.y_test, runs.table(of, "raw", 1).y_test)


@pytest.mark.parametrize("place", runs.PLACES[:2])
def test_the_variance_that_dropout_adds_is_predicted(place):
    """Weights that hardly move: what differs is the batches behind the kept variance."""
    found = runs.by_dropout(place, 0.4, (1e-9,) * 4, (0, 1, 2, 3), steps=60)
    np.testing.assert_allclose(found["measured"], found["predicted"], rtol=0.1)
    assert (found["predicted"] < 0.9).all()


def test_nothing_shifts_where_nothing_is_dropped():
    found = runs.by_dropout(runs.PLACES[0], 0.0, (0.1,), (0,), steps=4)
    assert found["measured"] == found["predicted"] == 1.0
    found = runs.by_dropout(runs.PLACES[2], 0.3, (0.1,), (0,), steps=4)
    assert found["measured"] == found["predicted"] == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_a_factor_of_scale_and_shift_counts_only_in_the_last_batch_norm(seed):
    """As the page derives: up to eps, which is small beside variances of about 1e-2 and more."""
    model, x = runs.network(runs.WIDTHS, (1, 2), seed), runs.digits(seed).x_train[:128]
    moved = {}
    for name in ("norm1", "norm2"):
        with torch.no_grad():
            before = model(x)
            for parameter in model.get_submodule(name).parameters():
                parameter.mul_(0.5)
            moved[name] = float((model(x) - before).std() / before.std())
    assert moved["norm1"] < 1e-3
    assert moved["norm2"] == pytest.approx(0.5, abs=0.01)


def test_decay_reaches_what_it_is_said_to_reach():
    names = [name for name, _ in runs.network(WIDTHS, (1, 2), 0).named_parameters()]
    spared = {
        key: [name for name in names if not chosen(name)] for key, chosen in runs.DECAYED.items()
    }
    norms = ["norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"]
    assert spared["all"] == []
    assert spared["weights"] == norms
    assert spared["γ and β"] == [name for name in names if name not in norms]
    scale = runs.by_decay("γ and β", 1.0, (0.1,), (0,), steps=30)["scale"]
    assert (scale < 0.2).all()
    assert (runs.by_decay("weights", 1.0, (0.1,), (0,), steps=30)["scale"] > 0.8).all()


@pytest.mark.parametrize("steps", [20, 60])
def test_accuracies_are_means_of_those_before_the_half_and_before_the_end(steps):
    """Of networks that a loop of its own trains, stopped at each moment."""

    def make(seed):
        return runs.network(runs.WIDTHS, (1, 2), seed)

    rates, seeds, values = (0.1, 0.3), (0, 1), {}
    for stop in horizon.moments(steps):
        models = [make(seed) for seed in seeds]
        splits = [runs.digits(seed) for seed in seeds]
        together.train(models, splits, stop, runs.BATCH, learning_rate=rates, seeds=seeds)
        values[stop] = [
            accuracy(model, one.x_test, one.y_test)
            for model, one in zip(models, splits, strict=True)
        ]
    found = runs.accuracies(make, rates, seeds, steps)[2]
    before = [one for stop, one in values.items() if stop <= steps // 2]
    after = [one for stop, one in values.items() if stop > steps // 2]
    np.testing.assert_allclose(found["half"], np.mean(before, axis=0), rtol=16 * DOUBLE)
    np.testing.assert_allclose(found["accuracy"], np.mean(after, axis=0), rtol=16 * DOUBLE)


def test_a_pixel_that_is_dark_in_training_is_blown_up_at_test_by_a_tiny_epsilon():
    """Its running variance is 0.9 to the power of the number of steps, and falls below any ε."""
    rates, seeds = (0.1,), (0,)
    tiny, usual = (runs.by_epsilon("yes", eps, rates, seeds, steps=200) for eps in (1e-12, 1e-2))
    assert tiny["largest"][0] > 1e3
    assert usual["largest"][0] < 11  # at most one unit of ink over 0.1
    assert 0.1 < tiny["start"][0] < 10
    assert tiny["end"][0] > tiny["start"][0]
