"""Which modules of a network are in training mode: batch norms apart from all others.

torch has one switch, ``training``. It says which statistics batch norms use, and also whether
dropout drops. Here the two are told apart, and a batch norm that its owner has frozen stays so::

    model.norm1.eval().requires_grad_(False)

Frozen is what is in evaluation mode within a model in training mode, and a batch norm that says so
itself by an attribute ``statistics_frozen``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm as InstanceNorm

Statistics = Literal["running", "batch"]


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a batch norm: one of torch's, or one that keeps a running mean itself.

    Others say so by an attribute ``is_batch_norm``. Instance norms are none.
    """
    if isinstance(module, InstanceNorm):
        return False
    kept = "running_mean" in dict(module.named_buffers(recurse=False))
    return isinstance(module, BatchNorm) or kept or getattr(module, "is_batch_norm", False)


def held(model: nn.Module) -> list[str]:
    """Names of the modules that stay in evaluation mode while the model trains.

    In a model in training mode those are all that are in evaluation mode now. In a model that is in
    evaluation mode as a whole, they are the batch norms whose parameters do not learn.
    """
    modules = list(model.named_modules())[1:]
    if model.training:
        return [name for name, module in modules if not module.training]
    names = []
    for name, module in modules:
        parameters = list(module.parameters())
        learns = any(parameter.requires_grad for parameter in parameters)
        if is_batch_norm(module) and not module.training and parameters and not learns:
            names.append(name)
    return names


def unfrozen(model: nn.Module) -> list[nn.Module]:
    """The batch norms whose statistics are not frozen.

    In a model in training mode those are all that are in it too; in a model that is in evaluation
    mode as a whole, all. One that says ``statistics_frozen`` is never among them.
    """
    return [
        module
        for module in model.modules()
        if is_batch_norm(module)
        and (module.training or not model.training)
        and not getattr(module, "statistics_frozen", False)
    ]


def prepare_training(model: nn.Module) -> None:
    """Put the model in training mode, but for the modules that are ``held``."""
    names = held(model)
    model.train()
    for name in names:
        model.get_submodule(name).training = False


def use_statistics(model: nn.Module, statistics: Statistics) -> None:
    """Put the model in the modes that ``evaluation`` has, and leave it so."""
    takes_part = set(unfrozen(model) if statistics == "batch" else [])
    for module in model.modules():
        module.training = module in takes_part


@contextmanager
def evaluation(model: nn.Module, statistics: Statistics = "running") -> Iterator[nn.Module]:
    """Run a model without training it; its modes and buffers come back as they were.

    Everything but the batch norms is in evaluation mode, whatever the statistics: dropout is off.

    Parameters
    ----------
    model : nn.Module
    statistics : {"running", "batch"}
        Which statistics batch norms use: those kept for inference, or those of the batch itself.
        A batch norm that is frozen keeps its own.

    Raises
    ------
    ValueError
        If statistics is neither.
    """
    if statistics not in ("running", "batch"):
        raise ValueError(f"statistics is {statistics!r}, expected 'running' or 'batch'")
    modes = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        use_statistics(model, statistics)
        with torch.no_grad():
            yield model
    finally:
        for module, mode in modes.items():
            module.training = mode
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
