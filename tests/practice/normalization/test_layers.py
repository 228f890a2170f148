"""The layers of torch compute what NumPy's functions do, and torch's own where there is one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bncore.practice.normalization import (
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    RMSNorm,
    backward,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
)

SEEDS = st.integers(0, 10**6)
CASES = {
    "layer": (LayerNorm, layer_norm),
    "instance": (InstanceNorm, instance_norm),
    "group": (lambda n, eps: GroupNorm(n, 2, eps), lambda x, *a: group_norm(x, 2, *a)),
    "rms": (RMSNorm, lambda x, gamma, beta, eps: rms_norm(x, gamma, eps)),
}


def moved(layer, seed):
    """The layer in double precision, with other scales and shifts than it starts from."""
    generator = torch.Generator().manual_seed(seed)
    layer = layer.double()
    with torch.no_grad():
        for value in layer.parameters():
            value.copy_(torch.randn(value.shape, generator=generator))
    return layer


@given(
    st.sampled_from(list(CASES)),
    st.integers(1, 3),
    st.lists(st.integers(2, 4), min_size=1, max_size=3),
    SEEDS,
)
def test_layers_are_the_functions(name, batch, spatial, seed):
    make, function = CASES[name]
    layer = moved(make(4, eps=0.1), seed)
    x, dy = np.random.default_rng(seed).standard_normal((2, batch, 4, *spatial))
    given = torch.tensor(x, requires_grad=True)
    y = layer(given)
    found = y, *torch.autograd.grad(y, [given, *layer.parameters()], torch.tensor(dy))
    vectors = [value.detach().numpy() for value in layer.parameters()]
    expected, cache = function(x, vectors[0], vectors[1] if len(vectors) > 1 else None, 0.1)
    grads = [a for a in backward(dy, cache) if a is not None]
    size = x.size * (1 + np.abs(dy).max()) * (1 + max(np.abs(v).max() for v in vectors))
    for ours, theirs in zip(found, (expected, *grads), strict=True):
        assert np.abs(ours.detach().numpy() - theirs).max() <= 2.0**-44 * size


@given(SEEDS, st.integers(2, 9))
def test_for_two_axes_they_are_torchs_own(seed, features):
    x = torch.randn(5, features, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for ours, theirs in (
        (LayerNorm(features), nn.LayerNorm(features)),
        (RMSNorm(features), nn.RMSNorm(features, eps=1e-5)),
    ):
        ours, theirs = moved(ours, seed), moved(theirs, seed)
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-10)


def test_half_precision_is_computed_in_single():
    x = torch.full((2, 3, 4), 300.0, dtype=torch.float16)
    for layer in (LayerNorm(3), RMSNorm(3)):
        y = layer(x)
        assert y.dtype == torch.float16
        assert torch.isfinite(y).all()
    assert (RMSNorm(3)(x) == 1).all()


def test_they_say_what_they_are():
    assert repr(RMSNorm(3, 0.1)) == "RMSNorm(3, eps=0.1)"
    assert "GroupNorm(2, 4" in repr(GroupNorm(4, 2))
    assert GroupNorm(4, 2, affine=False).weight is None
    assert LayerNorm(4, affine=False)(torch.randn(2, 4)).shape == (2, 4)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GroupNorm(4, 3), ValueError, "groups is 3, expected a divisor of features, 4"),
        (lambda: GroupNorm(0), ValueError, "features is 0, expected at least 1"),
        (lambda: GroupNorm(4, eps=0.0), ValueError, "eps is 0.0, expected a finite number above 0"),
        (lambda: RMSNorm(4, -1.0), ValueError, "eps is -1.0, expected a finite number above 0"),
        (lambda: RMSNorm(2.0), TypeError, "features is a float, expected an integer"),
        (lambda: InstanceNorm(4)(torch.ones(3, 4)), ValueError, "1 value in each of 4 groups, exp"),
        (lambda: LayerNorm(1)(torch.ones(3, 1)), ValueError, "1 value in each of 1 groups, expect"),
        (lambda: LayerNorm(4)(torch.ones(3, 5)), ValueError, "x has 5 features on axis 1, expected"),
        (lambda: RMSNorm(4)(torch.ones(3, 5)), ValueError, "x has 5 features on axis 1, expected 4"),
        (lambda: RMSNorm(4)(np.ones((3, 4))), TypeError, "x is a ndarray, expected a tensor"),
        (lambda: LayerNorm(4)(torch.ones(3, 4).double()), TypeError, "x has dtype torch.float64, "),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
