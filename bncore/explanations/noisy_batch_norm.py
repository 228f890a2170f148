"""Batch norm whose outputs are disturbed on purpose: internal covariate shift put back.

Source: Santurkar, Tsipras, Ilyas and Madry (2018), section 2.1.
"""

from numbers import Real

import torch
from jaxtyping import Float
from torch import nn

from bncore import arguments as check
from bncore import tensors


class NoisyBatchNorm(nn.Module):
    """Batch norm whose outputs are moved and stretched at random, anew at every training step.

    In training mode each step draws a distribution for each feature, and each value of the batch
    its own noise from it. With a the output of batch norm,

        mean ~ U(-shift, shift) and scale ~ U(1, stretch)                 for each feature,
        m ~ U(mean - jitter, mean + jitter) and s ~ N(scale, jitter^2)    for each value,
        output = s a + m.

    In evaluation mode there is no noise.

    Parameters
    ----------
    num_features : int
        Features or channels, on axis 1 of (batch, features, *spatial).
    shift : float
        Largest mean of the noise.
    stretch : float
        Largest scale, at least 1.
    jitter : float
        How far single values stray from the distribution's mean and scale.

    Raises
    ------
    TypeError
        If an argument is not a number; in a forward pass, if x is not a tensor of the layer's
        dtype, or, where the layer is in single precision, of that or half precision.
    ValueError
        If num_features is below 1, shift or jitter negative, or stretch below 1; in a forward pass,
        if x has other features than the layer, or in training mode fewer than two values of each.

    References
    ----------
    Santurkar et al. (2018), section 2.1: batch norm with time-varying noise of non-zero mean and
    non-unit variance.
    """

    is_batch_norm = True  # The lab's batch statistics put it in training mode, noise included.

    def __init__(
        self, num_features: int, shift: Real = 0.5, stretch: Real = 1.25, jitter: Real = 0.1
    ):
        super().__init__()
        features = check.positive_integer("num_features", num_features)
        self.shift = check.nonnegative("shift", shift)
        self.stretch = check.positive("stretch", stretch)
        self.jitter = check.nonnegative("jitter", jitter)
        if self.stretch < 1:
            raise ValueError(f"stretch is {stretch}, expected at least 1, which is no stretch")
        self.norm = _BatchNorm(features)

    def forward(
        self, x: Float[torch.Tensor, "batch features *spatial"]
    ) -> Float[torch.Tensor, "batch features *spatial"]:
        """Normalise and, in training mode, disturb."""
        a = self.norm(x)
        if not self.training:
            return a
        each = (1, a.shape[1], *(1 for _ in a.shape[2:]))
        mean = self.shift * (2 * torch.rand(each, device=a.device, dtype=a.dtype) - 1)
        scale = 1 + (self.stretch - 1) * torch.rand(each, device=a.device, dtype=a.dtype)
        m = mean + self.jitter * (2 * torch.rand_like(a) - 1)
        s = scale + self.jitter * torch.randn_like(a)
        return s * a + m


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """torch's batch norm for any number of trailing axes."""

    def _check_input_dim(self, input):
        tensors.layer_input("x", input, self.num_features, self.weight.dtype)
        shape = tuple(input.shape)
        count = input.numel() // shape[1]
        if count < 1 + self.training:
            raise ValueError(
                f"x has shape {shape}, {count} values of each feature, expected at least "
                f"{1 + self.training}"
            )
