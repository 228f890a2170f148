"""Stochastic normalization: the noise of batch statistics, put where no batch is looked at."""

import math

import torch
from jaxtyping import Float
from torch.nn.functional import group_norm

from bncore import arguments as check
from bncore.practice.normalization.layers import GroupNorm

Batch = Float[torch.Tensor, "batch features *spatial"]


class Stochastic(GroupNorm):
    r"""Group norm with the random scale and shift that batch norm has.

    y = weight * (x_hat - z / sqrt(m)) / s + bias,    z ~ N(0, 1),    m s² ~ chi² with m - 1 degrees

    x_hat is x as group norm normalises it. z and s are drawn for each feature at each training step,
    and the whole batch shares them: the noise is one of parameters, not of activations. In evaluation
    mode, and for m infinite, there is none.

    Why this noise: m normal values of mean mu and deviation sigma have the mean mu + sigma z / sqrt(m) and
    the biased deviation sigma s, and z and s are independent. So batch norm over m values, which divides
    by their deviation what it subtracts their mean from, computes (x_hat - z / sqrt(m)) / s of
    x_hat = (x - mu) / sigma.

    Noise in parameters can be read as sampling from an approximate posterior. Samples of a prediction
    come from several passes in training mode, which changes nothing but the noise.

    Our reading, where the sources leave room: they put noise on several deterministic
    normalisations, with learned or fixed size; here it is on group norm, and of the size that a batch
    of m would give.

    Parameters
    ----------
    features : int
        On axis 1.
    batch_size : float
        m, at least 2; infinity for no noise. Below 4 the variance of y is infinite.
    groups : int
        A divisor of features; 1 is layer norm.
    eps : float
        Positive.

    Raises
    ------
    TypeError, ValueError
        As ``GroupNorm``, and if batch_size is no number of at least 2.

    References
    ----------
    Shekhovtsov and Flach (2018).
    """

    def __init__(
        self,
        features: int,
        batch_size: float | int = 32,
        groups: int = 1,
        eps: float | int = 1e-5,
    ):
        super().__init__(features, groups, eps)
        self.batch_size = check.number("batch_size", batch_size)
        if not self.batch_size >= 2:
            raise ValueError(f"batch_size is {batch_size}, expected a number of at least 2")

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, batch_size={self.batch_size}"

    def forward(self, x: Batch) -> Batch:
        """Normalise each group of each example; in training mode, disturb each feature."""
        if not self.training or math.isinf(self.batch_size):
            return super().forward(x)
        self._refuse(x)
        shift, scale = self.noise()
        weight = self.weight / scale
        return group_norm(x, self.num_groups, weight, self.bias - weight * shift, self.eps)

    def noise(self) -> tuple[Float[torch.Tensor, "features"], Float[torch.Tensor, "features"]]:
        """z / sqrt(m) and s for each feature, drawn from torch's generator."""
        m, like = self.batch_size, self.weight.detach()
        squares = 2 * torch._standard_gamma(torch.full_like(like, (m - 1) / 2))
        return torch.randn_like(like) / math.sqrt(m), (squares / m).sqrt()
