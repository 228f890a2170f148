"""Networks without a fault, whatever they are, and what the examination refuses."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from bncore.lab import data, networks, training
from bncore.lab.layers import seeded
from bncore.lab.modes import is_batch_norm
from bncore.practice.diagnosis import CODES, examine, examine_state
from bncore.practice.freezing import freeze, unfreeze

SPLIT = data.digits(0)
IMAGES = data.digit_images(8, 0)


def batches(size=64, x=SPLIT.x_train, most=448):
    return x[:most].split(size)


def trained(net, steps=60, size=64, rate=0.1, split=SPLIT):
    training.train(net, split, steps, size, rate, 0)
    return net


def perceptron(*widths, **options):
    return networks.mlp([64, *(widths or (32, 32)), 10], "relu", "batch", **options)


class Behind(nn.Sequential):
    """Dropout behind the last batch norm."""

    def __init__(self):
        with seeded(0):
            super().__init__(
                nn.Linear(64, 32, bias=False),
                nn.BatchNorm1d(32),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(32, 10),
            )


def frozen(net):
    freeze(net)
    return net


HEALTHY = {
    "two layers": (lambda: trained(perceptron()), 64, SPLIT),
    "five layers": (lambda: trained(perceptron(32, 32, 32, 32, 32, seed=1)), 64, SPLIT),
    "tanh": (lambda: trained(networks.mlp([64, 32, 10], "tanh", "batch", seed=2)), 64, SPLIT),
    "residual": (
        lambda: trained(networks.residual_mlp(64, 10, 3, 32, seed=3)),
        64,
        SPLIT,
    ),
    "images": (lambda: trained(networks.residual(1, 4), split=IMAGES), 32, IMAGES),
    "small batches": (lambda: trained(perceptron(seed=5), 100, 16, 0.03), 16, SPLIT),
    "high rate": (lambda: trained(perceptron(seed=6), rate=0.5), 64, SPLIT),
    "dropout behind": (lambda: trained(Behind()), 64, SPLIT),
    "in evaluation mode": (lambda: trained(perceptron(seed=7)).eval(), 64, SPLIT),
    "frozen": (lambda: frozen(trained(perceptron(seed=8))), 64, SPLIT),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_found_in_a_healthy_network(name):
    net, size, split = healthy(name)
    net = copy.deepcopy(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    report = examine(net, batches(size, split.x_train), optimizer)
    assert len(report) == 0, str(report)
    assert report.batches == 448 // size
    assert len(examine(net.train(), batches(size, split.x_test))) == 0
    assert len(examine_state(net.state_dict())) == 0


class Front(nn.Module):
    """Reads the pixels before a network does: rows of eight, through a batch norm of its own."""

    def __init__(self, net, read, norm=8):
        super().__init__()
        with seeded(9):
            self.linear, self.norm, self.net = nn.Linear(8, 8), nn.BatchNorm1d(norm), net
        self.read = read

    def forward(self, x):
        return self.net(self.read(self, x.reshape(-1, 8, 8)).reshape(x.shape))


def ready(front, x):
    """Its own batch norm has seen enough, and the network behind it has not moved."""
    for _ in range(200):
        front.read(front.train(), x.reshape(-1, 8, 8)).detach()
    return front


def norms(net):
    return [module for module in net.modules() if is_batch_norm(module)]


def thawed(net):
    """As it trains: with nothing frozen."""
    unfreeze(net)
    return net.train().requires_grad_(True)


def infinite(net, x):
    norms(net)[0].running_var[0] = torch.inf
    return net, x


def rows_for_features(net, x):
    return ready(Front(net, lambda s, h: s.norm(s.linear(h))), x), x


def with_a_bias(net, x):
    def read(front, h):
        return front.norm(front.linear(h).transpose(1, 2)).transpose(1, 2)

    return ready(Front(net, read), x), x


def by_fours(net, x):
    front = Front(net, lambda s, h: s.norm(h.flatten(1)), norm=64)
    return ready(front, x), x[:64].split(4)


def twice(net, x):
    front = Front(net, lambda s, h: s.norm(h) + s.norm(3 * h + 2))
    return ready(front, x), x


def behind_dropout(net, x):
    def read(front, h):
        return front.norm(nn.functional.dropout(h, 0.5, front.training))

    return ready(Front(net, read), x), x


def never_updated(net, x):
    norms(net)[0].reset_running_stats()
    return net, x


def moved_statistics(net, x):
    norm = norms(net)[-1]
    norm.running_mean += 5 * norm.running_var.sqrt()
    front = Front(net, lambda s, h: s.norm(h))
    return ready(front, x), x


def other_data(net, x):
    return net, 255 * x


def without_gamma(net, x):
    with torch.no_grad():
        norms(net)[0].weight[::3] = 0
    return net, x


def large_epsilon(net, x):
    norms(net)[0].eps = 1e3
    return net, x


def in_halves(net, x):
    return net.bfloat16(), x.bfloat16()


def on_two_devices(net, x):
    wrapped = nn.DataParallel(net)
    wrapped.device_ids = [0, 1]
    return wrapped, x


def half_frozen(net, x):
    norms(net)[0].requires_grad_(False)
    return net, x


EVERY = {
    "not-finite": infinite,
    "wrong-axis": rows_for_features,
    "few-values": by_fours,
    "half-frozen": half_frozen,
    "stale-statistics": never_updated,
    "shifted-input": other_data,
    "train-eval-gap": moved_statistics,
    "dropout-before": behind_dropout,
    "reused-layer": twice,
    "dead-feature": without_gamma,
    "epsilon-rules": large_epsilon,
    "low-precision": in_halves,
    "unsynchronised": on_two_devices,
    "redundant-bias": with_a_bias,
    "decayed-affine": lambda net, x: (net, x),
}


@cache
def healthy(name):
    make, size, split = HEALTHY[name]
    return make(), size, split


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("code", CODES)
def test_every_code_is_found_in_a_network_that_has_the_fault(code, name):
    """The same ten in which nothing is found without it."""
    net, size, split = healthy(name)
    net, x = EVERY[code](thawed(copy.deepcopy(net)), split.x_train[:448])
    given = x.split(size) if isinstance(x, torch.Tensor) else x
    decay = 0.1 if code == "decayed-affine" else 0.0
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=decay)
    found = examine(net, given, optimizer).codes
    if (code, name) == ("shifted-input", "residual"):
        # The skip connection carries the data past the first batch norm to all others.
        code = "train-eval-gap"
    assert code in found


def test_the_same_network_gives_the_same_report():
    net = networks.mlp([64, 32, 10], "relu", "batch", dropout=0.5)
    assert examine(net, batches()).to_json() == examine(net, batches()).to_json()


def test_only_so_many_batches_are_looked_at():
    net, taken = perceptron(), []

    def endless():
        while True:
            taken.append(1)
            yield SPLIT.x_train[:32]

    assert examine(net, endless(), most=3).batches == 3
    assert len(taken) == 3


def test_without_batch_norm_there_is_nothing_to_examine():
    for report in (examine(nn.Linear(64, 10), batches()), examine_state({"weight": torch.ones(2)})):
        assert str(report) == "No batch norm here: nothing to examine."
        assert report.layers == ()


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ((nn.Linear, [1]), TypeError, "model is the class Linear, expected a torch.nn.Module"),
        ((3, [1]), TypeError, "model is a int"),
        ((perceptron(), SPLIT.x_train), TypeError, r"batches is a .*Tensor.*hand in \[x\]"),
        ((perceptron(), {"x": SPLIT.x_train}), TypeError, "batches is a dict"),
        ((perceptron(), 3), TypeError, "batches is a int"),
        ((perceptron(), []), ValueError, "batches is empty, expected at least one batch"),
        ((perceptron(), iter([])), ValueError, "batches is empty, expected at least one batch"),
        ((nn.Linear(3, 3), []), ValueError, "batches is empty, expected at least one batch"),
        ((perceptron(), [("3", 4)]), TypeError, r"batches\[0\]\[0\] is a str"),
        ((perceptron(), [([], 4)]), TypeError, r"batches\[0\]\[0\] is a list"),
        ((perceptron(), [None]), TypeError, r"batches\[0\] is a None, expected a tensor"),
        ((perceptron(), ["3"]), TypeError, r"batches\[0\] is a str, expected a tensor"),
        ((perceptron(), [SPLIT.x_train], 0.1), TypeError, "optimizer is a float"),
    ],
)
def test_what_is_no_network_or_batch_is_named(unchecked, arguments, error, said):
    with pytest.raises(error, match=said):
        examine(*arguments)


def test_the_number_of_batches_is_checked(unchecked):
    with pytest.raises(ValueError, match="most is 0"):
        examine(perceptron(), batches(), most=0)


def test_a_script_is_refused_in_words():
    scripted = torch.jit.trace(perceptron().eval(), SPLIT.x_train[:4])
    with pytest.raises(TypeError, match="model is a ScriptModule"):
        examine(scripted, batches())


def test_what_the_model_raises_comes_with_the_batch():
    with pytest.raises(RuntimeError) as caught:
        examine(perceptron(), [SPLIT.x_train[:8], SPLIT.x_train[:8, :5]])
    assert caught.value.__notes__[0] == "examine applied the model to batch 1, of shape (8, 5)"


@pytest.mark.parametrize(
    ("state", "options", "error", "said"),
    [
        ([1], {}, TypeError, "state_dict is a list, expected a mapping from names to tensors"),
        ({1: torch.ones(1)}, {}, TypeError, "state_dict is a dict"),
        (
            {"a.running_mean": np.ones(2)},
            {},
            TypeError,
            r"state_dict\['a.running_mean'\] is a ndarray, expected a tensor",
        ),
        (
            {"a.running_var": torch.ones(2, device="meta")},
            {},
            ValueError,
            r"state_dict\['a.running_var'\] is on the device 'meta', expected a tensor that holds",
        ),
        (
            {"num_batches_tracked": torch.ones(2)},
            {},
            ValueError,
            r"state_dict\['num_batches_tracked'\] has shape \(2,\), expected one number",
        ),
        (
            {"a.running_mean": torch.ones(2), "a.running_var": torch.ones(3)},
            {},
            ValueError,
            r"state_dict\['a.running_var'\] has shape \(3,\), expected \(2,\), that of running_mean",
        ),
        ({}, {"momentum": 2.0}, ValueError, "momentum is 2.0"),
        ({}, {"eps": 0.0}, ValueError, "eps is 0.0"),
    ],
)
def test_what_is_no_checkpoint_is_named(unchecked, state, options, error, said):
    with pytest.raises(error, match=said):
        examine_state(state, **options)


def test_batch_norms_that_are_never_called_are_mentioned():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.BatchNorm1d(64), nn.BatchNorm1d(3)

        def forward(self, x):
            return self.used(x)

    report = examine(Spare(), batches())
    assert report.layers == ("used", "spare")
    assert report.remarks == ("1 batch norm is never called on these batches: spare.",)
    assert {one.layer for one in report.findings} == {"used"}
