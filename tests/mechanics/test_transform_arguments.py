"""What the transform takes and gives back: lists, precisions, orders in memory, ranges."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.mechanics import transform

SEEDS = st.integers(0, 10**6)
SHAPES = st.one_of(
    st.tuples(st.integers(2, 12), st.integers(1, 5)),
    st.tuples(st.integers(2, 4), st.integers(1, 4), st.integers(1, 5)),
    st.tuples(*[st.integers(2, 4)] * 4),
)
KINDS = (np.float16, np.float32, np.float64)
DTYPES = st.sampled_from(KINDS)
EPS = {kind: float(np.finfo(kind).eps) for kind in KINDS}


def integers(shape, seed):
    rng = np.random.default_rng(seed)
    x, dy = rng.integers(-9, 10, (2, *shape))
    gamma, beta = rng.integers(-9, 10, (2, shape[1]))
    return x, dy, gamma, beta


def results(x, dy, gamma, beta):
    """Everything the transform returns, by name."""
    y, cache = transform.forward(x, gamma, beta)
    fixed, fixed_cache = transform.forward_fixed(x, cache.mean, cache.var, gamma, beta)
    named = {"y": y, "fixed": fixed, "x_hat": cache.x_hat}
    for function, kept in (
        (transform.backward, cache),
        (transform.backward_steps, cache),
        (transform.backward_fixed, fixed_cache),
    ):
        found = function(dy, kept)._asdict()
        named |= {f"{function.__name__}.{name}": value for name, value in found.items()}
    return named


def assert_identical(ours, theirs):
    for name, value in ours.items():
        if theirs[name] is None:
            assert value is None
        else:
            np.testing.assert_array_equal(value, theirs[name], err_msg=name, strict=True)


@given(shape=SHAPES, seed=SEEDS)
def test_lists_tuples_and_integers_give_what_floats_give(shape, seed):
    arrays = integers(shape, seed)
    expected = results(*(a.astype(float) for a in arrays))
    assert_identical(results(*arrays), expected)
    assert_identical(results(*(a.tolist() for a in arrays)), expected)
    assert_identical(results(*(tuple(a.tolist()) for a in arrays)), expected)
    swapped = [a.astype(np.dtype(float).newbyteorder()) for a in arrays]
    assert_identical(results(*swapped), expected)


@given(shape=SHAPES, seed=SEEDS, dtype=DTYPES)
def test_lists_and_integers_take_the_dtype_of_the_batch(shape, seed, dtype):
    x, dy, gamma, beta = integers(shape, seed)
    ours = results(x.astype(dtype), dy, gamma, beta.tolist())
    assert_identical(ours, results(*(a.astype(dtype) for a in (x, dy, gamma, beta))))
    for name, value in ours.items():
        assert value.dtype == (float if name.split(".")[-1] in ("dvar", "dmean") else dtype), name


@given(shape=SHAPES, seed=SEEDS, dtypes=st.tuples(DTYPES, DTYPES, DTYPES))
def test_parameters_of_any_precision_stand_beside_any_batch(shape, seed, dtypes):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, *shape)).astype(dtypes[0])
    gamma, beta = (rng.standard_normal(shape[1]).astype(dtype) for dtype in dtypes[1:])
    y, cache = transform.forward(x, gamma, beta, 0.1)
    gradients = transform.backward(dy, cache)
    assert [a.dtype for a in (y, *gradients)] == [dtypes[0], *dtypes]

    leaves = [torch.tensor(a.astype(float), requires_grad=True) for a in (x, gamma, beta)]
    theirs = torch.nn.functional.batch_norm(leaves[0], None, None, *leaves[1:], True, eps=0.1)
    expected = torch.autograd.grad(theirs, leaves, torch.tensor(dy.astype(float)))
    # The batch is computed in its precision, single at least; then each result is rounded once.
    m, largest = cache.batch_size, 1 + np.abs(cache.x_hat).max()
    inner = 8 * EPS[np.float64 if dtypes[0] == np.float64 else np.float32] * largest**2
    sizes = (
        np.abs(gamma).max() * largest + np.abs(beta).max(),
        np.abs(cache.scale).max() * np.abs(dy).max() * 2 * largest,
        m * np.abs(dy).max(),
        m * np.abs(dy).max(),
    )
    theirs = [a.detach().numpy() for a in (theirs, *expected)]
    for ours, exact, size in zip((y, *gradients), theirs, sizes, strict=True):
        bound = inner * float(size) + EPS[ours.dtype.type] * np.abs(exact)
        assert (np.abs(ours - exact) <= bound + np.finfo(ours.dtype).smallest_subnormal).all()


def test_the_cells_of_a_well_known_course_run():
    x = np.random.default_rng(231).standard_normal((200, 3))
    y, cache = transform.forward(x, np.asarray([1, 2, 3]), np.asarray([11, 12, 13]))
    # The statistics of y are sums of 200 terms below 40.
    assert (np.abs(y.mean(axis=0) - [11, 12, 13]) <= 200 * EPS[np.float64] * 40).all()
    share = np.sqrt(cache.var / (cache.var + cache.eps))
    assert (np.abs(y.std(axis=0) - share * [1, 2, 3]) <= 200 * EPS[np.float64] * 40).all()
    assert transform.backward(y, cache).dgamma.dtype == np.float64


@given(shape=SHAPES, seed=SEEDS, dtype=DTYPES, data=st.data())
def test_results_lie_in_memory_as_the_batch_does(shape, seed, dtype, data):
    x, dy, gamma, beta = (a.astype(dtype) for a in integers(shape, seed))
    order = data.draw(st.permutations(range(len(shape))))
    arranged = x.transpose(order).copy().transpose(np.argsort(order))
    if data.draw(st.booleans()):
        dy = np.asfortranarray(dy)
    plain, found = results(x, dy, gamma, beta), results(arranged, dy, gamma, beta)
    for name, value in found.items():
        if value.ndim < 2:
            continue
        assert value.shape == shape
        for stride, expected, length in zip(
            value.strides, np.empty_like(arranged).strides, shape, strict=True
        ):
            assert stride == expected or length == 1, name
        # The same sums in another order: a few roundings of their terms, in single at least.
        m, terms = x.size // shape[1], 1 + np.abs(plain["x_hat"].astype(float)).max()
        size = np.abs(plain[name].astype(float)).max() + 9 * np.abs(dy).max() * terms**2
        size *= np.abs(transform.forward(x)[1].inv_std).max() + 1
        assert (np.abs(value.astype(float) - plain[name]) <= 4 * m * EPS[dtype] * size).all(), name


@given(shape=SHAPES, seed=SEEDS)
def test_a_callers_settings_for_rounding_change_nothing(shape, seed):
    x, dy, gamma, beta = (a * np.float32(1e-20) for a in integers(shape, seed))
    expected = results(x, dy, gamma, beta)
    with np.errstate(all="raise"):
        y, cache = transform.forward(x, gamma, beta)
        transform.backward(dy, cache)
        transform.backward_fixed(dy, cache)
    np.testing.assert_array_equal(y, expected["y"])


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("wide", KINDS)
def test_only_values_beyond_the_dtype_are_infinite(dtype, wide):
    x = np.array([[0, 1, 5], [0, 1 + 2.0**-8, 5], [1e-3, 1 - 2.0**-8, 5], [0, 1, 5]], dtype)
    largest = float(np.finfo(wide).max)
    gamma, beta = np.array([largest, -largest, largest], wide), np.array([1, 0, 0.5], wide)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, cache = transform.forward(x, gamma, beta, eps=1e-7)
    exact = cache.x_centred * cache.inv_std
    with np.errstate(over="ignore"):
        exact = (exact.astype(np.longdouble) * gamma + beta).astype(np.float64)
    assert not np.isnan(y).any()
    assert (y[:, 2] == beta[2]).all()
    top = float(np.finfo(dtype).max)
    near = 64 * EPS[dtype]
    assert (np.isinf(y) >= (np.abs(exact) > top * (1 + near))).all()
    assert (np.isinf(y) <= (np.abs(exact) > top * (1 - near))).all()
    kept = np.isfinite(y)
    bound = near * (np.abs(exact[kept]) + np.broadcast_to(np.abs(beta), y.shape)[kept])
    assert (np.abs(y[kept] - exact[kept]) <= bound + np.finfo(dtype).smallest_subnormal).all()


def test_a_slope_too_small_for_single_precision_loses_no_digits():
    x = (np.random.default_rng(0).standard_normal((64, 3)) * 1e17).astype(np.float32)
    gamma = np.array([1e-25, 3e-24, 1e-27], np.float32)
    y, cache = transform.forward(x, gamma)
    exact = gamma.astype(float) * cache.x_centred * cache.inv_std
    assert (np.abs(y - exact) <= 4 * EPS[np.float32] * np.abs(exact).max(axis=0)).all()


BEYOND = {
    "dx": ([[0], [1e-3], [2e-3], [0]], [[6e4], [-6e4], [6e4], [6e4]], None, np.float16),
    "dgamma": ([[0], [1], [2], [4]], [[-6e4], [-6e4], [6e4], [6e4]], [1e-3], np.float16),
    "dbeta": ([[0], [1], [2], [0]], [[6e4], [6e4], [6e4], [6e4]], [1e-3], np.float16),
}


@pytest.mark.parametrize("layout", [(4, 1), (2, 1, 2)])
@pytest.mark.parametrize("name", BEYOND)
@pytest.mark.parametrize(
    "function", [transform.backward, transform.backward_steps, transform.backward_fixed]
)
def test_gradients_beyond_their_dtype_are_refused_in_words(name, layout, function):
    x, dy, gamma, dtype = BEYOND[name]
    x, dy = (np.array(a, dtype).reshape(layout) for a in (x, dy))
    cache = transform.forward(x, gamma, [0.0] if gamma else None)[1]
    with pytest.raises(ValueError, match=rf"{name}\[0.*\] is .*, beyond the largest float16"):
        function(dy, cache)
    double = transform.forward(x.astype(float), gamma, [0.0] if gamma else None)[1]
    gradient = getattr(function(dy.astype(float), double), name)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 65504


@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 2)])
@pytest.mark.parametrize(
    "function", [transform.backward, transform.backward_steps, transform.backward_fixed]
)
def test_products_beyond_single_precision_are_no_obstacle_if_the_gradients_fit(shape, function):
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape) * 1e4).astype("f4"), rng.standard_normal(shape)
    dy = (dy * 1e36).astype("f4")
    found = function(dy, transform.forward(x, np.ones(4, "f4"))[1])
    double = transform.forward(x.astype(float), np.ones(4))[1]
    exact = function(dy.astype(float), double)
    assert found.dx.dtype == np.float32
    for name in ("dx", "dgamma"):
        ours, theirs = getattr(found, name), getattr(exact, name)
        size = np.abs(theirs).max() + np.abs(dy).max() * double.inv_std.max()
        assert (np.abs(ours - theirs) <= 32 * EPS[np.float32] * size).all()


def test_a_normalised_input_beyond_the_dtype_is_refused():
    x = np.array([[300.0], [1.0]], np.float16)
    _, cache = transform.forward_fixed(x, [0], np.array([0.0]), [1e-3], eps=1e-8)
    with pytest.raises(ValueError, match=r"x_hat\[0, 0\] is 3e\+06, beyond the largest float16"):
        cache.x_hat  # noqa: B018


def test_a_gradient_given_as_a_list_is_rounded_to_the_dtype_of_the_batch():
    x, dy = np.array([[1], [2], [4]], np.float32), [[0.1], [0.2], [0.7]]
    cache = transform.forward(x)[1]
    rounded = transform.backward(np.array(dy, np.float32), cache)
    np.testing.assert_array_equal(transform.backward(dy, cache).dx, rounded.dx, strict=True)
