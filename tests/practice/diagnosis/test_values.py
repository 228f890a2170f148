"""What reaches a batch norm and what it keeps: each fault on several networks that have it."""

import copy

import pytest
import torch
from torch import nn

from bncore.lab import data, networks, training
from bncore.practice.diagnosis import examine, examine_state

SPLIT = data.digits(0)
NAN, INF = float("nan"), float("inf")


def batches(size=64, x=SPLIT.x_train, most=320):
    return list(x[:most].split(size))


def trained(seed=0, **options):
    net = networks.mlp([64, 32, 32, 10], "relu", "batch", seed=seed, **options)
    training.train(net, SPLIT, 40, 64, 0.1, seed)
    return net


@pytest.fixture(scope="module")
def net():
    return trained()


def layers(report, code):
    return [one.layer for one in report.findings if one.code == code]


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("name", ["norm2.running_mean", "norm2.running_var", "norm2.weight"])
def test_what_is_kept_and_not_finite_is_found_in_its_layer_alone(net, name, value):
    ill = copy.deepcopy(net)
    ill.state_dict()[name][3] = value
    for report in (examine(ill, batches()), examine_state(ill.state_dict())):
        (one,) = report.findings
        assert (one.code, one.severity, one.layer) == ("not-finite", "error", "norm2")
        assert one.measured == f"Not finite: {name.removeprefix('norm2.')} (1 of 32)."


@pytest.mark.parametrize("value", [-1e-9, -1e-3, -5.0])
@pytest.mark.parametrize("layer", ["norm1", "norm2"])
def test_a_negative_variance_is_no_matter_of_epsilon(net, value, layer):
    ill = copy.deepcopy(net)
    ill.get_submodule(layer).running_var[:7] = value
    for report in (examine(ill, batches()), examine_state(ill.state_dict())):
        (one,) = report.findings
        assert (one.code, one.severity, one.layer) == ("not-finite", "error", layer)
        assert one.measured.startswith("Negative: running_var (7 of 32), as no variance is")
        assert one.values == {"entries": 7}


def test_a_variance_can_be_negative_and_not_finite(net):
    ill = copy.deepcopy(net)
    ill.norm1.running_var[:3] = torch.tensor([-1.0, NAN, -INF])
    (one,) = examine_state(ill.state_dict()).findings
    assert one.measured.startswith("Not finite: running_var (2 of 32). Negative: running_var (1 of")


def test_weights_that_are_not_finite_belong_to_the_network(net):
    ill = copy.deepcopy(net)
    ill.linear2.weight.data[0] = NAN
    for report in (examine(ill, batches()), examine_state(ill.state_dict())):
        (one,) = report.findings
        assert (one.code, one.layer) == ("not-finite", "")
        assert one.measured == "Not finite: linear2.weight (32 of 1024)."


@pytest.mark.parametrize("value", [NAN, INF])
def test_data_that_are_not_finite_are_blamed_themselves(net, value):
    given = copy.deepcopy(batches())
    given[2][0, 0] = value
    report = examine(net, given)
    assert [one.measured for one in report.findings] == ["Batch 2 holds NaN or infinity itself."]


def test_the_first_layer_that_meets_it_is_named(net):
    class Overflow(nn.Module):
        def forward(self, x):
            return x * 1e30 * 1e30

    ill = nn.Sequential(*copy.deepcopy(net).children())
    ill.insert(3, Overflow())
    report = examine(ill, batches())
    (one,) = report.findings
    assert (one.code, one.layer) == ("not-finite", "5")
    assert one.measured == "Its input is not finite in batch 0, and no other's before it."


def test_outputs_that_overflow_behind_all_batch_norms_are_found(net):
    ill = nn.Sequential(copy.deepcopy(net), nn.Threshold(1e9, INF))
    (one,) = examine(ill, batches()).findings
    assert (one.code, one.layer) == ("not-finite", "")
    assert "outputs for batch 0" in one.measured


@pytest.mark.parametrize("size", [2, 3, 4, 7, 8, 16])
def test_few_values_are_counted(net, size):
    report = examine(net, batches(size, most=16 * size), most=16)
    found = [one for one in report.findings if one.code == "few-values"]
    assert len(found) == (2 if size < 8 else 0)
    for one in found:
        assert one.severity == ("error" if size == 2 else "warning")
        assert one.values == {"mean_error": size**-0.5, "values": size}
        assert str(size) in one.measured


@pytest.mark.parametrize("images", [1, 2, 4])
def test_places_of_an_image_are_values_too(images):
    net = networks.residual(1, 4)
    split = data.digit_images(8, 0)
    report = examine(net, list(split.x_train[:32].split(images)))
    assert "few-values" not in report.codes


def test_a_single_value_is_an_error_wherever_it_is(net):
    for given in (batches(1, most=4), batches(64, most=129)):
        report = examine(net, given)
        found = [one for one in report.findings if one.code == "few-values"]
        assert found
        assert {one.severity for one in found} == {"error"}
        assert "torch refuses" in found[0].measured
    in_use = copy.deepcopy(net).eval()
    assert "few-values" not in examine(in_use, batches(64, most=129)).codes


def test_frozen_layers_may_see_few_values(net):
    frozen = copy.deepcopy(net)
    for norm in (frozen.norm1, frozen.norm2):
        norm.eval().requires_grad_(False)
    assert examine(frozen, batches(2, most=16)).codes == set()


@pytest.mark.parametrize("dead", [0, 2, 3, 4, 8, 32])
@pytest.mark.parametrize("how", ["constant", "gamma"])
def test_dead_features_are_counted(net, dead, how):
    ill = copy.deepcopy(net)
    if how == "constant":
        ill.linear2.weight.data[:dead] = 0
        ill.norm2.running_mean[:dead] = 0
        ill.norm2.running_var[:dead] = 0
    else:
        ill.norm2.weight.data[:dead] = 0
    for report in (examine(ill, batches()), examine_state(ill.state_dict())):
        found = [one for one in report.findings if one.code == "dead-feature"]
        assert [one.layer for one in found] == (["norm2"] if dead > 3 else [])
        assert all(f"{dead} of 32 features are dead" in one.measured for one in found)
        assert "epsilon-rules" not in report.codes


def test_a_constant_far_from_zero_is_constant_to_rounding(net):
    ill = copy.deepcopy(net)
    ill.linear2.weight.data[:8] = 0
    ill.linear2.bias = nn.Parameter(torch.full((32,), 1e6))
    report = examine(ill, batches())
    assert layers(report, "dead-feature") == ["norm2"]


@pytest.mark.parametrize(("eps", "found"), [(1e-5, 0), (1e-3, 0), (1.0, 2), (10.0, 2)])
def test_eps_rules_where_the_variance_is_not_above_it(eps, found):
    ill = trained(eps=eps)
    for report in (examine(ill, batches()), examine_state(ill.state_dict(), eps=eps)):
        assert len(layers(report, "epsilon-rules")) == found


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_found_layer_by_layer(net, dtype):
    ill = copy.deepcopy(net)
    ill.norm2.running_var = ill.norm2.running_var.to(dtype)
    report = examine_state(ill.state_dict())
    (one,) = report.findings
    kind = str(dtype).removeprefix("torch.")
    assert (one.code, one.layer) == ("low-precision", "norm2")
    assert one.measured == f"running_var is kept in {kind}."
    whole = copy.deepcopy(net).to(dtype)
    report = examine(whole, [x.to(dtype) for x in batches()])
    assert layers(report, "low-precision") == ["norm1", "norm2"]
    assert report.codes == {"low-precision"}
