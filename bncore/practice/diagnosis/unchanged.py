"""Look at a network and leave it, and all that is random, exactly as it was.

Buffers and other tensors of modules are lent as copies, so that the owner's are never written to.
Parameters are copied and written back; gradients are put aside.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

CONTAINERS = (dict, list, set)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Whatever is done to a model inside, and however it ends, the model is then what it was.

    That holds for modes, parameters, buffers, gradients, hooks, other attributes of its modules and
    what lists, dicts and sets among these hold, and for torch's, NumPy's and Python's random
    numbers. It takes memory for a second copy of the model's tensors.

    Yields
    ------
    list of (Tensor, Tensor)
        Each tensor that stands in, and the owner's, which keeps its values.
    """
    modules = list(model.modules())
    attributes = [(module, dict(vars(module))) for module in modules]
    contents = [
        (value, value.copy())
        for _, saved in attributes
        for value in saved.values()
        if isinstance(value, CONTAINERS)
    ]
    held = [(p, p.data, p.detach().clone()) for p in model.parameters()]
    gradients = [(p, p.grad) for p in model.parameters()]
    generators = [
        (value, value.get_state())
        for _, saved in attributes
        for value in saved.values()
        if isinstance(value, torch.Generator)
    ]
    lent = {}
    with random_state():
        try:
            for module in modules:
                for owner in (module._buffers, vars(module)):
                    for name, tensor in list(owner.items()):
                        if isinstance(tensor, torch.Tensor):
                            pair = lent.setdefault(id(tensor), (tensor.detach().clone(), tensor))
                            owner[name] = pair[0]
            for parameter, _ in gradients:
                parameter.grad = None
            yield list(lent.values())
        finally:
            for module, saved in attributes:
                now = vars(module)
                now.update(saved)
                for added in now.keys() - saved.keys():
                    del now[added]
            for value, saved in contents:
                _refill(value, saved)
            for tensor, data, values in held:
                if tensor.data_ptr() != data.data_ptr() or tensor.shape != data.shape:
                    tensor.data = data
                data.copy_(values)
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for generator, state in generators:
                generator.set_state(state)


@contextmanager
def random_state(*sources: object) -> Iterator[None]:
    """Draw the same random numbers inside at every call; those of outside go on as if unused.

    Generators that the sources have, such as a loader's or its sampler's, come back too.
    """
    generators = {}
    for source in sources:
        inside = getattr(source, "sampler", None), getattr(source, "batch_sampler", None)
        for owner in (source, *inside, getattr(inside[1], "sampler", None)):
            found = getattr(owner, "generator", None)
            if isinstance(found, torch.Generator):
                generators[found] = found.get_state()
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            torch.manual_seed(0)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            if mps is not None:
                torch.mps.set_rng_state(mps)
            for generator, state in generators.items():
                generator.set_state(state)


def _refill(value, saved):
    """Give a container its former contents, where they are no longer the same objects."""
    if isinstance(value, set):
        if value != saved:
            value.clear()
            value.update(saved)
        return
    now = list(value.items()) if isinstance(value, dict) else [(None, one) for one in value]
    then = list(saved.items()) if isinstance(saved, dict) else [(None, one) for one in saved]
    same = len(now) == len(then) and all(
        a[0] == b[0] and a[1] is b[1] for a, b in zip(now, then, strict=True)
    )
    if same:
        return
    value.clear()
    if isinstance(value, dict):
        value.update(saved)
    else:
        value.extend(saved)
