"""Where tensors come from, whatever happens to them between two layers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bncore.practice.diagnosis.origins import Origins

CONV, LINEAR = nn.Conv2d(2, 3, 1), nn.Linear(5, 3)


def followed(function, shape=(4, 2, 6, 5)):
    """The origin of what a function of the two layers and an input returns."""

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear, self.norm = CONV, LINEAR, nn.BatchNorm1d(3)
            self.drop = nn.Dropout(0.3)

        def forward(self, x):
            return function(self, x)

    net = Whole()
    origins = Origins({module: name for name, module in net.named_modules()})
    with torch.no_grad(), origins.follow():
        output = net(torch.randn(shape))
    return origins.of(output), origins, output


@pytest.mark.parametrize(
    ("function", "axis"),
    [
        (lambda s, x: s.conv(x), 1),
        (lambda s, x: s.linear(x), 3),
        (lambda s, x: F.relu(s.linear(x)) * 2 + 1, 3),
        (lambda s, x: s.linear(x).transpose(1, -1), 1),
        (lambda s, x: s.linear(x).permute(0, 3, 1, 2), 1),
        (lambda s, x: s.linear(x).permute([3, 0, 1, 2]), 0),
        (lambda s, x: s.linear(x).movedim(-1, 1), 1),
        (lambda s, x: torch.transpose(s.linear(x), 0, 3), 0),
        (lambda s, x: s.linear(x).flatten(1, 2), 2),
        (lambda s, x: s.linear(x).view(-1, 3), 1),
        (lambda s, x: s.linear(x).flatten(1), None),
        (lambda s, x: s.conv(x).flatten(2), 1),
        (lambda s, x: s.conv(x).flatten(1), None),
        (lambda s, x: F.max_pool2d(s.conv(x), 2), 1),
        (lambda s, x: s.conv(x).mean((2, 3)), None),
        (lambda s, x: s.linear(s.conv(x)), None),
        (lambda s, x: x, None),
    ],
)
def test_the_axis_of_features_is_followed_or_not_known(function, axis):
    assert followed(function)[0].axis == axis


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda s, x: s.linear(x), "linear"),
        (lambda s, x: s.linear(x).view(-1, 3), "linear"),
        (lambda s, x: s.conv(x), "conv"),
        (lambda s, x: F.relu(s.conv(x)), ""),
        (lambda s, x: F.linear(x, s.linear.weight), ""),
        (lambda s, x: s.conv(x) + 1, ""),
    ],
)
def test_a_bias_is_known_as_long_as_it_is_the_last(function, name):
    assert followed(function)[0].biased == name


@pytest.mark.parametrize(
    ("function", "dropouts"),
    [
        (lambda s, x: s.drop(x), {("drop", 0.3)}),
        (lambda s, x: s.linear(F.relu(s.drop(x))), {("drop", 0.3)}),
        (lambda s, x: s.linear(x) + s.linear(s.drop(x)), {("drop", 0.3)}),
        (lambda s, x: F.dropout(s.drop(x), 0.5), {("drop", 0.3), ("", 0.5)}),
        (lambda s, x: F.dropout(x, 0.5, False), set()),
        (lambda s, x: F.layer_norm(s.drop(x), (5,)), set()),
        (lambda s, x: s.norm(s.linear(s.drop(x)).view(-1, 3)), set()),
    ],
)
def test_dropout_reaches_until_something_normalises(function, dropouts):
    found, origins, _ = followed(function)
    assert found.dropouts == dropouts
    assert origins.random or not dropouts


@pytest.mark.parametrize(
    ("function", "behind"),
    [
        (lambda s, x: s.linear(x), False),
        (lambda s, x: s.norm(s.linear(x).view(-1, 3)), True),
        (lambda s, x: s.norm(s.linear(x).view(-1, 3)).view(4, -1).sin() + 1, True),
        (lambda s, x: torch.cat([s.linear(x).view(-1, 3), s.norm(s.linear(x).view(-1, 3))]), True),
        (lambda s, x: Straight.apply(s.norm(s.linear(x).view(-1, 3))), True),
    ],
)
def test_what_a_batch_norm_precedes_is_known(function, behind):
    assert followed(function)[0].normalized == behind


class Straight(torch.autograd.Function):
    """A function that torch's calls do not show."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()


def test_uses_count_calls_that_compute():
    kept = []

    def function(s, x):
        h = s.linear(x)
        kept.append(h)
        assert h.dim() == len(h.shape) == 4
        return F.relu(h) + h

    _, origins, _ = followed(function)
    assert origins.uses(kept[0]) == 2


def test_hooks_are_gone_afterwards_also_after_an_error():
    def function(s, x):
        raise RuntimeError("broken")

    before = dict(CONV._forward_hooks), dict(CONV._forward_pre_hooks)
    with pytest.raises(RuntimeError, match="broken"):
        followed(function)
    assert before == (dict(CONV._forward_hooks), dict(CONV._forward_pre_hooks)) == ({}, {})
