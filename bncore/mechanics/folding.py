"""Folding: a batch norm with fixed statistics is an affine map, and a layer beside it absorbs it.

The folded layer computes the same function in one pass over the data instead of two. The layer
before can always absorb it, the layer after only where nothing is padded in between.
Source: Ioffe and Szegedy (2015), Algorithm 2, line 11. Kernels are laid out as torch's, or by
``layout`` as those of Keras or Flax.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Real

from bncore import arguments as check
from bncore.mechanics._kernels import Kernel

__all__ = ["affine_map", "fold_conv", "fold_conv_after", "fold_linear", "fold_linear_after"]

Layout = Literal["torch", "keras", "flax", "keras-depthwise"]

Vector = Float[np.ndarray, "features"]
VectorLike = check.VectorLike
InputsLike = Real[np.ndarray, "inputs"] | check.Listed


def affine_map(
    mean: VectorLike,
    var: VectorLike,
    gamma: VectorLike | None = None,
    beta: VectorLike | None = None,
    eps: float | int = 1e-5,
) -> tuple[Vector, Vector]:
    """Write normalisation with fixed statistics as ``scale * x + shift``.

    scale = gamma / sqrt(var + eps),    shift = beta - mean * scale

    Parameters
    ----------
    mean, var : Float[ndarray, "features"]
        The fixed statistics.
    gamma, beta : Float[ndarray, "features"], optional
        Learned scale and shift; None stands for ones and zeros.
    eps : float
        Positive; in the units of var.

    Returns
    -------
    scale, shift : Float[ndarray, "features"]
        In the widest dtype among the arguments; lists and integers take that of mean.

    Raises
    ------
    TypeError
        If an argument is not an array of real numbers, or eps is not a real number.
    ValueError
        If shapes disagree, a value is not finite, var is negative, eps <= 0, or the result leaves
        the range of its dtype.

    References
    ----------
    Ioffe and Szegedy (2015), Algorithm 2, line 11.
    """
    mean = check.array("mean", mean)
    fixed = check.fixed_statistics(mean, var, gamma, beta, eps, dtype=mean.dtype)
    dtype = np.result_type(*(array for array in fixed[:4] if array is not None))
    scale, shift = _scale_and_shift(None, fixed)
    return check.narrowed("scale", scale, dtype), check.narrowed("shift", shift, dtype)


def fold_linear(
    weight: Real[np.ndarray, "_ _"] | check.Listed,
    bias: VectorLike | None,
    mean: VectorLike,
    var: VectorLike,
    gamma: VectorLike | None = None,
    beta: VectorLike | None = None,
    eps: float | int = 1e-5,
    *,
    layout: Layout = "torch",
) -> tuple[Float[np.ndarray, "_ _"], Vector]:
    """Fold a batch norm with fixed statistics into the linear layer before it.

    weight' = diag(scale) weight,    bias' = scale * (bias - mean) + beta,    scale as in affine_map

    Parameters
    ----------
    weight : Float[ndarray, "features inputs"]
        The layer computes x @ weight.T + bias. In the layout of Keras and Flax it has the shape
        (inputs, features), and the layer computes x @ weight + bias.
    bias : Float[ndarray, "features"] or None
        None stands for a layer without bias; the folded layer always has one.
    mean, var, gamma, beta, eps
        As in ``affine_map``, one entry for each output feature of the layer.
    layout : "torch", "keras" or "flax"
        The last two are the same for linear layers.

    Returns
    -------
    weight, bias
        Of the folded layer, in the dtype and layout of ``weight``.

    Raises
    ------
    TypeError, ValueError
        As ``affine_map``, and if weight is not a finite matrix whose features match mean, or the
        layout is unknown.
    """
    kernel = Kernel(weight, layout, linear=True)
    return _fold_before(kernel, bias, (mean, var, gamma, beta, eps))


def fold_conv(
    weight: Real[np.ndarray, "_ _ *kernel"] | check.Listed,
    bias: VectorLike | None,
    mean: VectorLike,
    var: VectorLike,
    gamma: VectorLike | None = None,
    beta: VectorLike | None = None,
    eps: float | int = 1e-5,
    *,
    groups: int = 1,
    transposed: bool = False,
    layout: Layout = "torch",
) -> tuple[Float[np.ndarray, "_ _ *kernel"], Vector]:
    """Fold a batch norm with fixed statistics into the convolution before it.

    As ``fold_linear``, with the kernel of each output channel multiplied by that channel's scale.
    Stride, padding and dilation do not matter, because the batch norm acts on the output. For a
    batch norm *before* a convolution see ``fold_conv_after``.

    Parameters
    ----------
    weight : Float[ndarray, "..."]
        By the layout:

        - "torch": (features, inputs / groups, *kernel), or transposed (inputs, features / groups,
          *kernel).
        - "keras": (*kernel, inputs / groups, features), or transposed (*kernel, features, inputs).
        - "flax": (*kernel, inputs / groups, features), or transposed (*kernel, inputs, features).
          With ``transpose_kernel=True`` Flax has Keras's layout.
        - "keras-depthwise": (*kernel, inputs, multiplier), the kernel of a DepthwiseConv layer.
    bias, mean, var, gamma, beta, eps
        As in ``fold_linear``.
    groups : int
        Number of groups of the convolution. Divides features and inputs.
    transposed : bool
        Whether the layer is a transposed convolution.
    layout : str
        See ``weight``.

    Returns
    -------
    weight, bias
        Of the folded layer, in the dtype and layout of ``weight``.

    Raises
    ------
    TypeError, ValueError
        As ``affine_map``, and if weight is not a finite kernel of the layout above.
    """
    kernel = Kernel(weight, layout, groups, transposed)
    return _fold_before(kernel, bias, (mean, var, gamma, beta, eps))


def fold_linear_after(
    weight: Real[np.ndarray, "_ _"] | check.Listed,
    bias: VectorLike | None,
    mean: InputsLike,
    var: InputsLike,
    gamma: InputsLike | None = None,
    beta: InputsLike | None = None,
    eps: float | int = 1e-5,
    *,
    layout: Layout = "torch",
) -> tuple[Float[np.ndarray, "_ _"], Vector]:
    """Fold a batch norm with fixed statistics into the linear layer after it.

    weight' = weight diag(scale),    bias' = bias + weight shift,    scale and shift of affine_map

    Parameters
    ----------
    weight, bias, layout
        As in ``fold_linear``.
    mean, var, gamma, beta, eps
        As in ``affine_map``, one entry for each *input* of the layer.

    Returns
    -------
    weight, bias
        Of the folded layer, in the dtype and layout of ``weight``; bias has an entry for each
        feature.

    Raises
    ------
    TypeError, ValueError
        As ``fold_linear``.
    """
    kernel = Kernel(weight, layout, linear=True)
    return _fold_after(kernel, bias, (mean, var, gamma, beta, eps), padded=False)


def fold_conv_after(
    weight: Real[np.ndarray, "_ _ *kernel"] | check.Listed,
    bias: VectorLike | None,
    mean: InputsLike,
    var: InputsLike,
    gamma: InputsLike | None = None,
    beta: InputsLike | None = None,
    eps: float | int = 1e-5,
    *,
    groups: int = 1,
    padding: int | str | Sequence = 0,
    layout: Layout = "torch",
) -> tuple[Float[np.ndarray, "_ _ *kernel"], Vector]:
    """Fold a batch norm with fixed statistics into the convolution after it, which pads nothing.

    The kernel of each input channel is multiplied by that channel's scale, and a feature's bias
    grows by the sum over its kernel of weight times shift. Stride and dilation do not matter.

    Padding does: the convolution pads zeros after the batch norm, so they are not shifted, and the
    output at the border lacks a part of that sum. There is a fold only if no feature is shifted
    (beta = mean * scale). For the same reason no transposed convolution takes a fold: each of its
    outputs sums over other entries of the kernel.

    Parameters
    ----------
    weight, bias, groups, layout
        As in ``fold_conv``, of a convolution that is not transposed.
    mean, var, gamma, beta, eps
        As in ``affine_map``, one entry for each *input* channel.
    padding : int, str, or a sequence of such
        The convolution's padding, as torch, Keras and Flax take it: numbers, pairs of numbers,
        "valid" or "same".

    Returns
    -------
    weight, bias
        Of the folded layer, in the dtype and layout of ``weight``; bias has an entry for each
        feature.

    Raises
    ------
    TypeError, ValueError
        As ``fold_conv``, and if the convolution pads and a feature is shifted.
    """
    kernel = Kernel(weight, layout, groups)
    padded = _pads(padding)
    return _fold_after(kernel, bias, (mean, var, gamma, beta, eps), padded)


def _scale_and_shift(bias, fixed):
    """What multiplies the layer without its bias, and what is added, in double precision."""
    mean, var, gamma, beta, eps = fixed
    with np.errstate(over="ignore", invalid="ignore"):
        spread = check.narrowed("var + eps", var.astype(np.float64) + eps, np.float64)
        scale = 1 / np.sqrt(spread)
        if gamma is not None:
            scale = gamma * scale
        shift = -mean * scale if bias is None else (bias.astype(np.float64) - mean) * scale
        return scale, shift if beta is None else shift + beta


def _fold_before(kernel, bias, fixed):
    weight = kernel.weight
    fixed = check.fixed_statistics(*fixed, kernel.features, "weight", weight.dtype)
    bias = _checked_bias(kernel, bias)
    check.finite("weight", weight)
    scale, shift = _scale_and_shift(bias, fixed)
    with np.errstate(over="ignore", invalid="ignore"):
        folded = weight * kernel.by_feature(scale)
    return _result(kernel, folded, shift)


def _fold_after(kernel, bias, fixed, padded):
    weight = kernel.weight
    mean, *rest = fixed
    fixed = check.fixed_statistics(
        check.vector("mean", mean, kernel.inputs, "the layer's input", weight.dtype),
        *rest,
        kernel.inputs,
        "the layer's input",
        weight.dtype,
    )
    bias = _checked_bias(kernel, bias)
    check.finite("weight", weight)
    scale, shift = _scale_and_shift(None, fixed)
    if padded and shift.any():
        j = int((shift != 0).argmax())
        raise ValueError(
            f"padding is not 0, expected an unpadded convolution: the batch norm adds {shift[j]:.3g} "
            f"to channel {j}, but not to the zeros that are padded after it. Keep the batch norm, or "
            "pad before it with what it maps to 0, mean - beta * sqrt(var + eps) / gamma"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        folded = weight * kernel.by_input(scale)
        added = kernel.sums(weight * kernel.by_input(shift))
        if bias is not None:
            added = added + bias
    return _result(kernel, folded, added)


def _checked_bias(kernel, bias):
    if bias is None:
        return None
    return check.vector("bias", bias, kernel.features, "weight", kernel.weight.dtype)


def _result(kernel, folded, bias):
    return (
        check.result("the folded weight", folded, kernel.weight),
        check.narrowed("the folded bias", bias, kernel.weight.dtype),
    )


def _pads(padding):
    """Whether a convolution's padding, as any of the frameworks takes it, pads anything."""
    if isinstance(padding, str):
        if padding.lower() not in ("valid", "same"):
            raise ValueError(f"padding is {padding!r}, expected 'valid', 'same' or numbers")
        return padding.lower() == "same"
    if isinstance(padding, Sequence):
        return True in [_pads(part) for part in padding]
    return check.integer("padding", padding, least=0) > 0
