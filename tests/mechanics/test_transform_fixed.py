"""The transform with fixed statistics against torch's batch norm in evaluation mode."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.mechanics import transform
from bncore.mechanics.inference import normalize

SHAPES = st.one_of(
    st.tuples(st.integers(0, 40), st.integers(1, 12)),
    st.tuples(st.integers(0, 6), st.integers(1, 6), st.integers(0, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(2, 5)),
    st.tuples(*[st.integers(1, 3)] * 5),
)
SEEDS = st.integers(0, 10**6)
DTYPES = st.sampled_from([np.float16, np.float32, np.float64])
EPS = {kind: float(np.finfo(kind).eps) for kind in (np.float16, np.float32, np.float64)}


def case(shape, seed, dtype=np.float64, offset=0.0):
    """x, dy, mean, var, gamma and beta, with statistics that are not quite those of x."""
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, *shape))
    mean, gamma, beta = rng.standard_normal((3, shape[1]))
    var = rng.uniform(0.5, 2, shape[1])
    return tuple(a.astype(dtype) for a in (x + offset, dy, mean + offset, var, gamma, beta))


def by_torch(x, dy, mean, var, gamma, beta, eps):
    """y, dx, dgamma and dbeta in double precision, None for a parameter that is None."""
    tensors = [
        None if a is None else torch.tensor(a.astype(np.float64, order="C"))
        for a in (x, mean, var, gamma, beta)
    ]
    leaves = [tensors[0].requires_grad_()] + [
        None if t is None else t.requires_grad_() for t in tensors[3:]
    ]
    y = torch.nn.functional.batch_norm(*tensors, training=False, eps=eps)
    wanted = [leaf for leaf in leaves if leaf is not None]
    found = iter(torch.autograd.grad(y, wanted, torch.tensor(dy.astype(np.float64))))
    return [y.detach().numpy()] + [None if leaf is None else next(found).numpy() for leaf in leaves]


def total(a):
    return a.sum(axis=(0, *range(2, a.ndim)))


def columns(vector, x):
    return vector.reshape(-1, *[1] * (x.ndim - 2))


@given(
    shape=SHAPES,
    seed=SEEDS,
    dtype=DTYPES,
    offset=st.sampled_from([0.0, 3.0, 100.0]),
    eps=st.sampled_from([1e-5, 1e-3, 1.0]),
    affine=st.tuples(st.booleans(), st.booleans()),
    channels_last=st.booleans(),
)
def test_values_and_gradients_are_those_of_torch_in_evaluation_mode(
    shape, seed, dtype, offset, eps, affine, channels_last
):
    x, dy, mean, var, gamma, beta = case(shape, seed, dtype, offset)
    if channels_last:
        x = np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)
    gamma, beta = (a if keep else None for a, keep in zip((gamma, beta), affine, strict=True))
    y, cache = transform.forward_fixed(x, mean, var, gamma, beta, eps)
    found = (y, *transform.backward_fixed(dy, cache))
    expected = by_torch(x, dy, mean, var, gamma, beta, eps)

    # Each value is a few roundings of its terms; a sum of m terms, those of the terms' magnitudes.
    size = np.abs(by_torch(x, dy, mean, var, None, None, eps)[0])
    slope = np.abs(columns(cache.scale, x))
    # torch multiplies x and the mean by the slope before it subtracts, in double precision.
    theirs_too = slope * (np.abs(x) + np.abs(columns(mean, x))) * EPS[np.float64] / EPS[dtype]
    size += theirs_too
    sizes = (
        (1 if gamma is None else np.abs(columns(gamma, x))) * size
        + (0 if beta is None else np.abs(columns(beta, x)))
        + theirs_too,
        slope * np.abs(dy),
        total(np.abs(dy) * (1 + size)),
        total(np.abs(dy)),
    )
    for name, ours, theirs, terms in zip(
        ("y", "dx", "dgamma", "dbeta"), found, expected, sizes, strict=True
    ):
        if theirs is None:
            assert ours is None
            continue
        assert ours.dtype == dtype
        assert ours.shape == theirs.shape
        bound = 8 * EPS[dtype] * terms + np.finfo(dtype).smallest_subnormal
        assert (np.abs(ours - theirs) <= bound).all(), name
    for result in (y, found[1]):
        assert result.strides == np.empty_like(x).strides or x.size == 0 or 1 in x.shape


@given(shape=SHAPES, seed=SEEDS, dtype=DTYPES)
def test_normalize_computes_the_same(shape, seed, dtype):
    x, _, *parameters = case(shape, seed, dtype, 2.0)
    y, _ = transform.forward_fixed(x, *parameters, 1e-3)
    np.testing.assert_array_equal(normalize(x, *parameters, 1e-3), y, strict=True)


@given(shape=SHAPES.filter(lambda shape: np.prod(shape) >= 2 * shape[1]), seed=SEEDS, dtype=DTYPES)
def test_with_the_statistics_of_the_batch_only_the_way_back_differs(shape, seed, dtype):
    x, dy, _, _, gamma, beta = case(shape, seed, dtype, 2.0)
    y, cache = transform.forward(x, gamma, beta, 1e-3)
    fixed, fixed_cache = transform.forward_fixed(x, cache.mean, cache.var, gamma, beta, 1e-3)
    # forward subtracts a mean within one deviation of 0 last, as a multiple of gamma.
    near = np.abs(columns(cache.mean * cache.inv_std, x))
    size = np.abs(columns(gamma, x)) * (np.abs(cache.x_hat) + near) + np.abs(columns(beta, x))
    rounding = 8 * EPS[dtype]
    assert (np.abs(fixed - y) <= rounding * size).all()
    ours, theirs = transform.backward_fixed(dy, cache), transform.backward_fixed(dy, fixed_cache)
    terms = total(np.abs(dy).astype(float) * (1 + np.abs(cache.x_hat) + near))
    assert (np.abs(ours.dx - theirs.dx) <= rounding * np.abs(theirs.dx)).all()
    assert (np.abs(ours.dgamma - theirs.dgamma) <= rounding * terms).all()
    assert (np.abs(ours.dbeta - theirs.dbeta) <= rounding * terms).all()


@given(shape=SHAPES, seed=SEEDS)
def test_the_gradient_of_an_example_does_not_depend_on_its_company(shape, seed):
    x, dy, mean, var, gamma, beta = case(shape, seed)
    whole = transform.backward_fixed(dy, transform.forward_fixed(x, mean, var, gamma, beta)[1])
    for i in range(len(x)):
        cache = transform.forward_fixed(x[i : i + 1], mean, var, gamma, beta)[1]
        alone = transform.backward_fixed(dy[i : i + 1], cache).dx
        assert (np.abs(whole.dx[i] - alone[0]) <= 4 * EPS[np.float64] * np.abs(alone[0])).all()


def test_an_empty_batch_has_an_empty_output_and_gradients_of_zero():
    for shape in ((0, 3), (0, 3, 4, 4), (5, 3, 0)):
        x = np.empty(shape, np.float32)
        y, cache = transform.forward_fixed(x, [1, 2, 3], [1, 1, 1], [1.0, 2.0, 3.0])
        dx, dgamma, dbeta = transform.backward_fixed(x, cache)
        assert y.shape == dx.shape == cache.x_hat.shape == shape
        assert y.dtype == dx.dtype == dgamma.dtype == np.float32
        assert not dgamma.any()
        assert dbeta is None


def test_the_statistics_may_be_far_outside_the_precision_of_the_batch():
    x = np.array([[1e30], [-3e38], [0.0]], np.float32)
    for mean, var in ((0.0, 1e80), (1e50, 1e100), (2e39, 1e78), (-1e38, 1e70)):
        y, cache = transform.forward_fixed(x, np.array([mean]), np.array([var]), beta=[0.5])
        exact = (x.astype(float) - mean) / np.sqrt(var + 1e-5)
        bound = 4 * EPS[np.float32] * (np.abs(exact) + 0.5)
        assert (np.abs(y - (exact + 0.5)) <= bound).all()
        y, _ = transform.forward_fixed(x, np.array([mean]), np.array([var]))
        assert (np.abs(y - exact) <= 4 * EPS[np.float32] * np.abs(exact)).all()
        assert cache.mean[0] == mean


@pytest.mark.parametrize(
    ("x", "mean", "var", "message"),
    [
        (
            np.array([[1], [300]], np.float16),
            0,
            1e-5,
            r"y\[1, 0\] is 9.49e\+04, beyond the largest",
        ),
        (np.array([[1], [1e38]], np.float32), 0, 0, r"y\[1, 0\] is 1e\+44, beyond the largest flo"),
        (np.array([[1.7e308], [1]]), -1.7e308, 0, r"y\[0, 0\] is inf, beyond the largest float64"),
    ],
)
def test_values_beyond_the_dtype_are_refused_in_words(x, mean, var, message):
    with pytest.raises(ValueError, match=message):
        transform.forward_fixed(x, [mean], np.array([var]), eps=1e-12)


@pytest.mark.parametrize("function", [transform.backward, transform.backward_steps])
def test_the_gradient_through_the_batchs_statistics_needs_a_batchs_statistics(function):
    x, dy, mean, var, gamma, beta = case((5, 3), 0)
    cache = transform.forward_fixed(x, mean, var, gamma, beta)[1]
    with pytest.raises(
        ValueError, match=r"gradient of forward_fixed is backward_fixed\(dy, cache\)"
    ):
        function(dy, cache)
