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

BLOCK = 512 * 1024
WRITTEN = 256 * 1024
WIDTH = 2 * 1024
REUSE = 4
SMALL = 64 * 1024
LONGEST_SUM = 32
BUFFER = 512

_kept = threading.local()


class Block(NamedTuple):
    """A part of an array: where it is, the shapes to compute and to sum it in, its features' columns.

    ``lines`` has three axes. Sums run along the second in a matrix (``by_column``), whose features
    are on the last, and along the last in images.
    """

    index: tuple
    shape: tuple
    lines: tuple
    by_column: bool
    columns: slice

    def of(self, array):
        """This part of the array."""
        return array[self.index].reshape(self.shape)

    def add_sums(self, piece, other, totals):
        """Add the sums of each feature in piece, and in piece * other, to its two totals.

        Single precision sums short lines only, which keeps its rounding small; the rest is double.
        No product with ones: a BLAS would round differently for each number of threads.
        """
        features = self.index[1]
        piece, other = piece.reshape(self.lines), other.reshape(self.lines)
        if self.by_column:
            sums = np.empty((2, self.lines[0], self.lines[2]), piece.dtype)
            np.add.reduce(piece, axis=1, out=sums[0])
            if piece.size > SMALL:
                np.einsum("kij,kij->kj", piece, other, out=sums[1])
            else:
                np.add.reduce(piece * other, axis=1, out=sums[1])
        else:
            sums = np.empty((2, *self.lines[:2]), piece.dtype)
            np.einsum("ncl->nc", piece, out=sums[0])
            np.einsum("ncl,ncl->nc", piece, other, out=sums[1])
        sums = sums.reshape(2, -1, features.stop - features.start)
        totals[:, features] += np.add.reduce(sums, axis=1, dtype=np.float64)


def blocks(shape, room):
    """Blocks of at most ``room`` entries that together cover an array of this shape.

    The last axes, which lie closest in memory, are kept whole as far as they fit. Short rows of a
    matrix are computed end to end, several as one: NumPy broadcasts best along long rows.
    """
    return _plan(shape, _rows_glued(shape), room)


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
        if len(shape) > 2:
            lines = (*extent[:2], math.prod(extent[2:]))
            plan.append(Block(index, extent, lines, False, index[1]))
        elif extent[0] < glued or glued == 1:
            plan.append(Block(index, extent, _by_column(extent), True, index[1]))
        else:
            joined = extent[0] // glued, glued * shape[1]
            plan.append(Block(index, joined, _by_column(joined), True, slice(0, joined[1])))
    return plan


def _by_column(shape):
    """The shape of a matrix cut into stacks of at most LONGEST_SUM rows, all equally high."""
    rows, width = shape
    high = next(n for n in range(min(rows, LONGEST_SUM), 0, -1) if rows % n == 0)
    return rows // high, high, width


class short_buffers(np.errstate):
    """A context in which NumPy walks rows of BUFFER entries in place, as it does rows of 8192.

    NumPy sends shorter rows of broadcast operands through its buffer, which takes half as long again.
    """

    def __enter__(self):
        super().__enter__()
        np.setbufsize(BUFFER)


def patterns(vectors, shape):
    """Vectors of features, repeated and shaped so that their columns fit each block of the shape."""
    repeated = vectors[:, np.newaxis].repeat(_rows_glued(shape), axis=1)
    return repeated.reshape(len(vectors), -1, *(1 for _ in shape[2:]))


def centred(x, shift, dtype, out=None):
    """Yield (block, x - shift there, room for results of that shape), block by block.

    ``dtype`` is the one computed in; ``shift`` has one entry a feature in it, or is None for 0.
    What is left in the room goes to ``out``; the room may hold x - shift itself. Where the shift is
    0 nothing is subtracted, nor copied if x has the right dtype already. Passes that write go
    backwards, because the blocks read last are the ones still in the cache, and in smaller blocks,
    because they hold more arrays at a time.
    """
    if shift is not None:
        (shift,) = patterns(shift[np.newaxis], x.shape)
    in_place = out is not None and out.dtype == dtype
    plan = blocks(x.shape, BLOCK) if out is None else blocks(x.shape, WRITTEN)[::-1]
    for block in plan:
        piece = block.of(x)
        room = block.of(out) if in_place else _scratch(dtype)[: piece.size].reshape(block.shape)
        if shift is not None:
            piece = np.subtract(piece, shift[block.columns], out=room)
        elif x.dtype != dtype:
            piece = room
            piece[...] = block.of(x)
        yield block, piece, room
        if out is not None and not in_place:
            block.of(out)[...] = room


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
