"""Networks of every kind can be watched, in few passes a batch."""

import statistics
import time

import pytest
import torch
from torch import nn

from bncore.explanations.ghost_batches import GhostBatchNorm
from bncore.lab import networks
from bncore.lab.layers import seeded
from bncore.practice.diagnosis import examine
from bncore.practice.diagnosis.watching import watch
from bncore.practice.masking import MaskedBatchNorm1d

X = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
BATCHES = list(X.split(32))


class Counted(nn.Module):
    """A network that counts its calls and returns what it is told to."""

    def __init__(self, wrap=lambda y: y, drop=0.0):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4), nn.Dropout(drop), nn.Linear(4, 3)
        )
        self.wrap, self.calls = wrap, []

    def forward(self, x):
        CALLS.append(self.training)
        return self.wrap(self.net(x))


CALLS = []


@pytest.mark.parametrize(("drop", "passes"), [(0.0, 1), (0.5, 2)])
def test_a_batch_goes_through_once_or_twice_and_three_times_in_evaluation(drop, passes):
    CALLS.clear()
    seen = watch(Counted(drop=drop), BATCHES, 32)
    assert len(CALLS) == 3 * (passes + 3)
    assert seen.batches == 3
    (layer,) = seen.layers
    assert len(layer.training[0].means) == 3
    assert len(layer.quiet) == (drop > 0)


@pytest.mark.parametrize(
    "wrap", [lambda y: (y, y), lambda y: {"logits": y, "loss": y.sum()}, lambda y: None]
)
def test_models_may_return_anything(wrap):
    assert examine(Counted(wrap), BATCHES).codes == {"stale-statistics"}


@pytest.mark.parametrize(
    "batches",
    [
        [{"x": x} for x in BATCHES],
        [(x, torch.zeros(len(x))) for x in BATCHES],
        [[{"x": x}, 1] for x in BATCHES],
        iter(BATCHES),
        X.split(32),
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, X), batch_size=32),
    ],
)
def test_batches_come_in_every_shape(batches):
    report = examine(Counted(), batches)
    assert report.layers == ("net.1",)
    assert report.batches == 3


def test_layers_stand_in_the_order_of_their_calls():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first, self.none = (nn.BatchNorm1d(6) for _ in range(3))

        def forward(self, x):
            return self.last(self.first(x))

    seen = watch(Crossed(), BATCHES, 32)
    assert [layer.name for layer in seen.layers] == ["first", "last", "none"]
    assert [call.origin.normalized for layer in seen.layers for call in layer.calls] == [
        False,
        True,
    ]


def test_lazy_layers_get_their_shapes_in_a_copy():
    net = nn.Sequential(nn.LazyLinear(4, bias=False), nn.LazyBatchNorm1d(), nn.LazyLinear(2))
    report = examine(net, BATCHES)
    assert report.codes == {"stale-statistics"}
    assert report.layers == ("1",)
    assert isinstance(net[1], nn.LazyBatchNorm1d)
    assert nn.parameter.is_lazy(net[0].weight)


@pytest.mark.parametrize("kind", ["whole", "part"])
def test_compiled_networks_are_watched_uncompiled(kind):
    net = networks.mlp([6, 4, 4, 2], "relu", "batch")
    if kind == "whole":
        net = torch.compile(net, backend="eager")
    else:
        net.norm1.compile(backend="eager")
    assert examine(net, BATCHES).layers == ("norm1", "norm2")


def test_a_network_that_wants_targets_in_training_is_watched_without_them():
    class Wants(Counted):
        def forward(self, x, y=None):
            if self.training and y is None:
                raise ValueError("in training targets are wanted")
            return super().forward(x)

    net = Wants(drop=0.5)
    seen = watch(net, BATCHES, 32)
    assert len(seen.layers[0].training[0].means) == 3
    assert seen.layers[0].calls
    assert net.training


def test_ghosts_share_statistics_in_their_parts_only():
    net = nn.Sequential(nn.Linear(6, 4, bias=False), GhostBatchNorm(4, size=4))
    assert "few-values" in examine(net, BATCHES).codes
    (layer,) = watch(net, BATCHES, 32).layers
    assert layer.fewest == 4


class Sequences(nn.Module):
    """A batch norm of padded sequences, where what is beyond a million is padding."""

    def __init__(self):
        super().__init__()
        self.norm = MaskedBatchNorm1d(6)

    def forward(self, x):
        return self.norm(x, x[:, 0] < 1e6)


def test_padding_does_not_count():
    rows = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)) + 3
    x = torch.full((16, 6, 8), 1e7)
    mask = torch.zeros(16, 8, dtype=torch.bool)
    mask.flatten()[torch.randperm(128, generator=torch.Generator().manual_seed(1))[:60]] = True
    x.movedim(1, -1)[mask] = rows
    model = Sequences()
    for _ in range(200):
        model(x)
    (layer,) = watch(model, [x], 32).layers
    (found,) = layer.training
    assert found.values == [60] == [layer.fewest]
    torch.testing.assert_close(found.means[0], rows.mean(0))
    torch.testing.assert_close(found.variances[0], rows.var(0, correction=0))
    assert not examine(model, [x]).findings
    model.norm.eval().requires_grad_(False)
    (layer,) = watch(model, [torch.full((2, 6, 8), 1e7), x], 32).layers
    assert layer.training[0].values == [60]


def test_a_thousand_layers_take_no_more_passes():
    calls = []
    net = nn.Sequential(*(nn.BatchNorm1d(4) for _ in range(1000)))
    net[500].register_forward_pre_hook(lambda *_: calls.append(1))
    assert len(examine(net, [torch.randn(32, 4)]).layers) == 1000
    assert len(calls) == 4


@pytest.mark.timing
def test_a_thousand_layers_take_as_long_as_some_hundred_plain_passes():
    """So that it holds on a slow machine: of 32 batches, each goes through two and a half times."""
    with seeded(0):
        pairs = [part for _ in range(1000) for part in (nn.Linear(16, 16), nn.BatchNorm1d(16))]
        net, given = nn.Sequential(*pairs), [*torch.randn(32, 32, 16)]
    times = []
    with torch.no_grad():
        for x in given:
            started = time.process_time()
            net(x)
            times.append(time.process_time() - started)
    started = time.process_time()
    examine(net, given)
    assert time.process_time() - started < 600 * statistics.median(times)
