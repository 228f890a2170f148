import pytest
import torch
from torch import nn

from bncore.lab import networks

FULL = {"width": 64, "channels": 3, "size": 224, "classes": 1000, "hidden": (4096, 4096)}


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def convolutions(model):
    return [layer for layer in model if isinstance(layer, nn.Conv2d)]


# Numbers of parameters in millions, from Simonyan and Zisserman (2015), Table 2, and exactly as
# summed by hand from Table 1.
@pytest.mark.parametrize(
    ("depth", "exact", "millions"),
    [
        (11, 132_863_336, 133),
        (13, 133_047_848, 133),
        (16, 138_357_544, 138),
        (19, 143_667_240, 144),
    ],
)
def test_at_full_width_it_is_the_papers_network(depth, exact, millions):
    with torch.device("meta"):
        model = networks.vgg(depth, **FULL, dropout=0.5)
    assert parameters(model) == exact
    assert round(exact / 1e6) == millions
    linear = sum(isinstance(layer, nn.Linear) for layer in model)
    assert len(convolutions(model)) + linear == depth
    assert sum(isinstance(layer, nn.Dropout) for layer in model) == 2
    assert model.flatten(
        model[: -len(FULL["hidden"]) * 3 - 2](torch.empty(2, 3, 224, 224, device="meta"))
    ).shape == (2, 512 * 7 * 7)


def test_batch_norms_at_full_width_replace_each_bias_by_a_shift_and_add_a_scale():
    with torch.device("meta"):
        model = networks.vgg(16, "batch", **FULL)
    units = 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512 + 2 * 4096
    assert parameters(model) == 138_357_544 + units
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in model) == 13
    assert sum(isinstance(layer, nn.BatchNorm1d) for layer in model) == 2


@pytest.mark.parametrize("depth", [11, 16])
@pytest.mark.parametrize("normalization", [None, "batch"])
@pytest.mark.parametrize(
    ("size", "pools", "left"), [(1, 0, 1), (8, 3, 1), (28, 4, 1), (32, 5, 1), (64, 5, 2)]
)
def test_pooling_halves_the_image_until_it_is_one_pixel(depth, normalization, size, pools, left):
    model = networks.vgg(depth, normalization, width=2, channels=1, size=size, hidden=(4,))
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in model) == pools
    assert model(torch.randn(3, 1, size, size)).shape == (3, 10)
    linear = getattr(model, f"linear{len(convolutions(model)) + 1}")
    assert linear.in_features == 16 * left**2


def test_layers_are_named_by_role_and_number():
    model = networks.vgg(11, "batch", width=2, size=8, hidden=(4,), dropout=0.5)
    names = [name for name, _ in model.named_children()]
    assert names[:5] == ["conv1", "norm1", "activation1", "pool1", "conv2"]
    assert names[-6:] == ["flatten", "linear9", "norm9", "activation9", "dropout9", "output"]


def test_each_layer_computes_convolution_norm_and_relu():
    model = networks.vgg(11, "batch", width=3, channels=2, size=4, hidden=()).double()
    x = torch.randn(5, 2, 4, 4, dtype=torch.float64)
    y = nn.functional.conv2d(x, model.conv1.weight, padding=1)
    mean, var = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), correction=0, keepdim=True)
    expected = ((y - mean) / torch.sqrt(var + model.norm1.eps)).relu()
    # Means of 5 * 16 sums of 18 products.
    atol = 80 * torch.finfo(torch.float64).eps * (y.abs().max() / var.min() ** 0.5).item()
    torch.testing.assert_close(model[:3](x), expected, rtol=0, atol=atol)


def test_the_same_seed_gives_the_same_weights_with_and_without_normalisation():
    plain, normed, other = (
        networks.vgg(11, normalization, width=2, size=8, seed=seed)
        for normalization, seed in ((None, 3), ("batch", 3), (None, 4))
    )
    for i in range(1, 9):
        name = f"conv{i}"
        assert torch.equal(getattr(plain, name).weight, getattr(normed, name).weight)
        assert not torch.equal(getattr(plain, name).weight, getattr(other, name).weight)
    assert torch.equal(plain.linear9.weight, normed.linear9.weight)
    assert torch.equal(plain.output.weight, normed.output.weight)


def test_weights_have_variance_gain_squared_over_fan_in():
    model = networks.vgg(11, width=16, channels=1, gain=1.5)
    for layer in convolutions(model)[1:]:
        fan_in = layer.in_channels * 9
        assert layer.weight.std().item() * fan_in**0.5 == pytest.approx(1.5, rel=0.03)
        assert not layer.bias.any()


def test_making_a_network_touches_no_other_randomness():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    networks.vgg(11, "batch", width=2, size=8)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"depth": 12}, ValueError, "depth is 12, expected one of 11, 13, 16, 19"),
        ({"width": 0}, ValueError, "width is 0, expected at least 1"),
        ({"channels": "3"}, TypeError, "channels is a str, expected an integer"),
        ({"size": 0}, ValueError, "size is 0, expected at least 1"),
        ({"classes": 0}, ValueError, "classes is 0, expected at least 1"),
        ({"hidden": (4, 0)}, ValueError, r"hidden\[1\] is 0, expected at least 1"),
        ({"dropout": -1}, ValueError, r"dropout is -1, expected a number in \[0, 1\]"),
        ({"gain": 0}, ValueError, "gain is 0, expected a finite number above 0"),
        ({"normalization": "group"}, ValueError, "normalization is 'group', expected one of None"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        networks.vgg(**{"width": 2, "size": 8, **arguments})
