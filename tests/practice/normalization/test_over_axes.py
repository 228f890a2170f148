"""The core over any axes: the definition, differences, batch norm as one of its cases, and refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.mechanics import transform
from bncore.practice.normalization import backward, group_norm, normalize

SEEDS = st.integers(0, 10**6)
EPS = 2.0**-52


def written_out(values, axes, eps, centred):
    """x_hat in extended precision."""
    values = values.astype(np.longdouble)
    mean = values.mean(axis=axes, keepdims=True) if centred else 0
    return (values - mean) / np.sqrt(((values - mean) ** 2).mean(axis=axes, keepdims=True) + eps)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.data(),
    SEEDS,
    st.booleans(),
    st.sampled_from([1e-5, 0.1, 3.0]),
)
def test_a_set_is_normalised_by_its_own_statistics(shape, data, seed, centred, eps):
    shape = (2, *shape)
    axes = (0, *data.draw(st.lists(st.integers(1, len(shape) - 1), unique=True)))
    x = np.random.default_rng(seed).standard_normal(shape)
    y, cache = normalize(x, shape, axes, eps=eps, centred=centred, axis=0)
    expected = written_out(x, axes, eps, centred)
    size = (1 + np.abs(x).max()) ** 2 / eps
    assert np.abs(y - expected).max() <= 16 * (x.size + 8) * EPS * size
    sets = tuple(1 if i in axes else n for i, n in enumerate(shape))
    assert cache.mean.shape == cache.var.shape == cache.inv_std.shape == sets
    assert bool(np.any(cache.mean)) == centred


@given(
    st.lists(st.integers(2, 4), min_size=2, max_size=4),
    SEEDS,
    st.sampled_from([0.0, 1e3]),
)
def test_over_the_batch_it_is_batch_norm(shape, seed, offset):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, *shape))
    gamma, beta = rng.standard_normal((2, shape[1]))
    x += offset
    axes = (0, *range(2, len(shape)))
    y, cache = normalize(x, x.shape, axes, gamma, beta, 0.1)
    expected, kept = transform.forward(x, gamma, beta, 0.1)
    found = (y, *backward(dy, cache))
    size = (1 + offset) * (1 + np.abs(dy).max()) * (1 + np.abs(gamma).max()) * 100
    for ours, theirs in zip(found, (expected, *transform.backward(dy, kept)), strict=True):
        assert np.abs(ours - theirs).max() <= 8 * (x.size + 8) * EPS * size


@settings(max_examples=30)
@given(SEEDS, st.sampled_from([((3, 4), (1,)), ((3, 2, 2), (2,)), ((4, 3), (0,))]), st.booleans())
def test_gradients_are_those_of_differences(seed, sets, centred):
    (view, axes), rng = sets, np.random.default_rng(seed)
    shape = (view[0], view[-1] if len(view) == 2 else 4)
    x, dy = rng.standard_normal((2, *shape))
    at = [x, *rng.standard_normal((2, shape[1]))]
    options = {"centred": centred, "factor": 0.7, "eps": 0.1}

    def loss(x, gamma, beta):
        return (dy * normalize(x, view, axes, gamma, beta, **options)[0]).sum()

    for place, found in enumerate(backward(dy, normalize(x, view, axes, *at[1:], **options)[1])):
        for index in np.ndindex(found.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [a.copy() for a in at]
                moved[place][index] += step
                ends.append(loss(*moved))
            # The third derivative times h², and the rounding of the loss over h.
            bound = 1e-7 * (1 + np.abs(found).max()) * (1 + np.abs(dy).max())
            assert abs(found[index] - (ends[0] - ends[1]) / 2e-5) <= bound


@given(SEEDS, st.sampled_from([np.float16, np.float32, np.float64]), st.booleans())
def test_dtypes_and_memory_orders_come_back(seed, dtype, fortran):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, 4, 2)).astype(dtype)
    x = np.asfortranarray(x) if fortran else x
    gamma = rng.standard_normal(4)
    before = x.copy(), gamma.copy()
    y, cache = group_norm(x, 2, gamma, [1, 2, 3, 4])
    dx, dgamma, dbeta = backward(x, cache)
    assert (y.dtype, dx.dtype, dgamma.dtype, dbeta.dtype) == (dtype, dtype, np.float64, dtype)
    assert y.strides == dx.strides == x.strides
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(gamma, before[1])
    gamma[:] = 0
    np.testing.assert_array_equal(cache.gamma, before[1])


@given(st.floats(-1e9, 1e9), st.integers(2, 30))
def test_a_constant_set_becomes_the_shift_exactly(value, count):
    x = np.full((1, count), value)
    y, cache = normalize(x, x.shape, (1,), beta=np.arange(float(count)))
    np.testing.assert_array_equal(y[0], np.arange(float(count)))
    assert not cache.var.any()


@given(SEEDS, st.sampled_from([1e4, 1e8]))
def test_far_from_zero_the_deviations_keep_their_digits(seed, offset):
    x = np.round(np.random.default_rng(seed).standard_normal((2, 9)) * 2**10) / 2**10
    y, _ = normalize(x + offset, x.shape, (1,), eps=0.1)
    near, _ = normalize(x, x.shape, (1,), eps=0.1)
    assert np.abs(y - near).max() <= 1e-13


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: normalize(x[:0], (0, 4), (1,)), ValueError, r"x has shape \(0, 4\), .* is empty"),
        (lambda x: normalize(x[:, :1], (2, 1), (1,)), ValueError, "leaves 1 value to each set"),
        (lambda x: normalize(x * np.nan, (2, 4), (1,)), ValueError, r"x\[0, 0\] is nan, expected f"),
        (lambda x: normalize(x * 1e200, (2, 4), (1,)), ValueError, "x reaches 7e.200 in magnitude"),
        (lambda x: normalize(0 * x, (2, 4), (1,), eps=0.0), ValueError, "the variance of a set"),
        (
            lambda x: normalize(0 * x, (2, 4), (1,), eps=0.0, centred=False),
            ValueError,
            "the mean square of a set of x is 0",
        ),
        (
            lambda x: normalize(x, (2, 4), (1,), np.full(4, 1e308), eps=1e-9, factor=1e3),
            ValueError,
            r"y\[0, 0\] is .*inf, beyond the largest float64",
        ),
        (lambda x: backward(x, None), TypeError, "cache is a None, expected the Cache that the norm"),
        (lambda x: backward(x[:1], group_norm(x, 2)[1]), ValueError, r"dy has shape \(1, 4\), exp"),
        (lambda x: backward(x * np.nan, group_norm(x, 2)[1]), ValueError, r"dy\[0, 0\] is nan"),
        (lambda x: backward("dy", group_norm(x, 2)[1]), TypeError, "dy is a str, expected a numpy"),
        (
            lambda x: backward(x + 0.1, group_norm(x.astype("f2"), 2)[1]),
            ValueError,
            "which float16 cannot hold exactly",
        ),
        (
            lambda x: backward((x * 0 + 6e4).astype("f2"), group_norm(x.astype("f2"), 2, beta=x[0].astype("f2"))[1]),
            ValueError,
            r"dbeta\[0\] is 1.2e.05, beyond the largest float16",
        ),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(np.arange(8.0).reshape(2, 4))
