"""What a conversion changes, what it keeps, and what it says of the rest."""

import copy
import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from bncore.lab import networks
from bncore.practice.distributed import SyncedBatchNorm, convert
from bncore.practice.freezing import freeze, frozen
from bncore.practice.masking import MaskedBatchNorm1d
from bncore.practice.renormalization import BatchRenorm

KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, SyncedBatchNorm)


class Own(nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x) + 1


def moved(kind, generator, **options):
    layer = kind(3, **options)
    with torch.no_grad():
        for value in (*layer.parameters(), *layer.buffers()):
            if value.is_floating_point():
                value.copy_(torch.rand(3, generator=generator))
    return layer


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
def test_everything_but_the_class_is_kept(seed, kinds):
    rng = torch.Generator().manual_seed(seed)

    def chosen(*values):
        return values[int(torch.randint(len(values), (), generator=rng))]

    layers = []
    for kind in kinds:
        layer = moved(
            kind,
            rng,
            eps=chosen(1e-5, 0.1),
            momentum=chosen(0.3, None),
            affine=chosen(True, True, False),
            track_running_stats=chosen(True, True, False),
        )
        layer.train(chosen(True, False))
        for parameter in layer.parameters():
            parameter.requires_grad_(chosen(True, False))
        layers.append(layer)
    model = nn.ModuleDict({"all": nn.ModuleList(layers), "again": layers[0]})
    values = dict(model.state_dict(keep_vars=True))
    before = [(v, v.requires_grad, v.clone()) for v in values.values()]
    said = [(m.training, m.eps, m.momentum, m.affine, m.track_running_stats) for m in layers]
    report = convert(model)
    assert report.left == ()
    assert [one.was for one in report] == [kind.__name__ for kind in kinds]
    assert all(type(layer) is SyncedBatchNorm for layer in layers)
    assert [*model["all"], model["again"]] == [*layers, layers[0]]
    assert [*model.state_dict(keep_vars=True)] == [*values]
    after = model.state_dict(keep_vars=True).values()
    for value, (own, learns, number) in zip(after, before, strict=True):
        assert value is own
        assert value.requires_grad == learns
        assert torch.equal(value, number)
    assert said == [
        (m.training, m.eps, m.momentum, m.affine, m.track_running_stats) for m in layers
    ]


@pytest.mark.parametrize("training", [True, False])
def test_in_one_process_a_converted_network_computes_the_same(training):
    model = networks.mlp([6, 5, 4, 3], normalization="batch").train(training)
    theirs, x = copy.deepcopy(model), torch.randn(7, 6)
    convert(model)
    assert sum(isinstance(module, SyncedBatchNorm) for module in model.modules()) == 2
    torch.testing.assert_close(model(x), theirs(x))
    torch.testing.assert_close(model.state_dict(), theirs.state_dict())


def test_hooks_optimisers_and_frozen_layers_go_on():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    optimizer, met = torch.optim.SGD(model.parameters(), lr=0.1), []
    model[0].register_forward_hook(lambda *_: met.append(1))
    freeze(model, layers=["1"])
    before = frozen(model)
    convert(model)
    assert frozen(model) == before
    model.train()
    assert not model[1].training
    kept = model[1].running_mean.clone()
    model(torch.randn(5, 3)).square().sum().backward()
    weight = model[0].weight.detach().clone()
    optimizer.step()
    assert met == [1]
    assert torch.equal(model[1].running_mean, kept)
    assert not torch.equal(model[0].weight, weight)


@pytest.mark.skipif(
    "bias" not in inspect.signature(nn.BatchNorm1d).parameters, reason="torch has no such layer"
)
def test_a_scale_without_a_shift_is_kept():
    model = nn.Sequential(nn.BatchNorm1d(3, bias=False))
    convert(model)
    assert model[0].bias is None
    assert model(torch.randn(4, 3)).shape == (4, 3)


def test_a_batch_norm_alone_is_converted():
    norm = nn.BatchNorm1d(3)
    assert str(convert(norm)) == (
        "layer        was          is\n(the model)  BatchNorm1d  synchronised"
    )
    assert type(norm) is SyncedBatchNorm


def test_what_it_leaves_it_names_with_the_reason():
    replaced = nn.BatchNorm1d(3)
    replaced.forward = lambda x: x
    changed = nn.BatchNorm1d(3)
    parametrize.register_parametrization(changed, "weight", nn.Softplus())
    model = nn.ModuleDict(
        {
            "plain": nn.BatchNorm1d(3),
            "renorm": BatchRenorm(3),
            "masked": MaskedBatchNorm1d(3),
            "own": Own(3),
            "lazy": nn.LazyBatchNorm1d(),
            "replaced": replaced,
            "changed": changed,
            "instance": nn.InstanceNorm1d(3, track_running_stats=True),
            "layer": nn.LayerNorm(3),
        }
    )
    kinds = {name: type(module) for name, module in model.items()}
    report = convert(model)
    assert report.left == ("renorm", "masked", "own", "lazy", "replaced", "changed")
    for name, module in model.items():
        assert type(module) is (SyncedBatchNorm if name == "plain" else kinds[name])
    reasons = {one.name: one.left for one in report}
    assert reasons.pop("plain") == ""
    assert reasons.pop("lazy").startswith("it has met no batch yet")
    assert reasons.pop("replaced") == "its forward was replaced"
    assert set(reasons.values()) == {"it is of a kind of its own"}
    assert "lazy      LazyBatchNorm1d" in str(report)
    assert str(report).splitlines()[0].split() == ["layer", "was", "is"]
    assert str(report).count("left: it is of a kind of its own") == 4


def test_a_network_without_batch_norm_is_none_to_convert():
    assert convert(nn.Sequential(nn.Linear(3, 3))) == ()


@pytest.mark.parametrize(
    ("model", "group", "error", "match"),
    [
        ("net", None, TypeError, "model is a str, expected a torch.nn.Module"),
        (nn.BatchNorm1d(3), [0, 1], TypeError, "process_group is a list, expected what"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_it_refuses_in_words(model, group, error, match):
    with pytest.raises(error, match=match):
        convert(model, group)
    assert type(model) is not SyncedBatchNorm


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_refuses_a_script():
    with pytest.raises(TypeError, match="model is a ScriptModule, expected the module"):
        convert(torch.jit.script(nn.Sequential(nn.BatchNorm1d(3))))
