"""Batch renormalization: batch statistics, corrected by the running ones, in NumPy and as a layer.

y = gamma * (r * (x - mean_B) / sigma_B + d) + beta,    sigma = sqrt(var + eps)

r = clip(sigma_B / sigma, 1 / r_max, r_max),    d = clip((mean_B - mean) / sigma, -d_max, d_max)

mean_B and var_B are the batch's, mean and var the running ones; r and d are constants to the
gradient. So it is batch norm with the scale gamma r and the shift gamma d + beta, forward and backward.
With r_max 1 and d_max 0 it is batch norm; where nothing is clipped, y is that of evaluation,
gamma * (x - mean) / sigma + beta. ``textbook`` has the same in a few lines.

Ioffe (2017), Algorithm 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real as Number

import numpy as np
import torch
from jaxtyping import Float, Real
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bncore import arguments as check
from bncore import tensors
from bncore.mechanics import transform
from bncore.mechanics.transform import Gradients

__all__ = ["BatchRenorm", "Cache", "backward", "forward", "ramp"]

Batch = Float[np.ndarray, "batch features *spatial"]
BatchLike = Real[np.ndarray, "batch features *spatial"] | check.Listed
Vector = Float[np.ndarray, "features"]
VectorLike = check.VectorLike
Limit = Number | Callable[[int], Number]


@dataclass(frozen=True, eq=False, repr=False)
class Cache:
    """What ``forward`` keeps for ``backward``.

    Attributes
    ----------
    transform : bncore.mechanics.transform.Cache
        That of batch norm with the scale gamma r and the shift gamma d + beta.
    r, d : Float[ndarray, "features"]
        The corrections, in double precision.
    gamma, beta : Float[ndarray, "features"] or None
        As they were handed in.
    """

    transform: transform.Cache
    r: Vector
    d: Vector
    gamma: Vector | None
    beta: Vector | None


def forward(
    x: BatchLike,
    mean: VectorLike,
    var: VectorLike,
    gamma: VectorLike | None = None,
    beta: VectorLike | None = None,
    r_max: float | int = 3.0,
    d_max: float | int = 5.0,
    eps: float | int = 1e-5,
) -> tuple[Batch, Cache]:
    """Normalise each feature over the batch, and correct it by statistics that are given.

    y = gamma * (r * (x - mean_B) / sqrt(var_B + eps) + d) + beta

    r = clip(sqrt((var_B + eps) / (var + eps)), 1 / r_max, r_max)
    d = clip((mean_B - mean) / sqrt(var + eps), -d_max, d_max)

    Parameters
    ----------
    x : Float[ndarray, "batch features *spatial"]
        As for ``bncore.mechanics.transform.forward``: at least two values a feature.
    mean, var : Float[ndarray, "features"]
        Running statistics: an estimate of those of all data.
    gamma, beta : Float[ndarray, "features"], optional
        Scale and shift. None means 1 and 0.
    r_max : float
        At least 1, where batch norm is; infinity does not limit r.
    d_max : float
        At least 0, where batch norm is; infinity does not limit d.
    eps : float
        Positive.

    Returns
    -------
    y : Float[ndarray, "batch features *spatial"]
        In the dtype and memory order of x.
    cache : Cache
        What ``backward`` needs, and r and d.

    Raises
    ------
    TypeError
        If an argument holds no real numbers, or is a tensor, a sparse matrix or a subclass of
        ndarray.
    ValueError
        As ``transform.forward``; if var is negative or a limit too small; or if a correction is so
        large that gamma r or gamma d + beta overflows.

    References
    ----------
    Ioffe (2017), Algorithm 1.
    """
    r_max, d_max = _r_limit(r_max), _d_limit(d_max)
    _, plain = transform.forward(x, None, None, eps)
    x = plain.x
    mean, var, gamma, beta, eps = check.fixed_statistics(
        mean, var, gamma, beta, eps, x.shape[1], "x", x.dtype
    )
    one = np.ones(x.shape[1]) if gamma is None else gamma.astype(np.float64)
    zero = np.zeros(x.shape[1]) if beta is None else beta.astype(np.float64)
    with np.errstate(all="ignore"):
        sigma = np.sqrt(var.astype(np.float64) + eps)
        r = np.clip(np.sqrt(plain.var + eps) / sigma, 1 / r_max, r_max)
        d = np.clip((plain.mean - mean.astype(np.float64)) / sigma, -d_max, d_max)
        scale, shift = one * r, one * d + zero
    scale = check.narrowed("gamma * r", scale, np.float64)
    shift = check.narrowed("gamma * d + beta", shift, np.float64)
    y, cache = transform.forward(x, scale, shift, eps)
    return y, Cache(cache, r, d, gamma, beta)


def backward(dy: BatchLike, cache: Cache) -> Gradients:
    """Carry the gradient of a loss back through a renormalization, with r and d as constants.

    dbeta  = sum(dy)
    dgamma = sum(dy * (r x_hat + d))
    dx     = gamma r / sqrt(var_B + eps) * (dy - sum(dy) / m - x_hat sum(dy * x_hat) / m)

    Where r is not clipped, r / sqrt(var_B + eps) is 1 / sqrt(var + eps): the backward pass of batch
    norm, with the running deviation in place of the batch's.

    Parameters
    ----------
    dy : Float[ndarray, "batch features *spatial"]
        Gradient of the loss with respect to y, in the shape of x.
    cache : Cache
        From the ``forward`` that returned y.

    Returns
    -------
    Gradients
        As from ``bncore.mechanics.transform.backward``.

    Raises
    ------
    TypeError
        If dy holds no real numbers, or cache is not what ``forward`` returned.
    ValueError
        As ``transform.backward``.

    References
    ----------
    Ioffe (2017), section 3, which does not back-propagate through r and d.
    """
    check.kept(cache, Cache)
    dx, dscale, dshift = transform.backward(dy, cache.transform)
    with np.errstate(all="ignore"):
        dgamma = cache.r * dscale + cache.d * dshift
    return Gradients(
        dx,
        None if cache.gamma is None else check.narrowed("dgamma", dgamma, cache.gamma.dtype),
        None if cache.beta is None else check.narrowed("dbeta", dshift, cache.beta.dtype),
    )


@dataclass(frozen=True)
class _Ramp:
    start: float
    stop: float
    first: int
    last: int

    def __call__(self, batches: int) -> float:
        part = min(max((batches - self.first) / (self.last - self.first), 0.0), 1.0)
        return self.start + part * (self.stop - self.start)


def ramp(start: Number, stop: Number, first: int, last: int) -> Callable[[int], float]:
    """A limit that grows in a straight line, from ``start`` at one batch to ``stop`` at a later one.

    Ioffe's networks train 5000 batches as with batch norm, then ``r_max=ramp(1, 3, 5000, 40000)`` and
    ``d_max=ramp(0, 5, 5000, 25000)``. The result can be pickled.

    Parameters
    ----------
    start, stop : float
        The limit until ``first``, and from ``last`` on.
    first, last : int
        Numbers of batches, 0 <= first < last.

    Raises
    ------
    TypeError
        If start or stop is not a real number, or first or last not an integer.
    ValueError
        If start or stop is not finite, first negative, or last not above first.

    References
    ----------
    Ioffe (2017), section 4.1.
    """
    start, stop = check.finite_number("start", start), check.finite_number("stop", stop)
    first, last = check.integer("first", first, least=0), check.integer("last", last, least=1)
    if not first < last:
        raise ValueError(f"last is {last}, expected more than first, {first}")
    return _Ramp(start, stop, first, last)


class BatchRenorm(BatchNorm):
    """Batch renormalization for inputs of any number of axes, in the place of a batch norm.

    In training mode the output is that of ``forward`` with the running statistics as they were
    before this batch, which then move as torch's do. No gradient flows through r and d. Before the
    first batch there are no running statistics to correct by, and r is 1, d is 0. In evaluation
    mode it is torch's batch norm. Its state is torch's too: a state dict of either loads into the
    other.

    Ioffe averages the batches' biased standard deviation. The running statistic here is torch's,
    the unbiased variance, so that states can be exchanged: in a batch of two it is twice the biased
    one.

    Half-precision inputs have their statistics taken in float32. As with torch's batch norm, NaN and
    infinity go through.

    torch's ``SyncBatchNorm.convert_sync_batchnorm`` puts a plain synchronised batch norm in the place
    of this layer, limits and corrections gone, and says nothing. Convert first, and put this layer in
    afterwards, where it may see the values of its own device only.

    Parameters
    ----------
    num_features : int
        Features, on axis 1.
    eps : float
        Positive, as in torch.
    momentum : float, optional
        Weight of a new batch in the running statistics; None averages all batches equally.
    r_max, d_max : float or callable
        Limits of r, at least 1, and of d, at least 0; infinity does not limit. A callable, such as
        from ``ramp``, gives the limit from the number of batches seen before, ``num_batches_tracked``.
    affine : bool
        Whether there are a scale and a shift to learn.

    Raises
    ------
    TypeError
        If num_features is not an integer, eps or momentum not a real number, a limit neither a real
        number nor callable; in a forward pass, if the input is not a floating-point tensor of the
        layer's dtype or, where that is float32, of half precision.
    ValueError
        If a number is outside its range; in a forward pass, if a schedule returns such a limit, the
        input has other features, in training mode fewer than two values of each, or the layer has no
        running statistics.

    References
    ----------
    Ioffe (2017), Algorithm 1.
    """

    def __init__(
        self,
        num_features: int,
        eps: Number = 1e-5,
        momentum: Number | None = 0.1,
        r_max: Limit = 3.0,
        d_max: Limit = 5.0,
        affine: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        check.positive_integer("num_features", num_features)
        eps = check.positive("eps", eps)
        if momentum is not None:
            momentum = check.fraction("momentum", momentum)
        super().__init__(num_features, eps, momentum, affine, device=device, dtype=dtype)
        self.r_max = r_max if callable(r_max) else _r_limit(r_max)
        self.d_max = d_max if callable(d_max) else _d_limit(d_max)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, r_max={self.r_max}, d_max={self.d_max}"

    def limits(self) -> tuple[float, float]:
        """r_max and d_max for the next batch.

        Raises
        ------
        TypeError, ValueError
            If a schedule returns what is no limit.
        """
        r_max, d_max = (
            limit(int(self.num_batches_tracked)) if callable(limit) else limit
            for limit in (self.r_max, self.d_max)
        )
        return _r_limit(r_max), _d_limit(d_max)

    def forward(
        self, x: Float[torch.Tensor, "batch features *spatial"]
    ) -> Float[torch.Tensor, "batch features *spatial"]:
        """Normalise and correct; in evaluation mode, normalise by the running statistics."""
        self._check_input_dim(x)
        if not self.training:
            return super().forward(x)
        with torch.no_grad():
            exact = x.float() if x.element_size() < 4 else x
            var, mean = torch.var_mean(exact, [0, *range(2, x.ndim)], correction=0)
            r, d = self._corrections(mean, var)
            self._move(mean, var, x.numel() // x.shape[1])
        if not self.affine:
            return batch_norm(x, None, None, r, d, training=True, eps=self.eps)
        kind = self.weight.dtype
        weight, bias = self.weight * r.to(kind), self.weight * d.to(kind) + self.bias
        return batch_norm(x, None, None, weight, bias, training=True, eps=self.eps)

    def _corrections(self, mean, var):
        r_max, d_max = self.limits()
        sigma = (self.running_var.to(var.dtype) + self.eps).sqrt()
        r = ((var + self.eps).sqrt() / sigma).clamp(1 / r_max, r_max)
        d = ((mean - self.running_mean.to(mean.dtype)) / sigma).clamp(-d_max, d_max)
        begun = self.num_batches_tracked > 0
        return torch.where(begun, r, 1.0), torch.where(begun, d, 0.0)

    def _move(self, mean, var, m):
        self.num_batches_tracked.add_(1)
        weight = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        for kept, new in ((self.running_mean, mean), (self.running_var, var * (m / (m - 1)))):
            kept.lerp_(new.to(kept.dtype), weight)

    def _check_input_dim(self, input):
        if self.running_mean is None or self.running_var is None:
            raise ValueError(
                "the layer has no running statistics, expected running_mean and running_var, by "
                "which it corrects those of the batch"
            )
        tensors.layer_input("x", input, self.num_features, self.running_mean.dtype)
        shape = tuple(input.shape)
        count = check.values_per_feature(input)
        if self.training and count < 2:
            raise ValueError(
                f"x has shape {shape}, {count} values of each feature, expected at least 2 in "
                "training mode: one value has no deviation"
            )


def _r_limit(value):
    return _limit("r_max", value, 1)


def _d_limit(value):
    return _limit("d_max", value, 0)


def _limit(name, value, least):
    found = check.number(name, value)
    if not found >= least:
        raise ValueError(f"{name} is {value}, expected a number of at least {least}")
    return found
