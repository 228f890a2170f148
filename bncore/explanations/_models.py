"""Checks of a model, its batch and its loss, shared by the measures of this wing.

What torch refuses somewhere inside a model becomes an error that names the argument. Weights that are
not finite pass: a network may have diverged, and then so has what is measured.
"""

import torch
from torch import nn

from bncore.arguments import type_name

REFUSALS = (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)


def check_model(model):
    """Refuse anything but a module whose parameters have shapes and are real."""
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type_name(model)}"
        raise TypeError(f"model is {what}, expected an nn.Module")
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(
                f"model's {name} has no shape yet, expected one: apply the model to a batch first"
            )
        if parameter.is_complex():
            raise TypeError(f"model's {name} is complex, expected real parameters")


def check_batch(x, y):
    """Refuse anything but two tensors as ``check_tensor`` wants them, where torch differentiates."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "torch.inference_mode is on, expected it off: derivatives are measured here"
        )
    check_tensor("x", x)
    check_tensor("y", y)


def check_tensor(name, value):
    """Refuse anything but a tensor with at least one example and without NaN and infinity."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} is a {type_name(value)}, expected a tensor")
    if value.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(value.shape)}, expected at least one example")
    bad = ~torch.isfinite(value)
    if bad.any():
        first = tuple(bad.nonzero()[0].tolist())
        where = ", ".join(map(str, first))
        raise ValueError(f"{name}[{where}] is {value[first].item()}, expected finite values only")


def outputs(apply, x):
    """Return ``apply(x)``; where torch refuses, say what the model was applied to."""
    try:
        return apply(x)
    except torch.OutOfMemoryError:
        raise
    except REFUSALS as error:
        raise ValueError(
            f"model cannot be applied to x of shape {tuple(x.shape)} and {x.dtype}: "
            f"{first_line(error)}"
        ) from error


def loss_of(loss, found, y):
    """The loss of outputs as a tensor without axes. Refuse what is not a function to one number."""
    if not callable(loss):
        raise TypeError(f"loss is a {type_name(loss)}, expected a function of outputs and y")
    try:
        value = loss(found, y)
    except torch.OutOfMemoryError:
        raise
    except REFUSALS as error:
        raise ValueError(
            f"loss cannot be applied to the model's outputs, {_described(found)}, and y, "
            f"{_described(y)}: {first_line(error)}"
        ) from error
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise ValueError(f"loss returns {_described(value)}, expected a tensor with one element")
    return value.reshape(())


def _described(value):
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"a {type_name(value)}"


def first_line(error):
    """The first line of an error's text, or its name where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
