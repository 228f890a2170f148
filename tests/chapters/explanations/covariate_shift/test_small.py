"""Experiments of a second or two of the chapter on covariate shift."""

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss

from bncore.chapters.explanations.covariate_shift import small
from bncore.explanations.covariate_shift import gradient_shift
from bncore.lab import networks

EPS = float(np.finfo(np.float64).eps)


@pytest.mark.parametrize("factor", [0.5, 4, 16])
def test_scaled_weights_shift_like_the_others_at_the_scaled_rate(factor):
    """Theorem "Scale trades for learning rate"; the norms' epsilon of 1e-12 breaks it a little."""
    scaled = small.rescaled((factor,), factor**2)
    plain = small.rescaled((1,), 1.0)
    # Epsilon over the smallest variances, some 0.01, and sums over 64 examples in three layers.
    rounding = 1e-9 + 64**2 * EPS
    for name in ("loss", "relative"):
        assert scaled[name].item() == pytest.approx(plain[name].item(), rel=rounding)


def test_at_a_fixed_rate_larger_weights_shift_less():
    found = small.rescaled((1, 4, 16))
    assert (np.diff(found.relative) < 0).all()


@pytest.mark.parametrize("factor", [1, 4])
def test_what_is_measured_of_scaled_weights_is_the_shift_of_the_third_layer(factor):
    x, y = (
        torch.randn(64, n, generator=torch.Generator().manual_seed(n)).double() for n in (10, 3)
    )
    model = networks.mlp([10, 30, 30, 30, 3], "tanh", "batch", eps=1e-12, gain=1.0).double()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" not in name)
        if name.startswith("linear"):
            parameter.data *= factor
    shift = gradient_shift(model, mse_loss, x, y, 0.5)
    found = small.rescaled((factor,), 0.5)
    assert found.relative.item() == pytest.approx(shift.relative[2], rel=64**2 * EPS, abs=0)
    assert found.loss.item() == pytest.approx(mse_loss(model(x), y).item(), rel=64 * EPS, abs=0)
