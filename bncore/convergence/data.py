"""Examples that callers hand in: rows of numbers, dense or sparse, and one target for each."""

import numpy as np
from jaxtyping import Float, Real
from scipy import sparse

from bncore import arguments as check
from bncore.convergence.second_moment import Matrix

Rows = Float[np.ndarray, "samples dimension"] | sparse.csr_array
Targets = Real[np.ndarray, "samples"] | list | tuple

BLOCK = 2**19
# Magnitudes whose squares, and sums over a sample, stay within the range of the precision.
LARGEST = {np.dtype(np.float32): 1e30, np.dtype(np.float64): 1e150}


def rows(name: str, X: object) -> Rows:
    """X as an array, or a csr_array if it is sparse, of single or double precision.

    Refers to X where it can. Half precision becomes single: sums need more.

    Raises
    ------
    TypeError, ValueError
        If X is not a matrix of finite real numbers, is empty, or has a column so large or so small
        that its squares leave the range of its precision.
    """
    if sparse.issparse(X):
        X = _compressed(name, X)
        entries = X.data
    else:
        X = entries = check.array(name, X, 2)
    if min(X.shape) == 0:
        raise ValueError(f"{name} has shape {X.shape}, expected at least one sample and one column")
    if not np.isfinite(entries).all():
        _refuse_infinite(name, X)
    X = X.astype(np.float32) if X.dtype == np.float16 else X
    most, size = LARGEST[X.dtype], largest(X)
    outside = (size > most) | ((size < 1 / most) & (size > 0))
    if outside.any():
        j = int(outside.argmax())
        raise ValueError(
            f"{name}[:, {j}] has entries up to {size[j]:.3g}, expected between {1 / most:g} and "
            f"{most:g}: their squares leave the range of {X.dtype}; scale the column"
        )
    return X


def precision(X: object) -> np.dtype:
    """The precision to which what callers hand in was rounded."""
    dtype = getattr(X, "dtype", np.dtype(np.float64))
    return dtype if dtype in check.FLOATS else np.dtype(np.float64)


def targets(y: Targets, samples: int) -> Float[np.ndarray, "samples"]:
    """y as float64: one finite number for each of the samples."""
    y = check.array("y", y, 1)
    check.finite("y", y)
    if len(y) != samples:
        raise ValueError(
            f"y has shape {y.shape}, expected ({samples},): one number for each row of X"
        )
    return y.astype(np.float64)


def largest(X: Rows) -> Float[np.ndarray, "dimension"]:
    """The largest magnitude in each column."""
    top, bottom = X.max(axis=0), X.min(axis=0)
    if sparse.issparse(X):
        top, bottom = top.toarray(), bottom.toarray()
    return np.maximum(top, -bottom).astype(np.float64)


def mean(X: Rows) -> Float[np.ndarray, "dimension"]:
    """The mean of the rows, summed in double precision."""
    if sparse.issparse(X):
        return np.bincount(X.indices, X.data, minlength=X.shape[1]) / X.shape[0]
    return X.sum(axis=0, dtype=np.float64) / X.shape[0]


def second_moments(X: Rows) -> Matrix:
    """X'X / n, summed in double precision and block by block."""
    if sparse.issparse(X):
        X = X.astype(np.float64)
        return (X.T @ X).toarray() / X.shape[0]
    total = np.zeros((X.shape[1],) * 2)
    step = max(BLOCK // X.shape[1], 1)
    for start in range(0, len(X), step):
        block = X[start : start + step].astype(np.float64, copy=False)
        total += block.T @ block
    return total / len(X)


def mean_error(samples: int) -> float:
    """What rounding may leave of a mean that is 0, beside the root mean square of its terms."""
    return (16 + np.sqrt(samples)) * float(np.finfo(np.float64).eps)


def _compressed(name, X):
    if X.ndim != 2:
        raise ValueError(f"{name} has shape {X.shape}, expected 2 axes")
    X = sparse.csr_array(X)
    data = check.array(name, X.data, 1)
    return sparse.csr_array((data, X.indices, X.indptr), shape=X.shape)


def _refuse_infinite(name, X):
    if not sparse.issparse(X):
        check.finite(name, X)
    k = int(np.isfinite(X.data).argmin())
    i, j = int(np.searchsorted(X.indptr, k, side="right")) - 1, int(X.indices[k])
    raise ValueError(f"{name}[{i}, {j}] is {X.data[k]}, expected finite values only")
