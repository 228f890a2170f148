"""What the claims of the chapter on least squares rest on."""

import numpy as np
import pytest

from bncore.chapters.convergence.least_squares import claims


@pytest.mark.parametrize("metric", ["A", "I"])
def test_one_ascent_does_not_lower_the_quotient(metric):
    rng = np.random.default_rng(0)
    root, other = rng.normal(size=(2, 4, 4))
    A, B = root @ root.T + 0.1 * np.eye(4), other + other.T
    v = rng.normal(size=4)
    new = claims._ascend(B, A, v, A if metric == "A" else np.eye(4))
    assert (new @ B @ new) / (new @ A @ new) > (v @ B @ v) / (v @ A @ v)
