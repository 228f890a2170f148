"""What a process sends to the others: one entry for each collective call, counted as torch runs it."""

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Message(NamedTuple):
    """One collective call.

    Attributes
    ----------
    kind : str
        As torch names it: "allgather", "allreduce", "broadcast" and others.
    numbers, bytes : int
        What this process hands in. How often that travels depends on the way the library takes: a
        ring of P processes sends (P - 1) / P of it twice for "allreduce", P - 1 times all of it for
        "allgather".
    """

    kind: str
    numbers: int
    bytes: int


@contextmanager
def messages() -> Iterator[list[Message]]:
    """Count the collective calls of this process, whoever makes them, as long as the block lasts.

    ``with messages() as sent: ...`` fills the list ``sent``, in the order of the calls. A layer of
    C features, synchronised, sends 2C + 1 numbers forward and 2C backward.

    Computing is slower meanwhile: measure time outside.

    Returns
    -------
    context manager of list of Message
    """
    with _Counting() as mode:
        yield mode.sent


class _Counting(TorchDispatchMode):
    """Sees each operation that torch runs, those of backward passes and of DDP's reducer too."""

    def __init__(self):
        super().__init__()
        self.sent = []

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if call.namespace == "c10d":
            self.sent.append(_message(call, {**_named(call, args), **kwargs}))
        return call(*args, **kwargs)


def _named(call, args):
    names = [argument.name for argument in call._schema.arguments]
    return dict(zip(names, args, strict=False))


def _message(call, given):
    kind = call._schema.name.removeprefix("c10d::").strip("_")
    inputs = [value for name, value in given.items() if name.startswith("input")]
    handed = inputs or [value for name, value in given.items() if name.startswith("tensor")]
    tensors = [leaf for leaf in tree_leaves(handed) if isinstance(leaf, torch.Tensor)]
    if kind.endswith("barrier"):
        tensors = []
    numbers = [tensor.numel() for tensor in tensors]
    sizes = [tensor.element_size() for tensor in tensors]
    return Message(kind, sum(numbers), sum(map(operator.mul, numbers, sizes)))
