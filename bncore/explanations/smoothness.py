"""How smooth batch norm makes a loss: exact slope and curvature, and the landscape of a network.

For one batch norm with eps = 0 the gradient and the second derivatives of the normalised loss are
known in closed form. For a network they are measured along its gradient.
Sources: Santurkar et al. (2018), section 4; Li et al. (2018) for weights in units of their length.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from torch.nn.functional import cross_entropy

from bncore import arguments as check
from bncore.explanations import _models

Batch = Float[np.ndarray, "batch features"]
Vector = Float[np.ndarray, "features"]
UNITS = ("absolute", "relative")


class SquaredGradient(NamedTuple):
    """The squared gradient that a batch norm passes on, term by term, for each feature.

    Attributes
    ----------
    factor : Float[ndarray, "features"]
        gamma^2 / sigma^2.
    whole : Float[ndarray, "features"]
        ||g||^2, the squared gradient at the output.
    level : Float[ndarray, "features"]
        <1, g>^2 / m, its part along the ones.
    tilt : Float[ndarray, "features"]
        <g, y_hat>^2 / m, its part along the normalised batch.
    """

    factor: Vector
    whole: Vector
    level: Vector
    tilt: Vector

    @property
    def passed(self) -> Vector:
        """||d||^2 = factor (whole - level - tilt)."""
        return self.factor * (self.whole - self.level - self.tilt)


def normalise(y: Batch) -> tuple[Batch, Vector]:
    """The normalised batch (y - mean) / sigma and sigma, with eps = 0.

    Parameters
    ----------
    y : Float[ndarray, "batch features"]

    Raises
    ------
    TypeError
        If y is not a plain floating-point array.
    ValueError
        If y has no two examples, is not finite, or is constant in a feature, where the transform
        is not defined.
    """
    y_hat, sigma = _normalised(y)
    return y_hat.astype(y.dtype), sigma.astype(y.dtype)


@np.errstate(over="ignore", invalid="ignore")
def gradient(y: Batch, g: Batch, gamma: Vector) -> Batch:
    """The gradient of the normalised loss, d = (gamma/sigma) P g, P = I - 11'/m - y_hat y_hat'/m.

    Half precision is computed in single and returned in half.

    Parameters
    ----------
    y : Float[ndarray, "batch features"]
        Input of the batch norm.
    g : Float[ndarray, "batch features"]
        Gradient of the loss at its output z = gamma y_hat + beta.
    gamma : Float[ndarray, "features"]

    Raises
    ------
    TypeError, ValueError
        As ``normalise``; or if g has another shape than y, or gamma has not one entry a feature; or
        if gamma^2 / sigma^2, in single precision at least, or the result, in its own, overflows.
    """
    y_hat, sigma, wide = _checked(y, g, gamma)
    d = gamma / sigma * (wide - wide.mean(axis=0) - y_hat * (wide * y_hat).mean(axis=0))
    return _in_range("the gradient", d.astype(np.result_type(y, g, gamma)), g)


@np.errstate(over="ignore", invalid="ignore")
def squared_gradient(y: Batch, g: Batch, gamma: Vector) -> SquaredGradient:
    """The terms of ||d||^2 = (gamma^2/sigma^2) (||g||^2 - <1,g>^2/m - <g,y_hat>^2/m).

    Half precision is computed and returned in single, which squares do not overflow as soon.

    Parameters, errors: as ``gradient``.

    References
    ----------
    Santurkar et al. (2018), Theorem 4.1, where it is a bound.
    """
    y_hat, sigma, g = _checked(y, g, gamma)
    m = len(y)
    terms = SquaredGradient(
        (gamma / sigma) ** 2,
        (g**2).sum(axis=0),
        g.sum(axis=0) ** 2 / m,
        (g * y_hat).sum(axis=0) ** 2 / m,
    )
    _in_range("the squared gradient", np.array([*terms, terms.passed]), g)
    return terms


@np.errstate(over="ignore", invalid="ignore")
def hessian(
    y: Float[np.ndarray, "batch"],
    g: Float[np.ndarray, "batch"],
    H: Float[np.ndarray, "batch batch"],
    gamma: float,
) -> Float[np.ndarray, "batch batch"]:
    """All second derivatives of the normalised loss of one feature.

    (gamma^2/sigma^2) P H P - (gamma/(m sigma^2)) (y_hat (Pg)' + (Pg) y_hat' + <g,y_hat> P)

    Parameters
    ----------
    y : Float[ndarray, "batch"]
        Input of the batch norm, one feature.
    g, H : Float[ndarray, "batch"], Float[ndarray, "batch batch"]
        Gradient and second derivatives of the loss at z = gamma y_hat + beta.
    gamma : float

    Raises
    ------
    TypeError, ValueError
        As ``gradient``; or if H is not finite, far from symmetric or not square with the size of y.
    """
    y_hat, sigma, P = _one_feature(y, g, H, gamma)
    rest = P @ g
    bend = np.outer(y_hat, rest)
    second = (gamma / sigma) ** 2 * P @ H @ P - gamma / sigma / sigma / len(y) * (
        bend + bend.T + (g @ y_hat) * P
    )
    return _in_range("the second derivative", second, g)


class Curvature(NamedTuple):
    """Curvature of the normalised loss along its gradient: d' (second derivatives) d, two terms.

    Attributes
    ----------
    through : float
        (gamma^2/sigma^2) d'Hd, the curvature of the loss behind the batch norm.
    own : float
        -(gamma/(m sigma^2)) <g,y_hat> ||d||^2, that of the batch norm itself.
    squared : float
        ||d||^2; ``total / squared`` is a Rayleigh quotient.
    """

    through: float
    own: float
    squared: float

    @property
    def total(self) -> float:
        """The sum of both terms."""
        return self.through + self.own


@np.errstate(over="ignore", invalid="ignore")
def curvature_along_gradient(
    y: Float[np.ndarray, "batch"],
    g: Float[np.ndarray, "batch"],
    H: Float[np.ndarray, "batch batch"],
    gamma: float,
) -> Curvature:
    """The two terms of the curvature along the gradient d of the normalised loss.

    d' (second derivatives) d = (gamma^2/sigma^2) d'Hd - (gamma/(m sigma^2)) <g,y_hat> ||d||^2

    Parameters, errors: as ``hessian``.

    References
    ----------
    Santurkar et al. (2018), Theorem 4.2, where it is a bound.
    """
    y_hat, sigma, P = _one_feature(y, g, H, gamma)
    d = gamma / sigma * (P @ g)
    terms = Curvature(
        float((gamma / sigma) ** 2 * d @ H @ d),
        float(-gamma / sigma / sigma / len(y) * (g @ y_hat) * (d @ d)),
        float(d @ d),
    )
    _in_range("the curvature", np.array([*terms, terms.total]), g)
    return terms


def distance_to_ray(
    start: Float[np.ndarray, "inputs"], optimum: Float[np.ndarray, "inputs"]
) -> float:
    """Distance of weights from the nearest a * optimum with a > 0, or a = 0 in the limit.

    Where <start, optimum> > 0 its square is
    ||start - optimum||^2 - (||optimum||^2 - <optimum, start>)^2 / ||optimum||^2;
    otherwise the distance is ||start||.

    Parameters
    ----------
    start, optimum : Float[ndarray, "inputs"]

    Raises
    ------
    TypeError
        If an argument is not a plain floating-point array.
    ValueError
        If the arguments are not vectors of one length, a value is not finite, or optimum is zero.

    References
    ----------
    Santurkar et al. (2018), Lemma 4.5.
    """
    check.array("start", start)
    if start.ndim != 1:
        raise ValueError(f"start has shape {start.shape}, expected (inputs,)")
    check.finite("start", start)
    check.vector("optimum", optimum, len(start), "start")
    if not optimum.any():
        raise ValueError("optimum is zero, expected weights with a direction")
    (start, exponent), (direction, _) = (_near_one(v.astype(np.float64)) for v in (start, optimum))
    direction = direction / np.linalg.norm(direction)
    rest = start - max(start @ direction, 0.0) * direction
    return float(np.ldexp(np.linalg.norm(rest), exponent))


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


def unit_lengths(weight: torch.Tensor) -> torch.Tensor:
    """Length of each unit's weights, shaped to divide them; a unit is an index of the first axis.

    Raises
    ------
    TypeError
        If weight is not a floating-point tensor.
    ValueError
        If it has fewer than two axes.
    """
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
        what = getattr(weight, "dtype", check.type_name(weight))
        raise TypeError(f"weight is {what}, expected a floating-point tensor")
    if weight.ndim < 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected (units, *inputs)")
    return weight.detach().flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))


def along_gradient(
    model: nn.Module,
    x: Float[torch.Tensor, "batch *features"],
    y: torch.Tensor,
    steps: Sequence[float],
    units: Literal["absolute", "relative"] = "absolute",
    *,
    loss: Callable = cross_entropy,
) -> Landscape:
    """Walk along the negative gradient of the weight matrices, and measure loss and gradient.

    All steps start from the same point, and where the model draws random numbers, all see the same
    ones. Biases, gamma, beta and frozen weights are held, and batch norms use the statistics of the
    batch. With relative units each unit's weights are divided by their length at
    the start, so that no rescaling of a layer that leaves the loss as it is changes the landscape.

    Parameters
    ----------
    model : nn.Module
        It stays as it is.
    x, y : Tensor
        One batch, finite.
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
        If model is not a module with real parameters, x or y not a tensor, loss not callable, steps
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
    _models.check_batch(x, y)
    walker = copy.deepcopy(model).train()
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
    return sum((part.double() ** 2).sum().item() for part in parts) ** 0.5


def _near_one(values):
    """Columns times powers of two that bring their largest entry between 1/2 and 1; the exponents."""
    _, exponents = np.frexp(np.abs(values).max(axis=0))
    return np.ldexp(values, -exponents), exponents


def _normalised(y):
    """As ``normalise``, in single precision at least."""
    check.batch("y", y, least=2)
    if y.ndim != 2:
        raise ValueError(f"y has shape {y.shape}, expected (batch, features)")
    constant = (y == y[0]).all(axis=0)
    if constant.any():
        j = int(constant.argmax())
        raise ValueError(
            f"y[:, {j}] is constant, expected at least two different values: without eps there is "
            "nothing to divide by"
        )
    wide, exponents = _near_one(_wide(y))
    centred = wide - wide[0]
    centred, more = _near_one(centred - centred.mean(axis=0))
    sigma = np.sqrt((centred**2).mean(axis=0))
    return centred / sigma, np.ldexp(sigma, exponents + more)


def _wide(values):
    return values.astype(np.promote_types(values.dtype, np.float32))


def _checked(y, g, gamma):
    """The normalised batch, sigma and g, in single precision at least."""
    y_hat, sigma = _normalised(y)
    check.array("g", g)
    if g.shape != y.shape:
        raise ValueError(f"g has shape {g.shape}, expected {y.shape}, that of y")
    check.finite("g", g)
    check.vector("gamma", gamma, y.shape[1], "y")
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        lost = ~np.isfinite((_wide(gamma) / sigma) ** 2)
    if lost.any():
        j = int(lost.argmax())
        raise ValueError(
            f"y[:, {j}] has the deviation {sigma[j]:.3g}, and gamma^2 / sigma^2 overflows "
            f"{sigma.dtype}, expected a batch that varies more"
        )
    return y_hat, sigma, _wide(g)


def _in_range(what, values, g):
    """The values. Refuse what has overflowed."""
    if not np.isfinite(values).all():
        raise ValueError(
            f"g is as large as {np.abs(g).max():.3g}, and {what} overflows {values.dtype}, expected "
            "smaller arguments or a batch that varies more"
        )
    return values


def _one_feature(y, g, H, gamma):
    gamma = check.number("gamma", gamma)
    for name, value in (("y", y), ("g", g)):
        check.array(name, value)
        if value.ndim != 1:
            raise ValueError(f"{name} has shape {value.shape}, expected (batch,): one feature")
    y_hat, sigma, _ = _checked(y[:, None], g[:, None], np.array([gamma]))
    check.array("H", H)
    if H.shape != (len(y), len(y)):
        raise ValueError(f"H has shape {H.shape}, expected {(len(y), len(y))}")
    check.finite("H", H)
    apart = np.abs(H - H.T)
    if apart.max() > 10 * np.finfo(H.dtype).eps ** 0.5 * np.abs(H).max():
        i, j = np.unravel_index(apart.argmax(), H.shape)
        raise ValueError(
            f"H[{i}, {j}] is {H[i, j]:.4g} and H[{j}, {i}] is {H[j, i]:.4g}, expected a symmetric "
            "matrix of second derivatives"
        )
    y_hat, m = y_hat[:, 0], len(y)
    P = np.eye(m) - 1 / m - np.outer(y_hat, y_hat) / m
    return y_hat, float(sigma[0]), P
