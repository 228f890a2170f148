"""Data sets as training and test tensors.

The digits ship with scikit-learn, so that experiments need no network.
Source: Alpaydin and Kaynak (1998), optical recognition of handwritten digits, UCI repository.
"""

import functools
import importlib.util
import os
from typing import NamedTuple
from urllib.error import URLError

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.datasets import fetch_openml, get_data_home, load_digits
from torch.nn.functional import interpolate

from bncore import arguments as check
from bncore import tensors


class Split(NamedTuple):
    """A data set in two parts: one to learn from, one to test on.

    Targets are labels that count from 0, or rows of real numbers in a regression.
    """

    x_train: Float[torch.Tensor, "train *features"]
    y_train: Int[torch.Tensor, "train"] | Float[torch.Tensor, "train outputs"]
    x_test: Float[torch.Tensor, "test *features"]
    y_test: Int[torch.Tensor, "test"] | Float[torch.Tensor, "test outputs"]


class Source(NamedTuple):
    """Where a data set is found at OpenML, and how its rows are read."""

    name: str
    version: int
    shape: tuple[int, int, int]
    train: int


OPENML = {
    "mnist": Source("mnist_784", 1, (1, 28, 28), 60_000),
    "cifar10": Source("CIFAR_10", 1, (3, 32, 32), 50_000),
}


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
    test = _test_size(test_fraction, len(labels), "images")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    x = torch.tensor(pixels / 16, dtype=torch.float32)[order]
    y = torch.tensor(labels)[order]
    return Split(x[test:], y[test:], x[:test], y[:test])


def digit_images(size: int = 8, seed: int = 0, test_fraction: float = 0.25) -> Split:
    """The digits as images of one channel, resized for convolutions.

    Parameters
    ----------
    size : int
        Pixels a side. 8 leaves the images as they are; otherwise they are resized bilinearly,
        with averaging where they shrink.
    seed, test_fraction
        As in ``digits``; the same seed gives the same images in the same order.

    Returns
    -------
    Split
        Images of shape (1, size, size), float32 from 0 (paper) to 1 (ink); labels 0 to 9.

    Raises
    ------
    TypeError
        If size is not an integer or test_fraction not a real number.
    ValueError
        If size is below 1, or test_fraction leaves the training or the test set empty.
    """
    check.positive_integer("size", size)
    split = digits(seed, test_fraction)
    x_train, x_test = (
        x
        if size == 8
        else interpolate(x, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
        for x in (split.x_train.reshape(-1, 1, 8, 8), split.x_test.reshape(-1, 1, 8, 8))
    )
    return split._replace(x_train=x_train, x_test=x_test)


def gaussian_regression(
    count: int,
    inputs: int,
    outputs: int,
    noise: float = 0.1,
    seed: int = 0,
    test_fraction: float = 0.25,
) -> Split:
    """Draw a linear regression with Gaussian inputs: y = A x + noise e.

    x and e are drawn from N(0, I), the entries of A from N(0, 1 / inputs), so that a target has
    variance 1 + noise² on average over A.

    Parameters
    ----------
    count : int
        Examples in training and test set together.
    inputs, outputs : int
        Length of x and of y.
    noise : float
        At least 0.
    seed : int
        Of A, x and e. Nothing outside is reseeded.
    test_fraction : float
        Part of the examples to test on, strictly between 0 and 1.

    Returns
    -------
    Split
        float32; x has shape (examples, inputs), y has shape (examples, outputs).

    Raises
    ------
    TypeError
        If a number is of the wrong type.
    ValueError
        If a number is below its least value, noise so large that a target would not be finite, or
        test_fraction leaves the training or the test set empty.
    """
    for name, value in (("count", count), ("inputs", inputs), ("outputs", outputs)):
        check.positive_integer(name, value)
    check.nonnegative("noise", noise)
    test = _test_size(test_fraction, count, "examples")
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    x = torch.randn(count, inputs, generator=generator)
    y = x @ A.T + noise * torch.randn(count, outputs, generator=generator)
    if not torch.isfinite(y).all():
        raise ValueError(f"noise is {noise}, so large that targets leave the range of float32")
    return Split(x[test:], y[test:], x[:test], y[:test])


def openml(
    name: str = "mnist",
    cache: str | os.PathLike | None = None,
    train: int | None = None,
) -> Split:
    """MNIST or CIFAR-10 from openml.org, downloaded once and then read from a cache.

    The first images are those to learn from, the rest those to test on, as the sets' authors
    divide them. Reading them takes about ten times as long where pandas is not installed.

    Parameters
    ----------
    name : {"mnist", "cifar10"}
    cache : path, optional
        Folder that keeps the downloaded files; by default scikit-learn's, ``~/scikit_learn_data``
        or what the environment variable SCIKIT_LEARN_DATA says.
    train : int, optional
        How many of the first images to learn from; by default 60000 of MNIST, 50000 of CIFAR-10.

    Returns
    -------
    Split
        Images of shape (1, 28, 28) or (3, 32, 32), float32 from 0 to 1; labels 0 to 9.

    Raises
    ------
    TypeError
        If train is not an integer.
    ValueError
        If the name is unknown, the file holds other images than it should, or train leaves the
        training or the test set empty.
    ConnectionError
        If the set is not in the cache and openml.org cannot be reached.

    References
    ----------
    LeCun, Bottou, Bengio and Haffner (1998); Krizhevsky (2009).
    """
    if name not in OPENML:
        expected = ", ".join(map(repr, OPENML))
        raise ValueError(f"name is {name!r}, expected one of {expected}")
    source = OPENML[name]
    if train is None:
        train = source.train
    check.positive_integer("train", train)
    folder = get_data_home(cache)
    try:
        pixels, labels = fetch_openml(
            source.name,
            version=source.version,
            data_home=folder,
            as_frame=False,
            return_X_y=True,
            parser="pandas" if importlib.util.find_spec("pandas") else "liac-arff",
            n_retries=1,
        )
    except (URLError, TimeoutError, OSError) as error:
        raise ConnectionError(
            f"{source.name} is not complete in the cache {folder} and openml.org cannot be reached "
            f"({error}); call data.openml({name!r}, cache=...) once with a network, or give a "
            "folder in which that was done"
        ) from error
    values = int(np.prod(source.shape))
    if pixels.shape[1] != values:
        raise ValueError(
            f"{source.name} has {pixels.shape[1]} values an image, expected {values} for images of "
            f"shape {source.shape}"
        )
    if not train < len(pixels):
        raise ValueError(
            f"train is {train}, expected at most {len(pixels) - 1}, so that at least one of "
            f"{len(pixels)} images is left to test on"
        )
    x = torch.tensor(np.asarray(pixels, np.float32) / 255).reshape(-1, *source.shape)
    y = torch.tensor(np.asarray(labels).astype(float).astype(np.int64))
    return Split(x[:train], y[:train], x[train:], y[train:])


def standardized(split: Split) -> Split:
    """The same examples with mean 0 and variance 1 over all values of the training set together.

    Mean and variance are taken in float64; examples keep their dtype.

    Raises
    ------
    TypeError
        If examples hold no real numbers.
    ValueError
        If all values of the training set are equal, or a value is not finite or, in a test set far
        from the training set, would not be.
    """
    x_train = tensors.examples("x_train", split.x_train)
    x_test = tensors.tensor("x_test", split.x_test, x_train.dtype, x_train.device, of="x_train")
    tensors.finite("x_test", x_test)
    if x_train.max() == x_train.min():
        raise ValueError(
            f"x_train is {x_train.max().item():g} throughout, expected values that differ, to divide "
            "by their deviation"
        )
    # Values near the largest float64 have squares beyond it.
    scale = x_train.abs().max().double()

    def scaled(x):
        return (piece.double() / scale for piece in x.split(1000))

    mean = sum(piece.sum() for piece in scaled(x_train)) / x_train.numel()
    squares = sum(((piece - mean) ** 2).sum() for piece in scaled(x_train))
    deviation = (squares / (x_train.numel() - 1)).sqrt()
    x_train, x_test = (
        torch.cat([((piece - mean) / deviation).to(x.dtype) for piece in scaled(x)])
        for x in (x_train, x_test)
    )
    tensors.finite("the standardised x_test", x_test)
    return split._replace(x_train=x_train, x_test=x_test)


@functools.cache
def standard_images(name: str, cache: str | os.PathLike | None = None) -> Split:
    """MNIST or CIFAR-10, standardised, read once a process: reading takes longer than some runs.

    Parameters
    ----------
    name, cache
        As in ``openml``, whose errors these are too.

    Returns
    -------
    Split
        The same tensors at every call: leave them as they are.
    """
    return standardized(openml(name, cache))


def rows(source: str = "digits", seed: int = 0, cache: str | os.PathLike | None = None) -> Split:
    """Images as rows of pixels: the digits as they are, MNIST or CIFAR-10 standardised.

    Parameters
    ----------
    source : {"digits", "mnist", "cifar10"}
    seed : int
        Of the digits' split; the other sets are divided as their authors divide them.
    cache
        As in ``openml``, whose errors these are too; the digits need none.

    Returns
    -------
    Split
        float32 examples of shape (pixels,); labels 0 to 9.

    Raises
    ------
    ValueError
        If the source is unknown.
    """
    if source == "digits":
        return digits(seed)
    if source not in OPENML:
        expected = ", ".join(map(repr, ("digits", *OPENML)))
        raise ValueError(f"source is {source!r}, expected one of {expected}")
    split = standard_images(source, cache)
    return split._replace(x_train=split.x_train.flatten(1), x_test=split.x_test.flatten(1))


def _test_size(test_fraction, count, things):
    fraction = check.number("test_fraction", test_fraction)
    test = round(count * fraction) if 0 < fraction < 1 else 0
    if not 0 < test < count:
        raise ValueError(
            f"test_fraction is {test_fraction}, expected a number strictly between 0 and 1 that "
            f"leaves at least one of {count} {things} on either side"
        )
    return test
