"""The version on the board: equal to the production version, and to torch by that."""

import inspect

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bncore.mechanics import _blocks, inference, scaling, textbook, transform

EPS = 2.0**-52
SHAPES = st.one_of(
    st.tuples(st.integers(2, 40), st.integers(1, 12)),
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(2, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(2, 5)),
)
SEEDS = st.integers(0, 10**6)
BLOCKED = [(50, 3), (33, 70), (2, 300), (5, 3, 20), (3, 4, 5, 7), (1, 2, 9)]


def batch(shape, seed, offset=0.0):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, *shape))
    gamma, beta = rng.standard_normal((2, shape[1]))
    return x + offset, dy, gamma, beta


def assert_same(ours, theirs, dy, x, cache, offset=0.0):
    """(y, dx, dgamma, dbeta) agree to roundings of m terms, which grow with an offset of x."""
    m = dy.size // dy.shape[1]
    terms = (1 + np.abs(cache.x_hat).max()) * (1 + offset * cache.inv_std.max())
    size = terms**2 * (1 + np.abs(dy).max()) * (1 + np.abs(cache.scale).max())
    for name, a, b in zip(("y", "dx", "dgamma", "dbeta"), ours, theirs, strict=True):
        assert (np.abs(a - b) <= 8 * (m + 8) * EPS * size).all(), name


@given(shape=SHAPES, seed=SEEDS, eps=st.sampled_from([1e-5, 1.0]), offset=st.sampled_from([0, 5]))
def test_training_is_that_of_the_production_version(shape, seed, eps, offset):
    x, dy, gamma, beta = batch(shape, seed, offset)
    y, kept = textbook.forward(x, gamma, beta, eps)
    ours, cache = transform.forward(x, gamma, beta, eps)
    assert_same(
        (ours, *transform.backward(dy, cache)),
        (y, *textbook.backward(dy, kept)),
        dy,
        x,
        cache,
        offset + 1,
    )


@given(shape=SHAPES, seed=SEEDS, eps=st.sampled_from([0.1, 1.0]))
def test_steps_are_those_of_the_production_version(shape, seed, eps):
    x, dy, gamma, beta = batch(shape, seed)
    _, kept = textbook.forward(x, gamma, beta, eps)
    cache = transform.forward(x, gamma, beta, eps)[1]
    expected = transform.backward_steps(dy, cache)
    # Sums of m terms, each with up to three factors 1 / sqrt(var + eps).
    size = (1 + np.abs(gamma).max()) * np.abs(dy).max() * (1 + cache.inv_std.max()) ** 3
    bound = 8 * (cache.batch_size + 8) * EPS * size * (1 + np.abs(x).max()) ** 3
    for name, ours, theirs in zip(
        expected._fields, textbook.backward_steps(dy, kept), expected, strict=True
    ):
        assert (np.abs(ours.reshape(theirs.shape) - theirs) <= bound).all(), name


@given(shape=SHAPES, seed=SEEDS, eps=st.sampled_from([1e-5, 1.0]), of_batch=st.booleans())
def test_fixed_statistics_are_those_of_the_production_version(shape, seed, eps, of_batch):
    x, dy, gamma, beta = batch(shape, seed)
    mean, var = np.random.default_rng(seed).uniform(0.5, 2, (2, shape[1]))
    if of_batch:
        y, kept = textbook.forward(x, gamma, beta, eps)
        ours, cache = transform.forward(x, gamma, beta, eps)
    else:
        y, kept = textbook.forward_fixed(x, mean, var, gamma, beta, eps)
        ours, cache = transform.forward_fixed(x, mean, var, gamma, beta, eps)
    found, expected = transform.backward_fixed(dy, cache), textbook.backward_fixed(dy, kept)
    assert_same((ours, *found), (y, *expected), dy, x, cache, 1.0)


@given(seed=SEEDS, samples=st.integers(10, 60), features=st.integers(1, 6))
def test_scalings_are_those_of_the_production_versions(seed, samples, features):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((samples, features)) @ rng.standard_normal((features, features)) + 3
    deviation = X.std(axis=0)
    far = np.abs(X).max() / deviation.min()
    ours, theirs = textbook.standardize(X), scaling.Standardization.fit(X).apply(X)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=8 * samples * EPS * far)
    ours, theirs = textbook.whiten(X), scaling.ZCAWhitening.fit(X).apply(X)
    covariance = np.cov(X.T, bias=True).reshape(features, features)
    lost = np.linalg.cond(covariance) * (1 + far)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=8 * samples * EPS * lost)


@pytest.mark.parametrize("layout", ["C", "F", "features last"])
@pytest.mark.parametrize("block", [1, 7, 64, 1000, 64 * 1024])
@pytest.mark.parametrize("shape", BLOCKED)
def test_blocks_of_any_size_give_the_textbook_result(shape, block, layout, monkeypatch):
    _blocks._walk.cache_clear()
    monkeypatch.setattr(_blocks, "BLOCK", block)
    monkeypatch.setattr(_blocks, "WRITTEN", max(1, block // 2))
    monkeypatch.setattr(_blocks, "WIDTH", max(1, min(block // 2, 80)))
    monkeypatch.setattr(_blocks, "LONGEST_LINE", 1 + block % 13)
    try:
        for small, offset in ((0, 0.0), (64 * 1024, 5.0)):
            monkeypatch.setattr(_blocks, "SMALL", small)
            x, dy, gamma, beta = batch(shape, 0, offset)
            if layout == "F":
                x = np.asfortranarray(x)
            elif layout == "features last":
                x = np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)
            ours, cache = transform.forward(x, gamma, beta)
            y, kept = textbook.forward(x, gamma, beta)
            found = (ours, *transform.backward(dy, cache))
            assert_same(found, (y, *textbook.backward(dy, kept)), dy, x, cache, offset)
            found = transform.backward_fixed(dy, cache)
            expected = textbook.backward_fixed(dy, kept)
            assert_same((ours, *found), (y, *expected), dy, x, cache, offset)
    finally:
        _blocks._walk.cache_clear()


@given(shape=SHAPES, seed=SEEDS, momentum=st.sampled_from([0.0, 0.01, 0.1, 1.0]))
def test_running_averages_are_those_of_the_production_version(shape, seed, momentum):
    x, *_ = batch(shape, seed, offset=2.0)
    m = x.size // x.shape[1]
    assume(m >= 2)
    kept = inference.RunningStatistics(shape[1], momentum)
    mean, var = kept.mean, kept.var
    for part in (x, 3 * x):
        kept.update(part)
        mean, var = textbook.running_update(mean, var, part, momentum)
    size = 2 * (m + 8) * EPS * np.square(3 * x).max()
    np.testing.assert_allclose(mean, kept.mean, rtol=0, atol=size)
    np.testing.assert_allclose(var, kept.var, rtol=0, atol=4 * size)


@given(shape=SHAPES, seed=SEEDS, sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_merged_statistics_are_those_of_the_production_version(shape, seed, sizes):
    rng = np.random.default_rng(seed)
    batches = [2 + rng.standard_normal((count, *shape[1:])) for count in sizes]
    found, expected = textbook.exact_statistics(batches), inference.exact_statistics(batches)
    m = sum(x.size // x.shape[1] for x in batches)
    size = 8 * (m + 8) * EPS * max(np.square(x).max() for x in batches)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=size)


@given(kernel=st.lists(st.integers(1, 3), max_size=2), seed=SEEDS)
def test_folded_layers_are_those_of_the_production_version(kernel, seed):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((4, 3, *kernel))
    bias, mean, gamma, beta = rng.standard_normal((4, 4))
    var = rng.uniform(0.5, 2, 4)
    found = textbook.fold(weight, bias, *inference.affine_map(mean, var, gamma, beta))
    production = inference.fold_conv if kernel else inference.fold_linear
    expected = production(weight, bias, mean, var, gamma, beta)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=64 * EPS * (1 + np.abs(other).max()))


def test_the_board_holds_fifteen_lines():
    for _, function in inspect.getmembers(textbook, inspect.isfunction):
        source = inspect.unwrap(function)
        assert len(inspect.getsource(source).splitlines()) <= 15
