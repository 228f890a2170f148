"""Batch norm over padded sequences: padding has no part in the statistics and stays zero.

Sequences of different lengths share one array, filled up with values that mean nothing. Batch norm
over all positions would take these for data: of values with mean mu and variance var, padded with
zeros to a share p, it sees the mean (1 - p) mu and the variance (1 - p) (var + p mu²). Here sums
run over the real positions only, as if those of all sequences were written one after the other.

A mask is true where x is real, as in Hugging Face's ``attention_mask``. torch's attention layers
take the opposite, ``key_padding_mask``: hand in its negation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer, Real
from torch import nn

from bncore import arguments as check
from bncore import tensors
from bncore.mechanics import transform

__all__ = ["Cache", "MaskedBatchNorm1d", "backward", "forward", "packed"]

Batch = Float[np.ndarray, "batch features *spatial"]
BatchLike = Real[np.ndarray, "batch features *spatial"] | check.Listed
Where = Bool[np.ndarray, "batch *spatial"]
Lengths = Integer[np.ndarray, "batch"]
Mask = Where | Lengths | check.Listed
TensorMask = Bool[torch.Tensor, "batch *spatial"] | Integer[torch.Tensor, "batch"]


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """What ``forward`` keeps for ``backward``.

    Attributes
    ----------
    packed : bncore.mechanics.transform.Cache
        Of the real positions, written one after the other: their values, statistics and x_hat.
    mask : Bool[ndarray, "batch *spatial"]
        True where x is real.
    """

    packed: transform.Cache
    mask: Where


def packed(x: BatchLike, mask: Mask) -> Float[np.ndarray, "positions features"]:
    """Write the real positions of all sequences one after the other.

    What takes a batch then takes padded sequences too, running statistics for example:
    ``RunningStatistics.update(packed(x, mask))``.

    Parameters
    ----------
    x : Float[ndarray, "batch features *spatial"]
        float16, float32 or float64; lists and integers become float64.
    mask : Bool[ndarray, "batch *spatial"] or Integer[ndarray, "batch"]
        True where x is real; or, where x has one axis after its features, the lengths of the
        sequences, each padded at its end.

    Returns
    -------
    Float[ndarray, "positions features"]
        A copy, in the dtype of x. There may be no position.

    Raises
    ------
    TypeError
        If x holds no real numbers, or mask is neither booleans nor lengths.
    ValueError
        If x has fewer than two axes or no features, is not finite at a real position, or if mask
        does not fit it.
    """
    x = check.with_features("x", x)
    where = _real(mask, x.shape)
    return _gathered("x", x, where)


def forward(
    x: BatchLike,
    mask: Mask,
    gamma: check.VectorLike | None = None,
    beta: check.VectorLike | None = None,
    eps: float | int = 1e-5,
) -> tuple[Batch, Cache]:
    """Normalise each feature over the real positions of the batch, then scale and shift these.

    y = gamma * (x - mean) / sqrt(var + eps) + beta    where x is real,    0 in the padding

    mean = sum(x) / m and var = sum((x - mean)²) / m run over the m real positions of all sequences
    together: y is what ``mechanics.transform.forward`` makes of ``packed(x, mask)``. What the
    padding of x holds, NaN included, has no influence.

    Parameters
    ----------
    x, mask
        As for ``packed``, with at least two real positions. A sequence may have none.
    gamma, beta : Float[ndarray, "features"], optional
        Scale and shift. None means 1 and 0.
    eps : float
        Positive.

    Returns
    -------
    y : Float[ndarray, "batch features *spatial"]
        In the dtype and memory order of x.
    cache : Cache
        What ``backward`` needs. It refers neither to x nor to mask.

    Raises
    ------
    TypeError, ValueError
        As ``packed`` and ``mechanics.transform.forward``, and if fewer than two positions are real.
    """
    x = check.with_features("x", x)
    where = _real(mask, x.shape)
    _refuse_few(int(np.count_nonzero(where)))
    y, cache = transform.forward(_gathered("x", x, where), gamma, beta, eps)
    return _scattered(y, where, x), Cache(cache, where)


def backward(dy: BatchLike, cache: Cache) -> transform.Gradients:
    """Carry the gradient of a loss from y back to x, gamma and beta.

    dbeta = sum(dy),    dgamma = sum(dy * x_hat)
    dx    = gamma / sqrt(var + eps) * (dy - dbeta / m - x_hat * dgamma / m)    where x is real

    Sums run over the m real positions. In the padding y is 0 whatever x is, so dx is 0 there, and
    what dy holds there has no influence.

    Parameters
    ----------
    dy : Float[ndarray, "batch features *spatial"]
        Gradient of the loss with respect to y, in the shape of x and, or exactly convertible to,
        its dtype.
    cache : Cache
        From the ``forward`` that returned y.

    Returns
    -------
    mechanics.transform.Gradients
        dx in the dtype of x and the memory order of dy.

    Raises
    ------
    TypeError, ValueError
        As ``mechanics.transform.backward``.
    """
    check.kept(cache, Cache, "masking.forward")
    where, dtype = cache.mask, cache.packed.x.dtype
    dy = check.array("dy", dy, dtype=dtype)
    shape = (len(where), cache.packed.x.shape[1], *where.shape[1:])
    if dy.shape != shape:
        raise ValueError(
            f"dy has shape {dy.shape}, expected {shape}, that of x: is the cache from another call?"
        )
    found = transform.backward(_gathered("dy", dy, where), cache.packed)
    return found._replace(dx=_scattered(found.dx, where, dy))


class MaskedBatchNorm1d(nn.BatchNorm1d):
    """torch's batch norm over the real positions of padded sequences.

    Called with (x, mask). In training the statistics are those of the real positions of the batch,
    and so are the running ones, with torch's momentum and unbiased variance; in evaluation each
    real position is normalised by the running statistics. In the padding the output is 0 and so is
    the gradient of x, whatever x holds there.

    Parameters and state are those of torch's batch norms: a ``state_dict`` goes either way. Where
    sequences are packed already, ``torch.nn.BatchNorm1d`` of ``PackedSequence.data`` computes the
    same.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, device, dtype
        As for ``torch.nn.BatchNorm1d``.
    """

    def forward(
        self,
        x: Float[torch.Tensor, "batch features *spatial"],
        mask: TensorMask | Mask | None,
    ) -> Float[torch.Tensor, "batch features *spatial"]:
        """Normalise the real positions.

        Parameters
        ----------
        x : Float[Tensor, "batch features *spatial"]
            In the layer's dtype; half precision too where that is single precision.
        mask : Bool[Tensor, "batch *spatial"] or Integer[Tensor, "batch"], or None
            True where x is real; or, where x has one axis after its features, the lengths of the
            sequences. Lists and arrays are taken too. None means that nothing is padded.

        Returns
        -------
        Float[Tensor, "batch features *spatial"]
            In the dtype of x.

        Raises
        ------
        TypeError
            If x is no tensor of the layer's dtype, or mask neither booleans nor lengths.
        ValueError
            If x has other features than the layer, mask does not fit x, or fewer than two
            positions are real where the statistics are those of the batch.
        """
        where = self._where(x, mask)
        real = x.movedim(1, -1)[where]
        if self.training or self.running_mean is None:
            _refuse_few(len(real))
        normalised = super().forward(real)
        y = torch.zeros_like(x, dtype=normalised.dtype)
        y.movedim(1, -1)[where] = normalised
        return y

    def counted(
        self,
        x: Float[torch.Tensor, "batch features *spatial"],
        mask: TensorMask | Mask | None,
    ) -> Float[torch.Tensor, "positions features"]:
        """The real positions, one after the other: what the statistics are of.

        Parameters and errors are those of ``forward``; there may be no position.
        """
        return x.movedim(1, -1)[self._where(x, mask)]

    def _where(self, x, mask):
        kept = next((t for t in (self.running_mean, self.weight) if t is not None), None)
        tensors.layer_input("x", x, self.num_features, None if kept is None else kept.dtype)
        return _real_tensor(mask, x)


def _real(mask, shape):
    """The mask as booleans, a copy, for an x of that shape."""
    if isinstance(mask, list | tuple):
        try:
            mask = np.array(mask)
        except ValueError as error:
            raise ValueError("mask is a list whose rows do not form an array") from error
    if type(mask) is not np.ndarray:
        raise TypeError(
            f"mask is a {check.type_name(mask)}, expected a numpy.ndarray or a list, of booleans or "
            "of lengths"
        )
    if _of_lengths(mask.shape, mask.dtype.kind in "iu", mask.dtype.kind == "b", mask.dtype, shape):
        _refuse_lengths(mask, shape)
        return np.arange(shape[2]) < mask[:, None]
    return mask.copy()


def _real_tensor(mask, x):
    """The mask as a boolean tensor beside x."""
    if mask is None:
        return torch.ones(x.shape[:1] + x.shape[2:], dtype=torch.bool, device=x.device)
    if not isinstance(mask, torch.Tensor):
        return torch.from_numpy(_real(mask, tuple(x.shape))).to(x.device)
    shape, dtype = tuple(x.shape), mask.dtype
    whole = not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
    if _of_lengths(tuple(mask.shape), whole, dtype == torch.bool, dtype, shape):
        _refuse_lengths(mask, shape)
        return torch.arange(shape[2], device=x.device) < mask.to(x.device)[:, None]
    return mask.to(x.device)


def _of_lengths(found, whole, boolean, dtype, shape):
    """Whether a mask gives lengths; False if booleans. Refuse all else."""
    expected = shape[:1] + shape[2:]
    if boolean:
        if found != expected:
            raise ValueError(
                f"mask has shape {found}, expected {expected}: one boolean for each position of x, "
                f"of shape {shape}"
            )
        return False
    if not whole:
        raise TypeError(
            f"mask has dtype {dtype}, expected booleans, true where x is real, or integers, the "
            "lengths of the sequences"
        )
    if len(shape) == 3 and found == shape[:1]:
        return True
    lengths = f", or lengths of shape {shape[:1]}" if len(shape) == 3 else ""
    raise ValueError(
        f"mask holds integers of shape {found}, expected booleans of shape {expected}{lengths}: a "
        "mask of ones and zeros is handed in as mask == 1"
    )


def _refuse_lengths(lengths, shape):
    outside = (lengths < 0) | (lengths > shape[2])
    if outside.any():
        first = int(outside.nonzero()[0][0])
        raise ValueError(
            f"mask[{first}] is {int(lengths[first])}, expected a length from 0 to {shape[2]}, that "
            "of the last axis of x"
        )


def _refuse_few(count):
    if count < 2:
        raise ValueError(
            f"mask leaves {count} real position{'s' * (count != 1)}, expected at least 2, which "
            "have a variance"
        )


def _gathered(name, values, where):
    """The real positions as rows of features, all finite."""
    rows = np.moveaxis(values, 1, -1)[where]
    if not np.isfinite(rows).all():
        everywhere = np.expand_dims(where, 1)
        check.finite(name, np.where(everywhere, values, np.zeros((), values.dtype)))
    return rows


def _scattered(rows, where, like):
    """The rows at the real positions, zeros in the padding, in the memory order of an array."""
    found = np.zeros_like(like, dtype=rows.dtype)
    np.moveaxis(found, 1, -1)[where] = rows
    return found
