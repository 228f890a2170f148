"""Layer, instance, group and root mean square norm against torch's own, their limits and invariances."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from bncore.mechanics import transform
from bncore.practice.normalization import (
    backward,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
)

SEEDS = st.integers(0, 10**6)
SPATIAL = st.lists(st.integers(1, 4), max_size=3).map(tuple)
# Some units in the last place: 2^-11 is that of float16, 2^-24 of float32, 2^-53 of float64.
ROUNDING = {np.float16: 4 * 2.0**-11, np.float32: 8 * 2.0**-24, np.float64: 32 * 2.0**-53}
DTYPES = st.sampled_from(list(ROUNDING))


def expanded(vector, x):
    """A vector of features, for each position of an example, as torch's layer norm wants it."""
    return vector.reshape(-1, *[1] * (x.ndim - 2)).expand(x.shape[1:])


TORCH = {
    "layer": lambda x, w, b, eps: functional.layer_norm(
        x, x.shape[1:], expanded(w, x), expanded(b, x), eps
    ),
    "instance": lambda x, w, b, eps: functional.instance_norm(x, weight=w, bias=b, eps=eps),
    "group": lambda x, w, b, eps: functional.group_norm(x, 2, w, b, eps),
    "rms": lambda x, w, b, eps: functional.rms_norm(x, x.shape[1:], expanded(w, x), eps),
}
OURS = {
    "layer": layer_norm,
    "instance": instance_norm,
    "group": lambda x, *rest: group_norm(x, 2, *rest),
    "rms": lambda x, gamma, beta, eps: rms_norm(x, gamma, eps),
}


def case(shape, seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, *shape))
    gamma, beta = rng.standard_normal((2, shape[1]))
    return tuple(a.astype(dtype) for a in (x, dy, gamma, beta))


def results(function, x, dy, gamma, beta, eps=1e-5):
    y, cache = function(x, gamma, beta, eps)
    return y, *backward(dy, cache)


def assert_equal_to_rounding(found, expected, x, dy, gamma, beta, eps, dtype):
    # A set of close values has a small deviation, by which rounding is divided: y by the first
    # power, dx by the second.
    size = (1 + np.abs(dy).max()) * (2 + np.abs(gamma).max() + np.abs(beta).max())
    high = 1 + float(np.abs(expected[0]).max())
    bound = ROUNDING[dtype] * high + 2.0**-50 * x.size * 10 / eps**1.5
    for ours, theirs in zip(found, expected, strict=True):
        if theirs is None:
            assert ours is None
            continue
        assert ours.dtype == dtype
        largest = 1 + np.abs(theirs.astype(np.float64)).max()
        assert np.abs(ours - theirs).max() <= bound * largest * size


@settings(max_examples=60)
@given(
    name=st.sampled_from(list(OURS)),
    batch=st.integers(1, 4),
    pairs=st.integers(1, 3),
    spatial=st.lists(st.integers(2, 4), max_size=3).map(tuple),
    seed=SEEDS,
    dtype=DTYPES,
    eps=st.sampled_from([1e-3, 0.1, 1.0]),
    shift=st.sampled_from([0, 3]),
)
def test_values_and_gradients_are_those_of_torch(
    name, batch, pairs, spatial, seed, dtype, eps, shift
):
    if name == "instance" and not spatial:
        spatial = (3,)
    shape = (batch, 4 * pairs, *spatial)
    x, dy, gamma, beta = case(shape, seed, dtype)
    x = x + dtype(shift)
    found = results(OURS[name], x, dy, gamma, beta, eps)
    x64, dy64, g64, b64 = (torch.tensor(a.astype(np.float64)) for a in (x, dy, gamma, beta))
    leaves = [x64.requires_grad_(), g64.requires_grad_(), b64.requires_grad_()]
    y = TORCH[name](*leaves, eps)
    grads = torch.autograd.grad(y, leaves, dy64, allow_unused=True)
    expected = [y.detach().numpy(), *(None if g is None else g.numpy() for g in grads)]
    assert_equal_to_rounding(found, expected, x, dy, gamma, beta, eps, dtype)


@given(name=st.sampled_from(list(OURS)), seed=SEEDS, dtype=DTYPES)
def test_in_its_own_precision_torch_says_the_same(name, seed, dtype):
    x, _, gamma, beta = case((3, 4, 5), seed, dtype)
    y, _ = OURS[name](x, gamma, beta, 0.1)
    theirs = TORCH[name](*map(torch.tensor, (x, gamma, beta)), 0.1).numpy()
    assert theirs.dtype == y.dtype
    unit = {np.float16: 2.0**-11, np.float32: 2.0**-24, np.float64: 2.0**-53}[dtype]
    # torch may round each of 20 values and sums in the precision of x.
    size = (1 + np.abs(x).max()) ** 2 * (1 + np.abs(gamma).max()) + np.abs(beta).max()
    assert np.abs(y.astype(float) - theirs.astype(float)).max() <= 32 * unit * float(size) * 10


@given(st.integers(1, 4), st.integers(2, 6), SPATIAL, SEEDS)
def test_one_group_is_layer_norm(batch, features, spatial, seed):
    given = case((batch, features, *spatial), seed)
    for ours, theirs in zip(
        results(lambda x, *rest: group_norm(x, 1, *rest), *given),
        results(layer_norm, *given),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(2, 6), SEEDS)
def test_one_group_a_feature_is_instance_norm_and_that_batch_norm_of_each_example(
    batch, features, length, seed
):
    x, dy, gamma, beta = case((batch, features, length), seed)
    found = results(instance_norm, x, dy, gamma, beta, 0.1)
    grouped = results(lambda x, *rest: group_norm(x, features, *rest), x, dy, gamma, beta, 0.1)
    for ours, theirs in zip(grouped, found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    rows = [slice(i, i + 1) for i in range(batch)]
    kept = [transform.forward(x[row], gamma, beta, 0.1) for row in rows]
    parts = [transform.backward(dy[row], cache) for row, (_, cache) in zip(rows, kept, strict=True)]
    expected = (
        np.concatenate([y for y, _ in kept]),
        np.concatenate([part.dx for part in parts]),
        sum(part.dgamma for part in parts),
        sum(part.dbeta for part in parts),
    )
    assert_equal_to_rounding(found, expected, x, dy, gamma, beta, 0.1, np.float64)


@given(st.integers(2, 5), st.integers(2, 6), SPATIAL, SEEDS)
def test_without_a_mean_layer_norm_is_rms_norm(batch, features, spatial, seed):
    x, _, gamma, _ = case((batch, features, *spatial), seed)
    axes = tuple(range(1, x.ndim))
    x = x - x.mean(axis=axes, keepdims=True)
    y, expected = rms_norm(x, gamma, 0.1)[0], layer_norm(x, gamma, None, 0.1)[0]
    assert np.abs(y - expected).max() <= 1e-13 * (1 + np.abs(expected).max())


@given(name=st.sampled_from(list(OURS)), seed=SEEDS, a=st.sampled_from([0.5, 4.0]))
def test_what_they_are_invariant_to(name, seed, a):
    """All forget a common scale, and all but rms a common shift; none looks at another example."""
    x, _, gamma, beta = case((3, 4, 5), seed)
    plain = OURS[name](x, gamma, beta, 1e-12)[0]
    np.testing.assert_allclose(OURS[name](a * x, gamma, beta, 1e-12)[0], plain, atol=1e-9)
    moved = OURS[name](x + 2.0, gamma, beta, 1e-12)[0]
    assert (np.abs(moved - plain).max() > 1e-3) == (name == "rms")
    alone = OURS[name](x[1:2], gamma, beta, 1e-12)[0]
    np.testing.assert_allclose(alone, plain[1:2], rtol=0, atol=1e-12)


@given(SEEDS)
def test_without_parameters_they_are_one_and_zero(seed):
    x, dy, *_ = case((2, 4, 3), seed)
    for function in (layer_norm, instance_norm, lambda x, *rest: group_norm(x, 2, *rest)):
        y, dx, dgamma, dbeta = results(function, x, dy, None, None)
        assert dgamma is None
        assert dbeta is None
        expected = results(function, x, dy, np.ones(4), np.zeros(4))
        np.testing.assert_array_equal(y, expected[0])
        np.testing.assert_array_equal(dx, expected[1])


def test_one_value_will_do_without_centring():
    np.testing.assert_allclose(rms_norm([[3.0], [-0.5]], eps=1e-12)[0], [[1.0], [-1.0]])


X = np.arange(12.0).reshape(2, 6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: layer_norm(X[:0]), ValueError, r"x has shape \(0, 6\), expected at least one value"),
        (lambda: layer_norm(X[:, :1]), ValueError, r"x has shape \(2, 1\), which leaves 1 value to"),
        (lambda: instance_norm(X), ValueError, "expected at least 2: one value has no deviation"),
        (lambda: group_norm(X, 6), ValueError, "leaves 1 value to each set that shares its stat"),
        (lambda: group_norm(X, 4), ValueError, "groups is 4, expected a divisor of the number .* 6"),
        (lambda: group_norm(X, 0), ValueError, "groups is 0, expected at least 1"),
        (lambda: group_norm(X, 2.0), TypeError, "groups is a float, expected an integer"),
        (lambda: rms_norm(X[:, :0]), ValueError, "expected at least one feature on axis 1"),
        (lambda: layer_norm(X[0]), ValueError, "expected at least two axes"),
        (lambda: layer_norm(X, [1.0, 2.0]), ValueError, r"gamma has shape \(2,\), expected \(6,\)"),
        (lambda: layer_norm(X, None, X[0] / 0), ValueError, r"beta\[0\] is nan, expected finite"),
        (lambda: layer_norm(X, eps=0.0), ValueError, "eps is 0.0, expected a finite number above 0"),
        (lambda: rms_norm(torch.ones(2, 3)), TypeError, "x is a torch Tensor, expected a numpy.nd"),
        (
            lambda: layer_norm(X.astype("f2"), np.full(6, 6e4)),
            ValueError,
            r"y\[0, 0\] is -8.78e.04, beyond the largest float16",
        ),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero")
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
