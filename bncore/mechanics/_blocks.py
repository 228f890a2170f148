"""Walk over an array in blocks that stay in the processor's cache.

Each pass over a large array is a trip to memory; several operations on one block are one trip.
Features are on axis 1, and a block may hold some of the samples, features and positions.
"""

import math
import threading
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np

BLOCK = 64 * 1024
WIDTH = 8 * 1024
REUSE = 16

_kept = threading.local()


class Block(NamedTuple):
    """A part of an array: where it is, the shape to compute it in, its features in a pattern."""

    index: tuple
    shape: tuple
    columns: slice

    def of(self, array):
        """This part of the array."""
        return array[self.index].reshape(self.shape)

    def add(self, piece, totals):
        """Add the sum of each feature in the piece to its total, in double precision.

        Single precision sums short lines only, which keeps its rounding small. No product with
        ones: a BLAS would round differently for each number of threads.
        """
        features = self.index[1]
        if piece.ndim > 2:
            lines = np.einsum("ncl->nc", piece.reshape(*piece.shape[:2], -1))
        elif self.columns == features:
            lines = piece
        else:
            rows_glued = piece.shape[1] // len(totals)
            narrower = piece.reshape(-1, piece.shape[1] // math.gcd(4, rows_glued))
            lines = np.add.reduce(narrower, axis=0).reshape(-1, len(totals))
        totals[features] += np.add.reduce(lines.astype(np.float64), axis=0)


def blocks(shape):
    """Blocks of at most BLOCK entries that together cover an array of this shape.

    The last axes, which lie closest in memory, are kept whole as far as they fit. Short rows of a
    matrix are computed end to end, several as one: NumPy broadcasts best along long rows.
    """
    return _plan(shape, _rows_glued(shape), BLOCK)


@lru_cache(maxsize=32)
def _plan(shape, glued, room):
    steps, plan = [], []
    for length in reversed(shape):
        steps.insert(0, min(length, max(room, 1)))
        room //= steps[0]
    rows = shape[0] - shape[0] % glued
    cuts = [_cut(0, rows, steps[0] - steps[0] % glued) + _cut(rows, shape[0], glued)]
    cuts += [_cut(0, length, step) for length, step in zip(shape[1:], steps[1:], strict=True)]
    for index in product(*cuts):
        extent = tuple(part.stop - part.start for part in index)
        if glued > 1 and extent[0] >= glued:
            width = glued * shape[1]
            plan.append(Block(index, (extent[0] // glued, width), slice(0, width)))
        else:
            plan.append(Block(index, extent, index[1]))
    return plan


def patterns(vectors, shape):
    """Vectors of features, repeated and shaped so that their columns fit each block of the shape."""
    repeated = vectors[:, np.newaxis].repeat(_rows_glued(shape), axis=1)
    return repeated.reshape(len(vectors), -1, *(1 for _ in shape[2:]))


def centred(x, shift):
    """Yield (block, x - shift there, room for results of that shape), block by block.

    ``shift`` has one entry a feature; its dtype is the one computed in. The room is scratch memory
    that the next block overwrites, and may hold x - shift itself. Where shift is 0 nothing is
    subtracted, nor copied if x has the right dtype already.
    """
    subtract = x.dtype != shift.dtype or shift.any()
    if subtract:
        (shift,) = patterns(shift[np.newaxis], x.shape)
    scratch = _scratch(shift.dtype)
    for block in blocks(x.shape):
        piece = block.of(x)
        room = scratch[: piece.size].reshape(block.shape)
        yield block, np.subtract(piece, shift[block.columns], out=room) if subtract else piece, room


def _rows_glued(shape):
    if len(shape) > 2:
        return 1
    rows = max(1, min(shape[0] // REUSE, WIDTH // shape[1]))
    return rows if rows < 4 else rows - rows % 4


def _scratch(dtype):
    """Room for one block, kept for the thread's next call: fresh pages would cost as much as work."""
    kept = vars(_kept).get(dtype.char)
    if kept is None or kept.size < BLOCK:
        kept = np.empty(BLOCK, dtype)
        setattr(_kept, dtype.char, kept)
    return kept


def _cut(start, stop, step):
    return [slice(at, min(at + step, stop)) for at in range(start, stop, step)]
