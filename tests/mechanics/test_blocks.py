"""Blocks and walks: every entry once, in the order of memory, with short sums."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.mechanics import _blocks

SHAPES = st.lists(st.integers(1, 9), min_size=2, max_size=5).map(tuple)


def arranged(shape, order, dtype=np.float64):
    """Distinct numbers in an array whose axes lie in memory in this order."""
    memory = np.arange(np.prod(shape), dtype=dtype).reshape([shape[axis] for axis in order])
    return memory.transpose(np.argsort(order))


@settings(max_examples=50)
@given(
    lines=st.tuples(st.integers(0, 40), st.integers(1, 12), st.integers(0, 30)),
    block=st.integers(1, 500),
    line=st.integers(1, 12),
)
def test_blocks_cover_lines_once_and_stay_small(lines, block, line):
    kept = _blocks.WIDTH, _blocks.LONGEST_LINE
    _blocks.WIDTH, _blocks.LONGEST_LINE = min(block, 100), line
    try:
        plan = _blocks.blocks(lines, block)
    finally:
        _blocks.WIDTH, _blocks.LONGEST_LINE = kept
    counts = np.zeros(lines, int)
    for part in plan:
        assert part.of(counts).size <= block
        assert part.of(counts).shape[-1] <= line or part.by_column
        assert part.summed[1] <= _blocks.LONGEST_SUM or not part.by_column
        counts[part.index] += 1
    assert (counts == 1).all()


@given(shape=SHAPES, data=st.data())
def test_a_walk_sees_an_array_in_the_order_of_its_memory_without_a_copy(shape, data):
    order = data.draw(st.permutations(range(len(shape))))
    x = arranged(shape, order)
    path = _blocks.walk(x)
    lines = path.over(x)
    assert np.shares_memory(lines, x)
    np.testing.assert_array_equal(lines.ravel(), np.arange(x.size))
    assert lines.shape[1] == shape[1]
    for feature in range(shape[1]):
        np.testing.assert_array_equal(
            np.sort(lines[:, feature], axis=None), np.sort(x[:, feature], axis=None)
        )


@given(shape=SHAPES, data=st.data())
def test_an_empty_array_of_a_walk_lies_in_memory_as_the_first_one_does(shape, data):
    x = arranged(shape, data.draw(st.permutations(range(len(shape)))), np.float32)
    result, lines = _blocks.walk(x).empty(np.dtype(np.float32))
    lines[...] = _blocks.walk(x).over(x)
    np.testing.assert_array_equal(result, x)
    assert np.shares_memory(result, lines)
    for ours, theirs, length in zip(result.strides, np.empty_like(x).strides, shape, strict=True):
        assert ours == theirs or length == 1


@given(shape=st.lists(st.integers(2, 9), min_size=2, max_size=5).map(tuple), data=st.data())
def test_a_flipped_array_is_walked_in_the_order_of_its_memory_too(shape, data):
    x = arranged(shape, data.draw(st.permutations(range(len(shape)))))
    flipped = np.flip(x, data.draw(st.sets(st.integers(0, len(shape) - 1))))
    assert _blocks.walk(flipped).order == _blocks.walk(x).order
    np.testing.assert_array_equal(
        _blocks.walk(flipped).over(flipped).sum(axis=(0, 2)),
        flipped.sum(axis=tuple(axis for axis in range(x.ndim) if axis != 1)),
    )  # whole numbers: every order of summing gives the same


@given(shape=SHAPES)
def test_another_order_is_seen_in_that_of_the_walk(shape):
    for order in itertools.islice(itertools.permutations(range(len(shape))), 12):
        x = arranged(shape, order)
        other = x.copy()
        np.testing.assert_array_equal(_blocks.walk(x).over(other), _blocks.walk(x).over(x))


@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (4, 3)])
def test_channels_last_are_a_matrix_and_fortrans_matrices_are_rows(shape):
    last = np.moveaxis(np.empty((4, *shape[2:], 3)), -1, 1)
    assert _blocks.walk(last).lines == (last.size // 3, 3, 1)
    assert _blocks.walk(np.empty((4, 3), order="F")).lines == (1, 3, 4)


@settings(max_examples=50)
@given(
    lines=st.tuples(st.integers(1, 200), st.integers(1, 40), st.integers(1, 60)),
    seed=st.integers(0, 10**6),
    small=st.booleans(),
    matrix=st.booleans(),
)
def test_sums_are_exact_to_the_rounding_of_short_lines(lines, seed, small, matrix):
    if matrix:
        lines = (*lines[:2], 1)
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(lines) + 3).astype(np.float32), rng.standard_normal(lines)
    b = b.astype(np.float32)
    totals, kept = np.zeros((2, lines[1])), _blocks.SMALL
    _blocks.SMALL = 1 << 30 if small else 0
    try:
        for block in _blocks.blocks(lines, 2048):
            block.add_sums(block.of(a), block.of(b), totals)
    finally:
        _blocks.SMALL = kept
    a, b = a.astype(float), b.astype(float)
    for total, terms in zip(totals, (a, a * b), strict=True):
        # At most LONGEST_SUM or one line of terms are added in single precision, one by one.
        bound = 64 * 2.0**-24 * np.abs(terms).sum(axis=(0, 2))
        assert (np.abs(total - terms.sum(axis=(0, 2))) <= bound).all()


@pytest.mark.parametrize("lines", [(1, 2, 300_000), (300_000, 2, 1), (3, 2, 100_003)])
def test_long_lines_of_one_sign_are_summed_in_short_pieces(lines):
    a = np.random.default_rng(0).random(lines, dtype=np.float32)
    totals = np.zeros((2, 2))
    for block in _blocks.blocks(lines, _blocks.BLOCK):
        block.add_sums(block.of(a), block.of(a), totals)
    a = a.astype(float)
    for total, terms in zip(totals, (a, a * a), strict=True):
        # Errors of LONGEST_LINE / 4 roundings, at the narrowest vectors, mostly cancel.
        error = np.abs(total / terms.sum(axis=(0, 2)) - 1)
        assert (error <= 2.0**-24 * (_blocks.LONGEST_LINE / 4) ** 0.5).all()


def test_vectors_are_repeated_for_the_rows_that_are_glued():
    path = _blocks.walk(np.empty((64, 3)))
    rows = path.columns(np.dtype(np.float32), np.array([1.0, 2, 3]), np.array([4, 5, 6]))
    assert rows.dtype == np.float32
    assert rows.shape == (2, 3 * path.repeats)
    np.testing.assert_array_equal(rows[1].reshape(-1, 3), [[4, 5, 6]] * path.repeats)
    images = _blocks.walk(np.empty((2, 3, 4))).columns(np.dtype(float), np.arange(3.0))
    np.testing.assert_array_equal(images, np.arange(3.0).reshape(1, 3, 1))


@pytest.mark.parametrize("raised", [False, True])
def test_short_buffers_leave_numpys_settings_as_they_were(raised):
    before = np.getbufsize(), np.geterr()
    try:
        with _blocks.short_buffers(over="raise"):
            assert np.getbufsize() == _blocks.BUFFER
            if raised:
                raise FloatingPointError
    except FloatingPointError:
        pass
    assert (np.getbufsize(), np.geterr()) == before
