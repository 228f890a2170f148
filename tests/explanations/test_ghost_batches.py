"""Ghost batches, borrowed statistics and injected noise against torch and the formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bncore.explanations import ghost_batches, noise
from bncore.explanations.ghost_batches import BorrowedStatistics, GhostBatchNorm, InjectedNoise

seeds = st.integers(0, 10**6)


def rounding(parts, eps=1e-5):
    """Of values that are rounded before the deviation of their batch divides them."""
    columns = [part.double().transpose(0, 1).flatten(1) for part in parts]
    least = min(column.var(dim=1, correction=0).min().item() for column in columns)
    largest = max(column.abs().max().item() for column in columns)
    return 16 * torch.finfo(parts[0].dtype).eps * largest / (least + eps) ** 0.5


def assert_close(found, expected, atol, rtol=0.0):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def assert_same_statistics(layer, other, x):
    """Sums over a batch of up to a hundred values."""
    rtol = 100 * torch.finfo(layer.running_var.dtype).eps
    atol = rtol * x.abs().max().item()
    assert_close(layer.state_dict(), other.state_dict(), atol, rtol)


@settings(max_examples=15)
@given(seeds, st.integers(2, 5), st.integers(1, 4), st.sampled_from([(), (3,), (2, 2)]))
def test_ghost_batches_are_batch_norms_one_after_the_other(seed, size, count, spatial):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size * count, 3, *spatial, generator=generator, dtype=torch.float64)
    kinds = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
    for momentum in (0.1, None):
        theirs = kinds[len(spatial)](3, momentum=momentum).double()
        ours = GhostBatchNorm(3, size, momentum=momentum).double()
        for layer in (ours, theirs):
            nn.init.constant_(layer.weight, 1.7)
            nn.init.constant_(layer.bias, -0.3)
        expected = torch.cat([theirs(part) for part in x.split(size)])
        atol = rounding(x.split(size))
        assert_close(ours(x), expected, atol)
        assert_same_statistics(ours, theirs, x)
        ours.eval(), theirs.eval()
        assert_close(ours(x), theirs(x), atol)


def test_the_gradient_of_ghost_batches_is_torchs():
    x = torch.randn(12, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(12, 4, dtype=torch.float64)
    layer, ghosts = nn.BatchNorm1d(4).double(), GhostBatchNorm(4, 3).double()
    (expected,) = torch.autograd.grad(
        (weights * torch.cat([layer(part) for part in x.split(3)])).sum(), x
    )
    (found,) = torch.autograd.grad((weights * ghosts(x)).sum(), x)
    # The deviation divides what comes back once more.
    parts = x.detach().split(3)
    least = min(part.std(dim=0, correction=0).min().item() for part in parts)
    assert_close(found, expected, rounding(parts) * weights.abs().max().item() / least)


def test_borrowed_statistics_are_those_of_the_ghost_batch_before():
    x = torch.randn(12, 4, dtype=torch.float64)
    layer = BorrowedStatistics(4, 4, eps=1e-12).double()
    parts = list(x.split(4))
    expected = [
        (part - other.mean(0)) / other.std(0, correction=0)
        for part, other in zip(parts, parts[-1:] + parts[:-1], strict=True)
    ]
    expected = torch.cat(expected)
    least = min(part.var(dim=0, correction=0).min().item() for part in parts)
    rtol = 1e-12 / least  # of epsilon, which the expectation has not
    assert_close(layer(x), expected, rounding(parts) * expected.abs().max().item(), rtol)


def test_injected_noise_has_the_variances_of_ghost_batches():
    torch.manual_seed(0)
    x = torch.randn(64, 400, dtype=torch.float64) ** 3
    x = (x - x.mean(0)) / x.std(0, correction=0)
    layer, means, variances = InjectedNoise(400, 8, eps=1e-12).double(), [], []
    for _ in range(200):
        y = layer(x).detach().reshape(8, 8, 400)
        ratio = (y[:, 0] - y[:, 1]) / (x.reshape(8, 8, 400)[:, 0] - x.reshape(8, 8, 400)[:, 1])
        means.append(x.reshape(8, 8, 400)[:, 0] - y[:, 0] / ratio)
        variances.append(1 / ratio**2)
    means, variances = (torch.stack(values).flatten(0, 1) for values in (means, variances))
    kurtosis = (x**4).mean(0)
    expected = [noise.variance_variance(8, 1.0, a4, 64) for a4 in kurtosis.tolist()]
    for found, exact in (
        (means.var(0), noise.mean_variance(8, 1.0, 64)),
        (variances.mean(0), 7 / 8 * 64 / 63),
        (variances.var(0) - torch.tensor(expected), 0.0),
    ):
        # Four hundred features, independent of each other.
        assert found.mean().item() == pytest.approx(exact, abs=5 * found.std().item() / 20)


def test_a_group_as_large_as_the_batch_adds_nothing():
    x = torch.randn(8, 5)
    for layer in (InjectedNoise(5, 8), GhostBatchNorm(5, 8), BorrowedStatistics(5, 8)):
        theirs = nn.BatchNorm1d(5)
        assert_close(layer(x), theirs(x), rounding([x]))
        assert_same_statistics(layer, theirs, x)


def test_injected_noise_keeps_the_statistics_of_the_whole_batch():
    x = torch.randn(32, 5, 3)
    layer, theirs = InjectedNoise(5, 8), nn.BatchNorm1d(5)
    layer(x), theirs(x)
    assert_same_statistics(layer, theirs, x)


LAYERS = pytest.mark.parametrize("kind", [GhostBatchNorm, BorrowedStatistics, InjectedNoise])


@LAYERS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_small_types_are_normalised_in_float32(kind, dtype, momentum):
    x = (300 + 100 * torch.randn(32, 5, 3)).to(dtype)
    layer, exact = (kind(5, 8, momentum=momentum) for _ in range(2))
    torch.manual_seed(0)
    found = layer(x)
    torch.manual_seed(0)
    assert found.dtype == dtype
    rtol, atol = torch.finfo(dtype).eps, rounding([x.float()])
    assert_close(found, exact(x.float()).to(dtype), atol, rtol)
    assert_same_statistics(layer, exact, x)
    small = kind(5, 8, momentum=momentum).to(dtype)
    torch.manual_seed(0)
    assert_close(small(x), found, atol, rtol)
    assert layer.eval()(x).dtype == dtype


@LAYERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_feature_without_variance_stays_without(kind, dtype):
    x = torch.randn(32, 4, dtype=dtype)
    x[:, 1], x[:, 2] = 3.0, 1e-12 * x[:, 2]
    layer = kind(4, 8, eps=1e-5).to(dtype)
    y = layer(x)
    # Values of 1e-12 over the root of epsilon.
    assert y[:, 1:3].abs().max() < 10 * 1e-12 / 1e-5**0.5
    assert (y[:, [0, 3]].std(0) > 0.5).all()
    assert y.isfinite().all()


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (ghost_batches.ghost, GhostBatchNorm),
        (ghost_batches.borrowed, BorrowedStatistics),
        (ghost_batches.injected, InjectedNoise),
    ],
)
def test_factories_make_layers(function, kind):
    layer = function(8)(5)
    assert type(layer) is kind
    assert (layer.size, layer.num_features) == (8, 5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GhostBatchNorm(3, 1), ValueError, "size is 1, expected at least 2"),
        (
            lambda: GhostBatchNorm(3, 4)(torch.zeros(6, 3)),
            ValueError,
            "the batch has 6 examples, expected a multiple of size, 4",
        ),
        (
            lambda: InjectedNoise(3, 4)(torch.zeros(6, 3)),
            ValueError,
            "the batch has 6 examples, expected a multiple of size, 4",
        ),
        (
            lambda: GhostBatchNorm(3, 4)(torch.zeros(8, 2)),
            ValueError,
            r"x has shape \(8, 2\), expected \(batch, 3, \*spatial\)",
        ),
        (lambda: InjectedNoise(3, 4)(torch.zeros(8)), ValueError, r"x has shape \(8,\)"),
        (lambda: InjectedNoise(3, 4)(torch.zeros(4)), ValueError, r"x has shape \(4,\)"),
        (lambda: GhostBatchNorm(0, 4), ValueError, "num_features is 0, expected at least 1"),
        (lambda: GhostBatchNorm(3.0, 4), TypeError, "num_features is a float, expected an integer"),
        (lambda: GhostBatchNorm(3, 4, -1.0), ValueError, "eps is -1.0, expected a finite number"),
        (
            lambda: GhostBatchNorm(3, 4, momentum=2.0),
            ValueError,
            r"momentum is 2.0, expected a number in \[0, 1\]",
        ),
        (
            lambda: GhostBatchNorm(3, 4)(np.zeros((8, 3))),
            TypeError,
            "x is a ndarray, expected a floating-point torch.Tensor",
        ),
        (
            lambda: InjectedNoise(3, 4)(torch.zeros(8, 3).int()),
            TypeError,
            "x is a torch.int32, expected a floating-point torch.Tensor",
        ),
        (
            lambda: BorrowedStatistics(3, 4)(torch.zeros(0, 3)),
            ValueError,
            "the batch has 0 examples, expected a multiple of size, 4",
        ),
        (
            lambda: InjectedNoise(3, 4)(torch.zeros(8, 3, 0)),
            ValueError,
            r"x has shape \(8, 3, 0\), expected no empty axis",
        ),
    ],
)
def test_errors_teach(call, error, message):
    with pytest.raises(error, match=message):
        call()
