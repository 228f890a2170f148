"""What is not a function of one number, and what torch cannot differentiate, is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from bncore.explanations import activation as activations


@pytest.mark.parametrize(
    ("activation", "error", "message"),
    [
        (lambda z: z.detach(), TypeError, r"\(its result is cut off from its argument"),
        (lambda z: torch.from_numpy(np.tanh(z.detach().numpy())), TypeError, "is cut off from"),
        (lambda z: z + z.sum(), ValueError, "expected a function of one number without chance"),
        (lambda z: z * torch.rand_like(z), ValueError, "without chance"),
        (nn.BatchNorm1d(97), TypeError, r"torch operations \(expected 2D or 3D input"),
        (lambda z: z[3, 4], TypeError, r"torch operations \(too many indices"),
        (lambda z: z.no_such_thing, TypeError, "torch operations .*no_such_thing"),
        (lambda z: 1 / z, ValueError, "activation is inf at z = 0"),
    ],
)
def test_what_is_no_function_of_one_number_is_refused(activation, error, message):
    with pytest.raises(error, match=message):
        activations.Function(activation)


@pytest.mark.parametrize("activation", [torch.ones_like, lambda z: 0 * z + 3])
def test_a_constant_has_the_derivative_zero(activation):
    assert not activations.Function(activation)(np.linspace(-1, 1, 5))[1].any()
