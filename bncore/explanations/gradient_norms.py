"""Squared gradients at the linear layers of a network, for a white gradient at its output."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from torch.func import functional_call

from bncore import arguments as check
from bncore import tensors
from bncore.explanations import _models

FLOAT64 = np.finfo(np.float64)


class GradientNorms(NamedTuple):
    """Squared gradients of a random linear functional of a network's output.

    Attributes
    ----------
    signals : Float[ndarray, "layers"]
        Sum over batch and units of the squared gradient at the output of each linear layer.
    weights : Float[ndarray, "layers"]
        The same for its weights.
    """

    signals: Float[np.ndarray, "layers"]
    weights: Float[np.ndarray, "layers"]


def gradient_norms(model: nn.Module, x: tensors.Examples, seed: int = 0) -> GradientNorms:
    """Squared gradients at every linear layer, in the order in which the layers are called.

    The loss is the inner product of the network's output with a Gaussian matrix, so that what comes
    in from above is white and what is measured is the network alone. Model, batch and torch's random
    state stay as they are; frozen weights are measured like others.

    Parameters
    ----------
    model : nn.Module
        Uses batch statistics where it is in training mode. A layer without influence on the output,
        because its units are dead for one, has gradients of zero; but it must take part.
    x : Float[Tensor, "batch *features"]
        One batch, finite; or an array or a list.
    seed : int
        Of the Gaussian matrix; at least 0.

    Returns
    -------
    GradientNorms

    Raises
    ------
    TypeError
        If model is not a module with real parameters, x holds no real numbers, or seed is not an
        integer.
    ValueError
        If the model has no linear layer, calls none, or does not use what one returns; x is empty,
        not finite, or has no axis of features; the model cannot be applied to x, or returns
        anything but a tensor of finite floating-point numbers; seed is negative or not below 2^63;
        or a gradient leaves the range of its dtype.
    """
    _models.check_model(model)
    x = tensors.examples("x", x, model)
    if x.ndim < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (batch, *features)")
    seed = check.integer("seed", seed, least=0)
    if seed >= 2**63:
        raise ValueError(f"seed is {seed}, expected less than 2^63")
    names = {
        module: f"layer {name or type(module).__name__}"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    if not names:
        raise ValueError("model has no linear layer, expected at least one nn.Linear")
    parts = []

    def compare(layer, inputs):
        for given in inputs:
            autocast = torch.is_autocast_enabled(given.device.type)
            if given.shape[-1] != layer.in_features or (
                given.dtype != layer.weight.dtype and not autocast
            ):
                raise ValueError(
                    f"{names[layer]} receives {tuple(given.shape)} of {given.dtype}, expected "
                    f"(*batch, {layer.in_features}) of {layer.weight.dtype}"
                )

    def keep(layer, inputs, output):
        parts.append(_Part(names[layer], output, layer.weight))
        # What follows may change its input in place.
        return output.clone()

    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.inference_mode(False), torch.enable_grad():
        values = {
            n: p.detach().clone().requires_grad_(p.is_floating_point())
            for n, p in model.named_parameters()
        }
        values |= {n: buffer.clone() for n, buffer in model.named_buffers()}
        hooks = [layer.register_forward_pre_hook(compare) for layer in names]
        hooks += [layer.register_forward_hook(keep) for layer in names]
        try:
            # Without the cache a parametrised weight is another tensor each time it is read.
            with torch.random.fork_rng(devices=devices), nn.utils.parametrize.cached():
                y = _models.outputs(
                    lambda x: functional_call(model, values, (x,)), x.detach().clone()
                )
        finally:
            for hook in hooks:
                hook.remove()
        _check_output(y, parts)
        generator = torch.Generator().manual_seed(seed)
        white = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y)
        wanted = [part.output for part in parts] + [part.weight for part in parts]
        gradients = [None] * len(wanted)
        if y.requires_grad:
            gradients = torch.autograd.grad((white * y).sum(), wanted, allow_unused=True)
    return GradientNorms(*_squares(parts, gradients[: len(parts)], gradients[len(parts) :]).T)


class _Part(NamedTuple):
    """A linear layer as it takes part in the forward pass."""

    name: str
    output: torch.Tensor
    weight: torch.Tensor


def _check_output(y, parts):
    if not isinstance(y, torch.Tensor) or not y.is_floating_point() or not y.numel():
        what = f"a {check.type_name(y)}"
        if isinstance(y, torch.Tensor):
            what = f"{tuple(y.shape)} of {y.dtype}"
        raise ValueError(f"model returns {what}, expected one tensor of floating-point numbers")
    if not parts:
        raise ValueError(
            "model calls none of its linear layers, expected at least one to take part"
        )
    for name, value in [*((part.name, part.output) for part in parts), ("model", y)]:
        if not torch.isfinite(value).all():
            raise ValueError(
                f"{name} returns values that are not finite, expected finite ones: take fewer "
                f"layers, smaller weights{_or_float64(value.dtype)}"
            )


def _squares(parts, signals, weights):
    """Squared signals and weight gradients, a row a layer; layers near the output are checked first."""
    for part, *pair in zip(parts, signals, weights, strict=True):
        if any(gradient is None for gradient in pair):
            raise ValueError(
                f"the output of model does not depend on {part.name}, which it calls, expected it "
                "to use what every linear layer returns"
            )
    met = [_largest(tensor) for tensor in (*(part.output for part in parts), *signals)]
    faintest = min(filter(None, met), default=1.0)
    rows = [
        [
            _square(f"the output of {part.name}", signal, faintest),
            _square(f"the weights of {part.name}", weight, faintest),
        ]
        for part, signal, weight in reversed(list(zip(parts, signals, weights, strict=True)))
    ]
    return np.array(rows[::-1])


def _square(where, gradient, faintest):
    """Its squared length. Refuse what has left the range of its dtype, or seems to have."""
    largest, square = _largest(gradient), gradient.double().square().sum().item()
    tiny = float(torch.finfo(gradient.dtype).tiny)
    fades = 0 < largest < max(tiny, FLOAT64.tiny**0.5)
    # A zero may be meant. Underflow makes it only from factors whose product is below tiny.
    vanished = largest == 0 and faintest < tiny**0.5
    if fades or vanished or not np.isfinite(square):
        raise ValueError(
            f"the gradient at {where} leaves the range of {gradient.dtype}: its largest entry is "
            f"{largest:.3g}, and signals are as small as {faintest:.3g}, expected fewer layers or "
            f"weights of another size{_or_float64(gradient.dtype)}"
        )
    return square


def _largest(tensor):
    return tensor.detach().abs().max().item() if tensor.numel() else 0.0


def _or_float64(dtype):
    return "" if dtype == torch.float64 else ", or model and x in float64"
