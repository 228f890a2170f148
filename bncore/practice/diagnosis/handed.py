"""What a batch hands to a network: its inputs, and the classes that they are of."""

import itertools
from collections.abc import Mapping

import torch
from torch import nn

from bncore.arguments import type_name
from bncore.practice.diagnosis.origins import leaves

Arguments = tuple[tuple, dict]


def arguments(batch: object, model: nn.Module, number: int) -> Arguments:
    """What a batch hands to the model: (positional, keyword) arguments, where the model is."""
    where = f"batch {number} of batches"
    if isinstance(batch, tuple | list) and batch:
        where, batch = f"the first entry of {where}", batch[0]
    if isinstance(batch, Mapping):
        found = (), dict(batch)
    elif isinstance(batch, torch.Tensor) or _tensors(batch):
        found = (batch,), {}
    else:
        raise TypeError(
            f"{where} is a {type_name(batch)}, expected a tensor, a list of tensors, or a dict of keyword "
            "arguments; a batch is that, or a tuple or list that begins with it"
        )
    place = next(itertools.chain(model.parameters(), model.buffers()), None)
    if place is None:
        return found
    positional, keywords = found
    return tuple(_moved(one, place.device) for one in positional), _moved(keywords, place.device)


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


def finite(value: object) -> bool:
    """Whether all real numbers in it are."""
    return all(torch.isfinite(one).all() for one in leaves(value) if one.is_floating_point())


def _tensors(value):
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
    return [_moved(one, device) for one in value] if _tensors(value) else value
