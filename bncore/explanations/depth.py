"""How squared gradients grow from layer to layer in a network at initialisation.

Mean-field theory: the width is infinite, weights are independent N(0, 1 / inputs) and fresh on the
way back. Then everything is an expectation over one Gaussian variable, or, with batch norm over a
batch of B, over a point of a sphere.
Source: Yang, Pennington, Rao, Sohl-Dickstein and Schoenholz (2019), A mean field theory of batch
normalization; rederived.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from torch.func import functional_call

from bncore import arguments as check
from bncore.explanations import _activation, _models

Activation = str | Callable[[torch.Tensor], torch.Tensor]
SMALLEST_BATCH, LARGEST_BATCH = 4, 10**7
FLOAT64 = np.finfo(np.float64)


def growth_rate(activation: Activation, batch_size: int | None = None) -> float:
    """Factor by which squared gradients grow per layer, towards the input, with batch norm.

    For a large batch it is E phi'(z)^2 / Var phi(z) with z ~ N(0, 1). For a batch of B,

        lambda_B = E[(B - 1 - h1^2) phi'(h1)^2 + (1 + h1 h2) phi'(h1) phi'(h2)]
                   / ((B - 3) E[phi(h1)^2 - phi(h1) phi(h2)]),

    where h is uniform on the sphere of radius sqrt(B) in the vectors of mean zero. Either is exact
    for infinite width where the covariance of a batch has reached the fixed point that treats all
    examples alike. The rate is at least 1, or (B - 2) / (B - 3), which only affine functions reach.

    Parameters
    ----------
    activation : str or callable
        "identity", "relu", "leaky_relu" (slope 0.01), "abs", "tanh", "erf", "sigmoid", "gelu",
        "silu", "elu" or "softplus"; or a function of a float64 tensor that acts on each entry by
        itself, the integral of its derivative, with kinks wherever it likes.
    batch_size : int, optional
        Examples in a batch, at least 4: with three the expectation is infinite; at most 10^7. None
        for the limit of large batches.

    Returns
    -------
    float
        With a relative error below 1e-9 for the named activations, at every batch size.

    Raises
    ------
    TypeError
        If activation is not a function of tensors, or batch_size not an integer.
    ValueError
        If activation is unknown, constant, jumps, grows so fast that the expectation is beyond
        reach, or has values or slopes too large or too small for float64; or batch_size is below 4
        or above 10^7.
    """
    function = _activation.Standardized(_activation.Function(activation))
    if batch_size is None:
        rule = _activation.panels(function)
        weights = rule.weights * _activation.density(rule.z)
        _refuse_heavy_tails(rule, weights)
        centred = rule.phi - weights @ rule.phi
        return float((weights @ rule.dphi**2) / (weights @ centred**2))
    B = _batch_size(batch_size)
    slopes, variance = _sphere(function, B)
    return float(slopes / ((B - 3) * variance))


def batch_variance(activation: Activation, batch_size: int | None = None) -> float:
    """Variance over the batch of phi after batch norm, the divisor being B - 1.

    E[phi(h1)^2 - phi(h1) phi(h2)] with h as in ``growth_rate``, or Var phi(z) for large batches.
    This is what a residual block adds to the variance of its stream.

    Parameters
    ----------
    activation, batch_size
        As in ``growth_rate``, which also says what is refused; and refused is an activation so
        large or so small that the variance leaves the range of float64.
    """
    function = _activation.Standardized(_activation.Function(activation))
    if batch_size is None:
        rule = _activation.panels(function)
        weights = rule.weights * _activation.density(rule.z)
        _refuse_heavy_tails(rule, weights)
        variance = weights @ (rule.phi - weights @ rule.phi) ** 2
    else:
        _, variance = _sphere(function, _batch_size(batch_size))
    size = 2 * function.exponent
    with np.errstate(over="ignore", under="ignore"):
        result = float(np.ldexp(variance * function.deviation**2, size))
    if not FLOAT64.tiny <= result <= FLOAT64.max:
        raise ValueError(
            f"the variance of activation is of the order of 2^{size}, beyond float64, expected an "
            "activation of moderate size: divide it by a constant"
        )
    return result


def symmetry_multiplier(activation: Activation, batch_size: int | None = None) -> float:
    """Factor by which a layer multiplies small differences between the examples of a batch.

    Where the examples are nearly alike to the network, let 1 + d_i be the squared distance of
    example i from the mean of the batch, over its average. At infinite width a layer with batch norm
    multiplies every small d_i by

        mu_B = (A / 2 - C (B - 1) / (B - 2)) / E[phi(h1)^2 - phi(h1) phi(h2)],
        A = E[phi(h1)^2 (h1^2 - 1)],   C = E[phi(h1) phi(h2) (h1^2 - 1)]

    with h as in ``growth_rate``. Above 1 the symmetric batch is unstable, and ``growth_rate`` fails
    in networks deep enough. For the identity it is (B - 1) / (B + 1).
    Source: an eigenvalue of the linearised dynamics of Yang et al. (2019); rederived.

    Parameters
    ----------
    activation, batch_size
        As in ``growth_rate``, which also says what is refused.
    """
    function = _activation.Standardized(_activation.Function(activation))
    if batch_size is None:
        rule = _activation.panels(function)
        weights = rule.weights * _activation.density(rule.z)
        _refuse_heavy_tails(rule, weights)
        squares = (rule.phi - weights @ rule.phi) ** 2
        return float((weights @ (squares * (rule.z**2 - 1))) / (2 * (weights @ squares)))
    B = _batch_size(batch_size)
    _, variance = _sphere(function, B)
    reach = min(np.sqrt(B - 1.0), _activation.REACH)
    h, k, weights = _pairs(B, *_activation.breakpoints(function, reach))
    phi_h, phi_k = function(h)[0], function(k)[0]
    mean = weights.sum(axis=1) @ phi_h
    first = (phi_h - mean) * (h**2 - 1)
    A = weights.sum(axis=1) @ (first * (phi_h - mean))
    C = first @ (weights * (phi_k - mean)).sum(axis=1)
    return float((A / 2 - C * (B - 1) / (B - 2)) / variance)


def smallest_growth_rate(batch_size: int) -> float:
    """(B - 2) / (B - 3): the growth rate of a linear network, and a lower bound for every other.

    Raises
    ------
    TypeError, ValueError
        If batch_size is not an integer from 4 to 10^7.
    """
    B = _batch_size(batch_size)
    return (B - 2) / (B - 3)


def relu_growth_rate(batch_size: int) -> float:
    """The growth rate of ReLU for a batch of B, in closed form; pi / (pi - 1) for large B.

    With r = -1 / (B - 1), J'(r) = 1 - arccos(r) / pi and J(r) = sqrt(1 - r^2) / pi + r J'(r),

        lambda_B = ((B - 1 + J'(r)) / (1 - J(r)) - 1) / (B - 3).

    Raises
    ------
    TypeError, ValueError
        If batch_size is not an integer from 4 to 10^7.
    """
    B = _batch_size(batch_size)
    r = -1 / (B - 1)
    slope = 1 - np.arccos(r) / np.pi
    kernel = np.sqrt(1 - r * r) / np.pi + r * slope
    return float(((B - 1 + slope) / (1 - kernel) - 1) / (B - 3))


def residual_growth(rate: float, blocks: int, offset: float) -> Float[np.ndarray, "{blocks}+1"]:
    """Squared gradients in a residual network with batch norm, over those at its end.

    Each block adds phi(BN(W x)) to x. The variance under the l-th batch norm is proportional to
    l + offset, so that block l = 1, ..., blocks multiplies squared gradients by
    1 + rate / (l - 1 + offset): a power of depth instead of an exponential.

    Parameters
    ----------
    rate : float
        The growth rate of the same layer without the skip connection, from ``growth_rate``.
    blocks : int
        Number of blocks.
    offset : float
        Variance of a unit over the batch at the input of the first block, in units of the variance
        that one block adds.

    Returns
    -------
    Float[ndarray, "blocks + 1"]
        Before block 1, before block 2, ..., after the last block: there it is 1.

    Raises
    ------
    TypeError
        If rate or offset is not a number, or blocks not an integer.
    ValueError
        If one of them is not positive, or the growth is beyond float64.
    """
    rate, offset = check.positive("rate", rate), check.positive("offset", offset)
    blocks = check.positive_integer("blocks", blocks)
    with np.errstate(over="ignore"):
        factors = np.log1p(rate / (np.arange(blocks) + offset))
        growth = np.exp(np.cumsum(factors[::-1])[::-1])
    if not np.isfinite(growth[0]):
        raise ValueError(
            f"squared gradients grow by a factor of 10^{factors.sum() / np.log(10):.3g} for rate "
            f"{rate:g}, blocks {blocks} and offset {offset:g}, beyond float64: expected a smaller "
            "rate, fewer blocks or a larger offset"
        )
    return np.append(growth, 1.0)


class Propagation(NamedTuple):
    """What mean-field theory predicts for a network without normalisation.

    Attributes
    ----------
    variance : Float[ndarray, "layers"]
        Mean square q of a pre-activation in layer 1, 2, ...
    growth : Float[ndarray, "layers"]
        Factor chi by which squared gradients grow from the pre-activations of the next layer to
        those of this one.
    """

    variance: Float[np.ndarray, "layers"]
    growth: Float[np.ndarray, "layers"]


def propagate(
    activation: Activation,
    weight_variance: float,
    layers: int,
    variance: float = 1.0,
    bias_variance: float = 0.0,
) -> Propagation:
    """Follow signal and gradient through a network without normalisation.

    With weights N(0, weight_variance / inputs) and biases N(0, bias_variance),

        q_{l+1} = weight_variance E phi(sqrt(q_l) z)^2 + bias_variance,
        chi_l   = weight_variance E phi'(sqrt(q_l) z)^2.

    Squared gradients with respect to the pre-activations of layer l are chi_l times those of layer
    l + 1: below 1 they vanish towards the input, above 1 they explode.

    Parameters
    ----------
    activation : str or callable
        As for ``growth_rate``.
    weight_variance, bias_variance : float
        Variance of a weight times the number of inputs; variance of a bias.
    layers : int
        Number of layers.
    variance : float
        q_1, the mean square of a pre-activation of the first layer.

    Raises
    ------
    TypeError, ValueError
        If the activation is refused as by ``growth_rate``, a variance is not positive (that of the
        bias: negative), layers is not a positive integer, the variance leaves (1e-12, 1e12), or a
        factor is beyond float64.

    References
    ----------
    Poole et al. (2016); Schoenholz et al. (2017).
    """
    function = _activation.Function(activation)
    # Refuses what has no growth rate, a constant for one.
    exponent = _activation.Standardized(function).exponent
    weight = check.positive("weight_variance", weight_variance)
    bias = check.nonnegative("bias_variance", bias_variance)
    layers = check.positive_integer("layers", layers)
    q = check.positive("variance", variance)
    variances, growth = [], []
    for _ in range(layers):
        if not 1e-12 < q < 1e12:
            raise ValueError(
                f"the variance of layer {len(growth) + 1} is {q:.3g}, expected between 1e-12 and "
                "1e12: choose another weight_variance or fewer layers"
            )
        scale = np.sqrt(q)
        rule = _activation.panels(_Stretched(function, scale, exponent))
        weights = rule.weights * _activation.density(rule.z)
        _refuse_heavy_tails(rule, weights)
        variances.append(q)
        squares = float(weights @ rule.phi**2), float(weights @ rule.dphi**2)
        with np.errstate(over="ignore", under="ignore"):
            square, slope = weight * np.ldexp(squares, 2 * exponent)
        if squares[1] and not FLOAT64.tiny <= slope <= FLOAT64.max:
            raise ValueError(
                f"squared gradients change by a factor of {slope:.3g} in layer {len(variances)}, "
                "beyond float64: expected an activation and a weight_variance of moderate size"
            )
        growth.append(slope)
        # The stretched function was divided by `scale`, and its derivative was not.
        q = float(q * square + bias)
    return Propagation(np.array(variances), np.array(growth))


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


def gradient_norms(
    model: nn.Module, x: Float[torch.Tensor, "batch *features"], seed: int = 0
) -> GradientNorms:
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
        One batch, finite.
    seed : int
        Of the Gaussian matrix; at least 0.

    Returns
    -------
    GradientNorms

    Raises
    ------
    TypeError
        If model is not a module with real parameters, x not a tensor of floating-point numbers, or
        seed not an integer.
    ValueError
        If the model has no linear layer, calls none, or does not use what one returns; x is empty,
        not finite, or has no axis of features; the model cannot be applied to x, or returns
        anything but a tensor of finite floating-point numbers; seed is negative or not below 2^63;
        or a gradient leaves the range of its dtype.
    """
    _models.check_model(model)
    _models.check_tensor("x", x)
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}, expected a floating-point one")
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


class _Stretched:
    """z -> phi(scale z) / scale, which has the derivative phi'(scale z); both over 2^exponent."""

    def __init__(self, function, scale, exponent):
        self.function, self.scale, self.exponent = function, scale, exponent

    def __call__(self, z):
        phi, dphi = (np.ldexp(values, -self.exponent) for values in self.function(self.scale * z))
        return phi / self.scale, dphi


def _sphere(function, B):
    """Numerator of the growth rate, and the variance over the batch, for a batch of B."""
    reach = min(np.sqrt(B - 1.0), _activation.REACH)
    if reach == _activation.REACH:
        rule = _activation.panels(function)
        _refuse_heavy_tails(rule, rule.weights * _activation.density(rule.z))
    h, k, weights = _pairs(B, *_activation.breakpoints(function, reach))
    (phi_h, dphi_h), (phi_k, dphi_k) = function(h), function(k)
    first = weights.sum(axis=1)
    slopes = first @ ((B - 1 - h**2) * dphi_h**2)
    slopes += ((weights * (1 + h[:, np.newaxis] * k) * dphi_k).sum(axis=1) * dphi_h).sum()
    mean = first @ phi_h
    variance = first @ (phi_h - mean) ** 2
    variance -= ((weights * (phi_k - mean)).sum(axis=1) * (phi_h - mean)).sum()
    if not variance > 1e-9:
        raise ValueError(
            f"activation is constant for abs(z) up to {reach:.3g}, all that a batch of {B} reaches, "
            "expected a function that varies"
        )
    return slopes, variance


def _pairs(B, breaks, kinks):
    """Nodes h1, for each of them nodes h2, and joint weights, of two coordinates on the sphere.

    A coordinate is sqrt(B - 1) sin(a) with density cos(a)^(B - 3); given the first, the second is
    r h1 + sqrt((1 - r^2) (B - 1)) cos(a) sin(b) with density cos(b)^(B - 4), r = -1 / (B - 1).
    """
    radius = np.sqrt(B - 1.0)
    r = -1 / (B - 1.0)
    edges = np.arcsin(np.clip(breaks / radius, -1, 1))
    if B < 12:
        edges = _graded(edges, np.arcsin(kinks / radius), np.arccos(r))
    a, outer = _activation.nodes(edges[:-1], edges[1:])
    a, outer = a.reshape(-1), outer.reshape(-1)
    outer = outer * np.cos(a) ** (B - 3)
    h = radius * np.sin(a)
    width = np.sqrt(1 - r * r) * radius * np.cos(a)[:, np.newaxis]
    cuts = np.arcsin(np.clip((breaks - r * h[:, np.newaxis]) / width, -1, 1))
    b, inner = _activation.nodes(cuts[:, :-1], cuts[:, 1:])
    b, inner = b.reshape(len(h), -1), inner.reshape(len(h), -1)
    inner = inner * np.cos(b) ** (B - 4)
    inner /= inner.sum(axis=1, keepdims=True)
    k = r * h[:, np.newaxis] + width * np.sin(b)
    return h, k, outer[:, np.newaxis] / outer.sum() * inner


def _graded(edges, kinks, turn):
    """Add panels that shrink towards where a kink of phi(h2) enters or leaves the range of h2.

    There the inner integral is as rough as a half-integer power, which matters in small batches.
    """
    entries = np.concatenate(
        [kinks - turn, kinks + turn, np.pi - kinks - turn, turn - np.pi - kinks]
    )
    steps = np.concatenate([[0.0], 0.12 ** np.arange(1, 7)])
    more = (entries[:, np.newaxis] + np.concatenate([-steps, steps])).reshape(-1)
    return np.union1d(edges, more[(more > edges[0]) & (more < edges[-1])])


def _refuse_heavy_tails(rule, weights):
    outside = np.abs(rule.z) > _activation.REACH - 1
    for values in (rule.phi**2, rule.dphi**2):
        if weights[outside] @ values[outside] > 1e-12 * (weights @ values):
            raise ValueError(_activation.TOO_FAST)


def _batch_size(value):
    try:
        size = check.integer("batch_size", value, least=SMALLEST_BATCH)
    except ValueError as error:
        raise ValueError(
            f"{error}: a batch of two passes no gradient, and with three the expected squared "
            "gradient is infinite"
        ) from None
    if size > LARGEST_BATCH:
        raise ValueError(
            f"batch_size is {size}, expected at most {LARGEST_BATCH}: larger batches lose digits, "
            "and their rate differs by less than a millionth from that of the largest"
        )
    return size
