"""Folding: a batch norm with fixed statistics is an affine map, and the layer before absorbs it.

The folded layer computes the same function in one pass over the data instead of two.
Source: Ioffe and Szegedy (2015), Algorithm 2, line 11; weight layouts are torch's.
"""

import numpy as np
from jaxtyping import Float, Real

from bncore import arguments as check

__all__ = ["affine_map", "fold_conv", "fold_linear"]

Vector = Float[np.ndarray, "features"]
VectorLike = check.VectorLike


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
    weight: Real[np.ndarray, "features inputs"] | check.Listed,
    bias: VectorLike | None,
    mean: VectorLike,
    var: VectorLike,
    gamma: VectorLike | None = None,
    beta: VectorLike | None = None,
    eps: float | int = 1e-5,
) -> tuple[Float[np.ndarray, "features inputs"], Vector]:
    """Fold a batch norm with fixed statistics into the linear layer before it.

    weight' = diag(scale) weight,    bias' = scale * (bias - mean) + beta,    scale as in affine_map

    Parameters
    ----------
    weight : Float[ndarray, "features inputs"]
        The layer computes x @ weight.T + bias.
    bias : Float[ndarray, "features"] or None
        None stands for a layer without bias; the folded layer always has one.
    mean, var, gamma, beta, eps
        As in ``affine_map``, one entry for each output feature of the layer.

    Returns
    -------
    weight, bias
        Of the folded layer, in the dtype of ``weight``.

    Raises
    ------
    TypeError, ValueError
        As ``affine_map``, and if weight is not a finite matrix whose rows match mean.
    """
    weight = check.array("weight", weight)
    if weight.ndim != 2:
        raise ValueError(f"weight has shape {weight.shape}, expected (features, inputs)")
    return _fold(weight, bias, (mean, var, gamma, beta, eps), groups=1, transposed=False)


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
) -> tuple[Float[np.ndarray, "_ _ *kernel"], Vector]:
    """Fold a batch norm with fixed statistics into the convolution before it.

    As ``fold_linear``, with the kernel of each output channel multiplied by that channel's scale.
    Stride, padding and dilation do not matter, because the batch norm acts on the output. For the
    same reason a batch norm *before* a zero-padded convolution cannot be folded into it: the
    padding is not shifted.

    Parameters
    ----------
    weight : Float[ndarray, "..."]
        (features, inputs / groups, *kernel) or, transposed, (inputs, features / groups, *kernel).
    bias, mean, var, gamma, beta, eps
        As in ``fold_linear``.
    groups : int
        Number of groups of the convolution. Divides features and inputs.
    transposed : bool
        Whether the layer is a transposed convolution.

    Returns
    -------
    weight, bias
        Of the folded layer, in the dtype of ``weight``.

    Raises
    ------
    TypeError, ValueError
        As ``affine_map``, and if weight is not a finite kernel of the layout above.
    """
    weight = check.array("weight", weight)
    if weight.ndim < 3:
        layout = "inputs, features / groups" if transposed else "features, inputs / groups"
        raise ValueError(f"weight has shape {weight.shape}, expected ({layout}, *kernel)")
    check.positive_integer("groups", groups)
    if weight.shape[0] % groups:
        channels = "inputs" if transposed else "features"
        raise ValueError(
            f"groups is {groups}, expected a divisor of the {weight.shape[0]} {channels} of weight"
        )
    return _fold(weight, bias, (mean, var, gamma, beta, eps), groups, transposed)


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


def _fold(weight, bias, fixed, groups, transposed):
    features = weight.shape[1] * groups if transposed else weight.shape[0]
    fixed = check.fixed_statistics(*fixed, features, "weight", weight.dtype)
    if bias is not None:
        bias = check.vector("bias", bias, features, "weight", weight.dtype)
    check.finite("weight", weight)

    scale, shift = _scale_and_shift(bias, fixed)
    if transposed:
        by_kernel = np.repeat(scale.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    else:
        by_kernel = scale[:, np.newaxis]
    with np.errstate(over="ignore", invalid="ignore"):
        folded = weight * by_kernel.reshape(*by_kernel.shape, *[1] * (weight.ndim - 2))
    return (
        check.result("the folded weight", folded, weight),
        check.narrowed("the folded bias", shift, weight.dtype),
    )
