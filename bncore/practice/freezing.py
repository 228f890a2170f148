"""Freeze the batch norms of a network: their statistics, their scale and shift, or both.

Frozen statistics make a batch norm the affine map y = scale * x + shift of ``forward_fixed``, whose
backward pass is ``backward_fixed``: no value depends on another example. torch's own way,
``norm.eval()``, lasts until the next ``model.train()``, which training loops call every epoch.
What is frozen here stays so.
"""

import copy
import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bncore import arguments as check
from bncore.lab.modes import is_batch_norm

__all__ = ["Frozen", "Layer", "freeze", "frozen", "unfreeze"]


class Layer(NamedTuple):
    """What of one batch norm is frozen.

    Attributes
    ----------
    name : str
        As ``model.named_modules`` has it.
    statistics : str
        "frozen"; "moving"; "until train()", in evaluation mode within a model in training mode, which
        the next ``model.train()`` undoes; "fixed", of a layer that never moves them, as other
        libraries have; or "none", where the layer keeps none.
    affine : str
        "frozen"; "learning"; "half", where only one of scale and shift learns; "fixed", where they
        are buffers; or "none".
    """

    name: str
    statistics: str
    affine: str


class Frozen(tuple[Layer, ...]):
    """One ``Layer`` for each batch norm of a network, in its order; printed, a table."""

    def __str__(self) -> str:
        rows = [("layer", "statistics", "affine"), *self]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    __repr__ = __str__


def freeze(
    model: nn.Module,
    statistics: bool = True,
    affine: bool = True,
    layers: Sequence[str] | None = None,
) -> Frozen:
    """Freeze batch norms of a model in place, so that ``model.train()`` does not undo it.

    With frozen statistics a batch norm stays in evaluation mode: it normalises by its running
    statistics and does not move them. With a frozen scale and shift (``affine``) these need no
    gradient, and lose the one that they have, by which an optimiser would still move them.

    It lasts through ``copy.deepcopy``, pickling and ``load_state_dict``. A state dict holds values
    alone, so a network that loads one is as frozen as it was before. A layer that is replaced, as by
    ``SyncBatchNorm.convert_sync_batchnorm``, is not: replace first, then freeze.

    Parameters
    ----------
    model : nn.Module
        With batch norms in it, of torch or of one's own (``bncore.lab.modes.is_batch_norm``).
    statistics, affine : bool
        What to freeze. What is left out stays as it is.
    layers : sequence of str, optional
        Names of batch norms, or of modules whose batch norms are meant; by default all.

    Returns
    -------
    Frozen
        What ``frozen`` says afterwards.

    Raises
    ------
    TypeError
        If model is no module, statistics or affine no bool, or layers no sequence of names.
    ValueError
        If neither is to be frozen, layers is empty, a name is not in the model or has no batch norm, or statistics
        are to be frozen that a layer does not keep. The model then stays as it was.
    """
    norms = _chosen(model, statistics, affine, layers, "freeze")
    if statistics:
        for name, norm in norms.items():
            if not _keeps_statistics(norm):
                raise ValueError(
                    f"batch norm {name!r} keeps no running statistics, so that it normalises by the "
                    "batch's in evaluation mode too, expected one with track_running_stats=True; "
                    "leave it out of layers"
                )
    for norm in norms.values():
        if statistics:
            norm.statistics_frozen = True
            norm.train = functools.partial(_stay_in_evaluation, norm)
            norm.train()
        if affine:
            for parameter in norm.parameters(recurse=False):
                parameter.requires_grad_(False)
                parameter.grad = None
    return frozen(model)


def unfreeze(
    model: nn.Module,
    statistics: bool = True,
    affine: bool = True,
    layers: Sequence[str] | None = None,
) -> Frozen:
    """Undo ``freeze``, wherever it was done: batch norms move and learn again.

    A batch norm whose statistics thaw takes the mode of the model.

    Parameters
    ----------
    model, statistics, affine, layers
        As in ``freeze``.

    Returns
    -------
    Frozen
        What ``frozen`` says afterwards.

    Raises
    ------
    TypeError, ValueError
        As ``freeze``, but that a layer may keep no statistics.
    """
    for norm in _chosen(model, statistics, affine, layers, "unfreeze").values():
        if statistics:
            vars(norm).pop("statistics_frozen", None)
            vars(norm).pop("train", None)
            norm.train(model.training or norm is model)
        if affine:
            norm.requires_grad_(True)
    return frozen(model)


def frozen(model: nn.Module) -> Frozen:
    """Say of each batch norm of a model what is frozen, by ``freeze`` or by other means.

    Parameters
    ----------
    model : nn.Module

    Returns
    -------
    Frozen
        Empty where the model has no batch norm.

    Raises
    ------
    TypeError
        If model is no module.
    """
    return Frozen(
        Layer(name, _of_statistics(norm, model), _of_affine(norm)) for name, norm in _norms(model)
    )


def _stay_in_evaluation(norm: nn.Module, mode: bool = True) -> nn.Module:
    """What ``train`` and ``eval`` do to a batch norm with frozen statistics."""
    norm.training = False
    return norm


def _norms(model) -> Iterator[tuple[str, nn.Module]]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {check.type_name(model)}, expected a torch.nn.Module")
    return ((name, module) for name, module in model.named_modules() if is_batch_norm(module))


def _chosen(model, statistics, affine, layers, what):
    """The batch norms that are meant, by name."""
    norms = dict(_norms(model))
    for name, value in (("statistics", statistics), ("affine", affine)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} is a {check.type_name(value)}, expected True or False")
    if not (statistics or affine):
        raise ValueError(f"statistics and affine are False, expected something to {what}")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model is a ScriptModule, expected the module that it was made from")
    if layers is None:
        layers = [""]
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise TypeError(f"layers is a {check.type_name(layers)}, expected a list of names")
    if not layers:
        raise ValueError("layers is empty, expected at least one name; leave it out to mean all")
    modules = dict(model.named_modules(remove_duplicate=False))
    chosen = {}
    for layer in layers:
        if not isinstance(layer, str):
            raise TypeError(f"layers holds a {check.type_name(layer)}, expected names")
        if layer not in modules:
            known = ", ".join(norms) or "none, as the model has no batch norm"
            raise ValueError(
                f"layers has {layer!r}, which is not in the model, expected of {known}"
            )
        inside = set(modules[layer].modules())
        found = {name: norm for name, norm in norms.items() if norm in inside}
        if not found:
            named = f"layers has {layer!r}, which has" if layer else "model has"
            raise ValueError(f"{named} no batch norm in it, expected at least one to {what}")
        chosen |= found
    return chosen


def _keeps_statistics(norm):
    return getattr(norm, "running_mean", None) is not None


def _of_statistics(norm, model):
    if not _keeps_statistics(norm):
        return "none"
    if getattr(norm, "statistics_frozen", False):
        return "frozen"
    if not isinstance(norm, BatchNorm) and _never_moves(norm):
        return "fixed"
    return "until train()" if model.training and not norm.training else "moving"


def _of_affine(norm):
    learns = [parameter.requires_grad for parameter in norm.parameters(recurse=False)]
    if not learns:
        held = dict(norm.named_buffers(recurse=False))
        return "fixed" if {"weight", "bias"} & held.keys() else "none"
    return "learning" if all(learns) else "half" if any(learns) else "frozen"


def _never_moves(norm):
    """Whether a copy in training mode keeps its running mean: tried, as its class does not tell."""
    mean, features = norm.running_mean, norm.running_mean.numel()
    for axes in range(4):
        shape = (4, features, *(2,) * axes)
        count = math.prod(shape)
        x = torch.arange(1.0, count + 1, dtype=mean.dtype, device=mean.device).reshape(shape)
        # Without hooks, which are the owner's; and a layer may refuse a number of axes.
        with suppress(Exception), torch.no_grad(), torch.random.fork_rng(devices=[]):
            tried = copy.deepcopy(norm)
            tried.training = True
            tried.forward(x)
            return torch.equal(tried.running_mean, mean)
    return False
