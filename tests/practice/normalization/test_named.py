"""Every normalization goes into every network of the lab, and leaves the weights as they were drawn."""

import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from bncore.lab import networks
from bncore.lab.fingerprint import describe
from bncore.lab.layers import OfWeights
from bncore.practice.normalization import GroupNorm, named, weight_standardization
from bncore.practice.normalization.named import KINDS, NAMES

NETWORKS = {
    "mlp": lambda **given: networks.mlp([64, 8, 8, 10], "relu", **given),
    "deep linear": lambda **given: networks.deep_linear(64, 10, 3, 8, **given),
    "residual": lambda **given: networks.residual(1, 8, stages=2, **given),
    "residual mlp": lambda **given: networks.residual_mlp(64, 10, 2, 8, **given),
    "vgg": lambda **given: networks.vgg(11, width=8, channels=1, size=8, hidden=(8,), **given),
}
IMAGES = {"residual", "vgg"}
CASES = [
    (name, network, placement)
    for name in NAMES
    for network in NETWORKS
    for placement in ("before", "after")
    if (network, placement) != ("deep linear", "after")
    # Features of two axes are no instances, at the end of vgg either.
    and (name != "instance" or network == "residual")
]


def built(network, name, placement="before", seed=0, **options):
    plain = name in (None, "batch")
    given = {"normalization": name if plain else named(name, **options), "seed": seed}
    if network != "deep linear":
        given["placement"] = placement
    return NETWORKS[network](**given)


def original(layer):
    """The weights that were drawn, whatever a parametrization makes of them."""
    if not parametrize.is_parametrized(layer):
        return layer.weight
    held = layer.parametrizations.weight
    return held.original if hasattr(held, "original") else held.original1


def drawn(model):
    kinds = nn.Linear, nn.Conv2d
    return [
        original(m)
        for name, m in model.named_modules()
        if isinstance(m, kinds) and "attention" not in name
    ]


@pytest.mark.parametrize(("name", "network", "placement"), CASES)
def test_a_network_is_built_from_the_same_weights_and_learns(name, network, placement):
    """Those of a network with batch norm, or, where biases stay, of one without normalisation."""
    model = built(network, name, placement)
    plain = built(network, None if name == "weight" else "batch", placement)
    for ours, theirs in zip(drawn(model), drawn(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    torch.manual_seed(0)
    x = torch.randn(6, 1, 8, 8) if network in IMAGES else torch.randn(6, 64)
    y = model(x)
    assert y.shape == (6, 10)
    y.square().sum().backward()
    moving = [n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()]
    assert len(moving) >= len(drawn(plain))
    again = built(network, name, placement)
    assert again.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", KINDS)
def test_the_layer_stands_where_a_batch_norm_would(name):
    model = built("residual", name)
    assert [n for n, m in model.named_modules() if type(m) is KINDS[name]] == [
        n for n, m in built("residual", "batch").named_modules() if type(m) is nn.BatchNorm2d
    ]
    assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Conv2d))


def test_weight_normalization_starts_as_the_network_without_any():
    for network in NETWORKS:
        x = torch.randn(3, 1, 8, 8) if network in IMAGES else torch.randn(3, 64)
        torch.testing.assert_close(built(network, "weight")(x), built(network, None)(x))


def test_standardised_weights_have_group_norm_behind_them():
    model = built("mlp", "weight standardization", groups=4)
    assert isinstance(model.norm1, GroupNorm)
    assert model.norm1.num_groups == 4
    assert model.linear1.bias is None
    expected, _ = weight_standardization(original(model.linear1).detach().numpy())
    torch.testing.assert_close(model.linear1.weight.detach(), torch.tensor(expected))
    assert not parametrize.is_parametrized(model.output)


@pytest.mark.parametrize("name", NAMES)
def test_a_study_can_describe_it_and_a_process_receive_it(name):
    one = named(name)
    assert describe(one) == describe(named(name))
    found = pickle.loads(pickle.dumps(one))
    assert isinstance(found, OfWeights) == name.startswith("weight")
    options = {"groups": 2} if name not in ("weight", "weight standardization") else {}
    assert not options or describe(named(name, **options)) != describe(one)


def test_options_reach_the_layer():
    norm = built("mlp", "stochastic", batch_size=8, groups=2).norm2
    assert (norm.batch_size, norm.num_groups) == (8, 2)


def test_components_that_are_drawn_differ_between_layers_and_seeds():
    weights = [
        norm.weight
        for seed in (0, 1)
        for norm in (lambda m: (m.norm1, m.norm2))(built("mlp", "attentive", seed=seed))
    ]
    for i, one in enumerate(weights):
        assert all(not torch.equal(one, other) for other in weights[:i])


def test_refusals():
    with pytest.raises(ValueError, match="name is 'batch', expected one of 'layer', 'instance'"):
        named("batch")
    with pytest.raises(TypeError, match="'weight' is given groups, eps, expected no options"):
        named("weight", groups=2, eps=0.1)
