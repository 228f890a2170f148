"""Probabilities from a batch-normalised network, and how well they are calibrated.

Statistics of random training batches in place of the running ones make predictions random; their
average is Monte Carlo batch normalisation. Source: Teye, Azizpour and Smith (2018).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Real
from scipy.optimize import minimize_scalar
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bncore import arguments as check
from bncore import tensors
from bncore.explanations import _models
from bncore.lab.modes import evaluation
from bncore.lab.probes import in_pieces

Rows = Real[torch.Tensor, "examples classes"] | Real[np.ndarray, "examples classes"] | check.Listed
Pool = Real[torch.Tensor, "pool *features"] | Real[np.ndarray, "pool *features"] | check.Listed
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def sampled_scores(
    model: nn.Module,
    x: tensors.Examples,
    pool: Pool,
    batch_size: int,
    draws: int,
    seed: int = 0,
) -> Float[torch.Tensor, "draws examples classes"]:
    """Scores of all examples with batch norms that use the statistics of random batches.

    For each draw one batch goes through the network in training mode and leaves the mean and the
    biased variance that each batch norm met; then x goes through with these, example by example.

    Parameters
    ----------
    model : nn.Module
        With torch's batch norms, which keep running statistics. Its modes, these statistics and
        momenta stay as they are. Other modules are in evaluation mode throughout, and so are batch
        norms that are frozen: in evaluation mode within a model in training mode.
    x : Float[Tensor, "examples *features"]
    pool : Float[Tensor, "pool *features"]
        What batches are drawn from, without replacement: the training set.
    batch_size : int
        Examples in a batch, at least 2.
    draws : int
        Number of batches.
    seed : int
        Of the drawing.

    Returns
    -------
    Float[Tensor, "draws examples classes"]
        The predictive probabilities are the mean over draws of the softmax over classes.

    Raises
    ------
    TypeError
        If batch_size, draws or seed is not an integer, model no module, or x or pool holds no real
        numbers.
    ValueError
        If batch_size is below 2 or above the pool, draws is below 1, seed is negative, x or pool is
        empty or not finite, or the model has no batch norm that is not frozen, one that is not
        torch's or keeps no running statistics, or calls one twice.
    """
    _models.check_model(model)
    x, pool = tensors.examples("x", x, model), tensors.examples("pool", pool, model)
    if x.shape[1:] != pool.shape[1:]:
        raise ValueError(
            f"pool has examples of shape {tuple(pool.shape[1:])}, expected {tuple(x.shape[1:])}, that "
            "of the examples in x"
        )
    check.integer("seed", seed, least=0)
    check.positive_integer("draws", draws)
    check.positive_integer("batch_size", batch_size)
    if not 2 <= batch_size <= len(pool):
        raise ValueError(
            f"batch_size is {batch_size}, expected from 2 to {len(pool)}, the size of the pool"
        )
    names = {
        name: module for name, module in model.named_modules() if isinstance(module, BatchNorm)
    }
    if not names:
        raise ValueError("model has no batch norm, so that random batches would change nothing")
    for name, norm in names.items():
        if not isinstance(norm, NORMS):
            raise ValueError(
                f"batch norm {name!r} is a {type(norm).__name__}, expected torch's own: others may "
                "take their statistics from a part of the batch"
            )
        if norm.running_mean is None:
            raise ValueError(
                f"batch norm {name!r} keeps no running statistics, expected track_running_stats=True: "
                "sampled ones would have no place"
            )
    # A batch norm in evaluation mode within a model in training mode is frozen.
    norms = [norm for norm in names.values() if norm.training or not model.training]
    if not norms:
        raise ValueError(
            "all batch norms of model are frozen, so that random batches change nothing"
        )
    generator = torch.Generator().manual_seed(seed)
    scores = []
    with evaluation(model), _remembering(norms) as biased:
        for _ in range(draws):
            batch = pool[torch.randperm(len(pool), generator=generator)[:batch_size]]
            for norm in norms:
                norm.train()
            model(batch)
            biased()
            model.eval()
            scores.append(in_pieces(model, x))
    return torch.stack(scores)


@contextmanager
def _remembering(norms) -> Iterator:
    """Let batch norms keep only the last batch, and give a way to make its variance the biased one."""
    counts, momenta = {}, [norm.momentum for norm in norms]

    def count(norm, inputs):
        if norm.training and norm in counts:
            raise ValueError(
                f"model calls a {type(norm).__name__} twice, expected once: it meets statistics at "
                "each call and can keep those of one"
            )
        if norm.training:
            counts[norm] = inputs[0][:, 0].numel()

    def biased():
        for norm, values in counts.items():
            norm.running_var.mul_((values - 1) / values)
        counts.clear()

    hooks = [norm.register_forward_pre_hook(count) for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 1.0
        yield biased
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


class Calibration(NamedTuple):
    """How predicted probabilities compare with what happens.

    Attributes
    ----------
    accuracy : float
        Fraction of examples whose most probable class is right.
    nll : float
        Negative log-likelihood: mean of minus the logarithm of the probability of the right class,
        which counts as 2.2e-308 where it is 0.
    ece : float
        Expected calibration error: mean over examples of the distance between confidence and
        frequency in the example's bin.
    confidence, frequency : Float[ndarray, "bins"]
        Mean probability of the predicted class, and fraction predicted rightly, of the examples
        whose probability falls into each of the equally wide bins of [0, 1]; NaN where none does.
    count : Int[ndarray, "bins"]
        Number of examples in each bin.
    """

    accuracy: float
    nll: float
    ece: float
    confidence: Float[np.ndarray, "bins"]
    frequency: Float[np.ndarray, "bins"]
    count: Int[np.ndarray, "bins"]


def calibration(
    probabilities: Rows,
    labels: tensors.Labels,
    bins: int = 10,
) -> Calibration:
    """Judge predicted probabilities by the labels.

    Parameters
    ----------
    probabilities : Float[Tensor, "examples classes"]
        Each row sums to 1.
    labels : Int[Tensor, "examples"]
    bins : int
        Number of bins of the confidence.

    Raises
    ------
    TypeError
        If bins is not an integer, probabilities are no real numbers, or labels no integers.
    ValueError
        If there is no example, a row is not a distribution, the labels do not fit, or bins is below 1.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger (2017), section 2.
    """
    check.positive_integer("bins", bins)
    probabilities, labels = _judged("probabilities", probabilities, labels)
    rows = probabilities.detach().double()
    # The roundings of a row of half-precision probabilities add up.
    rounding = 1e-4 + torch.finfo(probabilities.dtype).eps
    if not ((rows >= 0).all() and ((rows.sum(1) - 1).abs() < rounding).all()):
        raise ValueError(
            "probabilities has a row that is negative somewhere or does not sum to 1, expected "
            "probabilities and not scores: apply softmax first"
        )
    confidence, predicted = (tensor.numpy() for tensor in rows.max(1))
    right = predicted == labels.numpy()
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    filled = np.where(count > 0, count, np.nan)
    means = np.bincount(which, confidence, bins) / filled
    frequencies = np.bincount(which, right, bins) / filled
    ece = np.nansum(count * np.abs(means - frequencies)) / len(labels)
    chosen = rows[torch.arange(len(rows)), labels].clamp(min=torch.finfo(torch.float64).tiny)
    nll = -chosen.log().mean().item()
    return Calibration(float(right.mean()), nll, float(ece), means, frequencies, count)


def fitted_temperature(scores: Rows, labels: tensors.Labels) -> float:
    """The number T that makes softmax(scores / T) most likely, between 1/20 and 20.

    Where the likelihood still rises at an end of that range, the end is returned.

    Parameters
    ----------
    scores : Float[Tensor, "examples classes"]
        Of examples that were not trained on.
    labels : Int[Tensor, "examples"]

    Raises
    ------
    TypeError
        If scores are no real numbers, or labels no integers.
    ValueError
        If there is no example, scores are not finite or above 1e300, or the labels do not fit.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger (2017), section 4.2.
    """
    scores, labels = _judged("scores", scores, labels)
    tensors.finite("scores", scores)
    exact = scores.detach().double()
    if exact.abs().max() > 1e300:
        raise ValueError(
            f"scores is as large as {exact.abs().max().item():.3g}, expected less than 1e300"
        )
    found = minimize_scalar(
        lambda log: cross_entropy(exact / np.exp(log), labels).item(),
        bounds=(-np.log(20), np.log(20)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def _judged(name, values, labels):
    """Rows of float numbers and the labels of their examples, as tensors on the processor."""
    values = tensors.tensor(name, values).cpu()
    if values.ndim != 2 or len(values) == 0:
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}, expected (examples, classes) with at least one "
            "example"
        )
    labels = tensors.labels("labels", labels, len(values)).cpu()
    if int(labels.max()) >= values.shape[1]:
        raise ValueError(
            f"labels range from {int(labels.min())} to {int(labels.max())}, expected from 0 to "
            f"{values.shape[1] - 1}, one for each column of {name}"
        )
    return values, labels
