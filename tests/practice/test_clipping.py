"""Adaptive clipping against the formula written out unit by unit, and what it leaves alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bncore.practice.clipping import adaptive_clip_

SEEDS = st.integers(0, 10**6)
LAYERS = {
    "linear": lambda: nn.Linear(3, 5),
    "convolution": lambda: nn.Conv2d(2, 4, 3),
    "embedding": lambda: nn.Embedding(6, 3),
    "batch norm": lambda: nn.BatchNorm1d(4),
    "number": lambda: nn.ParameterList([nn.Parameter(torch.ones(()))]),
}
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def units(array):
    """The entries of each unit of a NumPy array, as views."""
    return list(array) if array.ndim > 1 else [array]


def written_out(weights, gradient, clipping, eps):
    """The clipped gradient, unit by unit, in double precision, and which units were shortened."""
    found, short = gradient.astype(np.float64), []
    for w, g in zip(units(weights.astype(np.float64)), units(found), strict=True):
        limit, length = clipping * max(np.sqrt((w * w).sum()), eps), np.sqrt((g * g).sum())
        short.append(length > limit)
        if length > limit:
            g[...] = g * (limit / length)
    return found, short


def filled(layer, seed, dtype=torch.float32):
    """The layer with weights and gradients of lengths around each other's, and some zeros."""
    generator = torch.Generator().manual_seed(seed)
    layer = layer.to(dtype)
    for value in layer.parameters():
        size = 10 ** (2 * torch.rand((len(value) if value.ndim else 1), generator=generator) - 1)
        each = size.reshape(-1, *[1] * (value.ndim - 1)) if value.ndim else size[0]
        value.data = (torch.randn(value.shape, generator=generator) * each).to(dtype)
        value.grad = torch.randn(value.shape, generator=generator).to(dtype)
        if value.ndim > 1:
            value.data[0] = 0
            value.grad[-1] = 0
    return layer


def as_array(tensor):
    return tensor.detach().double().numpy().copy()


@settings(max_examples=60)
@given(
    st.sampled_from(list(LAYERS)),
    st.sampled_from(DTYPES),
    SEEDS,
    st.sampled_from([0.01, 0.5, 3.0]),
    st.sampled_from([1e-3, 1.0]),
)
def test_it_is_the_formula_unit_by_unit(name, dtype, seed, clipping, eps):
    layer = filled(LAYERS[name](), seed, dtype)
    pairs = [(as_array(p), as_array(p.grad)) for p in layer.parameters()]
    kept = [p.grad for p in layer.parameters()]
    share = adaptive_clip_(layer.parameters(), clipping, eps)
    shortened = []
    for parameter, grad, (weights, gradient) in zip(layer.parameters(), kept, pairs, strict=True):
        assert parameter.grad is grad
        np.testing.assert_array_equal(as_array(parameter), weights)
        expected, short = written_out(weights, gradient, clipping, eps)
        # The factor and the product are rounded in the gradient's dtype, and small entries to a step.
        rtol, step = 4 * torch.finfo(dtype).eps, torch.finfo(dtype).smallest_normal
        step *= torch.finfo(dtype).eps
        np.testing.assert_allclose(as_array(grad), expected, rtol=rtol, atol=4 * step)
        shortened += short
    assert share == np.mean(shortened)


@given(SEEDS)
def test_a_layout_in_memory_does_not_matter(seed):
    plain = filled(nn.Conv2d(3, 4, 3), seed)
    last = filled(nn.Conv2d(3, 4, 3), seed)
    last.weight.data = last.weight.data.to(memory_format=torch.channels_last)
    last.weight.grad = plain.weight.grad.clone(memory_format=torch.channels_last)
    for layer in (plain, last):
        assert adaptive_clip_(layer.weight, 0.1) > 0
    torch.testing.assert_close(last.weight.grad, plain.weight.grad)


@given(SEEDS, st.sampled_from([0.01, 1.0]))
def test_a_sparse_gradient_is_clipped_as_its_dense_one(seed, clipping):
    weight = filled(nn.Embedding(6, 3), seed).weight
    rows = torch.tensor([[4, 1, 4, 2]])
    values = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
    weight.grad = torch.sparse_coo_tensor(rows, values, (6, 3), check_invariants=True)
    dense = nn.Parameter(weight.detach().clone())
    dense.grad = weight.grad.to_dense()
    share = adaptive_clip_(weight, clipping)
    assert weight.grad.is_sparse
    assert share * 3 == pytest.approx(adaptive_clip_(dense, clipping) * 6)
    torch.testing.assert_close(weight.grad.to_dense(), dense.grad)


@given(SEEDS)
def test_what_has_no_gradient_is_passed_over(seed):
    layer = filled(nn.Linear(3, 5), seed)
    layer.bias.grad = None
    expected = filled(nn.Linear(3, 5), seed)
    share = adaptive_clip_([layer.weight, layer.bias, layer.weight], 0.1)
    assert share == adaptive_clip_(expected.weight, 0.1)
    assert layer.bias.grad is None
    torch.testing.assert_close(layer.weight.grad, expected.weight.grad, rtol=0, atol=0)
    assert adaptive_clip_(iter([])) == adaptive_clip_(layer.bias) == 0


@given(SEEDS, st.sampled_from([1e-30, 1e30]))
def test_lengths_whose_squares_leave_the_range_are_no_trouble(seed, scale):
    weight = filled(nn.Linear(3, 5), seed).weight
    weight.data, weight.grad = weight.data[1:4] * scale, weight.grad[1:4] * scale
    weights, gradient = as_array(weight), as_array(weight.grad)
    adaptive_clip_(weight, 0.5, 1e-35)
    expected, _ = written_out(weights, gradient, 0.5, 1e-35)
    np.testing.assert_allclose(as_array(weight.grad), expected, rtol=1e-5)


def test_short_gradients_keep_every_bit():
    weight = filled(nn.Linear(3, 5), 0).weight
    before = weight.grad.clone()
    assert adaptive_clip_(weight, 1e9) == 0
    assert torch.equal(weight.grad, before)


def bad(what, value):
    layer = filled(nn.Linear(3, 2), 0)
    kept = layer.weight.data if what == "weight" else layer.weight.grad
    kept[1, 2] = value
    return [layer.bias, layer.weight]


def within_rows():
    weight = nn.Parameter(torch.ones(2, 3))
    weight.grad = torch.eye(2, 3).to_sparse()
    return weight


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ([], {"clipping": 0.0}, ValueError, "clipping is 0.0, expected a finite number above 0"),
        ([], {"eps": -1.0}, ValueError, "eps is -1.0, expected a finite number above 0"),
        ([], {"clipping": "1"}, TypeError, "clipping is a str, expected a real number"),
        (nn.Linear(2, 2), {}, TypeError, r"parameters is a Linear, .* hand in its .parameters\(\)"),
        (["w"], {}, TypeError, r"parameters\[0\] is a str, expected a tensor of floating-point"),
        ([torch.ones(2).int()], {}, TypeError, r"parameters\[0\] is a torch.int32, expected a tens"),
        (bad("weight", np.nan), {}, ValueError, r"parameters\[1\]\[1, 2\] is nan, expected finite"),
        (bad("grad", np.inf), {}, ValueError, r"the gradient of parameters\[1\]\[1, 2\] is inf, exp"),
        (within_rows(), {}, ValueError, r"the gradient of parameters\[0\] is sparse within rows"),
    ],
)  # fmt: skip
def test_refusals_change_nothing(given, options, error, message):
    listed = given if isinstance(given, list) else []
    kept = [one.grad.clone() for one in listed if getattr(one, "grad", None) is not None]
    with pytest.raises(error, match=message):
        adaptive_clip_(given, **options)
    for before, one in zip(kept, listed, strict=False):
        torch.testing.assert_close(one.grad, before, rtol=0, atol=0, equal_nan=True)
