"""Examples that callers hand in: rows of numbers, and one target for each."""

import numpy as np

from bncore import arguments as check


def targets(y, samples):
    """y as float64: one finite number for each of the samples."""
    y = check.array("y", y, 1)
    check.finite("y", y)
    if len(y) != samples:
        raise ValueError(
            f"y has shape {y.shape}, expected ({samples},): one number for each row of X"
        )
    return y.astype(np.float64)
