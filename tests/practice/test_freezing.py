"""What is frozen stays so, is the affine map of fixed statistics, and is said to be frozen."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel

from bncore.lab import data, inference, networks, probes, training
from bncore.lab.modes import evaluation, unfrozen
from bncore.mechanics import transform
from bncore.practice.freezing import freeze, frozen, unfreeze

EPS = torch.finfo(torch.float64).eps
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def network(seed=0):
    return networks.mlp((64, 16, 16, 10), "relu", "batch", seed=seed)


@pytest.fixture(scope="module")
def split():
    return data.Split(*(tensor[:300] for tensor in data.digits()))


def moved(model, before, name, values):
    return [
        not torch.equal(getattr(model.get_submodule(name), v), before[f"{name}.{v}"])
        for v in values
    ]


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def loaded(model):
    other = network(1)
    model.load_state_dict(other.state_dict())
    return model


def averaged(model):
    return AveragedModel(model).module


WAYS = [lambda model: model, copy.deepcopy, pickled, saved, loaded, averaged]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("statistics", "affine"), [(1, 1), (1, 0), (0, 1)])
def test_training_does_not_undo_it_whatever_the_model_has_been_through(
    split, way, statistics, affine
):
    model = network()
    freeze(model, bool(statistics), bool(affine))
    model = way(model)
    before = copy.deepcopy(model.state_dict())
    descent = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for mode in (True, False, True):
        model.train(mode)
        nn.functional.cross_entropy(model(split.x_train), split.y_train).backward()
        descent.step()
    for name in ("norm1", "norm2"):
        assert moved(model, before, name, BUFFERS) == [not statistics] * 3
        assert moved(model, before, name, ("weight", "bias")) == [not affine] * 2
    assert moved(model, before, "linear2", ("weight",)) == [True]
    assert [m.training for m in (model, model.norm1)] == [True, not statistics]


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 3), st.booleans(), st.integers(0, 1000))
def test_frozen_is_the_map_of_fixed_statistics_forward_and_backward(batch, features, images, seed):
    rng = np.random.default_rng(seed)
    shape = (batch, features, 2, 3) if images else (batch, features)
    x, dy = rng.normal(2, 3, size=(2, *shape))
    mean, gamma, beta = rng.normal(size=(3, features))
    var = rng.uniform(0.1, 4, size=features)
    norm = (nn.BatchNorm2d if images else nn.BatchNorm1d)(features).double()
    for name, value in (("running_mean", mean), ("running_var", var)):
        getattr(norm, name).copy_(torch.from_numpy(value))
    for parameter, value in ((norm.weight, gamma), (norm.bias, beta)):
        parameter.data.copy_(torch.from_numpy(value))
    freeze(norm, affine=False)
    norm.train()
    inputs = torch.tensor(x, requires_grad=True)
    outputs = norm(inputs)
    outputs.backward(torch.from_numpy(dy))
    y, cache = transform.forward_fixed(x, mean, var, gamma, beta)
    expected = transform.backward_fixed(dy, cache)
    found = (inputs.grad, norm.weight.grad, norm.bias.grad)
    # Each value is a sum over the batch of products of a few factors.
    tolerance = 16 * x.size * EPS
    np.testing.assert_allclose(outputs.detach(), y, rtol=tolerance, atol=tolerance * 100)
    for one, other in zip(found, expected, strict=True):
        size = np.abs(dy).max() * (1 + np.abs(x).max() / np.sqrt(var.min())) * x.size
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * size)


def test_the_lab_keeps_frozen_what_is_frozen_in_either_mode(split):
    for mode in (True, False):
        model = network().train(mode)
        freeze(model, affine=False, layers=["norm1"])
        before = copy.deepcopy(model.state_dict())
        assert unfrozen(model) == [model.norm2]
        with evaluation(model, "batch"):
            assert [m.training for m in (model.norm1, model.norm2)] == [False, True]
        assert not any(moved(inference.refitted(model, split.x_train), before, "norm1", BUFFERS))
        training.train(model, split, 3, record={"a": probes.test_accuracy}, every=2)
        assert not any(moved(model, before, "norm1", BUFFERS))
        assert all(moved(model, before, "norm2", BUFFERS))
        assert all(moved(model, before, "norm1", ("weight", "bias")))


def test_a_run_with_frozen_layers_resumes_and_no_other_does(split, tmp_path):
    path, found = tmp_path / "run.pt", []
    for _ in range(2):
        model = network()
        freeze(model, layers=["norm2"])
        training.train(model, split, 3, checkpoint=path)
        found.append(model.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    with pytest.raises(ValueError, match="belongs to another run: model differs"):
        training.train(network(), split, 3, checkpoint=path)


def test_an_old_gradient_moves_nothing(split):
    model = network()
    nn.functional.cross_entropy(model(split.x_train), split.y_train).backward()
    freeze(model)
    before = copy.deepcopy(model.state_dict())
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not any(moved(model, before, "norm1", ("weight", "bias")))


def test_what_is_frozen_is_said_layer_by_layer():
    model = network()
    freeze(model, affine=False, layers=["norm1"])
    assert str(frozen(model)) == (
        "layer  statistics  affine\nnorm1  frozen      learning\nnorm2  moving      learning"
    )
    model.norm2.eval()
    model.norm2.bias.requires_grad_(False)
    assert frozen(model)[1] == ("norm2", "until train()", "half")
    model.train()
    assert frozen(model)[1] == ("norm2", "moving", "half")
    assert freeze(model) == frozen(model)
    assert {layer[1:] for layer in frozen(model)} == {("frozen", "frozen")}
    assert repr(frozen(nn.BatchNorm1d(3, affine=False, track_running_stats=False))).endswith(
        "       none        none"
    )
    assert frozen(nn.Linear(3, 3)) == ()


@pytest.mark.parametrize("mode", [True, False])
def test_what_is_undone_is_as_it_was(mode, split):
    model = network().train(mode)
    before = frozen(model)
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    freeze(model)
    assert unfreeze(model, affine=False)[0][1:] == ("moving", "frozen")
    freeze(model)
    assert unfreeze(model, statistics=False)[0][1:] == ("frozen", "learning")
    assert unfreeze(model) == before
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert [module.training for module in model.modules()] == [mode] * 8
    again = network()
    for one in (model, again):
        training.train(one, split, 3)
    assert torch.equal(model.norm1.running_mean, again.norm1.running_mean)
    norm = nn.BatchNorm1d(3)
    freeze(norm)
    assert unfreeze(norm)[0] == ("", "moving", "learning")
    assert norm.training


def test_layers_may_be_blocks():
    model = nn.Sequential(network(), network())
    freeze(model, layers=["0", "1.norm2"])
    assert [layer.statistics for layer in frozen(model)] == ["frozen", "frozen", "moving", "frozen"]


def test_one_chain_of_calls_goes_on_working():
    norm = nn.BatchNorm1d(3)
    freeze(norm)
    assert norm.train() is norm
    assert norm.eval() is norm


@pytest.mark.parametrize("function", [freeze, unfreeze])
def test_what_cannot_be_meant_is_refused_in_words(function, unchecked):
    model = network()
    what = function.__name__
    with pytest.raises(TypeError, match=r"model is a list, expected a torch.nn.Module"):
        function([])
    with pytest.raises(TypeError, match="statistics is a str, expected True or False"):
        function(model, "batch")
    with pytest.raises(ValueError, match=f"are False, expected something to {what}"):
        function(model, False, False)
    with pytest.raises(TypeError, match="layers is a str, expected a list of names"):
        function(model, layers="norm1")
    with pytest.raises(ValueError, match="layers is empty, expected at least one name"):
        function(model, layers=[])
    with pytest.raises(TypeError, match="layers holds a list, expected names"):
        function(model, layers=[["norm1"]])
    with pytest.raises(TypeError, match="model is a ScriptModule, expected the module that it"):
        function(torch.jit.trace(network().eval(), torch.ones(2, 64)))
    with pytest.raises(ValueError, match=r"has 'norm3', which is not .* of norm1, norm2"):
        function(model, layers=["norm1", "norm3"])
    with pytest.raises(ValueError, match=f"'linear1', which has no batch norm .* to {what}"):
        function(model, layers=["linear1"])
    with pytest.raises(ValueError, match="model has no batch norm in it"):
        function(nn.Linear(3, 3))
    assert frozen(model) == frozen(network())


def test_statistics_that_a_layer_does_not_keep_cannot_be_frozen(unchecked):
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(ValueError, match="batch norm '1' keeps no running statistics"):
        freeze(model)
    assert [layer.statistics for layer in frozen(model)] == ["moving", "none"]
    freeze(model, statistics=False)
    assert [layer.affine for layer in frozen(model)] == ["frozen", "frozen"]
    with pytest.raises(TypeError, match=r"model is a dict, expected a torch.nn.Module"):
        frozen({})


class Fixed(nn.Module):
    """A batch norm as libraries of detectors have: four buffers, and the same map in either mode."""

    def __init__(self, features, axes):
        super().__init__()
        self.axes = axes
        for name, value in (
            ("weight", 2.0),
            ("bias", 1.0),
            ("running_mean", 0.5),
            ("running_var", 4.0),
        ):
            self.register_buffer(name, torch.full((features,), value))

    def forward(self, x):
        if x.ndim != self.axes:
            raise ValueError("other axes")
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shape = 1, -1, *(1,) * (x.ndim - 2)
        return x * scale.view(shape) + (self.bias - self.running_mean * scale).view(shape)


class Moving(Fixed):
    """One that moves its running mean in training mode."""

    def forward(self, x):
        if self.training:
            self.running_mean += 0.1 * (x.transpose(0, 1).flatten(1).mean(1) - self.running_mean)
        return super().forward(x)


class Asking(Fixed):
    """One that cannot be tried: it asks for more than its input."""

    def forward(self, x, mask):
        return super().forward(x)


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("axes", [2, 3, 4, 5])
def test_a_layer_that_never_moves_is_said_to_be_fixed(axes, mode):
    made = nn.Sequential(Fixed(3, axes), Moving(3, axes), Asking(3, axes), nn.BatchNorm1d(3))
    made.train(mode)
    before, random = copy.deepcopy(made.state_dict()), torch.get_rng_state()
    called = []
    made[0].register_forward_hook(lambda *given: called.append(given))
    found = [(one.statistics, one.affine) for one in frozen(made)]
    assert found == [("fixed", "fixed"), *[("moving", "fixed")] * 2, ("moving", "learning")]
    assert not called
    assert torch.equal(torch.get_rng_state(), random)
    torch.testing.assert_close(made.state_dict(), before, rtol=0, atol=0)
    assert [module.training for module in made] == [mode] * 4
    assert [one.statistics for one in freeze(made)] == ["frozen"] * 4
    assert [one.statistics for one in unfreeze(made)] == ["fixed", *["moving"] * 3]
