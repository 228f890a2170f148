"""What helps in practice as on the board: whole arrays, one line a formula, no checks.

The modules of this wing compute the same, and check their input.
"""

import numpy as np
from jaxtyping import Bool, Float

from bncore.mechanics.textbook import batch_axes

Batch = Float[np.ndarray, "batch features *spatial"]
Vector = Float[np.ndarray, "features"]
Where = Bool[np.ndarray, "batch *spatial"]


def forward_masked(
    x: Batch, mask: Where, gamma: Vector, beta: Vector, eps: float = 1e-5
) -> tuple[Batch, tuple]:
    """Normalise each feature over the positions where the mask is true; leave zeros elsewhere."""
    (axes, columns), mask = batch_axes(x), np.expand_dims(mask, 1)
    m, x = mask.sum(), np.where(mask, x, 0)
    mean = x.sum(axis=axes, keepdims=True) / m
    centred = mask * (x - mean)
    var = (centred**2).sum(axis=axes, keepdims=True) / m
    inv_std = 1 / np.sqrt(var + eps)
    x_hat = centred * inv_std
    y = mask * (gamma.reshape(columns) * x_hat + beta.reshape(columns))
    return y, (x_hat, inv_std, gamma, mask)


def backward_masked(dy: Batch, cache: tuple) -> tuple[Batch, Vector, Vector]:
    """Carry the gradient back to x, gamma and beta; none comes from the padding or goes there."""
    x_hat, inv_std, gamma, mask = cache
    (axes, columns), m = batch_axes(dy), mask.sum()
    dy = np.where(mask, dy, 0)
    dbeta = dy.sum(axis=axes)
    dgamma = (dy * x_hat).sum(axis=axes)
    removed = (dbeta.reshape(columns) + x_hat * dgamma.reshape(columns)) / m
    dx = mask * (gamma.reshape(columns) * inv_std * (dy - removed))
    return dx, dgamma, dbeta
