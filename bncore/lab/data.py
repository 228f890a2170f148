"""Data sets as training and test tensors.

The digits ship with scikit-learn, so that experiments need no network.
Source: Alpaydin and Kaynak (1998), optical recognition of handwritten digits, UCI repository.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits

from bncore.mechanics import _arguments as check


class Split(NamedTuple):
    """A data set in two parts: one to learn from, one to test on. Labels count from 0."""

    x_train: Float[torch.Tensor, "train *features"]
    y_train: Int[torch.Tensor, "train"]
    x_test: Float[torch.Tensor, "test *features"]
    y_test: Int[torch.Tensor, "test"]


def digits(seed: int = 0, test_fraction: float = 0.25) -> Split:
    """Load 1797 handwritten digits of 8 by 8 pixels, shuffled and split.

    Parameters
    ----------
    seed : int
        Of the shuffling.
    test_fraction : float
        Part of the images to test on, strictly between 0 and 1.

    Returns
    -------
    Split
        Images as rows of 64 float32 pixels from 0 (paper) to 1 (ink); labels 0 to 9.

    Raises
    ------
    TypeError
        If test_fraction is not a real number.
    ValueError
        If test_fraction leaves the training or the test set empty.
    """
    pixels, labels = load_digits(return_X_y=True)
    fraction = check.number("test_fraction", test_fraction)
    test = round(len(labels) * fraction) if 0 < fraction < 1 else 0
    if not 0 < test < len(labels):
        raise ValueError(
            f"test_fraction is {test_fraction}, expected a number strictly between 0 and 1 that "
            f"leaves at least one of {len(labels)} images on either side"
        )
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    x = torch.tensor(pixels / 16, dtype=torch.float32)[order]
    y = torch.tensor(labels)[order]
    return Split(x[test:], y[test:], x[:test], y[:test])
