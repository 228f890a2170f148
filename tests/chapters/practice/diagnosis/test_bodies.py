"""Networks that leave the usual chain of layers do what they say."""

import pytest
import torch
from torch.nn.functional import relu

from bncore.chapters.practice.diagnosis.bodies import Reused, Rows, TwoHeads
from bncore.lab import networks

X = torch.rand(50, 64, generator=torch.Generator().manual_seed(0))
CLOSE = {"rtol": 0, "atol": 64 * 64 * torch.finfo(torch.float32).eps}


def normalised(h, axes):
    return (h - h.mean(axes, keepdim=True)) / (
        h.var(axes, keepdim=True, correction=0) + 1e-5
    ).sqrt()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("transposed", [True, False])
def test_rows_are_normalised_by_feature_or_by_mistake_by_row(transposed, seed):
    net = Rows(transposed, seed)
    axes = (0, 1) if transposed else (0, 2)
    h = X.reshape(50, 8, 8)
    for linear in (net.linear1, net.linear2):
        h = relu(normalised(h @ linear.weight.T, axes))
    torch.testing.assert_close(net(X), net.output(h.reshape(50, 64)), **CLOSE)


@pytest.mark.parametrize("seed", range(3))
def test_weights_of_rows_do_not_depend_on_the_mistake(seed):
    right, wrong = (Rows(one, seed).state_dict() for one in (True, False))
    assert all(torch.equal(right[name], wrong[name]) for name in right)


@pytest.mark.parametrize("reused", [True, False])
def test_a_reused_norm_computes_the_same_in_training_and_is_called_twice(reused):
    net, calls = Reused(reused, seed=1), []
    net.norm1.register_forward_hook(lambda module, given, output: calls.append(given[0]))
    h = relu(normalised(X @ net.linear1.weight.T, 0))
    h = relu(normalised(h @ net.linear2.weight.T, 0))
    torch.testing.assert_close(net(X), net.output(h), **CLOSE)
    assert len(calls) == 1 + reused
    assert (net.norm2 is None) == reused


def test_two_heads_share_their_body():
    trained = networks.mlp((64, 16, 10), "relu", "batch").eval()
    net = TwoHeads(trained, 2, seed=3).eval()
    assert net(X).shape == (50, 2)
    torch.testing.assert_close(net(X), net.new(trained[:-1](X)), **CLOSE)
    torch.testing.assert_close(net.as_before()(X), trained(X), **CLOSE)
    assert net.as_before()[0] is net.body
    assert net.old is trained[-1]
