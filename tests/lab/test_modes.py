"""Batch statistics concern the batch norms alone, and a frozen batch norm stays frozen."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bncore.lab import data, inference, networks, probes, training
from bncore.lab.modes import evaluation, held, is_batch_norm, prepare_training, unfrozen
from bncore.mechanics.inference import population_statistics

EPS = torch.finfo(torch.float64).eps


@pytest.fixture(scope="module")
def split():
    return data.Split(*(tensor[:300] for tensor in data.digits()))


def dropping(seed=0):
    return networks.mlp((64, 32, 32, 10), "relu", "batch", dropout=0.5, seed=seed)


def without_dropout(model):
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def with_batch_statistics(model, x):
    """By hand: everything in evaluation mode but torch's batch norms."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.train()
    with torch.no_grad():
        return model(x)


def freeze(module):
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_batch_statistics_leave_dropout_off(split, mode, seed):
    model, x = dropping(seed).train(mode), split.x_test
    expected = with_batch_statistics(model, x)
    found = [inference.predictions(model, x, "batch") for _ in range(2)]
    assert torch.equal(found[0], expected.argmax(1))
    assert torch.equal(found[1], expected.argmax(1))
    assert inference.accuracy(model, x, expected.argmax(1), "batch") == 1
    with evaluation(model, "batch"):
        assert torch.equal(model(x), expected)
    loss = nn.functional.cross_entropy(expected, split.y_test).item()
    assert probes.loss("test", "batch")(model, split) == loss
    quiet = without_dropout(model)
    for probe in (
        probes.gradient_norms(),
        probes.percentiles("output", 0),
        probes.activation_percentiles("activation2"),
    ):
        np.testing.assert_array_equal(probe(model, split), probe(quiet, split))


def test_the_scatter_in_company_is_none_of_dropouts(split):
    model, x = dropping(), split.x_test.double()
    model.double()
    drawn = (x[0], x[1:], 32, 50)
    quiet = inference.scores_in_company(without_dropout(model), *drawn)
    assert torch.equal(inference.scores_in_company(model, *drawn), quiet)


@pytest.mark.parametrize("mode", [True, False])
def test_statistics_are_fitted_again_without_dropout(split, mode):
    model = dropping().train(mode)
    fitted = inference.refitted(model, split.x_train, 50)
    quiet = inference.refitted(without_dropout(model), split.x_train, 50)
    for (name, value), other in zip(
        fitted.state_dict().items(), quiet.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
    assert all(module.training == mode for module in fitted.modules())


def test_statistics_fitted_again_are_those_of_the_population(split):
    model = dropping().double()
    fitted = inference.refitted(model, split.x_train.double(), 50)
    inputs = model.linear1(split.x_train.double()).detach().numpy()
    mean, var = population_statistics(np.split(inputs, 6))
    rounding, size = len(inputs) * EPS, np.abs(inputs).max()
    np.testing.assert_allclose(fitted.norm1.running_mean, mean, rtol=0, atol=rounding * size)
    np.testing.assert_allclose(fitted.norm1.running_var, var, rtol=0, atol=rounding * size**2)
    assert fitted.norm1.num_batches_tracked == 6


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_fitted_again_forget_the_old_ones_and_keep_the_momentum(split, momentum):
    model = networks.mlp((64, 8, 10), "relu", "batch", momentum=momentum)
    before = inference.refitted(model, split.x_train)
    model.norm1.running_mean += 5
    fitted = inference.refitted(model, split.x_train)
    assert torch.equal(fitted.norm1.running_mean, before.norm1.running_mean)
    assert fitted.norm1.momentum == momentum


@pytest.mark.parametrize("learns", [True, False])
def test_a_frozen_batch_norm_stays_frozen_while_the_rest_trains(split, learns):
    model = dropping()
    model(split.x_train)
    model.norm1.eval().requires_grad_(learns)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training.train(model, split, 5, record={"a": probes.test_accuracy}, every=2)
    after = model.state_dict()
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(after[f"norm1.{name}"], before[f"norm1.{name}"])
        assert not torch.equal(after[f"norm2.{name}"], before[f"norm2.{name}"])
    for name in ("weight", "bias"):
        assert torch.equal(after[f"norm1.{name}"], before[f"norm1.{name}"]) != learns
    assert not torch.equal(after["linear1.weight"], before["linear1.weight"])
    assert [name for name, module in model.named_modules() if not module.training] == ["norm1"]


def test_a_frozen_batch_norm_trains_as_its_affine_map_would(split):
    model = networks.mlp((64, 8, 10), "relu", "batch").double()
    exact = data.Split(*(t.double() if t.is_floating_point() else t for t in split))
    inference.refitted(model, exact.x_train)
    freeze(model.norm1)

    class Affine(nn.Module):
        def forward(self, x):
            return x / np.sqrt(1 + 1e-5)

    plain = copy.deepcopy(model)
    plain.norm1 = Affine()
    found, expected = (training.train(m, exact, 20).losses for m in (model, plain))
    # In each of 20 steps, scores of 64 products.
    np.testing.assert_allclose(found, expected, rtol=20 * 64 * EPS)


def test_a_model_in_evaluation_mode_is_trained_but_for_norms_that_do_not_learn(split):
    model = dropping().eval()
    freeze(model.norm2)
    training.train(model, split, 2)
    assert [name for name, module in model.named_modules() if not module.training] == ["norm2"]


def test_a_probe_cannot_thaw_a_frozen_batch_norm(split):
    model = dropping()
    freeze(model.norm1)

    def careless(model, split):
        model.eval()
        value = model(split.x_test).sum().item()
        model.train()
        return value

    training.train(model, split, 5, record={"careless": careless}, every=1)
    assert not model.norm1.running_mean.any()
    assert not model.norm1.training


def test_a_frozen_batch_norm_keeps_its_statistics_where_the_others_take_the_batchs(split):
    model = dropping()
    freeze(model.norm1)
    model.norm1.running_mean -= 1
    with evaluation(model, "batch"):
        assert [name for name, module in model.named_modules() if module.training] == ["norm2"]
    fitted = inference.refitted(model, split.x_train)
    assert torch.equal(fitted.norm1.running_mean, -torch.ones(32))
    assert fitted.norm2.running_mean.any()
    assert not fitted.norm1.training


@pytest.mark.parametrize("mode", [True, False])
def test_a_batch_norm_that_says_so_is_frozen_in_either_mode(split, mode):
    model = dropping().train(mode)
    assert unfrozen(model) == [model.norm1, model.norm2]
    model.norm1.statistics_frozen = True
    model.norm1.running_mean -= 1
    assert unfrozen(model) == [model.norm2]
    with evaluation(model, "batch"):
        assert [name for name, module in model.named_modules() if module.training] == ["norm2"]
    fitted = inference.refitted(model, split.x_train)
    assert torch.equal(fitted.norm1.running_mean, -torch.ones(32))
    assert fitted.norm2.running_mean.any()


def test_a_checkpoint_of_a_run_with_another_frozen_norm_is_refused(split, tmp_path):
    path = tmp_path / "run.pt"
    model = dropping()
    model.norm1.eval()
    training.train(model, split, 3, checkpoint=path)
    again = dropping()
    again.norm1.eval()
    training.train(again, split, 3, checkpoint=path)
    assert torch.equal(model.norm2.running_mean, again.norm2.running_mean)
    assert not again.norm1.training
    with pytest.raises(ValueError, match="belongs to another run: model differs"):
        training.train(dropping(), split, 3, checkpoint=path)


class Own(nn.Module):
    """A batch norm that is none of torch's."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3))

    def forward(self, x):
        mean = x.mean(0) if self.training else self.running_mean
        return x - mean


class Marked(nn.Module):
    is_batch_norm = True


def test_what_counts_as_a_batch_norm():
    norms = [nn.BatchNorm1d(3), nn.BatchNorm3d(3, track_running_stats=False), nn.SyncBatchNorm(3)]
    assert all(map(is_batch_norm, [*norms, nn.LazyBatchNorm2d(), Own(), Marked()]))
    others = [nn.Dropout(), nn.LayerNorm(3), nn.GroupNorm(1, 3), nn.Sequential(nn.BatchNorm1d(3))]
    assert not any(map(is_batch_norm, [*others, nn.InstanceNorm1d(3, track_running_stats=True)]))


def test_batch_norms_of_ones_own_take_part_but_instance_norms_do_not():
    model = nn.Sequential(Own(), nn.InstanceNorm1d(3, track_running_stats=True), nn.Dropout())
    with evaluation(model, "batch"):
        assert [module.training for module in model] == [True, False, False]
    with pytest.raises(ValueError, match="batch norm '0' is a Own without reset_running_stats"):
        inference.refitted(model, torch.ones(4, 3))


@pytest.mark.parametrize("whole", [True, False])
def test_modes_come_back_one_by_one(whole):
    model = dropping().train(whole)
    for name in ("norm2", "dropout1"):
        model.get_submodule(name).training = not whole
    before = [module.training for module in model.modules()]
    for statistics in ("running", "batch"):
        with evaluation(model, statistics):
            pass
        with pytest.raises(KeyError), evaluation(model, statistics):
            raise KeyError
        assert [module.training for module in model.modules()] == before


def test_preparing_holds_what_is_said_to_be_held():
    model = networks.residual(1, 2, stages=1)
    freeze(model.block1.body.norm1)
    assert held(model) == ["block1.body.norm1"]
    prepare_training(model)
    assert not model.block1.body.norm1.training
    model.eval()
    assert held(model) == ["block1.body.norm1"]
    prepare_training(model)
    assert [name for name, module in model.named_modules() if not module.training] == held(model)


def test_whatever_is_in_evaluation_mode_within_a_model_that_trains_stays_so():
    """Not batch norms alone: a dropout that its owner has switched off, or a whole block."""
    model = networks.residual(1, 2, stages=1)
    model.add_module("dropout", nn.Dropout(0.5))
    model.dropout.eval()
    model.block1.eval()
    expected = ["dropout", *(f"block1{rest}" for rest in inside(model.block1))]
    assert sorted(held(model)) == sorted(expected)
    prepare_training(model)
    still = [name for name, module in model.named_modules() if not module.training]
    assert sorted(still) == sorted(expected)


def inside(block):
    return [name and f".{name}" for name, _ in block.named_modules()]
