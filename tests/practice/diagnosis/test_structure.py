"""What is in front of batch norms, what of them moves, and who shares them."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bncore.lab import data, networks, training
from bncore.lab.layers import seeded
from bncore.practice.diagnosis import examine
from bncore.practice.distributed import convert
from bncore.practice.freezing import freeze

SPLIT = data.digits(0)
IMAGES = data.digit_images(8, 0)


def batches(size=64, x=SPLIT.x_train, most=448):
    return list(x[:most].split(size))


def trained(net, steps=40, split=SPLIT):
    training.train(net, split, steps, 64, 0.05, 0)
    return net


def perceptron(**options):
    return trained(networks.mlp([64, 32, 32, 10], "relu", "batch", **options))


class Model(nn.Module):
    """Members by name, and a function of them and the input."""

    def __init__(self, forward, **members):
        super().__init__()
        for name, member in members.items():
            self.add_module(name, member)
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


def rows(forward, features=16, norm=8):
    """Digits as eight rows of eight pixels, a linear map of each row, and what comes of them."""
    with seeded(0):
        net = Model(
            forward,
            linear=nn.Linear(8, features, bias=False),
            norm=nn.BatchNorm1d(norm),
            output=nn.Linear(8 * features, 10),
        )
    return trained(net)


WRONG = {
    "directly": lambda s, x: s.output(s.norm(s.linear(x.view(-1, 8, 8))).flatten(1)),
    "activation": lambda s, x: s.output(s.norm(F.relu(s.linear(x.view(-1, 8, 8)))).flatten(1)),
    "turned twice": lambda s, x: s.output(
        s.norm(s.linear(x.view(-1, 8, 8)).transpose(1, 2).permute(0, 2, 1)).flatten(1)
    ),
    "residual": lambda s, x: s.output(
        s.norm(s.linear(x.view(-1, 8, 8)) + x.view(-1, 8, 8).repeat(1, 1, 2)).flatten(1)
    ),
}
RIGHT = {
    "turned": lambda s, x: s.output(s.norm(s.linear(x.view(-1, 8, 8)).mT).flatten(1)),
    "transposed": lambda s, x: s.output(
        s.norm(s.linear(x.view(-1, 8, 8)).transpose(1, 2)).transpose(1, 2).flatten(1)
    ),
    "rows as examples": lambda s, x: s.output(
        s.norm(s.linear(x.view(-1, 8, 8)).flatten(0, 1)).view(-1, 128)
    ),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("features", [8, 16])
def test_features_on_the_last_axis_are_on_the_wrong_one(name, features):
    if name == "residual" and features == 8:
        return
    report = examine(rows(WRONG[name], features), batches())
    (one,) = report.findings
    assert (one.code, one.severity, one.layer) == ("wrong-axis", "error", "norm")
    assert f"linear puts its {features} features on axis 2" in one.measured


@pytest.mark.parametrize("name", RIGHT)
def test_features_on_axis_1_are_on_the_right_one(name):
    assert examine(rows(RIGHT[name], norm=16), batches()).codes == set()


def test_a_map_over_places_of_a_convolution_keeps_its_channels():
    with seeded(0):
        net = nn.Sequential(
            nn.Conv1d(8, 6, 1, bias=False),
            nn.Linear(8, 5, bias=False),
            nn.BatchNorm1d(6),
            nn.Flatten(),
            nn.Linear(30, 10),
        )
    split = SPLIT._replace(x_train=SPLIT.x_train.view(-1, 8, 8), x_test=SPLIT.x_test.view(-1, 8, 8))
    assert examine(trained(net, split=split), batches(x=split.x_train)).codes == set()


@pytest.mark.parametrize("bias", [True, False])
def test_a_bias_in_front_is_redundant(bias):
    with seeded(0):
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=bias), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10)
        )
    report = examine(trained(net, split=IMAGES), batches(x=IMAGES.x_train))
    assert report.codes == ({"redundant-bias"} if bias else set())
    for one in report.findings:
        assert (one.severity, one.layer) == ("note", "1")
        assert one.measured == "The 4 biases of layer 0 change nothing but rounding."


USED_BIAS = {
    "activation between": lambda s, x: s.output(s.norm(torch.tanh(s.linear(x)))),
    "another way round": lambda s, x: s.output(s.norm(h := s.linear(x)) + h),
    "addition": lambda s, x: s.output(s.norm(s.linear(x) + x[:, :32])),
}


@pytest.mark.parametrize("name", USED_BIAS)
def test_a_bias_that_does_something_is_not(name):
    with seeded(0):
        net = Model(
            USED_BIAS[name],
            linear=nn.Linear(64, 32),
            norm=nn.BatchNorm1d(32),
            output=nn.Linear(32, 10),
        )
    assert examine(trained(net), batches()).codes == set()


def test_a_bias_before_frozen_statistics_is_not_redundant():
    with seeded(0):
        net = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Linear(32, 10))
    trained(net)
    freeze(net)
    assert examine(net, batches()).codes == set()


TWICE = {
    "two layers": (lambda s, x: s.output(s.norm(s.b(F.relu(s.norm(s.linear(x)))))), True),
    "two kinds of data": (lambda s, x: s.norm(s.linear(x)) + s.norm(s.linear(1 - x)), True),
    "halves of the batch": (
        lambda s, x: s.output(torch.cat([s.norm(s.linear(h)) for h in x.chunk(2)])),
        False,
    ),
    "the same input": (lambda s, x: s.output(s.norm(h := s.linear(x)) + s.norm(h)), False),
}


@pytest.mark.parametrize("name", TWICE)
def test_one_layer_for_two_distributions_is_found(name):
    forward, differ = TWICE[name]
    with seeded(0):
        net = Model(
            forward,
            linear=nn.Linear(64, 32, bias=False),
            b=nn.Linear(32, 32, bias=False),
            norm=nn.BatchNorm1d(32),
            output=nn.Linear(32, 10),
        )
    report = examine(trained(net), batches())
    assert report.codes == ({"reused-layer"} if differ else set())
    for one in report.findings:
        assert one.values["calls"] == 2
        assert one.values["apart"] > 0.25


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_dropout_in_front_is_found(p):
    report = examine(perceptron(dropout=p), batches())
    (one,) = report.findings
    assert (one.code, one.layer) == ("dropout-before", "norm2")
    assert f"dropout1 ({p:g})" in one.measured
    assert one.values["ratio"] < 1 - 0.3 * p


def test_right_in_front_the_variance_is_what_theory_says():
    """p / (1 + (1 - p) mean² / var), of Li et al. (2019), with p the probability to keep."""
    net = nn.Sequential(nn.Dropout(0.4), nn.BatchNorm1d(8))
    x = 1 + torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))
    found = {one.code: one for one in examine(net, x.split(200)).findings}
    assert found["dropout-before"].values["ratio"] == pytest.approx(0.6 / 1.4, rel=0.1)


def test_dropout_as_a_function_and_through_an_addition_is_followed():
    def forward(s, x):
        h = F.relu(s.norm(s.linear(x)))
        return s.output(s.last(s.b(h + F.dropout(h, 0.5, s.training))))

    with seeded(0):
        net = Model(
            forward,
            linear=nn.Linear(64, 32, bias=False),
            norm=nn.BatchNorm1d(32),
            b=nn.Linear(32, 32, bias=False),
            last=nn.BatchNorm1d(32),
            output=nn.Linear(32, 10),
        )
    report = examine(trained(net), batches())
    assert [(one.code, one.layer) for one in report.findings] == [("dropout-before", "last")]


NO_DROPOUT = {
    "probability 0": lambda: perceptron(dropout=0.0),
    "a layer norm between": lambda: trained(
        nn.Sequential(
            nn.Linear(64, 32, bias=False),
            nn.BatchNorm1d(32),
            nn.Dropout(0.5),
            nn.LayerNorm(32),
            nn.Linear(32, 32, bias=False),
            nn.BatchNorm1d(32),
            nn.Linear(32, 10),
        )
    ),
}


@pytest.mark.parametrize("name", NO_DROPOUT)
def test_dropout_that_does_not_reach_a_batch_norm_is_not(name):
    assert "dropout-before" not in examine(NO_DROPOUT[name](), batches()).codes


def half(norm, how):
    if how == "statistics, by eval":
        norm.eval()
    if how == "statistics, by momentum":
        norm.momentum = 0.0
    if how == "affine":
        norm.requires_grad_(False)
    if how == "both":
        norm.eval().requires_grad_(False)
    if how == "affine, by half":
        norm.weight.requires_grad_(False)


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("statistics, by eval", True),
        ("statistics, by momentum", True),
        ("affine", True),
        ("both", False),
        ("affine, by half", False),
        ("neither", False),
    ],
)
@pytest.mark.parametrize("layer", ["norm1", "norm2"])
def test_half_frozen_layers_are_found_and_wholly_frozen_ones_not(how, found, layer):
    net = perceptron()
    half(net.get_submodule(layer), how)
    expected = [("half-frozen", layer)] if found else []
    assert [(one.code, one.layer) for one in examine(net, batches()).findings] == expected
    if how != "statistics, by momentum":
        assert examine(net.eval(), batches()).codes == set()


def test_the_optimiser_says_what_learns():
    net = perceptron()
    head = torch.optim.SGD(net.output.parameters(), lr=0.1)
    assert examine(net, batches(), head).codes == {"half-frozen"}
    freeze(net, affine=False)
    assert examine(net, batches(), head).codes == set()
    every = torch.optim.SGD(net.parameters(), lr=0.1)
    assert examine(net, batches(), every).codes == {"half-frozen"}


@pytest.mark.parametrize("decay", [0.0, 1e-4])
def test_decay_of_gamma_and_beta_is_a_note(decay):
    net = perceptron()
    norms = [*net.norm1.parameters(), *net.norm2.parameters()]
    rest = [p for p in net.parameters() if not any(p is n for n in norms)]
    split = torch.optim.SGD(
        [{"params": rest}, {"params": norms, "weight_decay": 0.0}], lr=0.1, weight_decay=decay
    )
    assert examine(net, batches(), split).codes == set()
    whole = torch.optim.AdamW(net.parameters(), weight_decay=decay)
    report = examine(net, batches(), whole)
    assert report.codes == ({"decayed-affine"} if decay else set())
    assert all(one.severity == "note" for one in report.findings)


def test_several_devices_take_statistics_apart():
    net = nn.DataParallel(perceptron())
    assert examine(net, batches()).codes == set()
    net.device_ids = [0, 1]
    report = examine(net, batches())
    assert report.codes == {"unsynchronised"}
    assert (
        report.findings[0].measured == "Each of 2 devices takes statistics of 32 values of its own."
    )
    net.device_ids = list(range(16))
    assert examine(net, batches()).codes == {"unsynchronised", "few-values"}


def test_a_group_of_processes_takes_statistics_apart(monkeypatch):
    net = perceptron()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 4)
    report = examine(net, batches())
    assert report.codes == {"unsynchronised"}
    assert "Each of 4 devices takes statistics of 64 values" in report.findings[0].measured
    together = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))
    assert examine(together, batches()).codes == set()
    convert(net)
    assert examine(net, batches()).codes == set()
