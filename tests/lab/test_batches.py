"""Batches are cut from one permutation after the other, and go on where others stood."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.lab.batches import Batches


@st.composite
def settings(draw):
    count = draw(st.integers(1, 40))
    return count, draw(st.integers(1, count)), draw(st.integers(0, 2**40))


def by_hand(count, size, seed):
    """Every permutation in pieces of the size, without the rest."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator).tolist()
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


@given(settings())
def test_each_epoch_is_a_permutation_cut_in_pieces(given):
    batches, expected = Batches(*given), by_hand(*given)
    for _ in range(3 * (given[0] // given[1]) + 2):
        assert next(batches).tolist() == next(expected)


@given(settings())
def test_an_epoch_shows_as_many_examples_as_fill_batches_and_each_once(given):
    count, size, _ = given
    batches = Batches(*given)
    for _ in range(3):
        seen = torch.cat([next(batches) for _ in range(count // size)]).tolist()
        assert len(set(seen)) == len(seen) == count // size * size
        assert set(seen) <= set(range(count))
        if count % size == 0:
            assert sorted(seen) == list(range(count))


@given(settings(), st.integers(0, 100), st.integers(0, 2**40))
def test_another_goes_on_from_where_it_stood(given, taken, other):
    count, size, _ = given
    batches, later = Batches(*given), Batches(count, size, other)
    for _ in range(taken):
        next(batches)
    later.restore(batches.state())
    for _ in range(2 * (count // size) + 1):
        assert torch.equal(next(batches), next(later))


def test_batches_are_their_own_iterator():
    batches = Batches(6, 2, 0)
    assert iter(batches) is batches


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 1, 0), ValueError, "count is 0, expected at least 1"),
        ((5, 0, 0), ValueError, "size is 0, expected at least 1"),
        ((5, 6, 0), ValueError, "size is 6, expected at most count, 5"),
        ((5, 2.0, 0), TypeError, "size is a float, expected an integer"),
        ((5, 2, -1), ValueError, "seed is -1, expected at least 0"),
    ],
)
def test_bad_numbers_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        Batches(*arguments)
