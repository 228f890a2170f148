import pytest
import torch
from torch import nn

from bncore.lab import networks


def names(model):
    return [name for name, _ in model.named_children()]


@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
@pytest.mark.parametrize("widths", [(3, 2), (4, 5, 2), (4, 6, 5, 3)])
def test_a_network_is_linear_then_activation_layer_by_layer(widths, activation):
    model = networks.mlp(widths, activation, seed=1)
    x = torch.randn(7, widths[0])
    expected = x
    for i in range(1, len(widths) - 1):
        layer = getattr(model, f"linear{i}")
        expected = getattr(torch, activation)(expected @ layer.weight.T + layer.bias)
    expected = expected @ model.output.weight.T + model.output.bias
    torch.testing.assert_close(model(x), expected)


def test_a_normalisation_stands_before_each_activation_and_takes_the_bias_away():
    model = networks.mlp((4, 6, 5, 3), "relu", "batch", momentum=0.3, eps=1e-3)
    assert names(model) == [
        *("linear1", "norm1", "activation1", "linear2", "norm2", "activation2"),
        "output",
    ]
    for layer, norm, units in ((model.linear1, model.norm1, 6), (model.linear2, model.norm2, 5)):
        assert layer.bias is None
        assert isinstance(norm, nn.BatchNorm1d)
        assert (norm.num_features, norm.momentum, norm.eps) == (units, 0.3, 1e-3)
    assert model.output.bias is not None


def test_momentum_none_averages_all_batches_equally():
    norm = networks.mlp((4, 6, 3), normalization="batch", momentum=None).norm1
    x = torch.randn(5, 8, 6)
    for batch in x:
        norm(batch)
    torch.testing.assert_close(norm.running_mean, x.mean((0, 1)))


@pytest.mark.parametrize("normalization", networks.NORMALIZATIONS)
def test_gain_is_the_standard_deviation_of_the_weights_times_root_fan_in(normalization):
    model = networks.mlp((400, 400, 400, 400), "tanh", normalization, gain=2.5)
    for layer in (model.linear1, model.linear2, model.output):
        assert layer.weight.std().item() * 20 == pytest.approx(2.5, rel=0.01)
        assert layer.bias is None or not layer.bias.any()


def test_without_gain_weights_have_variance_one_third_over_fan_in():
    weight = networks.mlp((400, 400, 10)).linear1.weight
    assert weight.var().item() * 400 == pytest.approx(1 / 3, rel=0.02)


def test_the_seed_decides_the_weights_and_touches_no_other_randomness():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (networks.mlp((4, 5, 2), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.linear1.weight, again.linear1.weight)
    assert not torch.equal(first.linear1.weight, other.linear1.weight)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"widths": (3,)}, ValueError, r"widths is \(3,\), expected at least two"),
        ({"widths": (3, 0, 2)}, ValueError, r"widths\[1\] is 0, expected at least 1"),
        ({"widths": (3, 2.5)}, TypeError, r"widths\[1\] is a float, expected an integer"),
        ({"activation": "gelu"}, ValueError, "activation is 'gelu', expected one of 'sigmoid'"),
        (
            {"normalization": "layer"},
            ValueError,
            "normalization is 'layer', expected one of None, 'batch'",
        ),
        ({"momentum": 1.5}, ValueError, r"momentum is 1.5, expected a number in \[0, 1\]"),
        ({"eps": 0}, ValueError, "eps is 0, expected a finite number above 0"),
        ({"gain": -1}, ValueError, "gain is -1, expected a finite number above 0"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        networks.mlp(**{"widths": (3, 4, 2), **arguments})
