"""Batch norm that normalises by its running statistics in training too, and holds them constant."""

import torch
from jaxtyping import Float
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bncore import tensors


class RunningNorm(BatchNorm):
    """Normalises by its running statistics in training too, and takes them for constants.

    Each batch of training moves the statistics, as torch's batch norm does, before they are used. To
    the gradient they are constants, so that all of it passes. In evaluation mode it is torch's batch
    norm.

    One value of a feature has no variance. There the running variance takes up the value's distance
    from the running mean M before it, with momentum a:

    .. math:: (1 - \\tfrac a2)\\,(x - M)^2

    M itself has the variance :math:`\\tfrac a{2-a}V`, where V is that of the values, so that this
    is V in expectation. With momentum None the factor is :math:`1 - \\tfrac1t` at the t-th value.

    Parameters
    ----------
    num_features, eps, momentum, affine
        As in torch.

    Raises
    ------
    TypeError, ValueError
        If the input is no float tensor of the layer's number of features and dtype.
    """

    def forward(
        self, x: Float[torch.Tensor, "batch features *spatial"]
    ) -> Float[torch.Tensor, "batch features *spatial"]:
        """Move the statistics, in training mode; then normalise by them."""
        self._check_input_dim(x)
        if self.training:
            with torch.no_grad():
                self._move(x)
        kept = self.running_mean.clone(), self.running_var.clone()
        return batch_norm(x, *kept, self.weight, self.bias, eps=self.eps)

    def _move(self, x):
        self.num_batches_tracked.add_(1)
        weight = self.momentum
        if weight is None:
            weight = 1 / int(self.num_batches_tracked)
        if x.numel() > self.num_features:
            batch_norm(x, self.running_mean, self.running_var, None, None, True, weight)
            return
        apart = x.flatten().to(self.running_mean.dtype) - self.running_mean
        factor = 1 - weight / (1 if self.momentum is None else 2)
        self.running_mean.add_(apart, alpha=weight)
        self.running_var.lerp_(factor * apart.square(), weight)

    def _check_input_dim(self, input):
        tensors.layer_input("x", input, self.num_features, self.running_mean.dtype)
