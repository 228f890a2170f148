"""Checks of a model, its batch and its loss, shared by the measures of this wing.

What torch refuses somewhere inside a model becomes an error that names the argument. Weights that are
not finite pass: a network may have diverged, and then so has what is measured.
"""

import numpy as np
import torch
from torch import nn

from bncore import tensors
from bncore.arguments import Listed, type_name
from bncore.lab.modes import is_batch_norm

Targets = torch.Tensor | np.ndarray | Listed

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


def batch(model, x, y):
    """The examples and the targets of one batch, as the model takes them, where torch differentiates."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "torch.inference_mode is on, expected it off: derivatives are measured here"
        )
    x = examples(model, x)
    y = tensors.targets("y", y, x.dtype if x.is_floating_point() else None, x.device)
    if y.numel() == 0:
        raise ValueError(f"y has shape {tuple(y.shape)}, expected at least one example")
    return x, y


def examples(model, x):
    """What the model is to see: finite floats, or integers that stay what they are for an embedding."""
    embeds = any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in model.modules())
    if embeds and isinstance(x, torch.Tensor) and not x.is_floating_point() and x.numel():
        return tensors.targets("x", x)
    return tensors.examples("x", x, model)


def on_batches(model):
    """The model with batch norms that use the statistics of the batch; other modules stay as they are.

    In a model in training mode a batch norm in evaluation mode is frozen, and stays so.
    """
    if not model.training:
        for module in model.modules():
            module.training = module.training or is_batch_norm(module)
    return model


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
