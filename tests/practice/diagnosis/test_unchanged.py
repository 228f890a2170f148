"""Whatever happens inside, a network and random numbers come back as they were."""

import contextlib
import copy
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bncore.lab.layers import seeded
from bncore.practice.diagnosis import examine
from bncore.practice.diagnosis.unchanged import random_state, unchanged

MEMBERS = st.lists(
    st.sampled_from(["norm", "shared", "lazy", "dropout", "relu", "stateful", "frozen", "none"]),
    min_size=1,
    max_size=6,
)


class Stateful(nn.Module):
    """It counts, remembers, draws, rewrites its weights, and keeps a buffer out of its state."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.calls, self.log, self.aside = 0, [], torch.zeros(2)
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, x):
        self.calls += 1
        self.log.append(self.calls)
        self.aside += 1
        self.seen += x.mean()
        self.weight.data = self.weight.data / 2
        self.fresh = torch.rand(1, generator=self.generator) + random.random()
        np.random.random()  # noqa: NPY002
        return x * (1 + 0 * torch.rand(1))


def network(members, seed):
    shared = nn.BatchNorm1d(3)
    make = {
        "norm": lambda: nn.BatchNorm1d(3),
        "shared": lambda: shared,
        "lazy": nn.LazyBatchNorm1d,
        "dropout": nn.Dropout,
        "relu": nn.ReLU,
        "stateful": Stateful,
        "frozen": lambda: nn.BatchNorm1d(3).eval().requires_grad_(False),
        "none": lambda: nn.BatchNorm1d(3, track_running_stats=False),
    }
    with seeded(seed):
        net = nn.Sequential(nn.Linear(3, 3), *(make[name]() for name in members))
    net[0].weight.grad = torch.full((3, 3), 2.0)
    net[0].register_forward_hook(lambda *_: None)
    return net


def snapshot(model):
    """Everything that can be compared, by value and by identity."""
    found = {"random": torch.get_rng_state().tolist()}
    found["numpy"] = np.random.get_state()[1].tolist()  # noqa: NPY002
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            found[name, key] = described(value)
        for key, value in (*module._parameters.items(), *module._buffers.items()):
            found[name, key] = described(value)
            if value is not None and value.grad is not None:
                found[name, key, "grad"] = described(value.grad)
    return found


def described(value):
    if isinstance(value, torch.Tensor):
        lazy = nn.parameter.is_lazy(value)
        values = None if lazy else value.detach().clone().numpy().tobytes()
        return id(value), None if lazy else value.data_ptr(), value._version, values
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, dict):
        return id(value), [(key, id(one)) for key, one in value.items()]
    return id(value), copy.copy(value) if isinstance(value, list) else value


@given(MEMBERS, st.booleans(), st.integers(0, 100))
@settings(max_examples=40)
def test_examining_changes_nothing(members, train, seed):
    net = network(members, seed)
    for module in () if train else net.modules():
        module.training = False
    x = torch.randn(3, 8, 3, generator=torch.Generator().manual_seed(seed))
    before = snapshot(net)
    examine(net, list(x))
    assert snapshot(net) == before


@pytest.mark.parametrize("error", [RuntimeError, ValueError, KeyboardInterrupt, SystemExit])
@given(members=MEMBERS, when=st.integers(1, 9))
@settings(max_examples=10)
def test_nothing_is_changed_when_it_is_broken_off(error, members, when):
    class Breaks(nn.Module):
        def forward(self, x):
            calls.append(1)
            if len(calls) == when:
                raise error("broken off")
            return x

    net, calls = network(members, 0), []
    net.append(Breaks())
    x = torch.randn(4, 8, 3, generator=torch.Generator().manual_seed(0))
    before = snapshot(net)
    with contextlib.suppress(error):
        examine(net, list(x))
    assert snapshot(net) == before


def test_a_shuffling_loader_is_where_it_was():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    for options in ({}, {"generator": generator}):
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(x, x), batch_size=8, shuffle=True, **options
        )
        torch.manual_seed(1)
        expected = [batch[0] for batch in loader]
        generator.manual_seed(3)
        torch.manual_seed(1)
        examine(network(["norm"], 0), loader)
        assert all(torch.equal(a, b[0]) for a, b in zip(expected, loader, strict=True))
        generator.manual_seed(3)


def test_a_graph_that_waits_for_its_backward_pass_still_has_it():
    net = network(["norm", "stateful"], 0)
    loss = net(torch.randn(8, 3)).sum()
    examine(net, [torch.randn(8, 3)])
    loss.backward()


def test_buffers_that_stand_in_are_shared_where_the_own_ones_are():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    net[1].running_mean = net[0].running_mean
    with unchanged(net) as lent:
        assert net[1].running_mean is net[0].running_mean
        assert len(lent) == 5
        net[0].running_mean += 1
    assert net[0].running_mean is net[1].running_mean
    assert (net[0].running_mean == 0).all()


def test_random_numbers_go_on_as_if_unused():
    """Python's own are looked at here alone: what checks types in tests draws them."""
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    with random_state():
        random.random(), np.random.random(), torch.rand(2)  # noqa: NPY002
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_the_same_numbers_are_drawn_inside_each_time():
    with random_state():
        first = torch.rand(3)
    torch.rand(1)
    with random_state():
        assert torch.equal(torch.rand(3), first)
