"""Scale invariance: what training does to the length of weights that the loss does not see.

A loss L is scale-invariant in w if L(a w) = L(w) for every a > 0. Batch norm makes it so in the
weights of each unit that it normalises, up to epsilon. Then the gradient is orthogonal to w, and
the length of w is the clock of its direction: see ``effective_rate``.
Ioffe and Szegedy (2015), section 3.3; van Laarhoven (2017); Arora, Li and Lyu (2019).
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bncore import arguments as check
from bncore.lab.probes import evaluation

Number = float | int
Lengths = Float[np.ndarray, "steps_and_start"]

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
    return 1 / math.sqrt(1 + eps / variance)


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
    after = 1 / math.sqrt(1 + eps / variance / scale / scale)  # scale**2 may leave the floats
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
        If the variance is not positive, or eps is negative.
    """
    variance, eps = check.positive("variance", variance), check.nonnegative("eps", eps)
    return math.sqrt(eps / variance)


def radial_cosines(
    weight: Float[torch.Tensor, "units *inputs"], gradient: Float[torch.Tensor, "units *inputs"]
) -> Float[torch.Tensor, "units"]:
    """The cosine between the weights of each unit and their gradient; 0 where the loss is invariant.

    Parameters
    ----------
    weight, gradient : Float[Tensor, "units *inputs"]
        A unit's weights are the entries of one index on the first axis, as torch has them for
        linear layers and convolutions.

    Returns
    -------
    Float[Tensor, "units"]
        0 for a unit whose gradient is 0, or so small that its square is. Computed in float64, returned in the type of weight.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor.
    ValueError
        If the shapes differ or have no axis of units, a value is not finite, or the weights of a
        unit are all 0.
    """
    for name, value in (("weight", weight), ("gradient", gradient)):
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, torch.Tensor) else check.type_name(value)
            raise TypeError(f"{name} is a {kind}, expected a floating-point torch.Tensor")
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
    # In half precision the product of two lengths leaves the range.
    weight, gradient = (value.detach().double().flatten(1) for value in (weight, gradient))
    for name, value in (("weight", weight), ("gradient", gradient)):
        unit = int((~value.isfinite()).any(dim=1).int().argmax()) if len(value) else 0
        if not value.isfinite().all():
            raise ValueError(
                f"{name}[{unit}] has an entry that is not finite, expected finite ones"
            )
    lengths = weight.norm(dim=1)
    if not lengths.all():
        unit = int((lengths == 0).int().argmax())
        raise ValueError(f"weight[{unit}] is 0, expected a unit with a direction")
    slopes = gradient.norm(dim=1)
    along = (weight * gradient).sum(dim=1)
    return torch.where(slopes > 0, along / lengths / slopes.clamp_min(1e-300), 0.0).to(dtype)


def invariant_weights(
    model: nn.Module, x: Float[torch.Tensor, "batch *features"]
) -> dict[str, nn.Parameter]:
    """The weights that a network feeds straight into a batch norm, by their names.

    A forward pass shows which linear layer's or convolution's output is the very input of a batch
    norm. In training mode the loss does not see the length of any unit of these weights, if eps is
    negligible and the layer's output goes nowhere else.

    Parameters
    ----------
    model : nn.Module
        Comes back as it was.
    x : Float[Tensor, "batch *features"]
        A batch to run it on, at least two examples.

    Raises
    ------
    TypeError
        If model is not a module or x not a tensor.
    ValueError
        If x has fewer than two examples, or no batch norm of the model follows a linear layer or a
        convolution unit by unit: one behind a linear layer on more than two axes normalises other
        things than units.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {check.type_name(model)}, expected a torch.nn.Module")
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"x is a {check.type_name(x)}, expected a torch.Tensor")
    if x.ndim == 0 or len(x) < 2:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, expected a batch of at least two examples: the values of "
            "one have no variance"
        )
    names = {module: name for name, module in model.named_modules()}
    outputs, found = {}, {}

    def remember(layer, inputs, output):
        outputs[id(output)] = layer, output  # held, so that no later tensor gets this identity

    def look_back(norm, inputs):
        layer, _ = outputs.get(id(inputs[0]), (None, None))
        # Features are on axis 1, where a linear layer has its units only if there are two axes.
        if layer is not None and (inputs[0].ndim == 2 or not isinstance(layer, nn.Linear)):
            found[f"{names[layer]}.weight"] = layer.weight

    hooks = [m.register_forward_hook(remember) for m in names if isinstance(m, WEIGHTED)]
    hooks += [m.register_forward_pre_hook(look_back) for m in names if isinstance(m, BatchNorm)]
    try:
        with evaluation(model, "batch"):
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError(
            "the model has no batch norm right after a linear layer or a convolution, expected at "
            "least one"
        )
    return found


def squared_lengths(
    rate: Number,
    gradients: Float[np.ndarray, "steps"],
    start: Number = 1.0,
    decay: Number = 0.0,
) -> Lengths:
    """Squared lengths of w under gradient descent with weight decay on a scale-invariant loss.

    r -> (1 - rate decay)^2 r + rate^2 G^2 / r, exactly, because the gradient at w is orthogonal to
    w and has the length G / sqrt(r).

    Parameters
    ----------
    rate : float
        Learning rate.
    gradients : Float[ndarray, "steps"]
        G for each step: the length of the gradient at w / norm(w), that is norm(w) times its
        length at w.
    start : float
        Squared length before the first step.
    decay : float
        Coefficient of weight decay.

    Returns
    -------
    Float[ndarray, "steps_and_start"]
        One more entry than steps; the first is ``start``.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If rate or start is not positive, decay is negative, rate times decay is 1 or more, a
        gradient is negative or not finite, or a length leaves the range of floats.
    """
    rate, decay = rate_and_decay(rate, decay)
    check.array("gradients", gradients)
    if gradients.ndim != 1:
        raise ValueError(f"gradients has shape {gradients.shape}, expected one number a step")
    check.finite("gradients", gradients)
    check.no_negative("gradients", gradients)
    lengths = np.empty(len(gradients) + 1)
    lengths[0] = check.positive("start", start)
    with np.errstate(all="ignore"):  # refused below
        for t, gradient in enumerate(gradients.astype(float)):
            push = (rate * gradient) ** 2 / lengths[t]
            lengths[t + 1] = (1 - rate * decay) ** 2 * lengths[t] + push
    good = np.isfinite(lengths) & (lengths > 0)
    if not good.all():
        raise ValueError(
            f"gradients has {len(gradients)} entries, expected fewer or others: after "
            f"{int(good.argmin())} steps the squared length is {lengths[good.argmin()]}"
        )
    return lengths


def smooth_squared_lengths(
    steps: Float[np.ndarray, "times"],
    rate: Number,
    gradient: Number,
    start: Number = 1.0,
    decay: Number = 0.0,
) -> Float[np.ndarray, "times"]:
    """Squared length after a number of small steps with a gradient of constant length.

    With decay, sqrt(e + (start^2 - e) exp(-4 rate decay t)) with e = rate G^2 / (2 decay), the
    square in equilibrium; without, sqrt(start^2 + 2 rate^2 G^2 t). It solves
    d(r^2)/dt = 2 rate^2 G^2 - 4 rate decay r^2, which ``squared_lengths`` approaches for small steps.

    Parameters
    ----------
    steps : Float[ndarray, "times"]
        Numbers of steps t.
    rate : float
        Learning rate.
    gradient : float
        G, the length of the gradient at w / norm(w).
    start : float
        Squared length before the first step.
    decay : float
        Coefficient of weight decay.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If rate or start is not positive, gradient or decay is negative, rate times decay is 1 or
        more, or a number of steps is negative.
    """
    rate, decay = rate_and_decay(rate, decay)
    gradient, start = check.nonnegative("gradient", gradient), check.positive("start", start)
    check.array("steps", steps)
    check.finite("steps", steps)
    if (steps < 0).any():
        raise ValueError(f"steps holds {steps.min()}, expected at least 0")
    decayed = 4 * rate * decay * steps.astype(float)
    # The steps that count, (1 - exp(-x)) t / x, are t itself where nothing decays.
    counted = np.divide(-np.expm1(-decayed), decayed, where=decayed > 0, out=np.ones_like(decayed))
    # Squares of squared lengths could leave the range; these hypotenuses do not.
    return np.hypot(start * np.exp(-decayed / 2), rate * gradient * np.sqrt(2 * counted * steps))


def length_bound(
    rate: Number, curvature: Number, slope: Number, drop: Number, start: Number = 1.0
) -> float:
    """A bound on the squared length of w under gradient descent on a scale-invariant loss.

    R = max(start, rate C + rate^2 G^2 / start) + 2 rate D. No rate is too large for it, and the
    gradients at w / norm(w) satisfy min over T steps of norm^2 <= R (R - start) / (rate^2 T).

    Parameters
    ----------
    rate : float
        Learning rate.
    curvature, slope : float
        C and G: bounds, over the unit sphere, on the largest eigenvalue of the Hessian and on the
        length of the gradient.
    drop : float
        D, the largest difference of two values of the loss.
    start : float
        Squared length before the first step.

    Raises
    ------
    TypeError
        If an argument is not a real number.
    ValueError
        If rate or start is not positive, a bound is negative, or the result leaves the range of
        floats.

    References
    ----------
    After Arora, Li and Lyu (2019).
    """
    rate, start = check.positive("rate", rate), check.positive("start", start)
    curvature, slope, drop = (
        check.nonnegative(name, value)
        for name, value in (("curvature", curvature), ("slope", slope), ("drop", drop))
    )
    push = rate * slope / start * (rate * slope)
    return within_floats("rate", rate, max(start, rate * curvature + push) + 2 * rate * drop)


def rate_and_decay(rate, decay):
    rate, decay = check.positive("rate", rate), check.nonnegative("decay", decay)
    if rate * decay >= 1:
        raise ValueError(
            f"rate * decay is {rate * decay:.3g}, expected below 1: a step would turn the weights "
            "around"
        )
    return rate, decay


def within_floats(name, value, result):
    if not 0 < result < math.inf:
        raise ValueError(
            f"{name} is {value:g}, with which the result, {result:g}, leaves the range of floats"
        )
    return result
