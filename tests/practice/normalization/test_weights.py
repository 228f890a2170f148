"""Weight normalization and standardization against torch, the formulas, and what they promise."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import batch_norm

from bncore.practice.normalization import (
    WeightStandardization,
    backward,
    weight_norm,
    weight_standardization,
    with_weight_norm,
    with_weight_standardization,
)

SEEDS = st.integers(0, 10**6)
SHAPES = st.lists(st.integers(2, 5), min_size=2, max_size=5).map(tuple)
UNIT = {np.float16: 2.0**-11, np.float32: 2.0**-24, np.float64: 2.0**-53}
DTYPES = st.sampled_from(list(UNIT))


def case(shape, seed, dtype=np.float64):
    """Weights well away from length 0 and from equal entries, a gradient, and a scale."""
    rng = np.random.default_rng(seed)
    v, dw = rng.standard_normal((2, *shape))
    v[:, 0] = np.abs(v[:, 0]) + 1
    v[:, 1] = -np.abs(v[:, 1]) - 1
    return tuple(a.astype(dtype) for a in (v, dw, rng.standard_normal(shape[0])))


def by_torch(function, v, dw, scale):
    leaves = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in (v, scale)]
    w = function(*leaves)
    grads = torch.autograd.grad(w, leaves, torch.tensor(dw.astype(np.float64)))
    return [a.detach().numpy() for a in (w, *grads)]


def assert_close(found, expected, dtype, size):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        bound = 4 * UNIT[dtype] * np.abs(theirs).max() + 2.0**-46 * float(size)
        bound += np.finfo(dtype).smallest_subnormal
        assert np.abs(ours - theirs).max() <= bound


@given(SHAPES, SEEDS, DTYPES)
def test_weight_norm_is_torchs(shape, seed, dtype):
    v, dw, g = case(shape, seed, dtype)
    w, cache = weight_norm(v, g)
    dv, dg, dbeta = backward(dw, cache)
    assert dbeta is None
    each = (-1, *[1] * (len(shape) - 1))
    expected = by_torch(lambda v, g: torch._weight_norm(v, g.reshape(each), 0), v, dw, g)
    assert_close((w, dv, dg), expected, dtype, dw.size * (1 + np.abs(dw).max()))


@given(SHAPES, SEEDS, DTYPES, st.sampled_from([1e-5, 0.1]))
def test_weight_standardization_is_batch_norm_of_the_weights_of_a_unit(shape, seed, dtype, eps):
    v, dw, gain = case(shape, seed, dtype)
    w, cache = weight_standardization(v, gain, eps)
    dv, dgain, dbeta = backward(dw, cache)
    assert dbeta is None

    def standardized(v, gain):
        rows = v.reshape(1, shape[0], -1)
        return batch_norm(rows, None, None, gain, training=True, eps=eps).reshape(shape)

    expected = by_torch(standardized, v, dw, gain)
    assert_close((w, dv, dgain), expected, dtype, dw.size * (1 + np.abs(dw).max()))
    layer = WeightStandardization(eps)(torch.tensor(v.astype(np.float64))).numpy()
    plain = weight_standardization(v.astype(np.float64), None, eps)[0]
    assert np.abs(layer - plain).max() <= 2.0**-46 * v.size


@given(SHAPES, SEEDS)
def test_what_they_promise(shape, seed):
    """Lengths g; mean 0 and variance 1; no gradient along what the result does not depend on."""
    v, dw, g = case(shape, seed)
    rows = lambda a: a.reshape(len(a), -1)  # noqa: E731
    w, cache = weight_norm(v, g)
    np.testing.assert_allclose(np.linalg.norm(rows(w), axis=1), np.abs(g), rtol=1e-13)
    dv = backward(dw, cache).dx
    tiny = 1e-13 * dw.size * (1 + np.abs(dw).max()) * (1 + np.abs(g).max())
    assert np.abs((rows(dv) * rows(v)).sum(1)).max() <= tiny * np.abs(v).max()
    np.testing.assert_allclose(weight_norm(3.7 * v, g)[0], w, rtol=1e-12, atol=1e-15)

    w, cache = weight_standardization(v, eps=1e-12)
    assert np.abs(rows(w).mean(1)).max() <= 1e-13
    np.testing.assert_allclose(rows(w).var(1), 1, rtol=1e-11)
    dv = backward(dw, cache).dx
    assert np.abs(rows(dv).sum(1)).max() <= tiny
    np.testing.assert_allclose(weight_standardization(3.7 * v - 2, eps=1e-12)[0], w, atol=1e-11)


def test_equal_weights_become_zero():
    assert not weight_standardization(np.full((2, 5), 0.1))[0].any()


LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (3, 6)),
    "1d": (lambda: nn.Conv1d(2, 4, 3), (3, 2, 7)),
    "2d": (lambda: nn.Conv2d(2, 4, 3, bias=False), (3, 2, 7, 7)),
    "3d": (lambda: nn.Conv3d(2, 4, 2), (1, 2, 4, 4, 4)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_of_torch_takes_either(kind):
    make, shape = LAYERS[kind]
    torch.manual_seed(0)
    layer, x = make().double(), torch.randn(shape, dtype=torch.float64)
    weight = layer.weight.detach().numpy().copy()
    normed = with_weight_norm(copy.deepcopy(layer))
    torch.testing.assert_close(normed(x), layer(x))
    standard = with_weight_standardization(copy.deepcopy(layer), 0.1)
    expected = weight_standardization(weight, eps=0.1)[0]
    np.testing.assert_allclose(standard.weight.detach().numpy(), expected, atol=1e-12)
    standard(x).square().sum().backward()
    assert standard.parametrizations.weight.original.grad.abs().max() > 0


V = np.arange(6.0).reshape(2, 3)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: weight_norm(V[0]), ValueError, r"v has shape \(3,\), expected \(units, \*inputs\)"),
        (lambda: weight_norm(V * [[1], [0]]), ValueError, r"v\[1\] has length 0, expected a direct"),
        (lambda: weight_norm(V, [1.0]), ValueError, r"g has shape \(1,\), expected \(2,\)"),
        (lambda: weight_norm(V[:0]), ValueError, r"v has shape \(0, 3\), expected at least one"),
        (lambda: weight_norm(V / [[0], [1]]), ValueError, r"v\[0, 0\] is nan, expected finite"),
        (lambda: weight_standardization(V[:, :1]), ValueError, "leaves 1 value to each set"),
        (lambda: weight_standardization(V, eps=0), ValueError, "eps is 0, expected a finite number"),
        (lambda: weight_standardization(V, [1.0]), ValueError, r"gain has shape \(1,\), expected"),
        (lambda: weight_norm(torch.ones(2, 3)), TypeError, "v is a torch Tensor, expected a numpy"),
        (lambda: with_weight_norm(nn.ReLU()), TypeError, "layer is a ReLU, expected a linear layer"),
        (
            lambda: with_weight_standardization(nn.ConvTranspose1d(1, 2, 3)),
            TypeError,
            "layer is a ConvTranspose1d, expected a linear layer or a convolution, not transposed",
        ),
        (
            lambda: with_weight_standardization(nn.Linear(1, 2)),
            ValueError,
            r"layer has weights of shape \(2, 1\), expected at least two a unit",
        ),
        (lambda: WeightStandardization(0.0), ValueError, "eps is 0.0, expected a finite number abo"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero")
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
