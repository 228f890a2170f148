"""Walk over an array in blocks that stay in the processor's cache.

Each pass over a large array costs a trip to memory; several operations on one block cost one trip.
Features are on axis 1, and a block may hold some of the samples, features and positions.
"""

from itertools import product

import numpy as np

BLOCK = 32 * 1024


def blocks(shape):
    """Yield index tuples that together cover an array of this shape, each at most BLOCK entries.

    The last axes, which lie closest in memory, are kept whole as far as they fit.
    """
    room, steps = BLOCK, []
    for length in reversed(shape):
        steps.insert(0, min(length, max(room, 1)))
        room //= steps[0]
    cuts = [
        [slice(start, start + step) for start in range(0, length, step)]
        for length, step in zip(shape, steps, strict=True)
    ]
    return product(*cuts)


def centred(x, shift):
    """Yield (block, x - shift there), in a scratch buffer that the next block overwrites.

    ``shift`` has one entry a feature; its dtype is the one computed in.
    """
    shift = along_features(shift, x.ndim)
    scratch = np.empty(min(BLOCK, x.size), shift.dtype)
    for block in blocks(x.shape):
        piece = x[block]
        room = scratch[: piece.size].reshape(piece.shape)
        yield block, np.subtract(piece, shift[block[1]], out=room)


def along_features(vector, ndim):
    """Reshape (features,) to (features, 1, ...) so that it broadcasts along axis 1."""
    return vector.reshape(vector.shape + (1,) * (ndim - 2))


def feature_sum(piece):
    """Sum a small block over all axes but 1, in its own dtype along one axis and double after."""
    if piece.ndim == 2:
        return np.einsum("nc->c", piece)
    return np.einsum("ncl->c", piece.reshape(*piece.shape[:2], -1))
