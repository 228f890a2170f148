"""Layers are drawn from their seed and their place alone, and stand under their names."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from bncore.lab import networks
from bncore.lab.layers import ACTIVATIONS, Layers, OfWeights, check_choices, made, seeded

FUNCTIONS = {
    "sigmoid": torch.sigmoid,
    "relu": functional.relu,
    "tanh": torch.tanh,
    "identity": lambda x: x,
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "elu": functional.elu,
    "gelu": functional.gelu,
    "softplus": functional.softplus,
    "erf": torch.erf,
}


def layers(activation="relu", normalization=None, gain=None, seed=0, **kwargs):
    return Layers(activation, normalization, gain, seed, **kwargs)


@given(st.integers(0, 2**40))
def test_a_seeded_draw_leaves_the_generator_as_it_was(seed):
    before = torch.random.get_rng_state()
    with seeded(seed):
        drawn = torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(seed)))


def test_every_activation_is_the_function_of_its_name():
    x = torch.linspace(-3, 3, 31)
    assert FUNCTIONS.keys() == ACTIVATIONS.keys()
    for name, function in FUNCTIONS.items():
        made_twice = layers(name).activation(), layers(name).activation()
        assert made_twice[0] is not made_twice[1]
        torch.testing.assert_close(made_twice[0](x), function(x))


@given(st.integers(0, 10**6), st.sampled_from([None, 0.5, 2.0]))
def test_weights_depend_on_seed_and_place_and_not_on_normalisation_or_bias(seed, gain):
    with seeded(0):
        plain, normalised = layers(gain=gain, seed=seed), layers("tanh", "batch", gain, seed)
        first = [plain.linear(5, 4), plain.convolution(2, 3), plain.linear(5, 4)]
    with seeded(1):
        second = [
            normalised.linear(5, 4, normalised.bias),
            normalised.convolution(2, 3, bias=False),
            normalised.linear(5, 4),
        ]
    assert (plain.bias, normalised.bias) == (True, False)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.weight, other.weight)
    assert not torch.equal(first[0].weight, first[2].weight)
    assert [layer.bias is None for layer in second] == [True, True, False]


@pytest.mark.parametrize("gain", [0.25, 1.0, 4.0])
def test_the_gain_is_the_deviation_of_a_unit_whose_inputs_have_deviation_one(gain):
    """A sample deviation of n normal weights is off by its part 1 / sqrt(2 n): four of those."""
    with seeded(0):
        drawn = layers(gain=gain)
        for layer, fan_in in (
            (drawn.linear(300, 200), 300), (drawn.convolution(20, 40, kernel=5), 20 * 25),
        ):  # fmt: skip
            measured = layer.weight.std().item() * fan_in**0.5
            assert abs(measured / gain - 1) < 4 / (2 * layer.weight.numel()) ** 0.5
            assert not layer.bias.any()


def test_a_convolution_keeps_the_size_of_an_image():
    with seeded(0):
        for kernel in (1, 3, 5):
            layer = layers().convolution(2, 3, kernel)
            assert layer(torch.zeros(1, 2, 9, 7)).shape == (1, 3, 9, 7)
        assert layers().convolution(2, 3, stride=2)(torch.zeros(1, 2, 8, 6)).shape[2:] == (4, 3)


def test_a_batch_norm_has_the_axes_of_its_layer_and_the_settings_given():
    some = layers(normalization="batch", momentum=None, eps=0.5)
    assert layers().norm(3) is None
    for images, kind in ((False, nn.BatchNorm1d), (True, nn.BatchNorm2d)):
        norm = some.norm(3, images)
        assert type(norm) is kind
        assert (norm.num_features, norm.momentum, norm.eps) == (3, None, 0.5)
    own = layers(normalization=lambda features: nn.LayerNorm(features))
    assert own.norm(7).normalized_shape == (7,)


def test_a_norm_after_the_activation_leaves_the_bias():
    after = layers("tanh", "batch", placement="after")
    names = list(after.hidden(2, "linear", nn.Linear(3, 4), 0.5))
    assert names == ["linear2", "activation2", "norm2", "dropout2"]
    assert after.bias
    assert layers("tanh", placement="after").bias
    assert not layers("tanh", "batch").bias


@pytest.mark.parametrize(
    ("normalization", "dropout", "names"),
    [
        (None, 0.0, ["linear2", "activation2"]),
        ("batch", 0.0, ["linear2", "norm2", "activation2"]),
        ("batch", 0.5, ["linear2", "norm2", "activation2", "dropout2"]),
    ],
)
def test_a_hidden_layer_is_named_by_its_number(normalization, dropout, names):
    some = layers("tanh", normalization)
    found = some.hidden(2, "linear", nn.Linear(3, 4), dropout)
    assert list(found) == names
    if normalization:
        assert found["norm2"].num_features == 4
        maps = some.hidden(1, "convolution", nn.Conv2d(3, 6, 1))
        assert type(maps["norm1"]) is nn.BatchNorm2d
        assert maps["norm1"].num_features == 6
    if dropout:
        assert found["dropout2"].p == dropout


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "swish"}, "activation is 'swish', expected one of 'sigmoid', 'relu'"),
        ({"normalization": "layer"}, "normalization is 'layer', expected one of None, 'batch', or"),
        ({"seed": -1}, "seed is -1, expected at least 0"),
        ({"gain": 0.0}, "gain is 0.0, expected a finite number above 0"),
        ({"momentum": 2.0}, r"momentum is 2.0, expected a number in \[0, 1\]"),
        ({"eps": 0.0}, "eps is 0.0, expected a finite number above 0"),
        ({"placement": "middle"}, "placement is 'middle', expected 'before' or 'after'"),
    ],
)
def test_what_makes_no_layers_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        layers(**options)


def test_what_a_factory_returns_is_a_module():
    module = nn.Identity()
    assert made("activation", lambda: module) is module
    with pytest.raises(TypeError, match=r"normalization\(3\) returned a int, expected a torch.nn"):
        made("normalization", lambda features: features, 3)
    check_choices(nn.ReLU, nn.BatchNorm1d)


def doubled(layer):
    """A layer whose weights are twice what they were."""
    layer.weight.data.mul_(2)
    return layer


@pytest.mark.parametrize("then", [None, "batch", nn.InstanceNorm1d])
def test_a_normalisation_of_weights_changes_hidden_layers_and_leaves_biases_unless_more_follows(
    then,
):
    given = {"activation": "relu", "seed": 3}
    plain = networks.mlp([4, 3, 3, 2], normalization=then, **given)
    model = networks.mlp([4, 3, 3, 2], normalization=OfWeights(doubled, then), **given)
    assert list(model._modules) == list(plain._modules)
    for name, layer in plain.named_children():
        other = model.get_submodule(name)
        assert type(layer) is type(other)
        if name.startswith("linear"):
            assert torch.equal(other.weight, 2 * layer.weight)
            assert (layer.bias is None) == (other.bias is None) == (then is not None)
    assert torch.equal(model.output.weight, plain.output.weight)
    some = layers(normalization=OfWeights(doubled, then))
    assert some.bias == (then is None)
    assert (some.norm(3) is None) == (then is None)
    found = some.hidden(1, "linear", nn.Linear(2, 3))
    assert list(found) == list(layers(normalization=then).hidden(1, "linear", nn.Linear(2, 3)))


@given(st.integers(0, 10**6))
def test_what_a_normalisation_draws_changes_no_weights_after_it(seed):
    class Drawn(nn.Identity):
        def __init__(self, features):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(features))

    plain = networks.mlp([4, 3, 3, 2], normalization="batch", seed=seed)
    model = networks.mlp([4, 3, 3, 2], normalization=Drawn, seed=seed)
    again = networks.mlp([4, 3, 3, 2], normalization=Drawn, seed=seed)
    for name in ("linear1", "linear2", "output"):
        assert torch.equal(model.get_submodule(name).weight, plain.get_submodule(name).weight)
    assert torch.equal(model.norm2.weight, again.norm2.weight)
    assert not torch.equal(model.norm1.weight, model.norm2.weight)


@pytest.mark.usefixtures("unchecked")
def test_a_change_of_weights_is_a_function_that_returns_a_module():
    with pytest.raises(TypeError, match="change is 'weight', expected a function from a layer to"):
        layers(normalization=OfWeights("weight"))
    with pytest.raises(ValueError, match="normalization is 'layer', expected one of None, 'batch'"):
        layers(normalization=OfWeights(doubled, "layer"))
    with pytest.raises(
        TypeError, match=r"change\(Linear.* returned a None, expected a torch.nn.Mod"
    ):
        networks.mlp([4, 3, 2], normalization=OfWeights(lambda layer: None))
