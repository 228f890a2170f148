"""A trained network at inference: which statistics it uses, in which company, and on which data.

Batch norms are torch's; fitting their statistics again and folding them away return new networks.
Source: Ioffe and Szegedy (2015), Algorithm 2.
"""

import copy

import numpy as np
import torch
from jaxtyping import Float, Int, Real
from torch import nn

from bncore import arguments as check
from bncore import tensors
from bncore.lab.folding import folded
from bncore.lab.modes import Statistics, evaluation, use_statistics
from bncore.lab.probes import in_pieces
from bncore.tensors import Examples, Labels

__all__ = ["accuracy", "folded", "predictions", "refitted", "scores_in_company"]


def predictions(
    model: nn.Module,
    x: Examples,
    statistics: Statistics = "running",
    batch_size: int | None = None,
) -> Int[torch.Tensor, "examples"]:
    """Predict the class of each example, in batches cut from x in the order in which it comes.

    Parameters
    ----------
    model : nn.Module
        From examples to one score a class. Its modes and running statistics stay as they are.
    x : Float[Tensor, "examples *features"]
    statistics : {"running", "batch"}
        Which statistics batch norms use: those kept for inference or those of the batch.
    batch_size : int, optional
        x is cut into as many batches of nearly equal size as have at least this many examples; by
        default x is one batch, if its statistics matter, and cut as memory asks for if not.

    Raises
    ------
    TypeError
        If batch_size is not an integer, or x holds no real numbers.
    ValueError
        If batch_size is below 1, x is empty or not finite, or the model does not return one row of
        scores for each example.
    """
    if batch_size is not None:
        check.positive_integer("batch_size", batch_size)
    x = tensors.examples("x", x, model)
    with evaluation(model, statistics):
        if batch_size is None and statistics == "running":
            return _decided(in_pieces(model, x), x)
        return _decided(torch.cat([model(piece) for piece in _batches(x, batch_size)]), x)


def _batches(x, batch_size):
    """x in as many pieces of nearly equal size as have at least so many examples."""
    return x.tensor_split(1 if batch_size is None else max(len(x) // batch_size, 1))


def _decided(scores, x):
    """The class of the largest score of each example."""
    if scores.ndim != 2 or len(scores) != len(x):
        raise ValueError(
            f"model returns scores of shape {tuple(scores.shape)} for {len(x)} examples, expected "
            f"({len(x)}, classes)"
        )
    return scores.argmax(1)


def accuracy(
    model: nn.Module,
    x: Examples,
    y: Labels,
    statistics: Statistics = "running",
    batch_size: int | None = None,
) -> float:
    """Fraction of examples that ``predictions`` classifies as y says. The errors are its too."""
    found = predictions(model, x, statistics, batch_size)
    return (found == tensors.labels("y", y, len(found), found.device)).double().mean().item()


def scores_in_company(
    model: nn.Module,
    example: Float[torch.Tensor, "*features"] | Real[np.ndarray, "*features"] | check.Listed,
    pool: Examples,
    batch_size: int,
    draws: int,
    seed: int = 0,
) -> Float[torch.Tensor, "draws classes"]:
    """The scores of one example in random batches, with batch norms using the batch's statistics.

    Parameters
    ----------
    model : nn.Module
        Its modes and running statistics stay as they are.
    example : Float[Tensor, "*features"]
    pool : Float[Tensor, "examples *features"]
        Where the other batch_size - 1 members of each batch are drawn from, without replacement.
    batch_size : int
        At least 2.
    draws : int
        Number of batches.
    seed : int
        Of the drawing.

    Raises
    ------
    TypeError
        If batch_size, draws or seed is not an integer, or example or pool holds no real numbers.
    ValueError
        If batch_size is below 2 or the pool too small, draws is below 1, seed is negative, or
        example and pool are not finite or do not fit each other.
    """
    check.positive_integer("draws", draws)
    check.positive_integer("batch_size", batch_size)
    check.integer("seed", seed, least=0)
    pool = tensors.examples("pool", pool, model)
    example = tensors.tensor("example", example, pool.dtype, pool.device, of="pool")
    tensors.finite("example", example)
    if example.shape != pool.shape[1:]:
        raise ValueError(
            f"example has shape {tuple(example.shape)}, expected {tuple(pool.shape[1:])}, that of "
            "each example of the pool"
        )
    if not 2 <= batch_size <= len(pool) + 1:
        raise ValueError(
            f"batch_size is {batch_size}, expected from 2 to {len(pool) + 1}, the example and its "
            f"pool of {len(pool)}"
        )
    generator = torch.Generator().manual_seed(seed)
    with evaluation(model, "batch"):
        scores = []
        for _ in range(draws):
            company = torch.randperm(len(pool), generator=generator)[: batch_size - 1]
            scores.append(model(torch.cat([example[None], pool[company]]))[0])
    return torch.stack(scores)


def refitted(model: nn.Module, x: Examples, batch_size: int | None = None) -> nn.Module:
    """A copy of the model whose running statistics are fitted again, with the weights as they are.

    The copy sees x once, in batches as ``predictions`` cuts it, and averages their means and
    unbiased variances equally. With one batch, the default, every layer is fitted to just the
    inputs that it meets at inference: dropout is off meanwhile. Frozen batch norms, as ``evaluation``
    has them, stay as they are, and so do modes and momenta. Batches of any size, pooled exactly, or one
    layer after the other: ``bncore.practice.recalibration``.

    Raises
    ------
    TypeError
        If batch_size is not an integer, or x holds no real numbers.
    ValueError
        If batch_size is below 1, x is empty or not finite, or a batch norm keeps running statistics
        without ``reset_running_stats``, as torch's have it.

    References
    ----------
    Ioffe and Szegedy (2015), Algorithm 2, lines 7 to 10.
    """
    if batch_size is not None:
        check.positive_integer("batch_size", batch_size)
    x = tensors.examples("x", x, model)
    fitted = copy.deepcopy(model)
    modes = {module: module.training for module in fitted.modules()}
    momenta = {}
    use_statistics(fitted, "batch")
    for name, norm in fitted.named_modules():
        if norm.training and getattr(norm, "running_mean", None) is not None:
            if not hasattr(norm, "reset_running_stats"):
                raise ValueError(
                    f"batch norm {name!r} is a {type(norm).__name__} without reset_running_stats, "
                    "expected one that can forget its running statistics"
                )
            norm.reset_running_stats()
            momenta[norm], norm.momentum = norm.momentum, None
    if momenta:
        with torch.no_grad():
            for piece in _batches(x, batch_size):
                fitted(piece)
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    for module, mode in modes.items():
        module.training = mode
    return fitted
