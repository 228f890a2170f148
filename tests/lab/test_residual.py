import pytest
import torch
from torch import nn

from bncore.lab import networks


def assert_rounded(found, expected, terms):
    """In float64: sums of so many terms, and norms that amplify their rounding at most tenfold."""
    atol = 10 * terms * torch.finfo(torch.float64).eps * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def weights(model):
    return {
        name.removesuffix(".weight"): value
        for name, value in model.named_parameters()
        if value.ndim > 1 and "shortcut" not in name
    }


def test_three_stages_of_three_blocks_are_the_papers_network_of_twenty_layers():
    model = networks.residual(3, 16, stages=3, channels=3)
    layers = [name for name in weights(model) if "shortcut" not in name]
    assert len(layers) == 20
    # Convolutions, batch norms, output; then the two projections of option B.
    convolutions = 27 * 16 + 6 * 9 * 16**2 + 9 * (16 * 32 + 5 * 32**2) + 9 * (32 * 64 + 5 * 64**2)
    norms = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert convolutions + norms + 650 == 269_722
    assert parameters(model) == 269_722 + projections
    shape = model[:-3](torch.randn(2, 3, 32, 32)).shape
    assert shape == (2, 64, 8, 8)


@pytest.mark.parametrize("normalization", [None, "batch"])
@pytest.mark.parametrize("skip", [True, False])
def test_a_block_adds_its_input_to_two_convolutions(normalization, skip):
    model = networks.residual(2, 3, normalization, skip=skip, seed=5).double()
    block, x = model.block2, torch.randn(6, 3, 8, 8, dtype=torch.float64)

    def norm(y):
        if normalization is None:
            return y
        mean, var = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), correction=0, keepdim=True)
        return (y - mean) / torch.sqrt(var + 1e-5)

    y = norm(nn.functional.conv2d(x, block.body.conv1.weight, padding=1)).relu()
    y = norm(nn.functional.conv2d(y, block.body.conv2.weight, padding=1))
    # Twice sums of 27 products, and means of 6 * 64 terms.
    assert_rounded(block(x), (x + y if skip else y).relu(), 2 * 6 * 64)


@pytest.mark.parametrize("normalization", [None, "batch"])
@pytest.mark.parametrize("skip", [True, False])
def test_a_connected_block_adds_its_input_to_an_activation(normalization, skip):
    model = networks.residual_mlp(5, 2, 3, 4, "tanh", normalization, skip=skip).double()
    x = torch.randn(7, 5, dtype=torch.float64)
    h = x @ model.input.weight.T + model.input.bias
    for block in (model.block1, model.block2, model.block3):
        linear = block.body.linear1
        y = h @ linear.weight.T
        if normalization is None:
            y = y + linear.bias
        else:
            y = (y - y.mean(0)) / torch.sqrt(y.var(0, correction=0) + 1e-5)
        h = y.tanh() + (h if skip else 0)
    # Five layers with sums of at most 7 terms.
    assert_rounded(model(x), h @ model.output.weight.T + model.output.bias, 5 * 7)


@pytest.mark.parametrize(
    "make",
    [
        lambda **kw: networks.residual(2, 3, stages=2, **kw),
        lambda **kw: networks.residual_mlp(5, 2, 3, 4, **kw),
        lambda **kw: networks.residual_mlp(5, 2, 3, 4, gain=1.0, **kw),
    ],
)
def test_weights_are_the_same_with_and_without_skips_and_norms(make):
    first = weights(make(seed=2))
    for arguments in ({"skip": False}, {"normalization": None}):
        again = weights(make(seed=2, **arguments))
        assert first.keys() == again.keys()
        assert all(torch.equal(first[name], again[name]) for name in first)
    other = weights(make(seed=3))
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_without_gain_weights_and_biases_are_torchs_own():
    model = networks.residual_mlp(400, 10, 1, 400, normalization=None)
    for layer in (model.input, model.block1.body.linear1):
        assert layer.weight.var().item() * 400 == pytest.approx(1 / 3, rel=0.02)
        assert layer.bias.var().item() * 400 == pytest.approx(1 / 3, rel=0.2)
    gain = networks.residual_mlp(400, 10, 1, 400, gain=2.0)
    assert gain.block1.body.linear1.weight.std().item() * 20 == pytest.approx(2, rel=0.01)


def test_a_network_of_any_image_size_and_activation():
    model = networks.residual(1, 2, activation=nn.SiLU)
    for size in (1, 7, 8, 32):
        assert model(torch.randn(3, 1, size, size)).shape == (3, 10)
    assert isinstance(model.block1.after, nn.SiLU)


def test_a_shortcut_to_a_smaller_image_is_a_convolution_and_a_norm():
    model = networks.residual(1, 2, stages=2)
    assert isinstance(model.block1.shortcut, nn.Identity)
    names = [name for name, _ in model.block2.shortcut.named_children()]
    assert names == ["conv1", "norm1"]
    assert model.block2.shortcut.conv1.stride == (2, 2)
    assert model.block2.shortcut.conv1.kernel_size == (1, 1)


def test_hidden_units_can_be_dropped():
    model = networks.residual_mlp(5, 2, 2, 4, dropout=0.25)
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.25] * 2


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"blocks": 0}, ValueError, "blocks is 0, expected at least 1"),
        ({"width": 2.5}, TypeError, "width is a float, expected an integer"),
        ({"stages": 0}, ValueError, "stages is 0, expected at least 1"),
        ({"channels": 0}, ValueError, "channels is 0, expected at least 1"),
        ({"classes": 0}, ValueError, "classes is 0, expected at least 1"),
        ({"activation": "swish"}, ValueError, "activation is 'swish', expected one of 'sigmoid'"),
        ({"normalization": "layer"}, ValueError, "normalization is 'layer', expected one of None"),
        ({"gain": 0}, ValueError, "gain is 0, expected a finite number above 0"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        networks.residual(**{"blocks": 1, "width": 2, **arguments})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"inputs": 0}, ValueError, "inputs is 0, expected at least 1"),
        ({"outputs": 0}, ValueError, "outputs is 0, expected at least 1"),
        ({"blocks": True}, TypeError, "blocks is a bool, expected an integer"),
        ({"width": 0}, ValueError, "width is 0, expected at least 1"),
        ({"dropout": 2}, ValueError, r"dropout is 2, expected a number in \[0, 1\]"),
        ({"normalization": "layer"}, ValueError, "normalization is 'layer', expected one of None"),
    ],
)
def test_bad_arguments_of_a_connected_network_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        networks.residual_mlp(**{"inputs": 3, "outputs": 2, "blocks": 1, "width": 2, **arguments})
