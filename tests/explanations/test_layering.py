"""Which parameters form a layer."""

import pytest
import torch
from torch import nn

from bncore.explanations.covariate_shift import gradient_shift
from bncore.explanations.layering import layers_of
from bncore.lab import networks


def half_square(outputs, targets):
    return ((outputs - targets) ** 2).sum() / (2 * len(targets))


def batch(seed, inputs=5, outputs=3, examples=12):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, inputs, generator=generator, dtype=torch.float64)
    return x, torch.randn(examples, outputs, generator=generator, dtype=torch.float64)


def network(seed, normalization="batch", activation="tanh", hidden=(4, 6, 4)):
    widths = [5, *hidden, 3]
    return networks.mlp(widths, activation, normalization, gain=1.0, seed=seed).double()


def test_layers_are_found_in_the_order_of_the_forward_pass():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 3)
            self.norms = nn.ModuleList([nn.BatchNorm1d(5), nn.BatchNorm1d(4)])
            self.first = nn.Linear(5, 4, bias=False)
            self.slope = nn.PReLU()

        def forward(self, x):
            return self.last(self.slope(self.norms[1](self.first(self.norms[0](x)))))

    model, (x, y) = Crossed().double(), batch(0)
    norms = [[f"norms.{i}.weight", f"norms.{i}.bias"] for i in (0, 1)]
    expected = {
        "first": [*norms[0], "first.weight", *norms[1], "slope.weight"],
        "last": ["last.weight", "last.bias"],
    }
    assert layers_of(model, x) == expected
    assert list(layers_of(model, x)) == list(expected)
    assert gradient_shift(model, half_square, x, y, 0.1).layers == ("first", "last")


def test_frozen_parameters_belong_to_no_layer():
    model, (x, y) = network(0), batch(0)
    model.linear2.requires_grad_(False)
    model.norm1.requires_grad_(False)
    names = layers_of(model, x)
    assert names["linear1"] == ["linear1.weight", "norm2.weight", "norm2.bias"]
    assert list(names) == ["linear1", "linear3", "output"]
    shift = gradient_shift(model, half_square, x, y, 0.1)
    assert (shift.norm[1:] > 0).all()


def test_a_network_of_norms_alone_is_one_layer():
    model, x = nn.Sequential(nn.BatchNorm1d(5), nn.BatchNorm1d(5)).double(), batch(0)[0]
    assert layers_of(model, x) == {"0": ["0.weight", "0.bias", "1.weight", "1.bias"]}


def test_models_without_plain_layers_are_refused():
    x = batch(0)[0]
    with pytest.raises(ValueError, match="model has no trainable parameters"):
        layers_of(nn.ReLU(), x)
    frozen = nn.Linear(5, 5).double().requires_grad_(False)
    with pytest.raises(ValueError, match="model has no trainable parameters"):
        gradient_shift(frozen, half_square, x, x, 0.1)
    twice = nn.Sequential(nn.Linear(5, 5)).double()
    twice.forward = lambda x: twice[0](twice[0](x))
    with pytest.raises(ValueError, match="0 takes part 2 times in the forward pass"):
        layers_of(twice, x)
    tied = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)).double()
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match=r"0\.weight and 1\.weight are one parameter"):
        layers_of(tied, x)
    idle = nn.Sequential(nn.Linear(5, 5)).double()
    idle.forward = lambda x: x
    with pytest.raises(ValueError, match="0 takes no part in the forward pass"):
        layers_of(idle, x)
