"""Batch norms that vary the noise of batch statistics while the gradient's batch stays.

``GhostBatchNorm`` has the noise of small batches, ``BorrowedStatistics`` has it from other examples,
and ``InjectedNoise`` draws it at random. ``noise`` has the formulas.
Hoffer, Hubara and Soudry (2017).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bncore import arguments as check
from bncore.explanations.noise import mean_variance, variance_variance


class GhostBatchNorm(BatchNorm):
    """Batch norm whose statistics come from small parts of the batch, each normalised by itself.

    A batch is cut, in its order, into ghost batches of ``size`` examples. A running average takes
    the ghost batches one after the other, as torch's batch norm does when it sees them one by one.
    In training mode any floating-point input is normalised, in float32 at least, and comes back in
    its own type. In evaluation mode it is torch's batch norm. As with that, values whose squares
    overflow are not refused.

    Parameters
    ----------
    num_features : int
        Features, on axis 1 of inputs (batch, features, *spatial).
    size : int
        Examples in a ghost batch; at least 2, and it must divide every batch in training mode.
    eps, momentum : float
        As in torch; momentum None averages all ghost batches equally.

    Raises
    ------
    TypeError
        If num_features or size is not an integer, eps or momentum not a real number or, when
        called, the input not a floating-point tensor.
    ValueError
        If num_features is below 1, size below 2, eps negative, momentum outside [0, 1] or, when
        called, the input has another shape or size does not divide the batch.

    References
    ----------
    Hoffer, Hubara and Soudry (2017), Algorithm 1.
    """

    def __init__(
        self, num_features: int, size: int, eps: float = 1e-5, momentum: float | None = 0.1
    ):
        size = check.integer("size", size, least=2)
        check.positive_integer("num_features", num_features)
        check.nonnegative("eps", eps)
        if momentum is not None:
            check.fraction("momentum", momentum)
        super().__init__(num_features, eps, momentum)
        self.size = size

    def forward(self, x: Float[torch.Tensor, "batch features *spatial"]):
        self._check_input_dim(x)
        if not self.training:
            return super().forward(x)
        self._check_batch(x)
        ghosts = _exact(x).reshape(-1, self.size, *x.shape[1:])
        axes = [1, *range(3, ghosts.ndim)]
        var, mean = torch.var_mean(ghosts, axes, correction=0, keepdim=True)
        self._keep(mean.detach().flatten(1), var.detach().flatten(1), ghosts[0, :, 0].numel())
        mean, var = self._next(mean), self._next(var)
        return self._scaled((ghosts - mean) / torch.sqrt(var + self.eps), x)

    def _next(self, statistic):
        return statistic

    def _check_batch(self, x):
        if len(x) % self.size or len(x) == 0:
            raise ValueError(
                f"the batch has {len(x)} examples, expected a multiple of size, {self.size}"
            )
        if x.numel() == 0:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected no empty axis")

    def _keep(self, means, variances, values):
        if self.running_mean is None:
            return
        kind = self.running_mean.dtype
        means, unbiased = means.to(kind), (variances * values / (values - 1)).to(kind)
        for mean, var in zip(means, unbiased, strict=True) if self.momentum is None else ():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, 1 / self.num_batches_tracked.item())
            self.running_var.lerp_(var, 1 / self.num_batches_tracked.item())
        if self.momentum is None:
            return
        self.num_batches_tracked.add_(len(means))
        age = torch.arange(len(means) - 1, -1, -1, device=means.device, dtype=means.dtype)
        weights = self.momentum * (1 - self.momentum) ** age
        for running, new in ((self.running_mean, means), (self.running_var, unbiased)):
            running.mul_((1 - self.momentum) ** len(means)).add_(weights @ new)

    def _scaled(self, x_hat, x):
        shape = (-1, *[1] * (x.ndim - 2))
        y = self.weight.reshape(shape) * x_hat.reshape(x.shape) + self.bias.reshape(shape)
        return y.to(x.dtype)

    def _check_input_dim(self, x):
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, torch.Tensor) else check.type_name(x)
            raise TypeError(f"x is a {kind}, expected a floating-point torch.Tensor")
        if x.ndim < 2 or x.shape[1] != self.num_features:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected (batch, {self.num_features}, *spatial)"
            )


class BorrowedStatistics(GhostBatchNorm):
    """Batch norm in which each ghost batch is normalised by the statistics of the one before it.

    The first borrows those of the last.

    The noise is that of ghost batches, alike in all features, but an example has no part in the
    statistics that it meets. Running averages are those of ``GhostBatchNorm``.

    Parameters
    ----------
    num_features, size, eps, momentum
        As in ``GhostBatchNorm``. In a batch of ``size`` an example meets its own statistics.

    Raises
    ------
    TypeError, ValueError
        As ``GhostBatchNorm``.
    """

    def _next(self, statistic):
        return statistic.roll(1, 0)


class InjectedNoise(GhostBatchNorm):
    """Batch norm over the whole batch, with the noise of ghost batches drawn at random instead.

    For each ghost batch and feature one normal offset and one gamma factor of the variance are
    drawn, with the means and variances that the statistics of a part of this batch have
    (``mean_variance``, ``variance_variance`` with the feature's kurtosis). All values of a feature
    count as independent: with spatial axes whose neighbours resemble each other the noise is weaker
    than that of ghost batches. What is left out: the noise knows nothing of the examples that it
    meets, nor of other features, and offset and factor are independent. A feature whose variance is
    not above eps gets no noise.

    Parameters
    ----------
    num_features, size, eps, momentum
        As in ``GhostBatchNorm``. A batch of ``size`` itself has no noise added.

    Raises
    ------
    TypeError, ValueError
        As ``GhostBatchNorm``.
    """

    def forward(self, x: Float[torch.Tensor, "batch features *spatial"]):
        self._check_input_dim(x)
        if not self.training or len(x) == self.size:
            return super().forward(x)
        self._check_batch(x)
        axes, count, exact = [0, *range(2, x.ndim)], x[:, 0].numel(), _exact(x)
        var, mean = torch.var_mean(exact, axes, correction=0, keepdim=True)
        self._keep(mean.detach().reshape(1, -1), var.detach().reshape(1, -1), count)
        x_hat = (exact - mean) / torch.sqrt(var + self.eps)
        offset, factor = self._draw(x_hat.detach(), count, count // len(x) * self.size, axes)
        ghosts = x_hat.reshape(-1, self.size, *x.shape[1:])
        shape = (len(ghosts), 1, self.num_features, *[1] * (x.ndim - 2))
        noisy = (ghosts - offset.reshape(shape)) / torch.sqrt(factor.reshape(shape) + self.eps)
        return self._scaled(torch.where(var > self.eps, noisy.reshape(x.shape), x_hat), x)

    def _draw(self, x_hat, count, m, axes):
        square = (x_hat**2).mean(axes).clamp(min=1e-18)  # its square is still a float32
        kurtosis = ((x_hat**4).mean(axes) / square**2).clamp(min=1.0)
        # The variance of the variance is linear in the kurtosis.
        none, slope = (variance_variance(m, 1.0, a4, count) for a4 in (1.0, 2.0))
        spread = (none + (slope - none) * (kurtosis - 1)).clamp(min=1e-12)
        centre = (m - 1) / m * count / (count - 1)
        draws = (count // m, self.num_features)
        offset = torch.randn(draws, dtype=x_hat.dtype, device=x_hat.device)
        shape = (centre**2 / spread).expand(draws)
        factor = torch.distributions.Gamma(shape, shape / centre, validate_args=False).sample()
        return offset * math.sqrt(mean_variance(m, 1.0, count)), factor


def ghost(size: int) -> Callable[[int], nn.Module]:
    """A normalisation for the networks of ``bncore.lab``: ``GhostBatchNorm`` of this size."""
    return lambda num_features: GhostBatchNorm(num_features, size)


def borrowed(size: int) -> Callable[[int], nn.Module]:
    """A normalisation for the networks of ``bncore.lab``: ``BorrowedStatistics`` of this size."""
    return lambda num_features: BorrowedStatistics(num_features, size)


def injected(size: int) -> Callable[[int], nn.Module]:
    """A normalisation for the networks of ``bncore.lab``: ``InjectedNoise`` of this size."""
    return lambda num_features: InjectedNoise(num_features, size)


def _exact(x):
    """The tensor in float32 where it has less."""
    return x.float() if x.element_size() < 4 else x
