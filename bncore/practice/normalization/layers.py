"""Layer, instance, group and root mean square normalization as layers of torch, for any trailing axes.

Called with the number of features alone they are what the networks of ``bncore.lab`` take as their
normalisation.
"""

import math

import torch
from jaxtyping import Float
from torch import nn

from bncore import arguments as check
from bncore import tensors

Batch = Float[torch.Tensor, "batch features *spatial"]


class GroupNorm(nn.GroupNorm):
    """torch's group norm, which refuses what has no deviation.

    Of a set of one value torch makes the shift, so that nothing of the input and no gradient goes
    through. Here that is an error.

    Parameters
    ----------
    features : int
        On axis 1.
    groups : int
        A divisor of features.
    eps : float
        Positive.
    affine : bool
        Whether there are a scale and a shift to learn.

    Raises
    ------
    TypeError
        If a number is of the wrong type, or in a forward pass the input no tensor of the layer's
        dtype.
    ValueError
        If groups is no divisor of features or eps not positive; in a forward pass, if the input has
        other features, or one value a group.

    References
    ----------
    Wu and He (2018).
    """

    def __init__(
        self, features: int, groups: int = 1, eps: float | int = 1e-5, affine: bool = True
    ):
        check.positive_integer("features", features)
        check.positive_integer("groups", groups)
        if features % groups:
            raise ValueError(f"groups is {groups}, expected a divisor of features, {features}")
        super().__init__(groups, features, check.positive("eps", eps), affine)

    def forward(self, x: Batch) -> Batch:
        """Normalise each group of each example, then scale and shift each feature."""
        self._refuse(x)
        return super().forward(x)

    def _refuse(self, x):
        dtype = None if self.weight is None else self.weight.dtype
        tensors.layer_input("x", x, self.num_channels, dtype)
        count = self.num_channels // self.num_groups * math.prod(x.shape[2:])
        if count < 2:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, {count} value in each of {self.num_groups} groups, "
                "expected at least 2: one value has no deviation"
            )


class LayerNorm(GroupNorm):
    """Layer norm over all features and positions of an example: group norm with one group.

    For inputs of two axes it is torch's ``LayerNorm``. For more, torch's has a scale for each
    position too, and so fixes the size of an image.

    Parameters
    ----------
    features, eps, affine
        As for ``GroupNorm``.

    References
    ----------
    Ba, Kiros and Hinton (2016).
    """

    def __init__(self, features: int, eps: float | int = 1e-5, affine: bool = True):
        super().__init__(features, 1, eps, affine)


class InstanceNorm(GroupNorm):
    """Instance norm, the same in training and evaluation: group norm with one group a feature.

    Parameters
    ----------
    features, eps, affine
        As for ``GroupNorm``.

    References
    ----------
    Ulyanov, Vedaldi and Lempitsky (2016).
    """

    def __init__(self, features: int, eps: float | int = 1e-5, affine: bool = True):
        super().__init__(features, features, eps, affine)


class RMSNorm(nn.Module):
    """Divide each example by the root of its mean square, over features and positions.

    y = weight * x / sqrt(mean(x²) + eps)

    For inputs of two axes it is torch's ``RMSNorm``. Half precision is computed in single precision.

    Parameters
    ----------
    features : int
        On axis 1.
    eps : float
        Positive.

    Raises
    ------
    TypeError
        If a number is of the wrong type, or in a forward pass the input no tensor of the layer's
        dtype.
    ValueError
        If a number is outside its range, or in a forward pass the input has other features.

    References
    ----------
    Zhang and Sennrich (2019).
    """

    def __init__(self, features: int, eps: float | int = 1e-5):
        super().__init__()
        self.features = check.positive_integer("features", features)
        self.eps = check.positive("eps", eps)
        self.weight = nn.Parameter(torch.ones(features))

    def extra_repr(self) -> str:
        return f"{self.features}, eps={self.eps}"

    def forward(self, x: Batch) -> Batch:
        """Normalise each example, then scale each feature."""
        tensors.layer_input("x", x, self.features, self.weight.dtype)
        wide = x.to(self.weight.dtype)
        square = wide.square().mean(tuple(range(1, x.ndim)), keepdim=True)
        y = wide * torch.rsqrt(square + self.eps) * self.weight.view(-1, *[1] * (x.ndim - 2))
        return y.to(x.dtype)
