"""The parts of a batch norm, of whichever class."""

import pytest
import torch
from torch import nn

from bncore.practice.diagnosis.parts import Parts, parts


class Own(nn.Module):
    """One that keeps its running statistics and its scale under names of its own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.ones(3))
        self.register_buffer("running_var", torch.ones(3))
        self.gamma, self.beta = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))


def test_torchs_and_others_are_read():
    norm = nn.BatchNorm2d(3, eps=0.5, momentum=None)
    found = parts(norm)
    assert found == Parts(norm.running_mean, norm.running_var, norm.weight, norm.bias, 0, None, 0.5)
    assert list(found.tensors) == ["running_mean", "running_var", "weight", "bias"]
    own = Own()
    assert parts(own) == Parts(
        own.running_mean, own.running_var, own.gamma, own.beta, None, 0.1, 1e-5
    )
    bare = parts(nn.BatchNorm1d(3, affine=False, track_running_stats=False))
    assert not bare.has_statistics
    assert bare.tensors == {}


@pytest.mark.parametrize("updates", [1, 7, 100])
@pytest.mark.parametrize("momentum", [None, 0.01, 0.5])
def test_the_initial_weight_is_what_torch_leaves_of_it(updates, momentum):
    norm = nn.BatchNorm1d(1, momentum=momentum).double()
    norm.running_mean.fill_(1e6)
    for _ in range(updates):
        norm(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
    expected = norm.running_mean.item() / 1e6
    assert parts(norm).initial_weight == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_count_of_zero_is_believed_only_of_initial_statistics():
    norm = nn.BatchNorm1d(3)
    assert parts(norm).initial_weight == 1
    norm.running_mean[0] = 1
    assert parts(norm).initial_weight is None
    norm.num_batches_tracked = None
    assert parts(norm).initial_weight is None


def test_gammas_vanish_to_rounding_of_the_largest():
    norm = nn.BatchNorm1d(4)
    norm.weight.data = torch.tensor([1.0, 0.0, 1e-9, 1e-3])
    assert parts(norm).vanished() is None
    norm.num_batches_tracked += 1
    assert parts(norm).vanished().tolist() == [False, True, True, False]
    assert parts(nn.BatchNorm1d(4, affine=False)).vanished() is None
