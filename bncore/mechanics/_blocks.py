"""Walk over an array in blocks that stay in the processor's cache.

Each pass over a large array is a trip to memory; several operations on one block are one trip.
However its axes lie in memory, an array without gaps is seen as ``lines`` of three: what lies
outside the features, the features, what lies inside them. Channels last, (N, C, H, W) becomes
(N H W, C, 1), a matrix; a matrix in Fortran's order becomes (1, C, N). Nothing is copied for that.
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
LONGEST_LINE = 2 * 1024
BUFFER = 512

_kept = threading.local()


class Block(NamedTuple):
    """A part of the lines: where it is, the shapes to compute and to sum it in, its features' columns.

    Sums run along the second of the three axes to sum in if the features are last (``by_column``),
    and along the last if not.
    """

    index: tuple
    shape: tuple
    summed: tuple
    by_column: bool
    columns: slice

    def of(self, lines):
        """This part of the lines."""
        return lines[self.index].reshape(self.shape)

    def add_sums(self, piece, other, totals):
        """Add the sums of each feature in piece, and in piece * other, to its two totals.

        Single precision sums short lines only, which keeps its rounding small; the rest is double.
        No product with ones: a BLAS would round differently for each number of threads.
        """
        features = self.index[1]
        piece, other = piece.reshape(self.summed), other.reshape(self.summed)
        if self.by_column:
            sums = np.empty((2, self.summed[0], self.summed[2]), piece.dtype)
            np.add.reduce(piece, axis=1, out=sums[0])
            if piece.size > SMALL:
                np.einsum("kij,kij->kj", piece, other, out=sums[1])
            else:
                np.add.reduce(piece * other, axis=1, out=sums[1])
        else:
            sums = np.empty((2, *self.summed[:2]), piece.dtype)
            np.einsum("ncl->nc", piece, out=sums[0])
            np.einsum("ncl,ncl->nc", piece, other, out=sums[1])
        sums = sums.reshape(2, -1, features.stop - features.start)
        totals[:, features] += np.add.reduce(sums, axis=1, dtype=np.float64)


class Walk(NamedTuple):
    """How to go through arrays of one shape and order in memory: the same for every call.

    ``order`` names the axes from the farthest apart in memory to the closest, ``back`` undoes it.
    Passes that write go backwards, because the blocks read last are the ones still in the cache,
    and in smaller blocks, because they hold more arrays at a time.
    """

    order: tuple
    back: tuple
    shape: tuple
    lines: tuple
    repeats: int
    reading: list
    writing: list

    def over(self, array):
        """The lines of an array: a view where the memory of the array allows it."""
        return array.transpose(self.order).reshape(self.lines)

    def empty(self, dtype):
        """A new array in this order, and its lines."""
        lines = np.empty(self.lines, dtype)
        return lines.reshape(self.shape).transpose(self.back), lines

    def columns(self, dtype, *vectors):
        """Vectors of features, repeated and shaped so that their columns fit each block."""
        rows = np.array(vectors, dtype)
        if self.lines[2] != 1:
            return rows[:, :, np.newaxis]
        return rows[:, np.newaxis].repeat(self.repeats, axis=1).reshape(len(rows), -1)


def walk(array):
    """The walk over an array that has features on axis 1."""
    return _walk(array.shape, array.strides)


@lru_cache(maxsize=64)
def _walk(shape, strides):
    axes = range(len(shape))
    order = tuple(sorted(axes, key=lambda axis: -abs(strides[axis])))
    back = tuple(map(order.index, axes))
    ordered, at = tuple(shape[axis] for axis in order), order.index(1)
    lines = math.prod(ordered[:at]), shape[1], math.prod(ordered[at + 1 :])
    reading, writing = blocks(lines, BLOCK), blocks(lines, WRITTEN)[::-1]
    return Walk(order, back, ordered, lines, _rows_glued(lines), reading, writing)


def blocks(lines, room):
    """Blocks of at most ``room`` entries that together cover lines of this shape.

    The last axes, which lie closest in memory, are kept whole as far as they fit. Short rows of a
    matrix are computed end to end, several as one: NumPy broadcasts best along long rows.
    """
    outer, features, inner = lines
    glued = _rows_glued(lines)
    length = min(inner, room, LONGEST_LINE)
    width = min(features, room // max(length, 1))
    height = min(outer, room // max(length * width, 1))
    rows = outer - outer % glued
    cuts = (
        _cut(0, rows, height - height % glued) + _cut(rows, outer, glued),
        _cut(0, features, width),
        _cut(0, inner, length),
    )
    plan = []
    for index in product(*cuts):
        shape = tuple(part.stop - part.start for part in index)
        columns = index[1]
        if inner == 1:
            shape = shape[:2]
            if 1 < glued <= shape[0]:
                shape = shape[0] // glued, glued * features
                columns = slice(0, shape[1])
            plan.append(Block(index, shape, _by_column(shape), True, columns))
        else:
            plan.append(Block(index, shape, shape, False, columns))
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


def centred(walk, x, shift, dtype, out=None):
    """Yield (block, x - shift there, room for results of that shape), block by block.

    ``x`` and ``out`` are lines, ``dtype`` is the one computed in; ``shift`` has one entry a feature
    in it, or is None for 0. What is left in the room goes to ``out``, without which there may be
    none; the room may hold x - shift itself. Where the shift is 0 nothing is subtracted, nor copied
    if x has the right dtype already.
    """
    if shift is not None:
        (shift,) = walk.columns(dtype, shift)
    untouched = shift is None and x.dtype == dtype
    in_place = out is not None and out.dtype == dtype
    room = None
    for block in walk.reading if out is None else walk.writing:
        piece = block.of(x)
        if in_place:
            room = block.of(out)
        elif out is not None or not untouched:
            room = _scratch(dtype)[: piece.size].reshape(block.shape)
        if shift is not None:
            piece = np.subtract(piece, shift[block.columns], out=room)
        elif not untouched:
            room[...] = piece
            piece = room
        yield block, piece, room
        if out is not None and not in_place:
            block.of(out)[...] = room


def _rows_glued(lines):
    outer, features, inner = lines
    if inner != 1:
        return 1
    rows = max(1, min(outer // REUSE, WIDTH // features))
    return rows if rows < 4 else rows - rows % 4


def _scratch(dtype):
    """Room for one block, kept for the thread's next call: fresh pages would cost as much as work."""
    kept = vars(_kept).get(dtype.char)
    if kept is None or kept.size < BLOCK:
        kept = np.empty(BLOCK, dtype)
        setattr(_kept, dtype.char, kept)
    return kept


def _cut(start, stop, step):
    return [slice(at, min(at + step, stop)) for at in range(start, stop, max(step, 1))]
