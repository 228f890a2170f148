"""Batch renormalization against torch's batch norm, evaluation, the formulas and differences."""

import copy
import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import batch_norm

from bncore.lab.inference import refitted
from bncore.practice import renormalization
from bncore.practice.renormalization import BatchRenorm, ramp

SEEDS = st.integers(0, 10**6)
SHAPES = st.one_of(
    st.tuples(st.integers(2, 20), st.integers(1, 6)),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(2, 5)),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(2, 4)),
    st.tuples(*[st.integers(2, 3)] * 5),
)
LIMITS = st.tuples(st.sampled_from([1.0, 1.2, 3.0, np.inf]), st.sampled_from([0, 0.3, 5.0, np.inf]))
KINDS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def case(shape, seed):
    """x, dy, mean, var, gamma, beta in double precision."""
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, *shape))
    mean, gamma, beta = rng.standard_normal((3, shape[1]))
    return x, dy, mean, rng.uniform(0.2, 3, shape[1]), gamma, beta


def total(a):
    return a.sum(axis=(0, *range(2, a.ndim)))


def columns(vector, x):
    return vector.reshape(-1, *[1] * (x.ndim - 2))


def written_out(x, dy, mean, var, gamma, beta, r_max, d_max, eps):
    """Algorithm 1 of the paper, and the chain rule with r and d held: y, dx, dgamma, dbeta."""
    m = x.size // x.shape[1]
    mean_B = total(x) / m
    centred = x - columns(mean_B, x)
    sigma_B, sigma = np.sqrt(total(centred**2) / m + eps), np.sqrt(var + eps)
    r = np.minimum(np.maximum(sigma_B / sigma, 1 / r_max), r_max)
    d = np.minimum(np.maximum((mean_B - mean) / sigma, -d_max), d_max)
    x_hat = centred / columns(sigma_B, x)
    corrected = x_hat * columns(r, x) + columns(d, x)
    passed = m * dy - columns(total(dy), x) - x_hat * columns(total(dy * x_hat), x)
    return (
        columns(gamma, x) * corrected + columns(beta, x),
        columns(gamma * r / sigma_B / m, x) * passed,
        total(dy * corrected),
        total(dy),
    )


def rounding(x, dy, mean, var, gamma, beta, eps, kind=np.float64):
    """Of sums over a batch of values that a small deviation has made large."""
    least = min(total((x - columns(total(x), x) * x.shape[1] / x.size) ** 2).min(), var.min()) + eps
    size = (1 + np.abs(x).max() + np.abs(mean).max()) ** 2 / min(least, 1) ** 1.5
    rest = (1 + np.abs(dy).max()) * (1 + np.abs(gamma).max() + np.abs(beta).max())
    return 64 * (x.size + 8) * float(np.finfo(kind).eps) * size * rest


def trained(kind, features, seed, **options):
    """A layer in double precision whose scale, shift and running statistics have moved."""
    layer = kind(features, **options).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in layer.parameters():
            value.copy_(torch.randn(features, generator=generator, dtype=torch.float64))
        layer.running_mean.copy_(torch.randn(features, generator=generator))
        layer.running_var.copy_(torch.rand(features, generator=generator) + 0.5)
        layer.num_batches_tracked.fill_(7)
    return layer


@settings(max_examples=30)
@given(SHAPES, SEEDS, LIMITS, st.sampled_from([1e-5, 1e-2, 1.0]))
def test_numpy_is_the_algorithm_written_out(shape, seed, limits, eps):
    x, dy, *rest = case(shape, seed)
    y, cache = renormalization.forward(x, *rest, *limits, eps)
    found = y, *renormalization.backward(dy, cache)
    expected = written_out(x, dy, *rest, *limits, eps)
    atol = rounding(x, dy, *rest, eps)
    for ours, theirs in zip(found, expected, strict=True):
        assert (np.abs(ours - theirs) <= atol).all()


@settings(max_examples=30)
@given(SHAPES, SEEDS, LIMITS, st.sampled_from([1e-5, 1e-2, 1.0]))
def test_the_layer_is_numpys(shape, seed, limits, eps):
    x, dy, mean, var, gamma, beta = case(shape, seed)
    layer = BatchRenorm(shape[1], eps, 0.1, *limits).double()
    names = {"running_mean": mean, "running_var": var, "weight": gamma, "bias": beta}
    tracked = {"num_batches_tracked": torch.tensor(3)}
    layer.load_state_dict({key: torch.tensor(v) for key, v in names.items()} | tracked)
    given = torch.tensor(x, requires_grad=True)
    y = layer(given)
    found = y, *torch.autograd.grad(y, [given, *layer.parameters()], torch.tensor(dy))
    theirs, cache = renormalization.forward(x, mean, var, gamma, beta, *limits, eps)
    expected = theirs, *renormalization.backward(dy, cache)
    atol = rounding(x, dy, mean, var, gamma, beta, eps)
    for ours, other in zip(found, expected, strict=True):
        assert (np.abs(ours.detach().numpy() - other) <= atol).all()


@settings(max_examples=30)
@given(SHAPES, SEEDS, st.sampled_from([0.1, 0.0, 1.0, None]), st.booleans())
def test_without_corrections_it_is_torchs_batch_norm(shape, seed, momentum, affine):
    options = {"momentum": momentum, "affine": affine}
    ours = trained(BatchRenorm, shape[1], seed, r_max=1.0, d_max=0.0, **options)
    theirs = trained(KINDS[len(shape)], shape[1], seed, **options)
    for step in range(3):
        x, dy, *_ = (torch.tensor(a) for a in case(shape, seed + step))
        results = []
        for layer in (ours, theirs):
            given = x.clone().requires_grad_()
            y = layer(given)
            results.append([y, *torch.autograd.grad(y, [given, *layer.parameters()], dy)])
        zero, one = np.zeros(shape[1]), np.ones(shape[1])
        size = [w.detach().numpy() for w in theirs.parameters()] or [one, zero]
        atol = rounding(x.numpy(), dy.numpy(), zero, one, *size, 1e-5)
        torch.testing.assert_close(*results, rtol=0, atol=atol)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=1e-13)


@settings(max_examples=30)
@given(SHAPES, SEEDS)
def test_without_limits_it_is_evaluation_with_the_statistics_before_the_batch(shape, seed):
    layer = trained(BatchRenorm, shape[1], seed, r_max=np.inf, d_max=np.inf)
    x, dy, *_ = case(shape, seed)
    before = copy.deepcopy(layer).eval()
    y, expected = layer(torch.tensor(x)), before(torch.tensor(x))
    kept = before.running_mean.numpy(), before.running_var.numpy()
    size = [w.detach().numpy() for w in layer.parameters()]
    atol = rounding(x, dy, *kept, *size, 1e-5)
    torch.testing.assert_close(y, expected, rtol=0, atol=atol)


@settings(max_examples=20)
@given(SEEDS, LIMITS)
def test_the_gradient_is_that_of_differences_with_r_and_d_held(seed, limits):
    x, dy, *rest = case((5, 3), seed)
    _, cache = renormalization.forward(x, *rest, *limits, 0.1)
    r, d, gamma, beta = cache.r, cache.d, *rest[2:]

    def held(x, gamma, beta):
        sigma_B = np.sqrt(x.var(0) + 0.1)
        return (dy * (gamma * ((x - x.mean(0)) / sigma_B * r + d) + beta)).sum()

    at = [x, gamma, beta]
    for place, found in enumerate(renormalization.backward(dy, cache)):
        expected, h = np.empty_like(found), 1e-5
        for index in np.ndindex(found.shape):
            ends = []
            for step in (h, -h):
                moved = [a.copy() for a in at]
                moved[place][index] += step
                ends.append(held(*moved))
            expected[index] = (ends[0] - ends[1]) / (2 * h)
        # The third derivative times h², and the rounding of the loss over h.
        assert np.abs(found - expected).max() <= 1e-6 * (1 + np.abs(found).max())


@settings(max_examples=30)
@given(SEEDS, st.integers(2, 12))
def test_no_gradient_reaches_a_batch_of_two(seed, features):
    x, dy, *rest = case((2, features), seed)
    gap = x[0] - x[1]
    x[0] += 2 * np.sign(gap)
    _, cache = renormalization.forward(x, *rest, eps=1e-12)
    dx = renormalization.backward(dy, cache).dx
    # What is left is the share eps / (var + eps) and rounding.
    assert np.abs(dx).max() <= 1e-10 * (1 + np.abs(dy).max()) * (
        1 + np.abs(cache.transform.scale).max()
    )


@settings(max_examples=30)
@given(SHAPES, SEEDS)
def test_the_first_batch_has_nothing_to_be_corrected_by(shape, seed):
    x = torch.tensor(case(shape, seed)[0])
    layer = BatchRenorm(shape[1]).double()
    expected = batch_norm(x, None, None, training=True)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12 / x.numel())
    assert layer.num_batches_tracked == 1


def test_a_network_can_be_fitted_again():
    def network(kind):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), kind(8), nn.ReLU(), nn.Linear(8, 4), kind(4)).double()

    x = torch.randn(64, 5, dtype=torch.float64) * 3 + 1
    ours, theirs = network(BatchRenorm), network(nn.BatchNorm1d)
    for _ in range(3):
        ours(x)
    fitted = refitted(ours, x)
    torch.testing.assert_close(fitted.eval()(x), refitted(theirs, x).eval()(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("affine", [True, False])
def test_states_are_exchanged_with_torch(affine):
    x = torch.randn(16, 4)
    ours, theirs = BatchRenorm(4, affine=affine), nn.BatchNorm1d(4, affine=affine)
    for one, other in ((ours, theirs), (theirs, ours)):
        for _ in range(5):
            one(torch.randn(16, 4) * 2 + 1)
        assert other.load_state_dict(one.state_dict()).missing_keys == []
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=0, atol=0)
        ours.train(), theirs.train()


def test_schedules_see_the_number_of_batches_before():
    seen = []

    def r_max(batches):
        seen.append(batches)
        return 1 + batches

    layer = BatchRenorm(3, r_max=r_max, d_max=ramp(0, 4, 1, 3))
    found = []
    for _ in range(4):
        found.append(layer.limits())
        layer(torch.randn(8, 3))
    assert seen[::2] == [0, 1, 2, 3]
    assert found == [(1, 0), (2, 0), (3, 2), (4, 4)]


@given(st.floats(-5, 5), st.floats(-5, 5), st.integers(0, 100), st.integers(1, 100))
def test_a_ramp_is_a_straight_line_between_two_levels(start, stop, first, length):
    limit, last = ramp(start, stop, first, first + length), first + length
    assert limit(0) == limit(first) == start
    for batches in (last, last + 10**6):
        assert abs(limit(batches) - stop) <= 1e-14
    for batches in range(first, last):
        step = limit(batches + 1) - limit(batches)
        assert abs(step - (stop - start) / length) <= 1e-14
    assert pickle.loads(pickle.dumps(limit)) == limit


def test_a_layer_is_copied_and_pickled_with_its_limits():
    layer = trained(BatchRenorm, 3, 0, r_max=ramp(1, 3, 2, 9), d_max=0.5)
    x = torch.randn(8, 3, dtype=torch.float64)
    expected = copy.deepcopy(layer)(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.limits() == layer.limits()
        torch.testing.assert_close(other(x), expected, rtol=0, atol=0)
    assert "r_max=_Ramp(start=1.0, stop=3.0, first=2, last=9), d_max=0.5" in repr(layer)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_types_have_their_statistics_in_float32(dtype):
    x = (300 + 100 * torch.randn(32, 5, 3)).to(dtype)
    layers = [BatchRenorm(5) for _ in range(2)]
    for _ in range(3):
        found, exact = (layer(given) for layer, given in zip(layers, (x, x.float()), strict=True))
        assert found.dtype == dtype
        rtol = 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(found, exact.to(dtype), rtol=rtol, atol=rtol)
    torch.testing.assert_close(*(layer.state_dict() for layer in layers))
    small = BatchRenorm(5).to(dtype)
    assert small(x).dtype == small.eval()(x).dtype == dtype


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_keeps_dtype_and_order(dtype):
    x, dy, mean, var, gamma, _ = (a.astype(dtype) for a in case((4, 3, 5), 0))
    x, gamma = np.asfortranarray(x), gamma.astype(np.float32)
    y, cache = renormalization.forward(x, mean, var, gamma, None, d_max=0.1)
    exact, _ = renormalization.forward(
        *(a.astype(np.float64) for a in (x, mean, var, gamma)), None, d_max=0.1
    )
    assert y.dtype == dtype
    assert y.flags.f_contiguous
    assert np.abs(y - exact).max() <= 64 * np.finfo(dtype).eps * np.abs(exact).max()
    dx, dgamma, dbeta = renormalization.backward(dy, cache)
    assert dx.dtype == dtype
    assert dgamma.dtype == np.float32
    assert dbeta is None


def test_channels_last_stays():
    x = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    assert BatchRenorm(3)(x).is_contiguous(memory_format=torch.channels_last)


def test_lists_are_taken():
    y, cache = renormalization.forward([[1, 2], [3, 5]], [0, 0], [1, 1], [1, 2], [0, 1])
    assert y.dtype == np.float64
    assert renormalization.backward([[1, 0], [0, 1]], cache).dgamma.shape == (2,)


X, ONES = np.arange(8.0).reshape(4, 2), np.ones(2)
BAD_CALLS = {
    "one value": (lambda: renormalization.forward(X[:1], ONES, ONES), ValueError, "1 values of each"),
    "tensor": (lambda: renormalization.forward(torch.ones(3, 2), ONES, ONES), TypeError, "x is a torch"),
    "mean": (lambda: renormalization.forward(X, ONES[:1], ONES), ValueError, "mean has shape (1,)"),
    "var": (lambda: renormalization.forward(X, ONES, -ONES), ValueError, "var[0] is -1.0, expected"),
    "gamma": (lambda: renormalization.forward(X, ONES, ONES, [1]), ValueError, "gamma has shape (1,)"),
    "eps": (lambda: renormalization.forward(X, ONES, ONES, eps=0), ValueError, "eps is 0, expected"),
    "r_max": (
        lambda: renormalization.forward(X, ONES, ONES, r_max=0.5),
        ValueError,
        "r_max is 0.5, expected a number of at least 1",
    ),
    "d_max": (
        lambda: renormalization.forward(X, ONES, ONES, d_max=-1),
        ValueError,
        "d_max is -1, expected a number of at least 0",
    ),
    "NaN": (lambda: renormalization.forward(X, ONES, ONES, d_max=np.nan), ValueError, "d_max is nan"),
    "text": (
        lambda: renormalization.forward(X, ONES, ONES, r_max="3"),
        TypeError,
        "r_max is a str, expected a real number",
    ),
    "large": (
        lambda: renormalization.forward(X, -1e308 * ONES, 0 * ONES, d_max=np.inf),
        ValueError,
        "gamma * d + beta[0] is inf, beyond the largest float64",
    ),
    "larger": (
        lambda: renormalization.forward(1e5 * X, ONES, 0 * ONES, 1e308 * ONES, r_max=np.inf),
        ValueError,
        "gamma * r[0] is inf, beyond the largest float64",
    ),
    "cache": (
        lambda: renormalization.backward(X, None),
        TypeError,
        "cache is a None, expected the Cache that forward returned",
    ),
    "dy": (
        lambda: renormalization.backward(X[:2], renormalization.forward(X, ONES, ONES)[1]),
        ValueError,
        "dy has shape (2, 2), expected (4, 2)",
    ),
    "dgamma": (
        lambda: renormalization.backward(
            60000 * np.ones((4, 2), np.float16),
            renormalization.forward(X.astype(np.float16), ONES, ONES, ONES.astype(np.float16))[1],
        ),
        ValueError,
        "dgamma[0] is ",
    ),
    "ramp": (lambda: ramp(1, 3, 5, 5), ValueError, "last is 5, expected more than first, 5"),
    "ramp start": (lambda: ramp(np.nan, 3, 5, 6), ValueError, "start is nan, expected a finite number"),
    "ramp stop": (lambda: ramp(1, np.inf, 5, 6), ValueError, "stop is inf, expected a finite number"),
    "ramp first": (lambda: ramp(1, 3, 0.5, 6), TypeError, "first is a float, expected an integer"),
    "features": (lambda: BatchRenorm(0), ValueError, "num_features is 0, expected at least 1"),
    "layer eps": (lambda: BatchRenorm(3, eps=0), ValueError, "eps is 0, expected a finite number above"),
    "momentum": (lambda: BatchRenorm(3, momentum=2), ValueError, "momentum is 2, expected a number in"),
    "layer r": (lambda: BatchRenorm(3, r_max=0), ValueError, "r_max is 0, expected a number of at"),
    "layer d": (lambda: BatchRenorm(3, d_max=None), TypeError, "d_max is a None, expected a real"),
    "schedule": (
        lambda: BatchRenorm(3, r_max=ramp(0, 3, 5, 9))(torch.ones(4, 3)),
        ValueError,
        "r_max is 0.0, expected a number of at least 1",
    ),
    "array": (
        lambda: BatchRenorm(3)(np.ones((4, 3))),
        TypeError,
        "x is a ndarray, expected a tensor",
    ),
    "integers": (
        lambda: BatchRenorm(3)(torch.ones(4, 3, dtype=torch.int64)),
        TypeError,
        "x has dtype torch.int64, expected torch.float32, that of the layer",
    ),
    "shape": (
        lambda: BatchRenorm(3)(torch.ones(4, 2)),
        ValueError,
        "x has 2 features on axis 1, expected 3, those of the layer",
    ),
    "axis": (lambda: BatchRenorm(3)(torch.ones(3)), ValueError, "x has shape (3,), expected (batch"),
    "dtype": (
        lambda: BatchRenorm(3)(torch.ones(4, 3, dtype=torch.float64)),
        TypeError,
        "x has dtype torch.float64, expected torch.float32, that of the layer",
    ),
    "single": (
        lambda: BatchRenorm(3)(torch.ones(1, 3)),
        ValueError,
        "x has shape (1, 3), 1 values of each feature, expected at least 2 in training mode",
    ),
    "untracked": (
        lambda: without_statistics()(torch.ones(4, 3)),
        ValueError,
        "the layer has no running statistics, expected running_mean and running_var",
    ),
}  # fmt: skip


def without_statistics():
    layer = BatchRenorm(3)
    layer.running_mean = layer.running_var = None
    return layer


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", BAD_CALLS)
def test_errors_say_what_was_wrong(name):
    call, error, message = BAD_CALLS[name]
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_torchs_conversion_leaves_plain_batch_norm_as_the_docstring_warns():
    found = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(BatchRenorm(3)))[0]
    assert type(found) is nn.SyncBatchNorm
    assert "convert_sync_batchnorm" in BatchRenorm.__doc__


def test_one_value_is_enough_in_evaluation():
    layer = BatchRenorm(3).eval()
    torch.testing.assert_close(layer(torch.ones(1, 3)), torch.ones(1, 3) / (1 + 1e-5) ** 0.5)
