"""Put synchronised batch norms in the place of those of a network, and say which were left."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from bncore import arguments as check
from bncore.practice.distributed.synced import SyncedBatchNorm, checked_group

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, SyncedBatchNorm)


class Conversion(NamedTuple):
    """What became of one batch norm.

    Attributes
    ----------
    name : str
        As ``model.named_modules`` has it; "" where the model is itself a batch norm.
    was : str
        Its class before.
    left : str
        Why it was left as it was; empty where it is synchronised now.
    """

    name: str
    was: str
    left: str


class Converted(tuple[Conversion, ...]):
    """One ``Conversion`` for each batch norm of a network, in its order; printed, a table.

    Attributes
    ----------
    left : tuple of str
        The names of those that were left, each of which still normalises the part of its process.
    """

    @property
    def left(self) -> tuple[str, ...]:
        return tuple(one.name for one in self if one.left)

    def __str__(self) -> str:
        after = [f"left: {one.left}" if one.left else "synchronised" for one in self]
        names = [one.name or "(the model)" for one in self]
        rows = [
            ("layer", "was", "is"),
            *zip(names, [one.was for one in self], after, strict=True),
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    __repr__ = __str__


def convert(model: nn.Module, process_group: object | None = None) -> Converted:
    """Make the batch norms of a model ``SyncedBatchNorm``, in place.

    Each stays the object that it was: parameters, buffers, modes, ``requires_grad``, hooks and what
    ``freeze`` has done are kept, and so is an optimiser that was made before. Only its class
    changes. Those of torch are converted, its ``SyncBatchNorm`` too. Others are left, as nothing is
    known of what their own ``forward`` does, and so is what has no shape yet. The result names each,
    and why.

    Parameters
    ----------
    model : nn.Module
        Before ``DistributedDataParallel`` takes it.
    process_group : torch.distributed.ProcessGroup, optional
        Whose parts make the batch; by default those of all processes, or of the group that a
        synchronised batch norm has.

    Returns
    -------
    Converted
        What became of each batch norm; empty where the model has none.

    Raises
    ------
    TypeError
        If model is no module, or a ScriptModule, or process_group no group.
    ValueError
        If this process is not in process_group. The model then stays as it was.
    """
    # Not above: it takes the lab with it, for whose import each process would wait.
    from bncore.lab.modes import is_batch_norm

    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {check.type_name(model)}, expected a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model is a ScriptModule, expected the module that it was made from")
    group = checked_group(process_group)
    found = []
    for name, module in model.named_modules():
        if is_batch_norm(module):
            found.append(Conversion(name, type(module).__name__, _obstacle(module)))
            if not found[-1].left:
                _synchronise(module, group)
    return Converted(found)


def _synchronise(norm, group):
    norm.process_group = getattr(norm, "process_group", None) if group is None else group
    norm.__class__ = SyncedBatchNorm


def _obstacle(norm):
    """Why a batch norm is not converted; empty where it can be."""
    if any(is_lazy(value) for value in (*norm.parameters(), *norm.buffers())):
        return "it has met no batch yet, which gives it its shape"
    if type(norm) not in PLAIN:
        return "it is of a kind of its own"
    if "forward" in vars(norm):
        return "its forward was replaced"
    return ""
