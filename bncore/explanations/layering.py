"""Which parameters of a network form a layer, in the order of a forward pass."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.func import functional_call

from bncore import arguments as check
from bncore import tensors
from bncore.explanations import _models

Layers = Mapping[str, Sequence[str]]


def layers_of(model: nn.Module, x: tensors.Examples) -> dict[str, list[str]]:
    """The trainable parameters of each layer, in the order in which a forward pass meets them.

    A module whose parameters include a matrix or a kernel begins a layer and names it; one that has
    vectors only, such as a normalisation, belongs to the layer before it, or to the first one.

    Parameters
    ----------
    model : nn.Module
        It stays as it is.
    x : Tensor
        A batch.

    Raises
    ------
    TypeError
        If model is not a module with real parameters, or x are not numbers.
    ValueError
        If x is empty or not finite, the model cannot be applied to it or has no trainable
        parameters, or one takes no part in the forward pass, or one is used more than once and so
        belongs to no single layer.
    """
    _models.check_model(model)
    x = _models.examples(model, x)
    owners = {
        module: (name, list(own))
        for name, module in model.named_modules(remove_duplicate=False)
        if (own := _own(name, module))
    }
    met = []
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: met.append(module))
        for module in owners
    ]
    try:
        with torch.no_grad():
            output(model, {}, x)
    finally:
        for hook in hooks:
            hook.remove()
    _check_forward_pass(owners, met, model)
    layers, waiting = {}, []
    for module in met:
        name, own = owners[module]
        if any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)):
            layers[name] = waiting + own
            waiting = []
        elif layers:
            layers[list(layers)[-1]] += own
        else:
            waiting += own
    return layers if layers else {owners[met[0]][0]: waiting}


def check_layers(layers: Layers, start: Mapping[str, torch.Tensor]) -> None:
    """Refuse layers that are not made of trainable parameters, each in one layer."""
    if not isinstance(layers, Mapping):
        raise TypeError(
            f"layers is a {check.type_name(layers)}, expected a mapping from each layer's name to "
            "the names of its parameters"
        )
    if not layers:
        raise ValueError("layers is empty, expected at least one layer")
    seen = set()
    for layer, names in layers.items():
        if isinstance(names, str) or not isinstance(names, Sequence) or not names:
            raise ValueError(
                f"layers[{layer!r}] is {names!r}, expected a sequence of at least one parameter name"
            )
        for name in names:
            if not isinstance(name, str) or name not in start:
                raise ValueError(
                    f"layers[{layer!r}] names {name!r}, expected one of the trainable parameters "
                    f"{', '.join(start)}"
                )
            if name in seen:
                raise ValueError(
                    f"layers[{layer!r}] names {name!r} again, expected it in one layer"
                )
            seen.add(name)


def output(model: nn.Module, parameters: Mapping[str, torch.Tensor], x: torch.Tensor):
    """The model's output for other parameters; its buffers and torch's random state stay."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = {value.device for value in model.parameters() if value.device.type == "cuda"}
    with torch.random.fork_rng(devices=devices):
        return _models.outputs(lambda x: functional_call(model, (parameters, buffers), (x,)), x)


def _own(name, module):
    prefix = f"{name}." if name else ""
    return [prefix + key for key, p in module.named_parameters(recurse=False) if p.requires_grad]


def _check_forward_pass(owners, met, model):
    if not owners:
        raise ValueError("model has no trainable parameters, expected at least one layer")
    names = dict(model.named_parameters(remove_duplicate=False))
    holders = {}
    for name, parameter in names.items():
        holders.setdefault(parameter, []).append(name)
    for shared in holders.values():
        if len(shared) > 1:
            raise ValueError(
                f"{' and '.join(shared)} are one parameter, expected each layer to have its own: "
                "pass layers to say where it belongs"
            )
    for module, (name, _) in owners.items():
        if met.count(module) != 1:
            times = "no part" if module not in met else f"part {met.count(module)} times"
            raise ValueError(
                f"{name or type(module).__name__} takes {times} in the forward pass, expected "
                "once: pass layers to say which parameters form a layer"
            )
