"""Scaling and batch normalization as on the board: whole arrays, one line a formula, no checks.

``scaling``, ``transform`` and ``inference`` compute the same, keep their precision far from 0 and check
their input. LeCun et al. (1998), section 4.3; Ioffe and Szegedy (2015), Algorithms 1 and 2 and section
3; Chan, Golub and LeVeque (1983).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Batch = Float[np.ndarray, "batch features *spatial"]
Each = Float[np.ndarray, "_ features *_"]
Vector = Float[np.ndarray, "features"]
Data = Float[np.ndarray, "samples features"]
Weight = Float[np.ndarray, "features inputs *kernel"]


def standardize(X: Data) -> Data:
    """Give each feature mean 0 and variance 1."""
    return (X - X.mean(axis=0)) / X.std(axis=0)


def whiten(X: Data) -> Data:
    """Give each feature mean 0 and variance 1, and each pair the correlation 0, by ZCA whitening."""
    centred = X - X.mean(axis=0)
    covariance = centred.T @ centred / len(X)
    variances, V = np.linalg.eigh(covariance)
    return centred @ V / np.sqrt(variances) @ V.T


def forward(x: Batch, gamma: Vector, beta: Vector, eps: float = 1e-5) -> tuple[Batch, tuple]:
    """Normalise each feature over the batch, then scale and shift it."""
    axes, columns = batch_axes(x)
    mean = x.mean(axis=axes, keepdims=True)
    var = x.var(axis=axes, keepdims=True)
    inv_std = 1 / np.sqrt(var + eps)
    x_hat = (x - mean) * inv_std
    y = gamma.reshape(columns) * x_hat + beta.reshape(columns)
    return y, (x_hat, inv_std, gamma)


def backward(dy: Batch, cache: tuple) -> tuple[Batch, Vector, Vector]:
    """Carry the gradient of a loss from y back to x, gamma and beta."""
    x_hat, inv_std, gamma = cache
    axes, columns = batch_axes(dy)
    m = dy.size // dy.shape[1]
    dbeta = dy.sum(axis=axes)
    dgamma = (dy * x_hat).sum(axis=axes)
    removed = (dbeta.reshape(columns) + x_hat * dgamma.reshape(columns)) / m
    dx = gamma.reshape(columns) * inv_std * (dy - removed)
    return dx, dgamma, dbeta


def backward_steps(dy: Batch, cache: tuple) -> tuple:
    """The same one node of the graph at a time: gradients of x_hat, var, mean, x, gamma, beta."""
    x_hat, inv_std, gamma = cache
    axes, columns = batch_axes(dy)
    m, centred = dy.size // dy.shape[1], x_hat / inv_std
    dbeta = dy.sum(axis=axes)
    dgamma = (dy * x_hat).sum(axis=axes)
    dx_hat = gamma.reshape(columns) * dy
    dvar = (dx_hat * centred).sum(axis=axes, keepdims=True)
    dvar *= -(inv_std**3) / 2
    dmean = -dx_hat.sum(axis=axes, keepdims=True) * inv_std
    dx = dx_hat * inv_std + dvar * 2 * centred / m + dmean / m
    return dx_hat, dvar, dmean, dx, dgamma, dbeta


def forward_fixed(
    x: Batch, mean: Vector, var: Vector, gamma: Vector, beta: Vector, eps: float = 1e-5
) -> tuple[Batch, tuple]:
    """Normalise each feature with statistics that are given: batch norm at inference, or frozen."""
    _, columns = batch_axes(x)
    inv_std = 1 / np.sqrt(var + eps).reshape(columns)
    x_hat = (x - mean.reshape(columns)) * inv_std
    y = gamma.reshape(columns) * x_hat + beta.reshape(columns)
    return y, (x_hat, inv_std, gamma)


def backward_fixed(dy: Batch, cache: tuple) -> tuple[Batch, Vector, Vector]:
    """Carry the gradient back past statistics that count as constants."""
    x_hat, inv_std, gamma = cache
    axes, columns = batch_axes(dy)
    dx = gamma.reshape(columns) * inv_std * dy
    return dx, (dy * x_hat).sum(axis=axes), dy.sum(axis=axes)


def running_update(
    mean: Vector, var: Vector, x: Batch, momentum: float = 0.1
) -> tuple[Vector, Vector]:
    """Move the running mean and variance towards those of a batch; momentum weighs the batch."""
    axes, _ = batch_axes(x)
    batch_mean = x.mean(axis=axes)
    batch_var = x.var(axis=axes, ddof=1)
    mean = (1 - momentum) * mean + momentum * batch_mean
    var = (1 - momentum) * var + momentum * batch_var
    return mean, var


def exact_statistics(batches: Sequence[Each]) -> tuple[Vector, Vector]:
    """Mean and variance of all the batches taken together, merged one after the other."""
    n, mean, squares = 0, 0.0, 0.0
    for x in batches:
        axes, _ = batch_axes(x)
        m = x.size // x.shape[1]
        delta = x.mean(axis=axes) - mean
        mean = mean + m / (n + m) * delta
        squares = squares + m * x.var(axis=axes)
        squares = squares + n * m / (n + m) * delta**2
        n += m
    return mean, squares / n


def fold(weight: Weight, bias: Vector, a: Vector, b: Vector) -> tuple[Weight, Vector]:
    """Let a linear layer or a convolution do the work of the affine map that follows it."""
    rows = a.reshape(-1, *(1 for _ in weight.shape[1:]))
    return rows * weight, a * bias + b


def batch_axes(x: Batch) -> tuple[tuple, tuple]:
    """Every axis but the features', and the shape in which a vector of features meets x."""
    return (0, *range(2, x.ndim)), (-1, *(1 for _ in x.shape[2:]))
