"""Networks with and without batch norm, and with disturbed batch norm, how they train, and their losses."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch.nn.functional import cross_entropy, mse_loss

from bncore.explanations.noisy_batch_norm import NoisyBatchNorm
from bncore.lab import data, networks, training

NORMALIZATIONS = {
    "no batch norm": None,
    "batch norm": "batch",
    "noisy batch norm": NoisyBatchNorm,
}


def noisier(strength):
    """Batch norm with noise whose mean, stretch and jitter are so many times the usual ones."""
    return partial(
        NoisyBatchNorm, shift=0.5 * strength, stretch=1 + 0.25 * strength, jitter=0.1 * strength
    )


class Task(NamedTuple):
    """A network, its data and how it is trained.

    Attributes
    ----------
    network : callable
        From a normalisation and a seed to a model.
    split : callable
        From a seed to data.
    loss : callable
        From outputs and targets to a scalar.
    batch_size : int or None
        None for the whole training set.
    steps : int
    device : str
        "cpu" or "cuda".
    """

    network: Callable
    split: Callable
    loss: Callable
    batch_size: int | None
    steps: int
    device: str = "cpu"


def vgg(width, size, steps, batch_size=64, *, source="digits", depth=11, cache=None, device="cpu"):
    """A VGG on images, standardised.

    Otherwise the plain network would have to undo at its inputs what batch norm undoes for free.

    Parameters
    ----------
    width, size, steps, batch_size : int
        Channels of the first stage, pixels a side, and how long and on how much to train.
    source : {"digits", "mnist", "cifar10"}
        The digits are resized to `size`; the other two have one size only, 28 and 32.
    depth : {11, 13, 16, 19}
    cache : path, optional
        Folder of the sets that are downloaded, as in ``data.openml``.
    device : str

    Raises
    ------
    ValueError
        If the images of the set do not have that size, or the set is unknown.
    """
    channels = 1
    if source != "digits":
        if source not in data.OPENML:
            raise ValueError(f"source is {source!r}, expected 'digits', 'mnist' or 'cifar10'")
        channels, pixels, _ = data.OPENML[source].shape
        if size != pixels:
            raise ValueError(f"size is {size}, expected {pixels}, that of the images of {source}")

    def network(normalization, seed):
        return networks.vgg(
            depth,
            normalization,
            width=width,
            channels=channels,
            size=size,
            hidden=(8 * width,),
            seed=seed,
        )

    def split(seed):
        if source == "digits":
            return data.standardized(data.digit_images(size, seed))
        return data.standard_images(source, cache)

    return Task(network, split, cross_entropy, batch_size, steps, device)


def linear(width, steps, depth=25, inputs=10, outputs=10, examples=256, device="cpu"):
    """A deep linear network on a Gaussian regression, trained on all examples at once."""

    def network(normalization, seed):
        return networks.deep_linear(inputs, outputs, depth, width, normalization, seed=seed)

    def split(seed):
        return data.gaussian_regression(2 * examples, inputs, outputs, seed=seed, test_fraction=0.5)

    return Task(network, split, mse_loss, None, steps, device)


def train(task, name, rate, seed, record=None, every=10**9):
    """Train one network of a task.

    Parameters
    ----------
    task : Task
    name : str or callable
        A key of ``NORMALIZATIONS``, or a normalisation.
    rate, seed, record, every
        As in ``training.train``.

    Returns
    -------
    model : nn.Module
    split : Split
    history : History
    """
    split = data.Split(*(tensor.to(task.device) for tensor in task.split(seed)))
    model = task.network(NORMALIZATIONS[name] if isinstance(name, str) else name, seed)
    history = training.train(
        model,
        split,
        task.steps,
        task.batch_size or len(split.x_train),
        rate,
        seed,
        record,
        every=every,
        loss=task.loss,
        device=task.device,
    )
    return model, split, history
