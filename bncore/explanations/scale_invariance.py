"""Scale invariance: what training does to the length of weights that the loss does not see.

A loss L is scale-invariant in w if L(a w) = L(w) for every a > 0. Batch norm makes it so in the
weights of each unit that it normalises, up to epsilon. Then the gradient is orthogonal to w, and
the length of w is the clock of its direction.
Ioffe and Szegedy (2015), section 3.3; van Laarhoven (2017); Hoffer et al. (2018); Arora, Li and Lyu
(2019); Li and Arora (2020); Wan et al. (2021).
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

# By which a product of two arguments may miss a bound that it meets.
ROUNDING = 1e-12

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


def effective_rate(rate: Number, length: Number, decay: Number = 0.0) -> float:
    """The learning rate that the direction feels, rate / ((1 - rate decay) length^2).

    A step of gradient descent with weight decay, w -> (1 - rate decay) w - rate grad L(w), turns w
    as a step with this rate and without decay turns w / length; see ``turn``.

    Parameters
    ----------
    rate : float
        Learning rate.
    length : float
        Length of w.
    decay : float
        Coefficient of weight decay.

    Raises
    ------
    TypeError
        If an argument is not a real number.
    ValueError
        If rate or length is not positive, decay is negative, rate times decay is 1 or more, or the
        effective rate leaves the range of floats.
    """
    rate, decay = _rate_and_decay(rate, decay)
    length = check.positive("length", length)
    return _in_range("length", length, rate / (1 - rate * decay) / length / length)


def turn(
    direction: Float[np.ndarray, "inputs"],
    gradient: Float[np.ndarray, "inputs"],
    rate: Number,
) -> Float[np.ndarray, "inputs"]:
    """The direction after one step, (v - rate g) / sqrt(1 + rate^2 norm(g)^2).

    Parameters
    ----------
    direction : Float[ndarray, "inputs"]
        v, of length 1.
    gradient : Float[ndarray, "inputs"]
        g, the gradient of a scale-invariant loss at v, hence orthogonal to v.
    rate : float
        The effective rate.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If shapes differ, v is not of length 1, g is not orthogonal to it, or the rate is not
        positive.
    """
    rate = check.positive("rate", rate)
    for name, value in (("direction", direction), ("gradient", gradient)):
        check.array(name, value)
        check.finite(name, value)
    if direction.ndim != 1 or gradient.shape != direction.shape:
        raise ValueError(
            f"direction has shape {direction.shape} and gradient {gradient.shape}, expected two "
            "vectors of one length"
        )
    length, slope = np.linalg.norm(direction), np.linalg.norm(gradient)
    if abs(length - 1) > 1e-6:
        raise ValueError(f"direction has length {length:.6g}, expected 1")
    if abs(direction @ gradient) > 1e-6 * slope:
        cosine = direction @ gradient / slope
        raise ValueError(
            f"gradient has the cosine {cosine:.3g} with direction, expected 0, as for a "
            "scale-invariant loss"
        )
    return (direction - rate * gradient) / math.sqrt(1 + (rate * slope) ** 2)


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
    rate, decay = _rate_and_decay(rate, decay)
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
    rate, decay = _rate_and_decay(rate, decay)
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


class Equilibrium(NamedTuple):
    """Where weight decay and the growth of the weights balance.

    Attributes
    ----------
    length : float
        Length of w.
    effective_rate : float
        Learning rate of the direction there, see ``effective_rate``.
    angle : float
        By which one step turns w, in radians; with momentum its root mean square.
    steps : float
        Number of small steps in which a deviation of length^4 shrinks to 1/e, (1 - momentum) /
        (4 rate decay).
    """

    length: float
    effective_rate: float
    angle: float
    steps: float


def equilibrium(
    rate: Number, decay: Number, gradient: Number, momentum: Number = 0.0
) -> Equilibrium:
    """The length of w at which gradient descent with weight decay keeps it.

    length^4 = rate G^2 / (decay (1 - momentum) (2 - rate decay / (1 + momentum))),
    cos(angle) = 1 - rate decay / (1 + momentum).

    Without momentum this is exact for gradients of constant length G at w / norm(w). With momentum,
    v -> momentum v + grad L(w) + decay w and w -> w - rate v, it holds nearly, in the mean, if each
    gradient is uncorrelated with the earlier ones, and is far off where gradients follow a pattern.

    Parameters
    ----------
    rate : float
        Learning rate.
    decay : float
        Coefficient of weight decay.
    gradient : float
        G, the root mean square length of the gradient at w / norm(w).
    momentum : float
        In [0, 1).

    Raises
    ------
    TypeError
        If an argument is not a real number.
    ValueError
        If rate, decay or gradient is not positive, rate times decay is 1 or more, or momentum is
        outside [0, 1).

    References
    ----------
    van Laarhoven (2017); Wan et al. (2021), with momentum.
    """
    rate, decay = _rate_and_decay(rate, decay)
    if decay == 0:
        raise ValueError("decay is 0, expected a number above 0: without it the length only grows")
    gradient, momentum = check.positive("gradient", gradient), _momentum(momentum)
    shrink = rate * decay / (1 + momentum)
    # Root by root: the square of the gradient may leave the range of floats.
    length = (rate / decay / ((1 - momentum) * (2 - shrink))) ** 0.25 * math.sqrt(gradient)
    return Equilibrium(
        length,
        effective_rate(rate, length, decay),
        2 * math.asin(math.sqrt(shrink / 2)),  # the arc cosine of 1 - shrink, also for tiny ones
        (1 - momentum) / 4 / rate / decay,
    )


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
    return _in_range("rate", rate, max(start, rate * curvature + push) + 2 * rate * drop)


class Schedule(NamedTuple):
    """Learning rates that do without weight decay what a fixed rate does with it.

    Attributes
    ----------
    rates : Float[ndarray, "steps"]
        For each step.
    factor : float
        q: after t steps the weights are q^-t times those of the run with weight decay.
    velocity : float
        What the momentum buffer has to hold before the first step, as a multiple of the weights; 0
        without momentum.
    """

    rates: Float[np.ndarray, "steps"]
    factor: float
    velocity: float


def exponential_schedule(
    rate: Number, decay: Number, steps: int, momentum: Number = 0.0
) -> Schedule:
    """The growing learning rates that replace weight decay on a scale-invariant loss.

    rates[t] = rate q^(-2 t - 1), where q, the factor, is the larger root of
    x^2 - (1 + momentum - rate decay) x + momentum = 0; without momentum it is 1 - rate decay.
    The run with decay starts with a momentum buffer of 0, v -> momentum v + grad L(w) + decay w,
    w -> w - rate v; the run without starts with velocity times the weights.

    Parameters
    ----------
    rate : float
        Learning rate of the run with weight decay.
    decay : float
        Its coefficient.
    steps : int
        Number of steps.
    momentum : float
        In [0, 1).

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If an argument is outside its range, or rate times decay exceeds (1 - sqrt(momentum))^2,
        beyond which there is no real root.

    References
    ----------
    Li and Arora (2020).
    """
    rate, decay = _rate_and_decay(rate, decay)
    steps, momentum = check.positive_integer("steps", steps), _momentum(momentum)
    largest = (1 - math.sqrt(momentum)) ** 2
    if momentum and rate * decay > largest * (1 + ROUNDING):
        raise ValueError(
            f"rate * decay is {rate * decay:.3g}, expected at most (1 - sqrt(momentum))^2 = "
            f"{largest:.3g}: beyond it no real learning rates do the same"
        )
    # 1 - q is the smaller root of x^2 - (1 - momentum + rate decay) x + rate decay = 0, and this form
    # keeps its digits where q is close to 1.
    middle = 1 - momentum + rate * decay
    root = math.sqrt(max(middle**2 - 4 * rate * decay, 0.0))
    short = 2 * rate * decay / (middle + root)
    factor = 1 - short
    with np.errstate(over="ignore"):  # refused below
        rates = rate * np.exp(-math.log1p(-short) * (2.0 * np.arange(steps) + 1))
    if not np.isfinite(rates).all():
        raise ValueError(
            f"steps is {steps}, expected fewer: the learning rate leaves the range of floats after "
            f"{int(np.isfinite(rates).argmin())} steps"
        )
    velocity = -short / (rate * factor) if momentum else 0.0
    return Schedule(rates, factor, velocity)


def _rate_and_decay(rate, decay):
    rate, decay = check.positive("rate", rate), check.nonnegative("decay", decay)
    if rate * decay >= 1:
        raise ValueError(
            f"rate * decay is {rate * decay:.3g}, expected below 1: a step would turn the weights "
            "around"
        )
    return rate, decay


def _in_range(name, value, result):
    if not 0 < result < math.inf:
        raise ValueError(
            f"{name} is {value:g}, with which the result, {result:g}, leaves the range of floats"
        )
    return result


def _momentum(momentum):
    momentum = check.number("momentum", momentum)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}, expected a number in [0, 1)")
    return momentum
