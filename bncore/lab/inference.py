"""A trained network at inference: which statistics it uses, in which company, and on which data.

Batch norms are torch's; fitting their statistics again and folding them away return new networks.
Source: Ioffe and Szegedy (2015), Algorithm 2.
"""

import copy
from collections import OrderedDict
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.conv import _ConvNd as Convolution
from torch.optim.swa_utils import update_bn

from bncore import arguments as check
from bncore.lab.probes import evaluation, in_pieces
from bncore.mechanics import folding

Examples = Float[torch.Tensor, "examples *features"]
Labels = Int[torch.Tensor, "examples"]


def predictions(
    model: nn.Module,
    x: Examples,
    statistics: Literal["running", "batch"] = "running",
    batch_size: int | None = None,
) -> Labels:
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
        If batch_size is not an integer.
    ValueError
        If batch_size is below 1.
    """
    alone = batch_size is None and statistics == "running"
    if batch_size is None:
        batch_size = len(x)
    check.positive_integer("batch_size", batch_size)
    with evaluation(model, statistics):
        if alone:
            return in_pieces(model, x).argmax(1)
        pieces = x.tensor_split(max(len(x) // batch_size, 1))
        return torch.cat([model(piece).argmax(1) for piece in pieces])


def accuracy(
    model: nn.Module,
    x: Examples,
    y: Labels,
    statistics: Literal["running", "batch"] = "running",
    batch_size: int | None = None,
) -> float:
    """Fraction of examples that ``predictions`` classifies as y says."""
    return (predictions(model, x, statistics, batch_size) == y).double().mean().item()


def scores_in_company(
    model: nn.Module,
    example: Float[torch.Tensor, "*features"],
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
        If batch_size or draws is not an integer.
    ValueError
        If batch_size is below 2 or the pool too small, or draws is below 1.
    """
    check.positive_integer("draws", draws)
    check.positive_integer("batch_size", batch_size)
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
    inputs that it meets at inference.

    References
    ----------
    Ioffe and Szegedy (2015), Algorithm 2, lines 7 to 10.
    """
    if batch_size is None:
        batch_size = len(x)
    check.positive_integer("batch_size", batch_size)
    fitted = copy.deepcopy(model)
    update_bn(x.tensor_split(max(len(x) // batch_size, 1)), fitted)
    return fitted


def folded(model: nn.Sequential) -> nn.Sequential:
    """A copy of the model in which each batch norm is folded into the layer before it.

    The copy computes what the model computes in evaluation mode, without batch norms.

    Parameters
    ----------
    model : nn.Sequential
        Each batch norm keeps running statistics and follows a linear layer, a convolution, or
        another batch norm that does.

    Raises
    ------
    TypeError
        If model is not an nn.Sequential.
    ValueError
        If a batch norm follows another kind of layer, or keeps no running statistics.

    See Also
    --------
    bncore.mechanics.inference.fold_linear, bncore.mechanics.inference.fold_conv
    """
    if not isinstance(model, nn.Sequential):
        raise TypeError(f"model is a {type(model).__name__}, expected an nn.Sequential")
    layers, before = OrderedDict(), None
    for name, layer in model.named_children():
        if not isinstance(layer, BatchNorm):
            before = name
            layers[name] = copy.deepcopy(layer)
            continue
        if not isinstance(layers.get(before), nn.Linear | Convolution):
            found = "nothing" if before is None else f"a {type(layers[before]).__name__}"
            raise ValueError(
                f"{name} follows {found}, expected a linear layer or a convolution to fold it into"
            )
        if layer.running_mean is None:
            raise ValueError(f"{name} keeps no running statistics, expected fixed ones to fold")
        _absorb(layers[before], layer)
    return nn.Sequential(layers)


def _absorb(layer, norm):
    weight, bias, mean, var, gamma, beta = (
        None if tensor is None else tensor.detach().numpy(force=True)
        for tensor in (
            layer.weight,
            layer.bias,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
        )
    )
    if isinstance(layer, nn.Linear):
        weight, bias = folding.fold_linear(weight, bias, mean, var, gamma, beta, norm.eps)
    else:
        weight, bias = folding.fold_conv(
            weight,
            bias,
            mean,
            var,
            gamma,
            beta,
            norm.eps,
            groups=layer.groups,
            transposed=layer.transposed,
        )
    layer.weight = nn.Parameter(torch.tensor(weight, device=layer.weight.device))
    layer.bias = nn.Parameter(torch.tensor(bias, device=layer.weight.device))
