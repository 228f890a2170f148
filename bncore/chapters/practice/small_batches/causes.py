"""The three causes by which small batches do harm, each measured beside its formula.

At the first batch norm of a network that is about to learn the digits. Formulas are for independent
values, the first for normal ones.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import cross_entropy

from bncore.chapters.practice.small_batches.experiments import WIDTHS
from bncore.explanations.noise import GaussianOutput
from bncore.lab import data, networks
from bncore.lab.batches import Batches

SIZES = (2, 4, 8, 16, 32, 64)
MOMENTUM = 0.1


class Shares(NamedTuple):
    """What a batch size costs.

    Attributes
    ----------
    noise : float
        Share of the output's variance that is due to the company of an example.
    stopped : float
        Share of the gradient, in squares, that batch norm does not pass, which frozen statistics would.
    off : float
        Root mean square error of a running mean, in standard deviations.
    """

    noise: float
    stopped: float
    off: float


@cache
def predicted(m: int) -> Shares:
    """The formulas: 1 - E[E[x_hat | z]²], 2 / m, and sqrt(a / (2 - a) / m) with momentum a."""
    off = (MOMENTUM / (2 - MOMENTUM) / m) ** 0.5
    if m == 2:  # x_hat is 1 with the probability Phi(z), else -1, and Phi(z) is uniform
        return Shares(2 / 3, 1.0, off)
    z, weights = np.polynomial.hermite_e.hermegauss(24)
    signal = [GaussianOutput(value, m).moments()[0] ** 2 for value in z.tolist()]
    return Shares(float(1 - weights @ signal / weights.sum()), 2 / m, off)


@cache
def _network():
    split = data.digits()
    model = networks.mlp(WIDTHS, "relu", "batch", gain=2**0.5)
    with torch.no_grad():
        inputs = model.linear1(split.x_train)
    return split, model, ((inputs - inputs.mean(0)) / inputs.std(0, correction=0)).double()


def outputs(
    m: int, rounds: int = 1, seed: int = 0
) -> tuple[Float[np.ndarray, "examples features"], Float[np.ndarray, "rounds examples features"]]:
    """What comes into the first batch norm, standardised by all examples, and what comes out.

    In each round the training set is cut into random batches of m.
    """
    z = _network()[2]
    generator = torch.Generator().manual_seed(seed)
    count, found = len(z) // m * m, []
    for _ in range(rounds):
        order = torch.randperm(len(z), generator=generator)[:count]
        batches = z[order].view(-1, m, z.shape[1])
        var, mean = torch.var_mean(batches, 1, correction=0, keepdim=True)
        normalised = torch.full_like(z, torch.nan)
        normalised[order] = ((batches - mean) / (var + 1e-12).sqrt()).view(count, -1)
        found.append(normalised.numpy())
    return z.numpy(), np.stack(found)


@cache
def measured(m: int) -> Shares:
    """The same of a network with batch norm on the digits, before its first step."""
    _, out = outputs(m, rounds=40)
    noise = np.nanvar(out, axis=0, ddof=1).mean() / np.nanmean(out**2)
    return Shares(float(noise), _stopped(m), _off(m))


def _stopped(m, batches=60):
    """Of the gradient behind the batch norm, in squares, what autograd does not bring before it.

    A batch norm with the statistics held fixed would bring it times gamma / sigma.
    """
    split, model, _ = _network()
    model.train()
    order, passed, whole = Batches(len(split.x_train), m, 1), 0.0, 0.0
    for _ in range(batches):
        chosen = next(order)
        x = model.linear1(split.x_train[chosen]).detach().requires_grad_()
        y = model.norm1(x)
        loss = cross_entropy(model[2:](y), split.y_train[chosen])
        dy, dx = torch.autograd.grad(loss, (y, x))
        sigma = (x.detach().var(0, correction=0) + model.norm1.eps).sqrt()
        alone = dx * sigma / model.norm1.weight.detach()
        passed, whole = passed + float((alone**2).sum()), whole + float((dy**2).sum())
    return 1 - passed / whole


def _off(m, steps=400):
    z = _network()[2].numpy()
    order, running, squares = Batches(len(z), m, 2), np.zeros(z.shape[1]), []
    for count in range(steps):
        running = (1 - MOMENTUM) * running + MOMENTUM * z[next(order).numpy()].mean(0)
        if count >= 100:
            squares.append(running**2)
    return float(np.mean(squares) ** 0.5)
