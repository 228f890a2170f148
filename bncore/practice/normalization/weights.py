"""Weight normalization and weight standardization, in NumPy, and the latter for layers of torch.

They normalise the weights of each unit rather than what it computes, so that no example is looked at.
Units lie on axis 0, as in torch's linear layers and convolutions.
"""

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm as _reparametrized

from bncore import arguments as check
from bncore.practice.normalization.over_axes import Cache, normalize

Weights = Float[np.ndarray, "units *inputs"]
WeightsLike = Real[np.ndarray, "units *inputs"] | check.Listed
VectorLike = check.VectorLike


def weight_norm(v: WeightsLike, g: VectorLike | None = None) -> tuple[Weights, Cache]:
    """Give the weights of each unit the direction of v and the length g.

    w = g * v / norm(v)

    torch's ``torch.nn.utils.parametrizations.weight_norm``. ``backward`` returns the gradients of v
    and g as dx and dgamma; that of v has no part along v.

    Parameters
    ----------
    v : Float[ndarray, "units *inputs"]
        Directions, in at least two axes. Lists and integers become float64.
    g : Float[ndarray, "units"], optional
        Lengths, which may be negative. None means 1.

    Returns
    -------
    w : Float[ndarray, "units *inputs"]
        In the dtype and memory order of v.
    cache : Cache
        What ``backward`` needs. Its ``var`` is the mean square of a unit's v.

    Raises
    ------
    TypeError
        If an argument holds no real numbers, or is a tensor, a sparse matrix or a subclass of
        ndarray.
    ValueError
        If v has fewer than two axes, no values, or a unit of length 0; if g does not have one entry
        for each unit; or if anything is not finite.

    References
    ----------
    Salimans and Kingma (2016), equation 2 and section 2.1.
    """
    v = _weights("v", v)
    if g is not None:
        g = check.vector("g", g, len(v), "v, its units", v.dtype)
    check.finite("v", v)
    still = ~v.any(axis=tuple(range(1, v.ndim)))
    if v.size and still.any():
        raise ValueError(
            f"v[{int(still.argmax())}] has length 0, expected a direction: some entry that is not 0"
        )
    # The length is the root of the mean square times that of the number of entries.
    return _by_unit(v, g, eps=0.0, centred=False, factor=_fan_in(v) ** -0.5)


def weight_standardization(
    v: WeightsLike, gain: VectorLike | None = None, eps: float | int = 1e-5
) -> tuple[Weights, Cache]:
    """Give the weights of each unit the mean 0 and the variance 1, or the deviation that gain says.

    w = gain * (v - mean) / sqrt(var + eps)

    Weights of variance 1 multiply the deviation of a signal by the root of their number. So a
    normalisation of what the unit computes stands behind it, in the source group norm.

    Parameters
    ----------
    v : Float[ndarray, "units *inputs"]
        Weights, in at least two axes, with at least two entries a unit.
    gain : Float[ndarray, "units"], optional
        Deviation of the weights of each unit. None means 1.
    eps : float
        Positive, added to the variance.

    Returns
    -------
    w : Float[ndarray, "units *inputs"]
        In the dtype and memory order of v. Equal weights become 0.
    cache : Cache
        What ``backward`` needs, which returns the gradients of v and gain as dx and dgamma.

    Raises
    ------
    TypeError, ValueError
        As ``weight_norm``, but that equal weights will do; and if a unit has fewer than two entries
        or eps is not positive.

    References
    ----------
    Qiao, Wang, Liu, Shen and Yuille (2019), section 3.
    """
    v = _weights("v", v)
    if gain is not None:
        gain = check.vector("gain", gain, len(v), "v, its units", v.dtype)
    return _by_unit(v, gain, eps=check.positive("eps", eps))


class WeightStandardization(nn.Module):
    """The weights of each unit of a layer, standardised: a parametrization for torch's layers.

    w = (v - mean) / sqrt(var + eps)

    Parameters
    ----------
    eps : float
        Positive.

    References
    ----------
    Qiao, Wang, Liu, Shen and Yuille (2019), section 3.
    """

    def __init__(self, eps: float | int = 1e-5):
        super().__init__()
        self.eps = check.positive("eps", eps)

    def forward(self, v: Float[torch.Tensor, "units *inputs"]):
        """The standardised weights, in the shape of v."""
        axes = tuple(range(1, v.ndim))
        var, mean = torch.var_mean(v, axes, correction=0, keepdim=True)
        return (v - mean) * torch.rsqrt(var + self.eps)


def with_weight_norm(layer: nn.Module) -> nn.Module:
    """Give a linear layer or convolution weights of torch's weight normalization, in place.

    Lengths start as those of the weights, so the layer computes what it did.

    Raises
    ------
    TypeError
        If it is neither a linear layer nor a convolution.
    """
    return _reparametrized(_checked(layer))


def with_weight_standardization(layer: nn.Module, eps: float | int = 1e-5) -> nn.Module:
    """Standardise the weights of a linear layer or convolution, in place, whenever it is called.

    What learns is ``layer.parametrizations.weight.original``.

    Raises
    ------
    TypeError
        If it is neither a linear layer nor a convolution.
    ValueError
        If a unit has one weight only, or eps is not positive.
    """
    weight = _checked(layer).weight
    if weight[0].numel() < 2:
        raise ValueError(
            f"layer has weights of shape {tuple(weight.shape)}, expected at least two a unit: one "
            "has no deviation"
        )
    return parametrize.register_parametrization(layer, "weight", WeightStandardization(eps))


def _checked(layer):
    """A layer whose units lie on axis 0 of its weights."""
    kinds = nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d
    if not isinstance(layer, kinds):
        raise TypeError(
            f"layer is a {check.type_name(layer)}, expected a linear layer or a convolution, not "
            "transposed"
        )
    return layer


def _by_unit(v, scale, **options):
    return normalize(v, v.shape, tuple(range(1, v.ndim)), scale, axis=0, name="v", **options)


def _weights(name, value):
    value = check.array(name, value)
    if value.ndim < 2:
        raise ValueError(f"{name} has shape {value.shape}, expected (units, *inputs)")
    return np.asarray(value)


def _fan_in(v):
    return max(v[:1].size, 1)
