"""The loss of a network and its gradient, along that gradient.

Sources: Santurkar et al. (2018), section 4; Li et al. (2018) for weights in units of their length.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from torch.nn.functional import cross_entropy

from bncore import arguments as check
from bncore import tensors
from bncore.explanations import _models

UNITS = ("absolute", "relative")


class Landscape(NamedTuple):
    """The loss of a network along its gradient.

    Attributes
    ----------
    loss, slope : float
        Loss and length of the gradient where the path starts.
    distances : Float[ndarray, "steps"]
        How far each step went.
    losses : Float[ndarray, "steps"]
        Loss after each step.
    changes : Float[ndarray, "steps"]
        Length of the gradient's change after each step.
    """

    loss: float
    slope: float
    distances: Float[np.ndarray, "steps"]
    losses: Float[np.ndarray, "steps"]
    changes: Float[np.ndarray, "steps"]

    @property
    def smoothness(self) -> float:
        """Effective beta-smoothness: the largest change of the gradient a unit of distance."""
        return float((self.changes / self.distances).max())


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weight matrices and filters of a network by name: parameters with at least two axes.

    Frozen ones are held, as biases are, and left out.

    Raises
    ------
    TypeError
        If model is not a module with real parameters.
    """
    _models.check_model(model)
    return {name: p for name, p in model.named_parameters() if p.ndim >= 2 and p.requires_grad}


def unit_lengths(weight: torch.Tensor | np.ndarray | check.Listed) -> torch.Tensor:
    """Length of each unit's weights, shaped to divide them; a unit is an index of the first axis.

    Raises
    ------
    TypeError
        If weight holds no real numbers.
    ValueError
        If it has fewer than two axes, or a length is not finite in its dtype.
    """
    weight = tensors.tensor("weight", weight)
    if weight.ndim < 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected (units, *inputs)")
    flat = weight.detach().flatten(1).double()
    # Scaled first, so that no square leaves the range.
    largest = (
        flat.abs().amax(dim=1, keepdim=True) if flat.shape[1] else flat.new_zeros(len(flat), 1)
    )
    scaled = flat / torch.where(largest > 0, largest, 1.0)
    lengths = (largest * scaled.norm(dim=1, keepdim=True)).to(weight.dtype)
    if not lengths.isfinite().all():
        unit = int((~lengths.isfinite()).int().argmax())
        raise ValueError(
            f"weight[{unit}] has no length within {weight.dtype}, expected finite weights of "
            "moderate size"
        )
    return lengths.reshape(-1, *[1] * (weight.ndim - 1))


def along_gradient(
    model: nn.Module,
    x: tensors.Examples,
    y: _models.Targets,
    steps: Sequence[float],
    units: Literal["absolute", "relative"] = "absolute",
    *,
    loss: Callable = cross_entropy,
) -> Landscape:
    """Walk along the negative gradient of the weight matrices, and measure loss and gradient.

    All steps start from the same point, and where the model draws random numbers, all see the same
    ones. Biases, gamma, beta and frozen weights are held. Batch norms use the statistics of the
    batch; dropout is on where the model is in training mode, and a batch norm that is then in
    evaluation mode is frozen and stays so. With relative units each unit's weights are divided by
    their length at the start, so that no rescaling of a layer that leaves the loss as it is changes
    the landscape.

    Parameters
    ----------
    model : nn.Module
        It stays as it is.
    x, y : Tensor
        One batch, finite; or arrays or lists.
    steps : sequence of float
        Positive. Absolute: learning rates. Relative: lengths of the step over the length of all
        weights, both in units of the units' own lengths.
    units : {"absolute", "relative"}
    loss : callable
        From outputs and y to a scalar.

    Returns
    -------
    Landscape
        Not finite where a loss or a gradient is not.

    Raises
    ------
    TypeError
        If model is not a module with real parameters, x or y are not numbers, loss not callable, steps
        not a sequence, or a step not a real number.
    ValueError
        If x or y is empty or not finite, a step is not positive, units is unknown, the model has no
        weight matrix, the model or the loss cannot be applied, the loss is not a scalar, the
        gradient is zero, or, in relative units, a unit's weights are all zero.
    RuntimeError
        Under ``torch.inference_mode``, which takes no derivatives.

    References
    ----------
    Santurkar et al. (2018), Figure 4; Li et al. (2018) for the relative units.
    """
    steps = _steps(steps)
    _models.check_model(model)
    x, y = _models.batch(model, x, y)
    walker = _models.on_batches(copy.deepcopy(model))
    chosen = list(weights(walker).values())
    start, scales = [p.detach().clone() for p in chosen], unit_scales(walker, units)

    def measure():
        value, slopes = _slopes(walker, loss, x, y, chosen)
        return value.item(), [s * g for s, g in zip(scales, slopes, strict=True)]

    before, slope = measure()
    length = _length(slope)
    if length == 0:
        raise ValueError("the gradient is zero, expected a point with a slope to walk along")
    if units == "relative":
        whole = sum(len(p) for p in chosen) ** 0.5
        steps = [step * whole / length for step in steps]
    losses, changes = [], []
    for step in steps:
        with torch.no_grad():
            for p, origin, scale, g in zip(chosen, start, scales, slope, strict=True):
                p.copy_(origin - step * scale * g)
        value, after = measure()
        losses.append(value)
        changes.append(_length([a - b for a, b in zip(after, slope, strict=True)]))
    return Landscape(before, length, np.array(steps) * length, np.array(losses), np.array(changes))


def unit_scales(model: nn.Module, units: Literal["absolute", "relative"]) -> list[torch.Tensor]:
    """What one unit of length is for each weight matrix: 1, or the length of each unit's weights.

    Raises
    ------
    TypeError
        If model is not a module with real parameters.
    ValueError
        If units is unknown, the model has no weight matrix that is not frozen, or, in relative
        units, a unit's weights are all zero.
    """
    if units not in UNITS:
        raise ValueError(f"units is {units!r}, expected 'absolute' or 'relative'")
    chosen = weights(model)
    if not chosen:
        raise ValueError(
            "model has no weight matrix, expected a parameter with two axes or more, not frozen"
        )
    if units == "absolute":
        return [torch.ones((), dtype=p.dtype, device=p.device) for p in chosen.values()]
    scales = []
    for name, p in chosen.items():
        lengths = unit_lengths(p)
        if not lengths.all():
            unit = int((lengths.flatten() == 0).nonzero()[0, 0])
            raise ValueError(f"{name}[{unit}] is all zero, expected weights that have a length")
        scales.append(lengths)
    return scales


def _steps(steps):
    try:
        steps = list(steps)
    except TypeError:
        raise TypeError(
            f"steps is a {check.type_name(steps)}, expected a sequence of real numbers"
        ) from None
    if not steps:
        raise ValueError("steps is empty, expected at least one step")
    return [check.positive(f"steps[{i}]", step) for i, step in enumerate(steps)]


def _slopes(model, loss, x, y, chosen):
    """The loss and its gradients; torch's random state stays, so that every call sees the same."""
    devices = {p.device for p in chosen if p.device.type == "cuda"}
    with torch.enable_grad(), torch.random.fork_rng(devices=devices):
        value = _models.loss_of(loss, _models.outputs(model, x), y)
        if not value.requires_grad:
            return value, [torch.zeros_like(p) for p in chosen]
        return value, torch.autograd.grad(value, chosen, materialize_grads=True)


def _length(parts):
    """Of all parts together, scaled first, so that no square leaves the range."""
    parts = [part.double() for part in parts]
    largest = max((part.abs().max().item() for part in parts if part.numel()), default=0.0)
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * math.sqrt(sum(((part / largest) ** 2).sum().item() for part in parts))
