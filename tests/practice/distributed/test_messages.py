"""Collective calls of one process alone, counted by their kind, numbers and bytes."""

import pytest
import torch
import torch.distributed as dist

from bncore.practice.distributed import messages


@pytest.fixture
def alone(tmp_path):
    """A group of this process only."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def everything(x):
    """Each kind of call once, with as many numbers as x has."""
    dist.all_reduce(x)
    dist.all_gather([x.clone()], x)
    dist.broadcast(x, 0)
    dist.reduce(x, 0)
    dist.gather(x, [x.clone()])
    dist.scatter(x, [x.clone()])


KINDS = ["allreduce", "allgather", "broadcast", "reduce", "gather", "scatter"]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (0, 2)])
def test_each_call_is_counted_with_what_is_handed_in(dtype, shape):
    x = torch.ones(shape, dtype=dtype)
    with messages() as sent:
        y = x + 1
        everything(x)
        y.sum()
    assert sent == [(kind, x.numel(), x.numel() * x.element_size()) for kind in KINDS]
    everything(x)
    assert len(sent) == len(KINDS)


class Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        dy = dy.clone()
        dist.all_reduce(dy)
        return dy


@pytest.mark.usefixtures("alone")
def test_backward_passes_are_counted():
    x = torch.ones(5, requires_grad=True)
    with messages() as sent:
        Summed.apply(x).sum().backward()
    assert sent == [("allreduce", 5, 20)]


@pytest.mark.usefixtures("alone")
def test_waiting_for_each_other_sends_no_numbers():
    with messages() as sent:
        dist.barrier()
    assert sent == [("barrier", 0, 0)]


def test_without_calls_there_is_nothing_to_count():
    with messages() as sent:
        torch.ones(3).sum()
    assert sent == []
