"""Networks without a fault, whatever they are, and what the examination refuses."""

import numpy as np
import pytest
import torch
from torch import nn

from bncore.lab import data, networks, training
from bncore.lab.layers import seeded
from bncore.practice.diagnosis import examine, examine_state
from bncore.practice.freezing import freeze

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
    make, size, split = HEALTHY[name]
    net = make()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    report = examine(net, batches(size, split.x_train), optimizer)
    assert len(report) == 0, str(report)
    assert report.batches == 448 // size
    assert len(examine(net.train(), batches(size, split.x_test))) == 0
    assert len(examine_state(net.state_dict())) == 0


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
        ((perceptron(), [3]), TypeError, "batch 0 of batches is a int, expected a tensor"),
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
