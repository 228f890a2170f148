"""Switchable normalization: a learned mixture of the statistics of instance, layer and batch norm."""

import math

import torch
from jaxtyping import Float
from torch import nn

from bncore import arguments as check
from bncore import tensors

Batch = Float[torch.Tensor, "batch features *spatial"]
KINDS = ("instance", "layer", "batch")


class Switchable(nn.Module):
    """Switchable normalization, for inputs of any number of axes.

    y = weight * (x - mean) / sqrt(var + eps) + bias

    mean = sum_k p_k mean_k,    p = softmax(mean_logits)
    var  = sum_k q_k var_k,     q = softmax(var_logits)

    k runs over instance, layer and batch norm, in this order. In evaluation mode the statistics of
    the batch are the running ones. With one part of p and q at 1 it is that norm.

    Our reading, where the sources leave room: the running statistics are torch's, the variance
    unbiased, and move as a batch norm's do. Where a feature of an example has one value only, it has
    no statistics as an instance, and the mixture is that of the other two.

    Parameters
    ----------
    features : int
        On axis 1.
    eps : float
        Positive.
    momentum : float
        Weight of a new batch in the running statistics.

    Raises
    ------
    TypeError
        If a number is of the wrong type, or in a forward pass the input no tensor of the layer's
        dtype.
    ValueError
        If a number is outside its range; in a forward pass, if the input has other features, one
        value an example, or in training mode fewer than two values of each feature.

    References
    ----------
    Luo, Ren, Peng, Zhang and Li (2019), equations 3 to 5.
    """

    def __init__(self, features: int, eps: float | int = 1e-5, momentum: float | int = 0.1):
        super().__init__()
        self.features = check.positive_integer("features", features)
        self.eps, self.momentum = check.positive("eps", eps), check.fraction("momentum", momentum)
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.mean_logits = nn.Parameter(torch.zeros(len(KINDS)))
        self.var_logits = nn.Parameter(torch.zeros(len(KINDS)))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def extra_repr(self) -> str:
        return f"{self.features}, eps={self.eps}, momentum={self.momentum}"

    def forward(self, x: Batch) -> Batch:
        """Normalise by the mixture of statistics, then scale and shift each feature."""
        tensors.layer_input("x", x, self.features, self.weight.dtype)
        positions = math.prod(x.shape[2:])
        self._refuse_few(x, positions)
        wide = x.to(self.weight.dtype).flatten(2) if x.ndim > 2 else x[..., None]
        wide = wide.to(self.weight.dtype)
        means, variances = self._statistics(wide)
        used = slice(0 if positions > 1 else 1, None)
        p, q = self.mean_logits[used].softmax(0), self.var_logits[used].softmax(0)
        mean = sum(a * b for a, b in zip(p, means[used], strict=True))
        var = sum(a * b for a, b in zip(q, variances[used], strict=True))
        scale = self.weight[:, None] * torch.rsqrt(var + self.eps)
        return ((wide - mean) * scale + self.bias[:, None]).reshape(x.shape).to(x.dtype)

    def _statistics(self, x):
        """Means and biased variances of instances, examples and the batch, for (batch, features, positions)."""
        var, mean = torch.var_mean(x, 2, correction=0, keepdim=True)
        # A variance over equal parts is the mean of theirs and the variance of their means.
        layer = (mean.mean(1, True), var.mean(1, True) + mean.var(1, correction=0, keepdim=True))
        if self.training:
            batch = (
                mean.mean(0, True),
                var.mean(0, True) + mean.var(0, correction=0, keepdim=True),
            )
            self._move(*batch, len(x) * x.shape[2])
        else:
            batch = self.running_mean[:, None], self.running_var[:, None]
        return zip((mean, var), layer, batch, strict=True)

    @torch.no_grad()
    def _move(self, mean, var, m):
        self.running_mean.lerp_(mean.flatten(), self.momentum)
        self.running_var.lerp_(var.flatten() * (m / (m - 1)), self.momentum)

    def _refuse_few(self, x, positions):
        for count, of, needed in (
            (self.features * positions, "of each example", True),
            (len(x) * positions, "of each feature in training mode", self.training),
        ):
            if needed and count < 2:
                raise ValueError(
                    f"x has shape {tuple(x.shape)}, expected at least 2 values {of}, got {count}: "
                    "one value has no deviation"
                )
