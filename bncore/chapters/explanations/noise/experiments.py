"""The networks that the chapter trains, their data, and the recorded run."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bncore.lab import data, networks, recorded

RECORD = Path(__file__).with_name("recorded.json")
WIDTHS = (64, 64, 64, 10)
DEEPER = (64, 64, 64, 64, 10)
# A quarter of the digits to train on: so few that the network overfits them.
TEST_FRACTION = 0.75


@cache
def record():
    """The recorded runs, "full" and "reduced", with arrays for lists."""
    found = recorded.load(RECORD)
    return {size: _arrays(found[size]) for size in ("full", "reduced")}


def _arrays(value):
    if isinstance(value, dict):
        return {key: _arrays(entry) for key, entry in value.items()}
    return np.array(value, dtype=float) if isinstance(value, list) and value else value


def digits(seed, pixel_noise=0.0):
    """A quarter of the digits to train on, with noise as in ``noisy``."""
    return noisy(data.digits(seed, TEST_FRACTION), pixel_noise, seed)


def noisy(split, deviation, seed):
    """The same images with normal noise of a deviation on every pixel.

    The noise belongs to the data: it is drawn once, so that a network can learn it by heart.
    """
    if deviation == 0:
        return split
    generator = torch.Generator().manual_seed(seed)
    x_train, x_test = (
        x + deviation * torch.randn(x.shape, generator=generator)
        for x in (split.x_train, split.x_test)
    )
    return split._replace(x_train=x_train, x_test=x_test)


class Task(NamedTuple):
    """A network, its data, and where it is trained.

    Attributes
    ----------
    network : callable
        From a normalisation and a seed to a model.
    images : callable
        From a seed and the deviation of the pixels' noise to a split.
    device : str
        "cpu" or "cuda".
    """

    network: Callable
    images: Callable
    device: str = "cpu"

    def split(self, seed, pixel_noise=0.0):
        """The data on the device."""
        return data.Split(*(tensor.to(self.device) for tensor in self.images(seed, pixel_noise)))


def on_digits(widths, gain=None):
    """A fully connected network on the digits, with torch's weights or normal ones of a gain."""

    def network(normalization, seed):
        return networks.mlp(widths, "relu", normalization, gain=gain, seed=seed)

    return Task(network, digits)


DIGITS, DEEPER_DIGITS = on_digits(WIDTHS), on_digits(DEEPER)


def on_images(source, kind, cache=None, device="cpu", **shape):
    """A convolutional network on images that are downloaded, standardised.

    Parameters
    ----------
    source : {"mnist", "cifar10"}
    kind : {"vgg", "residual"}
        Of ``bncore.lab.networks``; the shape is what it is called with.
    cache : path, optional
        Folder of the images, as in ``data.openml``.
    device : str
    """
    if source not in data.OPENML:
        raise ValueError(f"source is {source!r}, expected 'mnist' or 'cifar10'")
    channels, size, _ = data.OPENML[source].shape
    kinds = {"vgg": partial(networks.vgg, size=size), "residual": networks.residual}
    if kind not in kinds:
        raise ValueError(f"kind is {kind!r}, expected 'vgg' or 'residual'")

    def network(normalization, seed):
        return kinds[kind](normalization=normalization, channels=channels, seed=seed, **shape)

    def split(seed, pixel_noise):
        return noisy(data.standard_images(source, cache), pixel_noise, seed)

    return Task(network, split, device)
