"""Folded networks compute what the networks compute, or are refused with a reason."""

import copy
import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import batch_norm
from torch.nn.utils import fusion, parametrizations, weight_norm

from bncore.lab import networks
from bncore.lab.folding import folded
from bncore.lab.residual import Residual

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
EPS = torch.finfo(torch.float64).eps


def moved(model, seed=0):
    """Batch norms as if the network had learned: statistics, scales and shifts of their own."""
    generator = torch.Generator().manual_seed(seed)
    for norm in model.modules():
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_mean is None:
            continue
        with torch.no_grad():
            for tensor in (norm.weight, norm.bias, norm.running_mean):
                if tensor is not None:
                    tensor.copy_(torch.randn(tensor.shape, generator=generator))
            norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator) + 0.1)
    return model


def evaluated(model, *x):
    with torch.no_grad():
        return copy.deepcopy(model).eval()(*x)


def assert_folded(model, x, example=True):
    """In float64, to rounding: a hundredfold that of all terms that lead to one output."""
    model, x = copy.deepcopy(model).double(), x.double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    short = folded(model, x if example else None)
    assert not any(isinstance(module, NORMS) for module in short.modules())
    expected = evaluated(model, x)
    terms = sum(p[0].numel() for p in model.parameters() if p.ndim > 1)
    rounding = 100 * terms * EPS * expected.abs().max().item()
    torch.testing.assert_close(evaluated(short, x), expected, rtol=0, atol=rounding)
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    norms = {name for name, module in model.named_modules() if isinstance(module, NORMS)}
    kept = {name for name in before if name.rpartition(".")[0] not in norms}
    assert kept <= set(short.state_dict())
    return short


def layers():
    torch.manual_seed(0)
    yield nn.Linear(4, 6), nn.BatchNorm1d(6), (4,), fusion.fuse_linear_bn_eval
    yield nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), (4,), fusion.fuse_linear_bn_eval
    for bias in (True, False):
        yield nn.Conv1d(4, 6, 3, bias=bias), nn.BatchNorm1d(6), (4, 9), fusion.fuse_conv_bn_eval
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    yield conv, nn.BatchNorm2d(6), (4, 9, 9), fusion.fuse_conv_bn_eval
    reflecting = nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect")
    yield reflecting, nn.BatchNorm2d(6), (4, 5, 5), fusion.fuse_conv_bn_eval
    yield nn.Conv3d(2, 6, 2, dilation=2), nn.BatchNorm3d(6), (2, 5, 5, 5), fusion.fuse_conv_bn_eval
    up = nn.ConvTranspose2d(4, 6, 3, stride=2)
    yield up, nn.BatchNorm2d(6), (4, 5, 5), lambda a, b: fusion.fuse_conv_bn_eval(a, b, True)
    yield nn.ConvTranspose1d(4, 6, 3, groups=2), nn.BatchNorm1d(6), (4, 5), None
    yield nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (4, 5, 5), None
    yield nn.ConvTranspose3d(4, 6, 2), nn.BatchNorm3d(6), (4, 3, 3, 3), None
    yield nn.Conv2d(4, 6, 1), nn.SyncBatchNorm(6), (4, 5, 5), fusion.fuse_conv_bn_eval


@pytest.mark.parametrize(("layer", "norm", "shape", "fuse"), list(layers()))
def test_folded_layers_compute_the_same_and_agree_with_torch(layer, norm, shape, fuse):
    model = moved(nn.Sequential(layer, norm, nn.ReLU()))
    short = assert_folded(model, torch.randn(3, *shape))
    assert [type(part) for part in short] == [type(layer), nn.ReLU]
    if fuse is not None:
        theirs = fuse(copy.deepcopy(layer).double().eval(), copy.deepcopy(norm).double().eval())
        for name in ("weight", "bias"):
            found, expected = getattr(short[0], name), getattr(theirs, name)
            atol = 8 * EPS * expected.abs().max().item()
            torch.testing.assert_close(found, expected, rtol=0, atol=atol)


CONVOLUTIONS = {1: (nn.Conv1d, nn.ConvTranspose1d), 2: (nn.Conv2d, nn.ConvTranspose2d)}


@st.composite
def some_networks(draw):
    """A network of nested sequences, residual sums and shared activations, and an input."""
    axes = draw(st.sampled_from([0, 1, 2]))
    torch.manual_seed(draw(st.integers(0, 2**32 - 1)))
    shared = [nn.ReLU(), nn.Tanh(), nn.Identity(), nn.Dropout(0.5)]
    norm = nn.BatchNorm2d if axes == 2 else nn.BatchNorm1d

    def layer(inputs, units):
        bias = draw(st.booleans())
        if axes == 0:
            return nn.Linear(inputs, units, bias)
        convolution = draw(st.sampled_from(CONVOLUTIONS[axes]))
        groups = draw(st.sampled_from([g for g in (1, 2, 3) if inputs % g == units % g == 0]))
        return convolution(inputs, units, 3, padding=1, groups=groups, bias=bias)

    def block(inputs, units, depth):
        parts = [layer(inputs, units)]
        for _ in range(draw(st.integers(0, 2))):
            parts.append(norm(units, affine=draw(st.booleans())))
        parts.append(draw(st.sampled_from(shared)))
        if depth and draw(st.booleans()):
            body = nn.Sequential(*block(units, units, depth - 1))
            shortcut = draw(st.sampled_from([nn.Identity(), None]))
            parts.append(Residual(body, shortcut, draw(st.sampled_from(shared))))
        if draw(st.booleans()):
            parts = [nn.Sequential(*parts)]
        return parts

    widths = draw(st.lists(st.sampled_from([2, 3, 4, 6]), min_size=2, max_size=4))
    parts = []
    for inputs, units in itertools.pairwise(widths):
        parts += block(inputs, units, 2)
    model = moved(nn.Sequential(*parts), draw(st.integers(0, 100))).train(draw(st.booleans()))
    return model, torch.randn(3, widths[0], *[5] * axes)


@given(some_networks())
@settings(max_examples=60)
def test_any_network_of_blocks_is_folded(given):
    assert_folded(*given)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
@pytest.mark.parametrize("seed", range(3))
def test_precision_and_memory_format_and_what_is_frozen_survive(dtype, seed):
    torch.manual_seed(seed)
    model = moved(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)), seed)
    model = model.to(dtype, memory_format=torch.channels_last)
    model[0].weight.requires_grad_(False)
    x = torch.randn(4, 3, 6, 6).to(dtype)
    short = folded(model, x)
    assert all(parameter.dtype == dtype for parameter in short.parameters())
    assert short[0].weight.is_contiguous(memory_format=torch.channels_last)
    found = {name: parameter.requires_grad for name, parameter in short.named_parameters()}
    assert found == {"0.weight": False, "0.bias": True, "2.weight": True, "2.bias": True}
    # Each weight is rounded once: 27 products in the first sum, 8 in the second.
    wide = evaluated(copy.deepcopy(model).double(), x.double())
    error = (evaluated(copy.deepcopy(short).double(), x.double()) - wide).abs().max()
    assert error <= 40 * torch.finfo(dtype).eps * wide.abs().max()


@pytest.mark.parametrize(
    ("frozen", "learns"),
    [((), True), (("0.bias",), True), (("1.bias",), True), (("0.bias", "1.bias"), False)],
)
def test_a_bias_learns_if_the_layers_or_the_norms_did(frozen, learns):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    assert folded(model, torch.ones(2, 3))[0].bias.requires_grad == learns


def test_a_norm_that_had_nothing_to_learn_brings_nothing_to_learn():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4, affine=False))
    assert not folded(model, torch.ones(2, 3))[0].bias.requires_grad


def test_folding_leaves_the_model_alone_and_the_copy_can_learn():
    model = moved(networks.mlp((5, 7, 6, 3), "relu", "batch"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    short = folded(model, torch.randn(3, 5))
    short(torch.randn(3, 5)).sum().backward()
    assert short.linear1.weight.grad is not None
    with torch.no_grad():
        short.output.weight.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [name for name, _ in short.named_children()] == [
        *("linear1", "activation1", "linear2", "activation2", "output"),
    ]


def test_modes_survive():
    model = networks.mlp((5, 7, 3), "relu", "batch", dropout=0.5)
    model.dropout1.eval()
    short = folded(model, torch.randn(3, 5))
    assert {name: module.training for name, module in short.named_children()} == {
        **dict.fromkeys(("linear1", "activation1", "output"), True),
        "dropout1": False,
    }


def test_a_shared_activation_is_called_as_often_as_before():
    """The case that was 0.37 off, with one ReLU in two places."""
    torch.manual_seed(0)
    a = nn.ReLU()
    parts = [nn.Linear(3, 8), nn.BatchNorm1d(8), a, nn.Linear(8, 8), nn.BatchNorm1d(8), a]
    model = moved(nn.Sequential(*parts, nn.Linear(8, 2)))
    short = assert_folded(model, torch.randn(5, 3))
    assert len(short) == 5


def test_norms_in_nested_sequences_are_folded():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.ReLU())
    short = assert_folded(moved(model), torch.randn(2, 3, 5, 5), example=False)
    assert [name for name, _ in short.named_modules()] == ["", "0", "0.0", "1"]


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (networks.residual(2, 4, stages=2), (1, 8, 8)),
        (networks.residual_mlp(5, 3, 2, 6), (5,)),
        (networks.vgg(11, "batch", width=2, channels=1, size=8, hidden=(4,)), (1, 8, 8)),
        (networks.mlp((5, 6, 3), nn.SiLU, "batch", dropout=0.3), (5,)),
        (networks.deep_linear(5, 3, 4, 6, "batch"), (5,)),
    ],
)
def test_the_networks_of_the_lab_are_folded(model, shape):
    assert_folded(moved(model), torch.randn(4, *shape))


class Net(nn.Module):
    """Calls in its own order, with a layer in a list and a norm reached by an attribute."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm1d(6)])
        self.out = nn.Linear(6, 2)
        self.hidden = nn.Linear(4, 6)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x, scale=None):
        h = self.norms[0](self.conv(x)).relu()
        if scale is not None:
            h = scale * h
        h = h.mean((2, 3)).view(h.size(0), -1)
        return {"scores": self.out(torch.relu(self.norms[1](input=self.hidden(h))))}


def test_a_module_of_ones_own_keeps_its_class_and_gets_identities():
    model, x = moved(Net()).double(), torch.randn(3, 3, 5, 5).double()
    short = folded(model, x)
    assert type(short) is Net
    assert all(type(norm) is nn.Identity for norm in short.norms)
    found, expected = evaluated(short, x)["scores"], evaluated(model, x)["scores"]
    atol = 100 * EPS * expected.abs().max().item()  # Two sums of few products.
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    again = folded(short, x)
    assert torch.equal(evaluated(short, x)["scores"], evaluated(again, x)["scores"])


class Indexed(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh())

    def forward(self, x):
        return self.parts(x) + self.parts[2](self.parts[0](x)[:, :1] if False else x[:, :1])


def test_a_sequence_that_is_also_read_by_number_keeps_its_numbers():
    short = assert_folded(moved(Indexed()), torch.randn(5, 3))
    assert [type(part) for part in short.parts] == [nn.Linear, nn.Identity, nn.Tanh]


class Siamese(nn.Module):
    def __init__(self, layers=2, norms=1):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 4) for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(4) for _ in range(norms))

    def forward(self, x):
        return [
            self.norms[i % len(self.norms)](self.layers[i % len(self.layers)](x * (i + 1)))
            for i in range(2)
        ][1]


@pytest.mark.parametrize(("layers", "norms"), [(1, 1), (2, 1), (2, 2)])
def test_modules_that_are_used_twice_are_folded_where_every_use_allows_it(layers, norms):
    assert_folded(moved(Siamese(layers, norms)), torch.randn(5, 3))


def test_a_layer_behind_which_two_norms_stand_is_refused():
    with pytest.raises(ValueError, match=r"layers\.0 goes to norms\.1 too, expected it to go to"):
        folded(Siamese(1, 2), torch.randn(5, 3))


class Doubled(nn.Module):
    """Its first layer goes elsewhere too, in one of several ways."""

    def __init__(self, way):
        super().__init__()
        self.layer, self.norm, self.way = nn.Linear(3, 3), nn.BatchNorm1d(3), way

    def forward(self, x):
        h = self.layer(x)
        if self.way == "in place":
            h.relu_()
        if self.way == "weight":
            x = x @ self.layer.weight
        if self.way == "twice":
            x = self.layer(x)
        y = self.norm(h)
        return y + h if self.way == "skip" else y + x


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("skip", "layer goes to add too, expected it to go to norm alone"),
        ("in place", "layer goes to relu_ too, expected it to go to norm alone"),
        ("twice", "layer goes to add too"),
        ("weight", r"layer\.weight is used outside layer too, expected it nowhere else"),
    ],
)
def test_a_layer_that_goes_elsewhere_too_is_refused(way, message):
    with pytest.raises(ValueError, match=message):
        folded(Doubled(way), torch.randn(5, 3))


def test_a_linear_layer_on_another_axis_is_refused():
    """The case that was off by 2 and more: the layer acts on the last axis, the norm on axis 1."""
    model = moved(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    with pytest.raises(ValueError, match=r"1 normalises axis 1 .* of 0, which have 3 axes, exp"):
        folded(model, torch.randn(5, 4, 3))
    with pytest.raises(ValueError, match=r"the shape of the input decides .*; give an example"):
        folded(model)
    assert_folded(model, torch.randn(5, 3))


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4)),
    ],
)
def test_a_convolution_of_one_example_is_refused(model):
    """Without a batch axis the norm takes what stands on axis 1 for features."""
    moved(model)
    with pytest.raises(ValueError, match="give an example"):
        folded(model)
    alone = torch.randn(3, *[6] * (model[0].weight.ndim - 2))
    with pytest.raises(ValueError, match="1 normalises axis 1 of the outputs of 0"):
        folded(model, alone)
    assert_folded(model, alone[None])


def test_norms_that_take_no_other_axes_need_no_example():
    assert_folded(moved(networks.residual(1, 2)), torch.randn(2, 1, 8, 8), example=False)
    model = nn.Sequential(nn.ConvTranspose3d(2, 3, 2), nn.BatchNorm3d(3))
    assert_folded(moved(model), torch.randn(2, 2, 3, 3, 3), example=False)


class Optional(nn.Module):
    """Asks its layer's output for its shape, and has an argument that its callers leave out."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)

    def forward(self, x, normalise=True):
        h = self.layer(x)
        y = self.norm(h) if normalise else h
        return y.view(h.shape[0], h.size(1), 1)


def test_a_shape_may_be_asked_for_and_optional_arguments_left_out():
    assert_folded(moved(Optional()), torch.randn(5, 3))


class Phased(nn.Module):
    """Calls its batch norm in evaluation mode alone."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        h = self.layer(x)
        return h.relu() if self.training else self.norm(h)


def test_what_is_traced_is_what_the_network_does_in_evaluation_mode():
    assert_folded(moved(Phased()).train(), torch.randn(5, 3))


class OwnLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x) ** 2


class OwnConvolution(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean(), bias)


class OwnNorm(nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x).abs()


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x):
        return batch_norm(self.layer(x), self.mean, self.var)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.layer(x)


class Depending(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.layer(x)) if x.sum() > 0 else self.layer(x)


class Counting(nn.Module):
    """Computes something else where another module is gone, which no trace shows."""

    def __init__(self):
        super().__init__()
        self.others = []

    def forward(self, x):
        return x * len(self.others[0]) if x.sum() > 0 else 2 * x * len(self.others[0])


def counting():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), Counting())
    model[2].others.append(model)
    return model


class Restless(nn.Sequential):
    """A network whose batch norm uses the batch's statistics at inference too."""

    def train(self, mode=True):
        super().train(mode)
        self[1].train()
        return self


class Silent(nn.Sequential):
    def forward(self, x):
        super().forward(x)


def hooked(model, which):
    model[which].register_forward_hook(lambda layer, inputs, output: 2 * output)
    return model


def pair(layer=None, norm=None):
    return nn.Sequential(layer or nn.Linear(3, 4), norm or nn.BatchNorm1d(4))


def far(dtype):
    model = pair().to(dtype)
    model[1].running_var.fill_(1e-8)
    model[1].eps = 1e-12
    model[0].weight.data.fill_(300.0)
    return model


def old_weight_norm():
    with warnings.catch_warnings(action="ignore"):
        return weight_norm(nn.Linear(3, 4))


REFUSED = {
    "no layer": (
        nn.Sequential(nn.BatchNorm1d(3)),
        "0 follows nothing, expected one of torch's lin",
    ),
    "activation": (
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4)),
        "2 follows a ReLU, expected one of torch's linear layers or convolutions",
    ),
    "itself": (
        nn.BatchNorm1d(3),
        "model is itself a BatchNorm1d, expected a network that holds it",
    ),
    "no statistics": (
        pair(norm=nn.BatchNorm1d(4, track_running_stats=False)),
        "1 keeps no running statistics, expected fixed ones to fold",
    ),
    "own norm": (pair(norm=OwnNorm(4)), "1 is a OwnNorm, expected one of torch's own"),
    "own layer": (pair(OwnLinear(3, 4)), "1 follows pow, expected"),
    "own convolution": (
        nn.Sequential(nn.Unflatten(1, (3, 1, 1)), OwnConvolution(3, 4, 1), nn.BatchNorm2d(4)),
        "2 follows conv2d, expected",
    ),
    "lazy": (pair(nn.LazyLinear(4)), r"model's 0\.weight has no shape yet, expected one: apply"),
    "lazy norm": (pair(norm=nn.LazyBatchNorm1d()), r"model's 1\.weight has no shape yet"),
    "parametrised": (pair(parametrizations.weight_norm(nn.Linear(3, 4))), "0 is parametrised"),
    "weight norm": (pair(old_weight_norm()), "model cannot be copied: .*weight_norm usage"),
    "hooked layer": (hooked(pair(), 0), "0 has hooks or a forward of its own, expected none"),
    "hooked norm": (hooked(pair(), 1), "1 has hooks or a forward of its own, expected none"),
    "function": (Functional(), "the model calls batch_norm as a function"),
    "unused": (Unused(), "norm is never called, expected it in use: remove it first"),
    "depending": (Depending(), r"model cannot be traced \(symbolically traced variables cannot"),
    "hidden": (counting(), "the folded network computes something else on the example"),
    "restless": (
        Restless(*pair()),
        r"1 stays in training mode, expected model\.eval\(\) to fix it",
    ),
    "silent": (Silent(*pair()), "the model returns no tensor on the example, expected one to comp"),
    "features": (
        pair(norm=nn.BatchNorm1d(5)),
        r"model cannot be applied to the example, of shape \(5, 3\): running_mean should contain 4",
    ),
    "features of images": (
        nn.Sequential(nn.Unflatten(1, (3, 1, 1)), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(5)),
        "model cannot be applied to the example",
    ),
    "range": (far(torch.float16), "1 cannot be folded into 0: the weight reaches 3e.08, beyond"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_folded_is_told_by_its_name(case):
    model, message = REFUSED[case]
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    with pytest.raises(ValueError, match=message):
        folded(model, torch.randn(5, 3).to(dtype))


def test_statistics_that_are_not_finite_are_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model[1].running_var[2] = torch.nan
    with pytest.raises(ValueError, match=r"1 cannot be folded into 0: var\[2\] is nan, expected"):
        folded(model)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match=r"model is a int, expected a torch\.nn\.Module"):
        folded(3)


def test_an_example_may_be_an_array_or_a_list():
    model = moved(networks.mlp((2, 4, 2), "relu", "batch"))
    expected = folded(model, torch.ones(2, 2)).state_dict()
    for example in (np.ones((2, 2)), [[1, 1], [1.0, 1]], (torch.ones(2, 2),)):
        found = folded(model, example).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in found.items())


class Single(nn.Module):
    """Computes in float32 whatever it is given, and cannot be applied in float64."""

    def forward(self, x):
        return x.float()


def test_what_cannot_be_applied_in_double_precision_is_compared_in_its_own():
    model = moved(nn.Sequential(Single(), nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    x = torch.randn(5, 3)
    found, expected = evaluated(folded(model, x), x), evaluated(model, x)
    # Two sums of few products in float32.
    atol = 20 * torch.finfo(torch.float32).eps * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_what_cannot_be_traced_but_holds_no_norm_is_one_call():
    class Rectified(nn.Module):
        def forward(self, x):
            return x.clamp(min=0) if x.sum() > 0 else 0 * x

    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), Rectified(), nn.Linear(4, 2))
    assert len(assert_folded(moved(model), torch.randn(5, 3))) == 3
