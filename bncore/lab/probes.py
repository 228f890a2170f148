"""What to measure in a network while it trains.

A probe is a function of (model, split) that returns a number or an array and leaves the model as
it was. ``training.train`` calls the probes that it is given.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from bncore.lab.data import Split

Probe = Callable[[nn.Module, Split], float | Float[np.ndarray, "..."]]


@contextmanager
def evaluation(model: nn.Module, statistics: Literal["running", "batch"] = "running") -> Iterator:
    """Run a model without training it; its modes and buffers come back as they were.

    Parameters
    ----------
    model : nn.Module
    statistics : {"running", "batch"}
        Which statistics batch norms use: those kept for inference or those of the batch itself.

    Raises
    ------
    ValueError
        If statistics is neither.
    """
    if statistics not in ("running", "batch"):
        raise ValueError(f"statistics is {statistics!r}, expected 'running' or 'batch'")
    modes = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train(statistics == "batch")
    try:
        with torch.no_grad():
            yield model
    finally:
        for module, mode in modes.items():
            module.training = mode
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


def test_accuracy(model: nn.Module, split: Split) -> float:
    """Fraction of the test set that the model classifies correctly, with running statistics."""
    with evaluation(model):
        return (model(split.x_test).argmax(1) == split.y_test).double().mean().item()


test_accuracy.__test__ = False


def inputs_of(
    model: nn.Module,
    layers: Sequence[str],
    x: Float[torch.Tensor, "batch *features"],
    statistics: Literal["running", "batch"] = "running",
) -> dict[str, Float[np.ndarray, "batch *_"]]:
    """What reaches each of the named modules when the model sees x.

    Parameters
    ----------
    model : nn.Module
    layers : sequence of str
        Names as ``model.named_modules`` has them, e.g. ``"activation3"``.
    x : Float[Tensor, "batch *features"]
    statistics : {"running", "batch"}
        As in ``evaluation``.

    Raises
    ------
    ValueError
        If the model has no module of that name.
    """
    modules, seen = dict(model.named_modules()), {}
    for layer in layers:
        if layer not in modules:
            known = ", ".join(name for name in modules if name)
            raise ValueError(f"layer {layer!r} is not in the model, expected one of {known}")

    def keep(layer):
        def hook(module, inputs):
            seen[layer] = inputs[0].detach().numpy(force=True).copy()

        return hook

    hooks = [modules[layer].register_forward_pre_hook(keep(layer)) for layer in layers]
    try:
        with evaluation(model, statistics):
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def percentiles(
    layer: str,
    unit: int,
    q: Sequence[float] = (15, 50, 85),
    statistics: Literal["running", "batch"] = "batch",
) -> Probe:
    """A probe: percentiles, over the training set, of what reaches one unit of a module.

    Parameters
    ----------
    layer : str
        Name of the module; ``"activation3"`` measures the inputs of the third non-linearity.
    unit : int
        Index into the module's features.
    q : sequence of float
        Which percentiles, each in [0, 100].
    statistics : {"running", "batch"}
        As in ``evaluation``; with ``"batch"`` the whole training set is one batch.

    References
    ----------
    Ioffe and Szegedy (2015), Figure 1(b, c).
    """

    def probe(model, split):
        return np.percentile(
            inputs_of(model, [layer], split.x_train, statistics)[layer][:, unit], q
        )

    return probe
