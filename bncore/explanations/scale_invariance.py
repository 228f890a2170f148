"""Scale invariance: weights whose length the loss does not see, and how far epsilon breaks it.

A loss L is scale-invariant in w if L(a w) = L(w) for every a > 0. Batch norm makes it so in the
weights of each unit that it normalises, up to epsilon. Then the gradient is orthogonal to w, and
the length of w is the clock of its direction: ``weight_length`` has what training does to it, and
``effective_rate`` the clock.
Ioffe and Szegedy (2015), section 3.3.
"""

import copy
import math

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.utils._pytree import tree_leaves

from bncore import arguments as check
from bncore import tensors
from bncore.explanations import _models
from bncore.explanations.weight_length import Number, within_floats
from bncore.lab.modes import evaluation

Units = Real[torch.Tensor, "units *inputs"] | Real[np.ndarray, "units *inputs"] | check.Listed

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def shrinkage(variance: Number, eps: Number) -> float:
    """The deviation of normalised values, sqrt(variance / (variance + eps)); 1 without epsilon.

    Raises
    ------
    TypeError
        If an argument is not a real number.
    ValueError
        If the variance is not positive, or eps is negative.
    """
    variance, eps = check.positive("variance", variance), check.nonnegative("eps", eps)
    deviation = math.sqrt(variance)
    return deviation / math.hypot(deviation, math.sqrt(eps))


def invariance_defect(scale: Number, variance: Number, eps: Number) -> float:
    """Relative change of a unit's normalised values when its weights are multiplied by a scale.

    BN(a w) = sign(a) s(a^2 variance) / s(variance) BN(w), where s is the shrinkage; the defect is
    the distance of this factor from 1: 0 for a > 0 without epsilon, 2 for a < 0 without epsilon.

    Parameters
    ----------
    scale : float
        The factor a, any number but 0.
    variance : float
        Of the unit's values before scaling.
    eps : float
        Added to the variance.

    Raises
    ------
    TypeError
        If an argument is not a real number.
    ValueError
        If the scale is 0 or not finite, the variance is not positive, or eps is negative.
    """
    scale = check.number("scale", scale)
    if scale == 0 or not math.isfinite(scale):
        raise ValueError(f"scale is {scale}, expected a finite number other than 0")
    before = shrinkage(variance, eps)
    after = 1 / math.hypot(1, math.sqrt(eps) / math.sqrt(variance) / abs(scale))
    return abs(math.copysign(after / before, scale) - 1)


def breaking_scale(variance: Number, eps: Number) -> float:
    """The factor sqrt(eps / variance) at which epsilon equals the variance of the scaled values.

    Weights far longer than this factor times the given ones are scale-invariant; far shorter ones
    make batch norm a linear map with the slope 1 / sqrt(eps).

    Raises
    ------
    TypeError
        If an argument is not a real number.
    ValueError
        If the variance is not positive, eps is negative, or the factor leaves the range of floats.
    """
    variance, eps = check.positive("variance", variance), check.nonnegative("eps", eps)
    scale = math.sqrt(eps) / math.sqrt(variance)
    return within_floats("variance", variance, scale) if eps else 0.0


def radial_cosines(weight: Units, gradient: Units) -> Float[torch.Tensor, "units"]:
    """The cosine between the weights of each unit and their gradient; 0 where the loss is invariant.

    Parameters
    ----------
    weight, gradient : Float[Tensor, "units *inputs"]
        A unit's weights are the entries of one index on the first axis, as torch has them for
        linear layers and convolutions.

    Returns
    -------
    Float[Tensor, "units"]
        0 for a unit whose gradient is 0. Computed in float64, returned in the type of weight.

    Raises
    ------
    TypeError
        If an argument holds no real numbers.
    ValueError
        If the shapes differ or have no axis of units, a value is not finite, or the weights of a
        unit are all 0.
    """
    weight = tensors.tensor("weight", weight)
    gradient = tensors.tensor("gradient", gradient, device=weight.device)
    if weight.ndim < 2:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, expected (units, *inputs): give that of a "
            "single unit an axis with weight[None]"
        )
    if weight.shape != gradient.shape:
        raise ValueError(
            f"gradient has shape {tuple(gradient.shape)}, expected that of weight, "
            f"{tuple(weight.shape)}"
        )
    dtype = weight.dtype
    tensors.finite("weight", weight)
    tensors.finite("gradient", gradient)
    weight, gradient = (_directions(value.detach().double()) for value in (weight, gradient))
    if not (lengths := weight.norm(dim=1)).all():
        unit = int((lengths == 0).int().argmax())
        raise ValueError(f"weight[{unit}] is 0, expected a unit with a direction")
    return (weight * gradient).sum(dim=1).to(dtype)


def invariant_weights(model: nn.Module, x: tensors.Examples) -> dict[str, nn.Parameter]:
    """The weights that a network feeds straight into a batch norm, by their names.

    A forward pass shows which linear layer's or convolution's output is the input of a batch norm
    that uses the statistics of the batch; and another pass, with every unit of such a weight scaled
    and eps away, that the network does not see their length, as it does where the layer's output
    goes elsewhere too. In training mode the loss does not see it either, if eps is negligible.

    Parameters
    ----------
    model : nn.Module
        Comes back as it was.
    x : Float[Tensor, "batch *features"]
        A batch to run it on, at least two examples.

    Raises
    ------
    TypeError
        If model is not a module with real parameters, or x holds no real numbers.
    ValueError
        If x has fewer than two examples or the model cannot be applied to it; or no batch norm of
        the model follows a linear layer or a convolution unit by unit: one behind a linear layer on
        more than two axes normalises other things than units, and a frozen one does not normalise.
    """
    _models.check_model(model)
    x = _models.examples(model, x)
    if len(x) < 2:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, expected a batch of at least two examples: the values of "
            "one have no variance"
        )
    with evaluation(model, "batch"):
        found = _unseen(model, x, _before_batch_norms(model, x))
    if not found:
        raise ValueError(
            "the model has no batch norm right after a linear layer or a convolution, expected at "
            "least one"
        )
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return {name: parameters[name] for name in found}


def _directions(rows):
    """Each row of a tensor over its length, or 0 where it is 0; no square leaves the range."""
    rows = rows.flatten(1)
    if rows.shape[1] == 0:
        return rows
    rows = rows / _or_one(rows.abs().amax(dim=1, keepdim=True))
    return rows / _or_one(rows.norm(dim=1, keepdim=True))


def _or_one(lengths):
    return torch.where(lengths > 0, lengths, 1.0)


def _before_batch_norms(model, x):
    """Names of the weights whose layer's output is the very input of a batch norm on batches."""
    names = {module: name for name, module in model.named_modules()}
    outputs, found = {}, []

    def remember(layer, inputs, output):
        outputs[id(output)] = layer, output  # held, so that no later tensor gets this identity

    def look_back(norm, inputs):
        layer, _ = outputs.get(id(inputs[0]), (None, None))
        # Features are on axis 1, where a linear layer has its units only if there are two axes.
        if layer is None or not norm.training:
            return
        if inputs[0].ndim == 2 or not isinstance(layer, nn.Linear):
            found.append(f"{names[layer]}.weight" if names[layer] else "weight")

    hooks = [m.register_forward_hook(remember) for m in names if isinstance(m, WEIGHTED)]
    hooks += [m.register_forward_pre_hook(look_back) for m in names if isinstance(m, BatchNorm)]
    try:
        _models.outputs(model, x)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(found))


def _unseen(model, x, names):
    """Those of the weights whose units can be scaled, each by its own factor, and nothing is seen."""
    free = copy.deepcopy(model).double()
    for module in free.modules():
        if isinstance(module, BatchNorm):
            module.eps = 1e-30
    x = x.double() if x.is_floating_point() else x
    parameters = dict(free.named_parameters(remove_duplicate=False))
    plain, found = _values(free, x), []
    for name in names:
        weight = parameters.get(name)
        if weight is None:  # a parametrised weight is made anew at each call
            continue
        factors = torch.tensor([2.0, 4.0]).repeat(len(weight))[: len(weight)]
        factors = factors.to(weight).reshape(-1, *[1] * (weight.ndim - 1))
        weight.mul_(factors)
        scaled = _values(free, x)
        weight.div_(factors)
        # Powers of two round nothing; a bias before the batch norm leaves some roundings.
        size = torch.nan_to_num(plain).abs().max()
        if torch.allclose(scaled, plain, rtol=0, atol=1e-6 * size.item(), equal_nan=True):
            found.append(name)
    return found


def _values(model, x):
    """All numbers that the model returns, with the same chance each time."""
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        found = tree_leaves(_models.outputs(model, x))
    numbers = [v.double().flatten() for v in found if isinstance(v, torch.Tensor)]
    return torch.cat(numbers)
