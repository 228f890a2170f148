"""What the claims of the chapter on least squares rest on."""

import numpy as np
import pytest

from bncore.chapters.convergence.least_squares import claims


@pytest.mark.parametrize("seed", range(5))
def test_no_step_along_the_gradient_is_better(seed):
    rng = np.random.default_rng(seed)
    root, other = rng.normal(size=(2, 4, 4))
    A, B = root @ root.T + 0.1 * np.eye(4), other + other.T

    def quotient(v):
        return (v @ B @ v) / (v @ A @ v)

    v = rng.normal(size=4)
    gradient = B @ v - quotient(v) * (A @ v)
    best = max(quotient(v + size * gradient) for size in np.geomspace(1e-4, 1e4, 1000))
    found = quotient(claims._ascend(B, A, v))
    assert best <= found * (1 + 1e-12) + 1e-12
    assert found <= best + 1e-3 * abs(best)
