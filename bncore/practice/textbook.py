"""What helps in practice as on the board: whole arrays, one line a formula, no checks.

The modules of this wing compute the same, and check their input.
"""

import numpy as np
from jaxtyping import Bool, Float

from bncore.mechanics.textbook import backward, batch_axes, forward

Batch = Float[np.ndarray, "batch features *spatial"]
Vector = Float[np.ndarray, "features"]
Where = Bool[np.ndarray, "batch *spatial"]


def renormalize(x, mean, var, gamma, beta, r_max=3.0, d_max=5.0, eps=1e-5):
    """Normalise by the batch, and correct it towards running statistics that are given."""
    axes, _ = batch_axes(x)
    sigma_B = np.sqrt(x.var(axis=axes) + eps)
    sigma = np.sqrt(var + eps)
    r = np.clip(sigma_B / sigma, 1 / r_max, r_max)
    d = np.clip((x.mean(axis=axes) - mean) / sigma, -d_max, d_max)
    y, cache = forward(x, gamma * r, gamma * d + beta, eps)
    return y, (cache, r, d)


def renormalize_backward(dy, cache):
    """Carry the gradient back; r and d are constants to it."""
    cache, r, d = cache
    dx, dscale, dshift = backward(dy, cache)
    return dx, r * dscale + d * dshift, dshift


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
