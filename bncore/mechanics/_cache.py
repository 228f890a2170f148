"""What the transform keeps from forward for backward, and how it notices that it was spoilt."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from bncore import arguments as check
from bncore.mechanics._blocks import Walk, walk

Batch = Float[np.ndarray, "batch features *spatial"]
Vector = Float[np.ndarray, "features"]

# Half precision is computed in single precision, the others in their own.
WORKING = {kind: np.promote_types(kind, np.float32) for kind in check.FLOATS}
SMALLEST = {kind: float(np.finfo(kind).tiny) for kind in check.FLOATS}


@dataclass(slots=True, eq=False, repr=False)
class Cache:
    """What ``forward`` keeps for ``backward``: x itself, not a copy, and its statistics.

    The mean is kept in two parts, shift + residual: one number in the precision of x cannot hold
    the mean of a batch that lies far from 0 to a small fraction of the batch's deviation.

    Attributes
    ----------
    x : Float[ndarray, "batch features *spatial"]
        The input of ``forward``, or the array that its lists or integers became. It must not
        change before ``backward``.
    gamma, beta : Float[ndarray, "features"] or None
        Copies of the affine parameters: floats in their own precision, lists and integers in that
        of x.
    eps : float
        Added to the variance.
    shift : Float[ndarray, "features"] or None
        A number near each feature's mean, in the precision of the computation; None where 0 is
        near enough for every feature.
    residual : Float[ndarray, "features"]
        mean - shift, in double precision.
    var : Float[ndarray, "features"]
        Biased variance (divisor m), or the one handed to ``forward_fixed``, in double precision.
    inv_std : Float[ndarray, "features"]
        1 / sqrt(var + eps), in double precision.
    fixed : bool
        Whether the statistics were handed in (``forward_fixed``) or are those of x (``forward``).
    """

    x: Batch
    gamma: Vector | None
    beta: Vector | None
    eps: float
    shift: Vector | None
    residual: Vector
    var: Vector
    inv_std: Vector
    fixed: bool
    fingerprint: bytes

    @property
    def batch_size(self) -> int:
        """m, the number of values of each feature."""
        return self.x.size // self.x.shape[1]

    @property
    def mean(self) -> Vector:
        """The mean that was subtracted, in double precision."""
        return self.residual.copy() if self.shift is None else self.shift + self.residual

    @property
    def scale(self) -> Vector:
        """gamma / sqrt(var + eps), the slope of y in x when the statistics are fixed."""
        return self.inv_std if self.gamma is None else self.gamma * self.inv_std

    @property
    def x_hat(self) -> Batch:
        """The normalised input, computed anew at each access, in the dtype of x."""
        x_hat = self.x_centred * self.beside(self.inv_std)
        return check.narrowed("x_hat", x_hat, self.x.dtype)

    @property
    def x_centred(self) -> Batch:
        """x - mean, computed anew at each access, in double precision."""
        deviation = self.x.astype(np.float64)
        if self.shift is not None:
            deviation -= self.beside(self.shift)
        return deviation - self.beside(self.residual)

    @property
    def working(self) -> np.dtype:
        """The dtype in which the batch is computed: that of x, but at least single precision."""
        return WORKING[self.x.dtype]

    @property
    def walk(self) -> Walk:
        """How the memory of x is gone through."""
        return walk(self.x)

    def beside(self, vector: Vector) -> np.ndarray:
        """A vector of features, in the shape that meets x."""
        return vector.reshape(-1, *(1 for _ in self.x.shape[2:]))

    def matching(self, dy) -> Batch:
        """The incoming gradient as an array in the shape and dtype of x. Entries may be NaN."""
        dtype = self.x.dtype
        dy = check.array("dy", dy, dtype=dtype)
        if dy.shape != self.x.shape:
            raise ValueError(
                f"dy has shape {dy.shape}, expected {self.x.shape}, that of the x in the cache: "
                "is the cache from another call?"
            )
        if dy.dtype != dtype:
            dy = check.exactly("dy", dy, dtype)
        if fingerprint(self.x) != self.fingerprint:
            raise ValueError(
                "x was changed since forward, expected the values it had then: the cache refers to "
                "x and holds no copy; call forward again or give it a copy of x"
            )
        return dy


def fingerprint(x):
    """Some 64 entries of x, by which a change is noticed."""
    return x[_grid(x.shape)].tobytes()


@lru_cache(maxsize=64)
def _grid(shape):
    """Slices that pick some 64 entries, evenly spaced along every axis."""
    steps = [max(1, round(length / 64 ** (1 / len(shape)))) for length in shape]
    return tuple(slice(step // 2, None, step) for step in steps)
