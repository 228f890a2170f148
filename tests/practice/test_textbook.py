"""The board of the wing: equal to the production versions, in at most fifteen lines each."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.practice import masking, renormalization, textbook

EPS = 2.0**-52


@given(
    shape=st.lists(st.integers(2, 5), min_size=2, max_size=4),
    share=st.floats(0, 0.8),
    seed=st.integers(0, 10**6),
)
def test_masked_batch_norm_is_that_of_the_production_version(shape, share, seed):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, *shape))
    gamma, beta = rng.standard_normal((2, shape[1]))
    mask = rng.random((shape[0], *shape[2:])) > share
    mask.flat[:2] = True
    x[~np.broadcast_to(np.expand_dims(mask, 1), shape)] = np.nan
    y, kept = textbook.forward_masked(x, mask, gamma, beta, 0.1)
    expected, cache = masking.forward(x, mask, gamma, beta, 0.1)
    found = (y, *textbook.backward_masked(dy, kept))
    # Sums of m terms, with at most two factors x_hat or 1 / sqrt(var + eps).
    size = max(np.abs(cache.packed.x_hat).max(), cache.packed.inv_std.max(), 1) ** 2
    size *= (1 + np.abs(gamma).max()) * (1 + np.abs(dy).max())
    for ours, theirs in zip(found, (expected, *masking.backward(dy, cache)), strict=True):
        assert np.abs(ours - theirs).max() <= 8 * (mask.sum() + 8) * EPS * size


@pytest.mark.parametrize(
    "function",
    [
        one
        for one in vars(textbook).values()
        if inspect.isfunction(one) and one.__module__ == textbook.__name__
    ],
)
def test_the_board_holds_fifteen_lines(function):
    source = inspect.unwrap(function)
    assert len(inspect.getsource(source).splitlines()) <= 15


@settings(max_examples=40)
@given(
    st.lists(st.integers(2, 5), min_size=2, max_size=4),
    st.integers(0, 10**6),
    st.sampled_from([1.0, 1.2, 3.0]),
    st.sampled_from([0.0, 0.3, 5.0]),
)
def test_renormalization(shape, seed, r_max, d_max):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, *shape))
    mean, gamma, beta = rng.standard_normal((3, shape[1]))
    var = rng.uniform(0.2, 3, shape[1])
    given = x, mean, var, gamma, beta, r_max, d_max
    y, cache = textbook.renormalize(*given)
    y2, cache2 = renormalization.forward(*given)
    found = y, *textbook.renormalize_backward(dy, cache)
    expected = y2, *renormalization.backward(dy, cache2)
    x_hat, scale = np.abs(cache2.transform.x_hat).max(), np.abs(cache2.transform.scale).max()
    size = (2 + x_hat + d_max) ** 2 * (1 + np.abs(dy).max()) * (3 + scale)
    for ours, theirs in zip(found, expected, strict=True):
        assert (np.abs(ours - theirs) <= 8 * (dy.size + 8) * EPS * size).all()
