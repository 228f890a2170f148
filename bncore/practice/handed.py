"""What a batch hands to a network: its inputs, and the classes that they are of.

A batch is an input, or a tuple or list that begins with one, as a ``DataLoader`` gives it. An input is

- a tensor, which goes to the network as it is,
- a NumPy array or lists of numbers, which become a tensor in the network's float dtype,
- a list of tensors, such as images that differ in size, or
- a dict of keyword arguments.

Tensors move to the device of the network.
"""

from collections.abc import Mapping
from itertools import chain
from numbers import Real

import numpy as np
import torch
from torch import nn

from bncore import tensors
from bncore.arguments import type_name

Arguments = tuple[tuple, dict]
Batch = torch.Tensor | np.ndarray | Mapping | list | tuple


def arguments(batch: object, model: nn.Module, number: int) -> Arguments:
    """What the batch of this number hands to the model: (positional, keyword) arguments, where it is."""
    where = f"batches[{number}]"
    first = isinstance(batch, tuple) or not _is_numbers(batch)
    if isinstance(batch, tuple | list) and batch and first:
        where, batch = f"{where}[0]", batch[0]
    if isinstance(batch, np.ndarray) or _is_numbers(batch):
        return (tensors.like(where, batch, model),), {}
    if isinstance(batch, Mapping):
        found = (), dict(batch)
    elif isinstance(batch, torch.Tensor) or _is_tensors(batch):
        found = (batch,), {}
    else:
        raise TypeError(
            f"{where} is a {type_name(batch)}, expected a tensor, an array, a list of tensors or of "
            "numbers, or a dict of keyword arguments; a batch is that, or a tuple or list that begins "
            "with it"
        )
    place = next(chain(model.parameters(), model.buffers()), None)
    if place is None:
        return found
    positional, keywords = found
    return tuple(_moved(one, place.device) for one in positional), _moved(keywords, place.device)


def apply(model: nn.Module, given: Arguments, number: int, caller: str) -> object:
    """What the model returns for the batch of this number; its errors say who applied it to what."""
    positional, keywords = given
    try:
        return model(*positional, **keywords)
    except Exception as error:
        shapes = ", ".join(str(tuple(one.shape)) for one in leaves(given))
        error.add_note(f"{caller} applied the model to batch {number}, of shape {shapes}")
        raise


def labels(batch: object) -> torch.Tensor | None:
    """The classes that a batch brings, as its second entry or under "labels"; None without any."""
    if isinstance(batch, Mapping):
        found = batch.get("labels")
    else:
        found = batch[1] if isinstance(batch, tuple | list) and len(batch) > 1 else None
    whole = isinstance(found, torch.Tensor) and found.ndim == 1 and found.dtype == torch.int64
    return found if whole else None


def examples(given: Arguments) -> int:
    """How many examples inputs hold."""
    positional, _ = given
    if positional and not isinstance(positional[0], torch.Tensor):
        return len(positional[0])
    return next((len(one) for one in leaves(given) if one.ndim), 0)


def leaves(value: object) -> list[torch.Tensor]:
    """The tensors in a value: itself, or those in tuples, lists, dicts and dataclasses."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        value = list(vars(value).values())
    if isinstance(value, list | tuple):
        return [leaf for one in value for leaf in leaves(one)]
    return []


def finite(value: object) -> bool:
    """Whether all real numbers in it are."""
    return all(torch.isfinite(one).all() for one in leaves(value) if one.is_floating_point())


def _is_numbers(value):
    """Whether it is a number, or lists of numbers."""
    while isinstance(value, tuple | list) and value:
        value = value[0]
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_tensors(value):
    """Whether it is a list of tensors, such as images that differ in size."""
    return (
        isinstance(value, tuple | list)
        and bool(value)
        and all(isinstance(one, torch.Tensor) for one in value)
    )


def _moved(value, device):
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(one, device) for key, one in value.items()}
    return [_moved(one, device) for one in value] if _is_tensors(value) else value
