"""Recalibrated statistics are those of the values that reach each layer, and nothing else moves."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.data import DataLoader, TensorDataset

from bncore.lab import networks
from bncore.lab.inference import refitted
from bncore.lab.probes import inputs_of
from bncore.practice.diagnosis import examine
from bncore.practice.freezing import freeze
from bncore.practice.recalibration import recalibrated

EPS = torch.finfo(torch.float64).eps


def network(seed=0, **options):
    return networks.mlp((5, 6, 4, 3), "relu", "batch", seed=seed, **options).double()


def convolutions():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 2), nn.BatchNorm2d(2)
    return nn.Sequential(*layers).double()


def examples(count, *shape, seed=0):
    drawn = np.random.default_rng(seed).normal(3, 2, size=(count, *(shape or (5,))))
    return torch.from_numpy(drawn)


def rows(x):
    return np.moveaxis(np.asarray(x), 1, -1).reshape(-1, x.shape[1])


def assert_statistics_of(norm, values):
    """To a rounding error of each of the values summed, and some on the way through the layers."""
    size, tolerance = np.abs(values).max(), 8 * len(values) * EPS
    mean, var = values.mean(0), values.var(0, ddof=1)
    np.testing.assert_allclose(norm.running_mean, mean, rtol=0, atol=tolerance * size)
    np.testing.assert_allclose(norm.running_var, var, rtol=0, atol=tolerance * size**2)


def same_state(model, other):
    states = model.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


sizes = st.lists(st.integers(2, 12), min_size=1, max_size=5)


@settings(max_examples=40)
@given(sizes, st.integers(0, 1000), st.booleans())
def test_the_first_layer_has_the_statistics_of_all_values_together(sizes, seed, layer_by_layer):
    model, x = network(seed), examples(sum(sizes), seed=seed)
    fitted = recalibrated(model, x.split(sizes), layer_by_layer=layer_by_layer)
    assert_statistics_of(fitted.norm1, model.linear1(x).detach().numpy())
    assert fitted.norm1.num_batches_tracked == len(sizes)


@settings(max_examples=40)
@given(sizes, st.integers(0, 1000))
def test_layer_by_layer_each_layer_has_the_statistics_of_what_it_meets_at_inference(sizes, seed):
    model, x = network(seed), examples(sum(sizes), seed=seed)
    fitted = recalibrated(model, x.split(sizes), layer_by_layer=True)
    met = inputs_of(fitted, ["norm1", "norm2"], x)
    for name, values in met.items():
        assert_statistics_of(fitted.get_submodule(name), values)


@settings(max_examples=40)
@given(sizes, st.integers(0, 1000))
def test_in_one_pass_a_deeper_layer_has_the_statistics_of_what_it_meets_in_training(sizes, seed):
    model, x = network(seed), examples(sum(sizes), seed=seed)
    fitted = recalibrated(model, x.split(sizes))
    met = [inputs_of(model, ["norm2"], piece, "batch")["norm2"] for piece in x.split(sizes)]
    assert_statistics_of(fitted.norm2, np.concatenate(met))


@settings(max_examples=20)
@given(sizes, st.booleans())
def test_images_count_every_pixel(sizes, layer_by_layer):
    model, x = convolutions(), examples(sum(sizes), 1, 5, 5)
    fitted = recalibrated(model, x.split(sizes), layer_by_layer=layer_by_layer)
    assert_statistics_of(fitted[1], rows(model[0](x).detach()))
    if layer_by_layer:
        assert_statistics_of(fitted[4], rows(inputs_of(fitted, ["4"], x)["4"]))


def test_the_two_ways_differ_where_batches_are_small():
    x = examples(400)
    gap = {}
    for size in (4, 400):
        once, twice = (
            recalibrated(network(), x.split(size), layer_by_layer=way) for way in (False, True)
        )
        apart = once.norm2.running_var / twice.norm2.running_var - 1
        gap[size] = apart.abs().max().item()
    # Of one batch, all that is left is n for n - 1 on the way.
    assert gap[400] < 2 / 400
    assert gap[4] > 0.05


@pytest.mark.parametrize("seed", range(3))
def test_one_batch_gives_what_algorithm_2_gives(seed):
    model, x = network(seed), examples(50, seed=seed)
    found, expected = recalibrated(model, [x]), refitted(model, x)
    for one, other in zip(found.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=50 * 8 * EPS, atol=50 * 8 * EPS)


def test_averaged_weights_get_what_update_bn_gives_where_that_is_right():
    averaged, x = AveragedModel(network(0)), examples(60)
    for seed in (0, 1, 2):
        averaged.update_parameters(network(seed))
    found = recalibrated(averaged, [x])
    expected = copy.deepcopy(averaged)
    update_bn([x], expected)
    for one, other in zip(found.module.buffers(), expected.module.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=60 * 8 * EPS, atol=60 * 8 * EPS)
    # With batches of one size means agree, and variances to what the means' spread estimates.
    once = recalibrated(averaged, x.split(20)).module.norm1
    update_bn(x.split(20), expected)
    other = expected.module.norm1
    torch.testing.assert_close(once.running_mean, other.running_mean, rtol=1e-12, atol=1e-12)
    assert (once.running_var / other.running_var - 1).abs().max() < 3 / 20


def test_update_bn_weighs_a_small_last_batch_as_a_whole_one():
    model, x = network(), torch.cat([examples(40), 10 + examples(2)])
    fitted, torchs = recalibrated(model, x.split(40)), copy.deepcopy(model)
    update_bn(x.split(40), torchs)
    inputs = model.linear1(x).detach()
    torch.testing.assert_close(fitted.norm1.running_mean, inputs.mean(0))
    halves = (inputs[:40].mean(0) + inputs[40:].mean(0)) / 2
    torch.testing.assert_close(torchs.norm1.running_mean, halves)


def test_averaged_weights_of_a_model_in_evaluation_mode_are_recalibrated_too():
    averaged = AveragedModel(network().eval())
    assert not same_state(recalibrated(averaged, [examples(10)]), averaged)


@pytest.mark.parametrize("layer_by_layer", [False, True])
@pytest.mark.parametrize("mode", [False, True])
def test_nothing_but_the_statistics_of_the_copy_moves(mode, layer_by_layer):
    model, x = network(dropout=0.5, momentum=0.3).train(mode), examples(20)
    model.dropout1.train(not mode)
    before, random = copy.deepcopy(model), torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    loader = DataLoader(TensorDataset(x, torch.zeros(20)), 5, shuffle=True)
    fitted = recalibrated(model, loader, layer_by_layer=layer_by_layer)
    assert torch.equal(torch.get_rng_state(), random)
    assert same_state(model, before)
    for name, parameter in fitted.named_parameters():
        assert torch.equal(parameter, before.get_parameter(name))
        assert parameter.requires_grad
        assert parameter.grad is None
    for one in (model, fitted):
        assert [module.training for module in one.modules()] == modes
        assert one.norm1.momentum == 0.3
        assert not one.norm1._forward_pre_hooks
    assert not torch.equal(fitted.norm1.running_mean, model.norm1.running_mean)


def test_dropout_is_off():
    model, x = network(dropout=0.5), examples(40)
    quiet = copy.deepcopy(model)
    quiet.dropout1.p = quiet.dropout2.p = 0.0
    assert same_state(recalibrated(model, [x]), recalibrated(quiet, [x]))


def test_statistics_are_those_of_the_batches_alone():
    model, x = network(), examples(20)
    moved = copy.deepcopy(model)
    moved.norm1.running_mean += 5
    moved.norm2.running_var *= 9
    for way in (False, True):
        found = (recalibrated(m, [x], layer_by_layer=way) for m in (model, moved))
        assert same_state(*found)


@pytest.mark.parametrize("layer_by_layer", [False, True])
def test_frozen_batch_norms_stay(layer_by_layer):
    model, x = network(), examples(20)
    model.norm1.eval()
    fitted = recalibrated(model, [x], layer_by_layer=layer_by_layer)
    assert torch.equal(fitted.norm1.running_mean, model.norm1.running_mean)
    assert_statistics_of(fitted.norm2, inputs_of(fitted, ["norm2"], x)["norm2"])
    model.eval()
    freeze(model, layers=["norm2"])
    fitted = recalibrated(model, [x], layer_by_layer=layer_by_layer)
    assert torch.equal(fitted.norm2.running_mean, model.norm2.running_mean)
    assert_statistics_of(fitted.norm1, inputs_of(fitted, ["norm1"], x)["norm1"])


class Branching(nn.Module):
    """Batch norms called twice, never, and by a keyword."""

    def __init__(self):
        super().__init__()
        self.twice, self.never, self.named = (nn.BatchNorm1d(3).double() for _ in range(3))
        self.never.running_mean += 7

    def forward(self, x):
        x = self.named(input=x)
        return self.twice(2 + self.twice(x))


def test_a_batch_norm_called_twice_pools_both_and_one_that_is_not_reached_stays():
    x = examples(20, 3)
    fitted = recalibrated(Branching(), [x])
    normal = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
    again = 2 + normal / (normal.var(0, correction=0) + 1e-5).sqrt()
    assert_statistics_of(fitted.twice, torch.cat([normal, again]).numpy())
    assert_statistics_of(fitted.named, x.numpy())
    assert torch.equal(fitted.never.running_mean, torch.full((3,), 7.0).double())
    assert fitted.never.num_batches_tracked == 0
    with pytest.raises(ValueError, match=r"'twice' is called 2 times .*, expected once: what it"):
        recalibrated(Branching(), [x], layer_by_layer=True)


class Counting(nn.BatchNorm1d):
    """A batch norm that leaves out what is 0 in the first feature."""

    def counted(self, x):
        return x[x[:, 0] != 0]


def test_a_batch_norm_may_say_which_values_count():
    x = examples(20, 3)
    x[5:9, 0] = 0
    for way in (False, True):
        parts = x[:5], x[5:9], x[9:]
        fitted = recalibrated(Counting(3).double(), parts, layer_by_layer=way)
        assert_statistics_of(fitted, x[x[:, 0] != 0].numpy())


class MeanOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3, dtype=torch.float64))

    def forward(self, x):
        return x - self.running_mean


def test_batch_norms_of_ones_own_take_part():
    x = examples(20, 3)
    fitted = recalibrated(MeanOnly(), x.split(7))
    torch.testing.assert_close(fitted.running_mean, x.mean(0))


def test_lazy_layers_are_recalibrated_once_they_have_met_a_batch(unchecked):
    model, x = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d()), examples(20).float()
    with pytest.raises(ValueError, match="model has lazy layers without weights"):
        recalibrated(model, [x])
    model(x)
    fitted = recalibrated(model, [x])
    expected = fitted[0](x).detach().mean(0)
    torch.testing.assert_close(fitted[1].running_mean, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_pooled_in_double(dtype):
    x = examples(3000, 2).to(dtype)
    fitted = recalibrated(nn.BatchNorm1d(2).to(dtype), x.split(100))
    assert torch.equal(fitted.running_mean, x.double().mean(0).to(dtype))
    assert torch.equal(fitted.running_var, x.double().var(0).to(dtype))


class Named(nn.Module):
    """Takes its examples by a keyword, as the networks of hubs do, and says so in a dict."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, *, pixels, times=1, labels=None):
        return {"scores": self.inner(pixels * times)}


class Sized(nn.Module):
    """Takes a list of examples of any number."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, pieces):
        return self.inner(torch.cat(pieces))


Y = torch.zeros(12, dtype=torch.int64)
FORMS = {
    "tensor": (network, lambda x: x),
    "array": (network, torch.Tensor.numpy),
    "rows": (network, torch.Tensor.tolist),
    "one in a tuple": (network, lambda x: (x,)),
    "tuple": (network, lambda x: (x, Y)),
    "list": (network, lambda x: [x, Y]),
    "array in a tuple": (network, lambda x: (x.numpy(), Y)),
    "array in a list": (network, lambda x: [x.numpy(), Y]),
    "rows in a tuple": (network, lambda x: (x.tolist(), Y)),
    "dict": (Named, lambda x: {"pixels": x}),
    "dict with labels": (Named, lambda x: {"pixels": x, "labels": Y}),
    "dict with others": (Named, lambda x: {"pixels": x / 2, "times": 2}),
    "dict in a tuple": (Named, lambda x: ({"pixels": x}, Y)),
    "dict in a list": (Named, lambda x: [{"pixels": x}, Y]),
    "tensors in a tuple": (Sized, lambda x: (list(x.split(5)), Y)),
    "tensors in a list": (Sized, lambda x: [list(x.split(5)), Y]),
}


@pytest.mark.parametrize("layer_by_layer", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_batches_may_be_of_every_form_that_examine_takes(form, layer_by_layer):
    make, batch = FORMS[form]
    xs = examples(24).split(12)
    found = recalibrated(make(), map(batch, xs) if not layer_by_layer else list(map(batch, xs)),
                         layer_by_layer=layer_by_layer)  # fmt: skip
    expected = recalibrated(network(), xs, layer_by_layer=layer_by_layer)
    assert same_state(getattr(found, "inner", found), expected)
    report = examine(make(), map(batch, xs))
    assert report.batches == 2
    assert report.codes == examine(network(), xs).codes


def test_whole_numbers_stay_whole_as_a_network_of_tokens_takes_them():
    model = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.BatchNorm1d(6)).double()
    tokens = torch.arange(20).reshape(10, 2) % 7
    fitted = recalibrated(model, [(tokens, Y)])
    assert_statistics_of(fitted[2], model[:2](tokens).detach().numpy())


@pytest.mark.parametrize("layer_by_layer", [False, True])
def test_what_cannot_be_recalibrated_is_refused_in_words(layer_by_layer, unchecked):
    def recalibrate(model, batches):
        return recalibrated(model, batches, layer_by_layer=layer_by_layer)

    model, x = network(), examples(6)
    before = copy.deepcopy(model)
    with pytest.raises(TypeError, match=r"model is a dict, expected a torch.nn.Module"):
        recalibrate({}, [x])
    with pytest.raises(TypeError, match=r"batches is a Tensor, expected .*hand in \[x\]"):
        recalibrate(model, x)
    with pytest.raises(TypeError, match="batches is a int, expected an iterable"):
        recalibrate(model, 3)
    with pytest.raises(ValueError, match="batches is empty, expected at least one"):
        recalibrate(model, [])
    with pytest.raises(ValueError, match=r"batches\[1\]\[2, 0\] is nan, expected finite"):
        recalibrate(model, [x, torch.where(torch.arange(6)[:, None] == 2, torch.nan, x)])
    with pytest.raises(ValueError, match=r"batches\[0\]\['x'\]\[0, 1\] is inf, expected finite"):
        recalibrate(Named(), [{"x": torch.tensor([[1, torch.inf]])}])
    with pytest.raises(ValueError, match=r"batches\[1\] holds no example, expected at least one"):
        recalibrate(model, [x, x[:0]])
    with pytest.raises(ValueError, match=r"batches\[0\] holds no example"):
        recalibrate(Named(), [{"n": 3}])
    with pytest.raises(TypeError, match=r"batches\[0\] is a tuple, expected a tensor"):
        recalibrate(model, [()])
    with pytest.raises(TypeError, match=r"batches is a dict, expected .*hand in \[x\]"):
        recalibrate(model, {"x": x})
    with pytest.raises(RuntimeError) as caught:
        recalibrate(model, [x, x.float()])
    assert caught.value.__notes__ == ["recalibrated applied the model to batch 1, of shape (6, 5)"]
    with pytest.raises(TypeError, match="model is a ScriptModule, expected the module that it"):
        recalibrate(torch.jit.trace(network().eval(), x), [x])
    with pytest.raises(ValueError, match="model is on the device 'meta', expected one whose"):
        recalibrate(network().to("meta"), [x])
    with pytest.raises(ValueError, match="model has 0 batch norms, none of them with running"):
        recalibrate(nn.Linear(5, 2), [x])
    with pytest.raises(ValueError, match="model has 1 batch norms, none"):
        recalibrate(nn.BatchNorm1d(5, track_running_stats=False), [x])
    with pytest.raises(ValueError, match=r"'norm1' .*one value of each feature"):
        recalibrate(model, [x[:1]])
    with torch.no_grad():
        big = copy.deepcopy(model)
        big.linear2.weight.fill_(1e308)
    with pytest.raises(ValueError, match="batch norm 'norm2' is given values that are not finite"):
        recalibrate(big, [x * 1e3])
    assert same_state(model, before)


def test_layer_by_layer_a_batch_of_one_counts_and_an_iterator_is_refused(unchecked):
    model, x = network(), examples(6)
    with pytest.raises(ValueError, match="a batch gives batch norm 'norm1' one value"):
        recalibrated(model, x.split(5))
    fitted = recalibrated(model, x.split(5), layer_by_layer=True)
    assert_statistics_of(fitted.norm1, model.linear1(x).detach().numpy())
    with pytest.raises(TypeError, match="can be read only once"):
        recalibrated(model, iter([x]), layer_by_layer=True)


def test_inputs_of_other_axes_are_refused_in_words():
    model, x = network(), examples(6)
    for wrong in (x[0], x[:4].expand(3, 4, 5)):
        with pytest.raises(ValueError, match=r"'norm1' is given a tensor of shape .*, expected"):
            recalibrated(model, [wrong])
