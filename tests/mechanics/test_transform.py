"""The transform and its gradients against torch, finite differences and their own identities."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bncore.mechanics import _blocks, transform

SHAPES = st.one_of(
    st.tuples(st.integers(2, 40), st.integers(1, 12)),
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(2, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(2, 5)),
    st.tuples(
        st.integers(2, 3),
        st.integers(1, 3),
        st.integers(1, 3),
        st.integers(1, 3),
        st.integers(1, 3),
    ),
)
LAYOUTS = {
    "C order": lambda a: a,
    "Fortran order": np.asfortranarray,
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "rows backwards": lambda a: a[::-1].copy()[::-1],
    "columns backwards": lambda a: np.flip(np.flip(a, 1).copy(), 1),
    "features last": lambda a: np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1),
    "shifted in memory": lambda a: np.concatenate([a[:1], a])[1:],
}
# Some units in the last place: 2^-11 is that of float16, 2^-24 of float32, 2^-53 of float64.
ROUNDING = {np.float16: 4 * 2.0**-11, np.float32: 24 * 2.0**-24, np.float64: 24 * 2.0**-53}


def batch(shape, seed, dtype=np.float64, offset=0.0):
    """x, dy, gamma and beta; the deviation of each feature of x is near 1."""
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, *shape))
    gamma, beta = rng.standard_normal((2, shape[1]))
    return tuple(a.astype(dtype) for a in (x + offset, dy, gamma, beta))


def by_torch(x, dy, gamma, beta, eps=1e-5):
    """y, dx, dgamma and dbeta of torch, None for a parameter that is None."""
    leaves = [
        None if a is None else torch.tensor(a.copy(), requires_grad=True) for a in (x, gamma, beta)
    ]
    y = torch.nn.functional.batch_norm(leaves[0], None, None, *leaves[1:], training=True, eps=eps)
    wanted = [leaf for leaf in leaves if leaf is not None]
    found = iter(torch.autograd.grad(y, wanted, torch.tensor(dy.copy())))
    return [y.detach().numpy()] + [None if leaf is None else next(found).numpy() for leaf in leaves]


def exactly(x, dy, gamma, beta, eps=1e-5):
    """y, dx, dgamma, dbeta in extended precision."""
    x, dy, gamma, beta = (a.astype(np.longdouble) for a in (x, dy, gamma, beta))
    axes, columns = (0, *range(2, x.ndim)), (-1, *(1 for _ in x.shape[2:]))
    x = x - x[:1, :, *(slice(1) for _ in x.shape[2:])]
    centred = x - x.mean(axis=axes, keepdims=True)
    inv_std = 1 / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + np.longdouble(eps))
    x_hat, gamma, beta = centred * inv_std, gamma.reshape(columns), beta.reshape(columns)
    removed = dy.mean(axis=axes, keepdims=True) + x_hat * (dy * x_hat).mean(
        axis=axes, keepdims=True
    )
    dx = gamma * inv_std * (dy - removed)
    return gamma * x_hat + beta, dx, total(dy * x_hat), total(dy)


def error(found, expected):
    """Largest error relative to the largest entry."""
    scale = np.abs(expected).max()
    return float(np.abs(found.astype(np.longdouble) - expected).max() / (scale if scale else 1))


def spread(x, cache):
    """How many deviations (with eps) from 0 the batch reaches, by which roundings of x count."""
    return 1 + float(np.abs(x.astype(float)).max() * cache.inv_std.max())


def assert_within(ours, theirs, bound, name=""):
    assert (np.abs(ours - theirs) <= bound).all(), name


def total(a):
    return a.sum(axis=(0, *range(2, a.ndim)))


@settings(max_examples=80)
@given(
    shape=SHAPES,
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    layouts=st.tuples(*[st.sampled_from(sorted(LAYOUTS))] * 2),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    offset=st.sampled_from([0.0, 0.5, 3.0]),
    eps=st.sampled_from([1e-5, 1e-3, 1.0]),
    affine=st.tuples(st.booleans(), st.booleans()),
)
def test_values_and_gradients_are_those_of_torch_in_double_precision(
    shape, seed, dtype, layouts, scale, offset, eps, affine
):
    x, dy, gamma, beta = batch(shape, seed, dtype, offset)
    x, dy = (LAYOUTS[name](a) for name, a in zip(layouts, (x * dtype(scale), dy), strict=True))
    gamma, beta = (a if keep else None for a, keep in zip((gamma, beta), affine, strict=True))
    arguments = (x, dy, gamma, beta)
    kept = [None if a is None else a.copy() for a in arguments]

    y, cache = transform.forward(x, gamma, beta, eps)
    found = (y, *transform.backward(dy, cache))
    expected = by_torch(*(None if a is None else a.astype(np.float64) for a in kept), eps=eps)

    # Rounding is relative to the largest terms: in dx they may cancel, as in a batch of two.
    terms = np.abs(dy.astype(np.float64)).max() * (1 + np.square(cache.x_hat.astype(np.float64)))
    sizes = (
        1 + np.abs(expected[0]).max(),
        np.abs(cache.scale).max() * terms.max(),
        cache.batch_size * terms.max(),
        cache.batch_size * terms.max(),
    )
    for name, ours, theirs, size in zip(
        ("y", "dx", "dgamma", "dbeta"), found, expected, sizes, strict=True
    ):
        if theirs is None:
            assert ours is None
            continue
        assert ours.dtype == dtype
        assert ours.shape == theirs.shape
        # torch does not shift: its double precision rounds x itself, and the square of that in dx.
        bound = ROUNDING[dtype] + ROUNDING[np.float64] * spread(x, cache) ** 2
        assert_within(ours, theirs, bound * size, name)
    for before, after in zip(kept, arguments, strict=True):
        np.testing.assert_array_equal(before, after)


@given(shape=SHAPES, seed=st.integers(0, 10**6))
def test_half_precision_takes_parameters_of_single_precision(shape, seed):
    x, dy, gamma, beta = (
        a.astype(t)
        for a, t in zip(
            batch(shape, seed), (np.float16, np.float16, np.float32, np.float32), strict=True
        )
    )
    y, cache = transform.forward(x, gamma, beta)
    dx, dgamma, dbeta = transform.backward(dy, cache)
    assert [a.dtype for a in (y, dx, dgamma, dbeta)] == [np.float16] * 2 + [np.float32] * 2
    expected = by_torch(*(a.astype(np.float64) for a in (x, dy, gamma, beta)))
    terms = total(np.abs(dy.astype(float))) * spread(x, cache) ** 2
    for ours, theirs in zip((dgamma, dbeta), expected[2:], strict=True):
        assert_within(ours, theirs, ROUNDING[np.float32] * terms)


@settings(max_examples=25)
@given(shape=SHAPES, seed=st.integers(0, 10**6), eps=st.sampled_from([1e-2, 1.0]))
def test_gradients_are_finite_differences(shape, seed, eps):
    x, dy, gamma, beta = batch(shape, seed)
    gradients = transform.backward(dy, transform.forward(x, gamma, beta, eps)[1])
    rng, h = np.random.default_rng(seed), 1e-5
    for place, gradient in enumerate(gradients):
        direction = rng.standard_normal(gradient.shape)

        def loss(t, place=place, direction=direction):
            moved = [x, gamma, beta]
            moved[place] = moved[place] + t * direction
            return (dy * transform.forward(*moved, eps)[0]).sum()

        slope = (loss(h) - loss(-h)) / (2 * h)
        # The third derivative is of the order of 1 / deviation³, and 1 / deviation is at most 10;
        # the loss, a sum, is rounded before it is divided by h.
        size = np.abs(dy).sum() * (1 + np.abs(gamma).max())
        truncated = 100 * h**2 * 10**3 * np.abs(direction).max() ** 3 * size
        rounded = 16 * 2.0**-53 / h * size * 10 * (1 + np.abs(x).max())
        assert abs(slope - (gradient * direction).sum()) <= truncated + rounded


@given(shape=SHAPES, seed=st.integers(0, 10**6), eps=st.sampled_from([1e-5, 0.1]))
def test_steps_are_the_derivatives_at_the_nodes_of_the_graph(shape, seed, eps):
    x, dy, gamma, beta = batch(shape, seed)
    cache = transform.forward(x, gamma, beta, eps)[1]
    steps = transform.backward_steps(dy, cache)

    columns = (1, -1, *(1 for _ in shape[2:]))
    axes = (0, *range(2, len(shape)))
    tx, tgamma, tbeta = (torch.tensor(a, requires_grad=True) for a in (x, gamma, beta))
    mean = tx.mean(dim=axes, keepdim=True)
    var = ((tx - mean) ** 2).mean(dim=axes, keepdim=True)
    x_hat = (tx - mean) / torch.sqrt(var + eps)
    y = tgamma.reshape(columns) * x_hat + tbeta.reshape(columns)
    nodes = (x_hat, var, mean, tx, tgamma, tbeta)
    derivatives = torch.autograd.grad(y, nodes, torch.tensor(dy))
    for name, ours, theirs in zip(steps._fields, steps, derivatives, strict=True):
        theirs = theirs.numpy()
        theirs = theirs.reshape(-1) if name in ("dvar", "dmean") else theirs
        # Sums of m terms, each with up to three factors 1 / sqrt(var + eps).
        size = (1 + np.abs(gamma).max()) * np.abs(dy).max() * (1 + cache.inv_std.max()) ** 3
        bound = ROUNDING[np.float64] * cache.batch_size * size * (1 + np.abs(x).max()) ** 3
        assert_within(ours, theirs, bound, name)


@given(
    shape=SHAPES,
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([np.float32, np.float64]),
    affine=st.tuples(st.booleans(), st.booleans()),
)
def test_steps_end_where_the_closed_form_does(shape, seed, dtype, affine):
    x, dy, gamma, beta = batch(shape, seed, dtype)
    gamma, beta = (a if keep else None for a, keep in zip((gamma, beta), affine, strict=True))
    cache = transform.forward(x, gamma, beta, 0.1)[1]
    steps, closed = transform.backward_steps(dy, cache), transform.backward(dy, cache)
    for name in closed._fields:
        ours, theirs = getattr(closed, name), getattr(steps, name)
        if theirs is None:
            assert ours is None
            continue
        assert ours.dtype == theirs.dtype == dtype
        size = (1 + np.abs(cache.scale).max()) * np.abs(dy).max() * spread(x, cache) ** 2
        assert_within(ours, theirs, ROUNDING[dtype] * cache.batch_size * size, name)


@given(shape=SHAPES, seed=st.integers(0, 10**6), eps=st.sampled_from([1e-8, 1e-3, 1.0]))
def test_epsilon_is_what_the_identities_say(shape, seed, eps):
    x, dy, gamma, beta = batch(shape, seed)
    _, cache = transform.forward(x, gamma, beta, eps)
    dx, dgamma, _ = transform.backward(dy, cache)
    share = cache.var / (cache.var + eps)
    # Sums of m terms; the mean and the variance carry the rounding of the largest x.
    m, wide = cache.batch_size, spread(x, cache)
    rounding = ROUNDING[np.float64] * m * wide**2
    assert_within(total(cache.x_hat), 0, rounding)
    assert_within(total(cache.x_hat**2) / m, share, rounding)
    size = np.abs(cache.scale).max() * np.abs(dy).max() * wide
    assert_within(total(dx), 0, rounding * size)
    assert_within(
        total(dx * cache.x_hat), cache.scale * dgamma * (1 - share), rounding * size * wide
    )


@given(features=st.integers(1, 8), m=st.integers(3, 30), seed=st.integers(0, 10**6))
def test_without_epsilon_the_backward_pass_is_a_scaled_projection(features, m, seed):
    x, dy, gamma, beta = batch((m, features), seed)
    _, cache = transform.forward(x, gamma, beta, 1e-300)
    dx = transform.backward(dy, cache).dx
    for j in range(features):
        kept = np.eye(m) - np.linalg.pinv(removed := np.c_[np.ones(m), x[:, j]].T) @ removed
        size = np.abs(cache.scale).max() * np.abs(dy).max() * spread(x, cache) ** 2
        bound = ROUNDING[np.float64] * m * size
        assert_within(dx[:, j], cache.scale[j] * kept @ dy[:, j], bound)


@given(features=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_a_batch_of_two_passes_a_gradient_that_vanishes_with_epsilon(features, seed):
    x, dy, gamma, beta = batch((2, features), seed)
    x[1] = x[0] + 1 + np.abs(x[1])
    for eps in (1e-2, 1e-4, 1e-6):
        dx = transform.backward(dy, transform.forward(x, gamma, beta, eps)[1]).dx
        assert np.abs(dx).max() <= 8 * eps * np.abs(gamma).max() * np.abs(dy).max()


@pytest.mark.parametrize("eps", [1e-1, 1e-5, 1e-12])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_over_pairs_of_normal_values_the_mean_gradient_does_not_vanish_with_epsilon(eps, scale):
    """Exact at each difference; the mean over them by quadrature in u = sqrt(eps) tan(angle)."""
    angle = np.pi * ((np.arange(20_000) + 0.5) / 20_000 - 0.5)
    u = eps**0.5 * np.tan(angle)
    pair = np.array([[1.0], [-1.0]]) * np.ones(len(u))
    cache = transform.forward(pair * u, np.ones(len(u)), np.zeros(len(u)), eps)[1]
    arrives = transform.backward(pair, cache).dx[0]
    density = np.exp(-((u / scale) ** 2)) / (scale * np.pi**0.5)
    mean = np.pi * np.mean(arrives * density * eps**0.5 / np.cos(angle) ** 2)
    ratio = eps / scale**2
    limit = 2 / (scale * np.pi**0.5)
    # The rule's own error, and what the density's fall takes away.
    assert abs(mean / limit - 1) <= 1e-4 + ratio * (2 + abs(np.log(ratio)))


@given(shape=SHAPES, seed=st.integers(0, 10**6), a=st.sampled_from([-3.0, 1e-3, 0.5, 7.0]))
def test_a_scaled_batch_gives_the_same_output_and_the_inverse_gradient(shape, seed, a):
    x, dy, gamma, beta = batch(shape, seed)
    y, cache = transform.forward(x, gamma, beta, 1e-4)
    scaled, scaled_cache = transform.forward(a * x, np.sign(a) * gamma, beta, 1e-4 * a**2)
    # a * x is rounded, so that deviations move by roundings of the largest x.
    rounding, wide = ROUNDING[np.float64] * cache.batch_size, spread(x, cache)
    assert_within(scaled, y, rounding * (np.abs(gamma).max() * wide**3 + np.abs(beta).max()))
    dx, scaled_dx = (transform.backward(dy, kept).dx for kept in (cache, scaled_cache))
    size = np.abs(cache.scale).max() * np.abs(dy).max()
    assert_within(a * scaled_dx, dx, rounding * size * wide**3)


@pytest.mark.parametrize("shape", [(3, 5), (32, 7), (4000, 5), (300, 3, 20), (8, 5, 12, 12)])
@pytest.mark.parametrize(
    ("dtype", "offset"), [(np.float32, 1e3), (np.float32, 1e5), (np.float64, 1e8)]
)
def test_far_from_zero_the_error_is_no_larger_than_that_of_torch(dtype, offset, shape):
    for seed in range(20):
        arguments = batch(shape, seed, dtype, offset)
        x, dy, gamma, beta = arguments
        y, cache = transform.forward(x, gamma, beta)
        found = (y, *transform.backward(dy, cache))
        for name, ours, theirs, exact in zip(
            ("y", "dx", "dgamma", "dbeta"),
            found,
            by_torch(*arguments),
            exactly(*arguments),
            strict=True,
        ):
            last_place = np.finfo(dtype).eps
            if name != "dbeta":  # a sum of dy, in which the offset of x plays no part
                assert error(ours, exact) <= max(error(theirs, exact), 4 * last_place), (name, seed)
            assert error(ours, exact) < 16 * last_place, (name, seed)


@pytest.mark.parametrize(
    "rows",
    [
        lambda m: np.where(np.arange(m) < 16, 1e5, 0),
        lambda m: np.where(np.arange(m) < 1, -1e6, 30),
        lambda m: 1e4 * np.arange(m) / m,
        lambda m: np.where(np.arange(m) < m // 2, 0, 1e6),
    ],
    ids=["outliers first", "one outlier", "a ramp", "a jump"],
)
def test_rows_that_misrepresent_the_batch_do_not_spoil_its_statistics(rows):
    ours, theirs = [], []
    for seed in range(10):
        x, dy, gamma, beta = batch((20000, 3), seed)
        arguments = tuple(a.astype(np.float32) for a in (x + rows(20000)[:, None], dy, gamma, beta))
        y, cache = transform.forward(arguments[0], *arguments[2:])
        found = (y, *transform.backward(arguments[1], cache))
        exact = exactly(*arguments)
        ours.append([error(a, b) for a, b in zip(found, exact, strict=True)])
        theirs.append([error(a, b) for a, b in zip(by_torch(*arguments), exact, strict=True)])
    assert (5 * np.max(ours, axis=0) <= np.max(theirs, axis=0)).all(), (ours, theirs)


@given(
    value=st.floats(-(2.0**127), 2.0**127, width=32),
    shape=SHAPES,
    dtype=st.sampled_from([np.float32, np.float64]),
)
@example(value=0.1, shape=(9999, 3), dtype=np.float32)
@example(value=2.0**127, shape=(9, 3), dtype=np.float32)
def test_a_constant_feature_becomes_beta_exactly(value, shape, dtype):
    x, _, gamma, beta = batch(shape, 0, dtype)
    x[:, 0] = value
    y, cache = transform.forward(x, gamma, beta)
    assert cache.var[0] == 0
    assert cache.mean[0] == dtype(value)
    np.testing.assert_array_equal(y[:, 0], np.broadcast_to(beta[0], y[:, 0].shape))


def test_an_array_without_strides_is_a_constant_batch():
    x = np.broadcast_to(np.array([1.5, -2.0], np.float32), (1000, 2))
    dy = np.broadcast_to(np.float32(1), x.shape)
    beta = np.array([3.0, 4.0], np.float32)
    y, cache = transform.forward(x, None, beta)
    np.testing.assert_array_equal(y, np.broadcast_to(beta, x.shape))
    assert not transform.backward(dy, cache).dx.any()


def test_read_only_and_memory_mapped_input_works(tmp_path):
    x, dy, gamma, beta = batch((30, 4), 0)
    expected = transform.forward(x, gamma, beta)[0]
    mapped = np.memmap(tmp_path / "x", dtype=x.dtype, mode="w+", shape=x.shape)
    mapped[:] = x
    y, cache = transform.forward(mapped, gamma, beta)
    np.testing.assert_array_equal(y, expected)
    assert type(cache.x) is np.ndarray
    for a in (x, dy, gamma, beta):
        a.flags.writeable = False
    np.testing.assert_array_equal(transform.forward(x, gamma, beta)[0], expected)


def test_the_cache_names_the_statistics():
    x, _, gamma, beta = batch((7, 3, 5), 0, np.float32, 2.0)
    _, cache = transform.forward(x, gamma, beta, 1e-3)
    double = x.astype(np.float64)
    largest, single, last = np.abs(double).max(), ROUNDING[np.float32], ROUNDING[np.float64]
    assert_within(cache.mean, double.mean(axis=(0, 2)), single * largest)
    assert_within(cache.var, double.var(axis=(0, 2)), single * largest**2)
    assert_within(cache.inv_std, 1 / np.sqrt(cache.var + 1e-3), last * cache.inv_std)
    assert_within(cache.scale, gamma * cache.inv_std, last * np.abs(cache.scale))
    assert (cache.batch_size, cache.eps) == (35, 1e-3)
    assert cache.x_hat.dtype == np.float32
    assert cache.x is x


def test_changing_a_parameter_after_forward_does_not_change_the_gradient():
    x, dy, gamma, beta = batch((9, 3), 0)
    _, cache = transform.forward(x, gamma, beta)
    before = transform.backward(dy, cache)
    gamma[:] = 0
    for ours, theirs in zip(before, transform.backward(dy, cache), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shape", [(65536, 64), (64, 64, 32, 32)])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_only_the_results_are_as_large_as_the_batch(shape, offset):
    x, dy, gamma, beta = batch(shape, 0, np.float32, offset)
    tracemalloc.start()
    try:
        y, cache = transform.forward(x, gamma, beta)
        dx = transform.backward(dy, cache).dx
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    scratch = _blocks.BLOCK * x.itemsize
    assert peak < y.nbytes + dx.nbytes + 4 * scratch
