"""Examples that callers hand in, dense and sparse."""

import numpy as np
import pytest
from scipy import sparse

from bncore.convergence import EmpiricalHalfspace

Z = np.random.default_rng(0).normal(-0.3, 1, size=(40, 2))


def with_entry(a, index, value):
    a = a.copy()
    a[index] = value
    return a


SAMPLES = {
    "vector": (Z[:, 0], ValueError, "Z has shape (40,), expected 2 axes"),
    "no rows": (Z[:0], ValueError, "Z has shape (0, 2), expected at least one sample"),
    "no columns": (Z[:, :0], ValueError, "Z has shape (40, 0), expected at least one"),
    "NaN": (with_entry(Z, (3, 1), np.nan), ValueError, "Z[3, 1] is nan, expected finite"),
    "complex": (Z.astype(complex), TypeError, "Z has dtype complex128, expected real"),
    "sparse NaN": (
        sparse.csr_array(with_entry(Z, (3, 1), np.nan)),
        ValueError,
        "Z.* is nan, expected finite",
    ),
    "sparse and empty": (
        sparse.csr_array((0, 2)),
        ValueError,
        "Z has shape (0, 2), expected at least one sample",
    ),
}


@pytest.mark.parametrize("case", SAMPLES)
def test_samples_are_refused(case, refuses):
    value, error, message = SAMPLES[case]
    refuses(message, EmpiricalHalfspace, value, "softplus", kind=error)
