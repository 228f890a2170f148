"""Half precision: what overflows, what is rounded away, and what autocast keeps single."""

import math

import numpy as np
import torch
from torch import nn

from bncore.lab.layers import seeded
from bncore.page import style

BITS = {torch.float16: 11, torch.bfloat16: 8, torch.float32: 24}
"""Of the significand, the leading one included."""


def widest(dtype, count=1):
    """The root mean square at which the squares of so many values sum to the dtype's largest.

    count rms² = largest. For float16 and one value that is 65504^(1/2), just under 256; a variance
    overflows from there on even if its sum is taken in single precision and divided.
    """
    return math.sqrt(torch.finfo(dtype).max / count)


def half_a_step(value, dtype):
    """Half the distance of neighbouring floats at a value: 2^(e - bits), 2^e ≤ |value| < 2^(e + 1).

    What is added to the value, and is smaller, is lost.
    """
    return 2.0 ** (math.floor(math.log2(abs(value))) - BITS[dtype])


def stall(value, momentum, dtype):
    """How far from the batches a running average that has reached a value comes to a stop.

    Its next step, momentum times the distance, is then at most ``half_a_step``.
    """
    return half_a_step(value, dtype) / momentum


def stops_at(target, momentum, dtype):
    """Where an average that climbs from 0 towards a positive target stops, if each step is rounded once.

    It passes 2^e where the distance from there is more than a stall, and stops in the first octave
    that holds a value within one.
    """
    value = 2.0 ** (math.floor(math.log2(target)) - 40)
    while True:
        reached = max(value, target - stall(value, momentum, dtype))
        if reached < 2 * value:
            return reached
        value *= 2


def rounded_once(target, momentum, dtype, batches):
    """An average of so many equal numbers, each step computed exactly and rounded once."""
    found, value = [], 0.0
    for _ in range(batches):
        step = torch.tensor(value + momentum * (target - value), dtype=torch.float64)
        value = step.to(dtype).item()
        found.append(value)
    return np.array(found)


def averages(target, momentum, dtype, batches):
    """The running mean of a torch batch norm in a dtype after each of so many equal batches.

    On the CPU torch rounds both weights, both products and their sum.
    """
    layer = nn.BatchNorm1d(1, momentum=momentum).to(dtype)
    x = target + torch.tensor([[-1.0], [1.0]])
    found = []
    for _ in range(batches):
        layer(x.to(dtype))
        found.append(layer.running_mean.item())
    return np.array(found)


def poisoned(clean, seed=0):
    """Running mean and variance of two features: after an infinity in the first, after so many clean
    batches more, and after a reset and one more.

    The clean feature beside it has its own; a reset is ``reset_running_stats``.
    """
    layer = nn.BatchNorm1d(2)
    with seeded(seed), torch.no_grad():
        batches = torch.randn(clean + 2, 8, 2)
    batches[0, 0, 0] = torch.inf
    found = []
    for i, batch in enumerate(batches):
        if i == clean + 1:
            layer.reset_running_stats()
        layer(batch)
        if i in (0, clean, clean + 1):
            found.append(torch.stack([layer.running_mean, layer.running_var]).numpy().copy())
    return np.array(found)


def kept_by_autocast(dtype=torch.bfloat16):
    """Which dtype each part of a linear layer and a batch norm has under ``torch.autocast``."""
    model, seen = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), {}
    hook = model[1].register_forward_hook(
        lambda norm, args, y: seen.update({"input": args[0].dtype, "output": y.dtype})
    )
    with torch.autocast("cpu", dtype):
        model(torch.ones(8, 4) * torch.arange(8.0)[:, None])
    hook.remove()
    norm = model[1]
    return seen | {
        "parameters": norm.weight.dtype,
        "statistics": norm.running_var.dtype,
    }


def error(batch_size, dtype, seed=0):
    """Relative errors of the variance of N(8, 1): by sums in the dtype itself, and in single precision.

    Both are of the values as the dtype rounds them. The first adds one square after the other, and
    subtracts the square of the mean.
    """
    with seeded(seed):
        x = (8 + torch.randn(batch_size)).to(dtype)
    total = squares = torch.zeros((), dtype=dtype)
    for value in x:
        total, squares = total + value, squares + value * value
    in_half = squares / batch_size - (total / batch_size) ** 2
    exact = x.double().var(correction=0)
    single = x.float().var(correction=0)
    return tuple(abs(float(found) / float(exact) - 1) for found in (in_half, single))


def stuck(momentum):
    """Draw the running mean of a feature of mean 10: in bfloat16, and as the law of the stall has it."""
    batches = {0.3: 30, 0.1: 100, 0.03: 300, 0.01: 1000}[momentum]
    fig, ax = style.axes()
    for values, color, line, name in (
        (averages(10.0, momentum, torch.float32, batches), "data", "-", "single"),
        (averages(10.0, momentum, torch.bfloat16, batches), "measured", "-", "bfloat16"),
        (rounded_once(10.0, momentum, torch.bfloat16, batches), "predicted", "--", "predicted"),
    ):
        ax.plot(np.arange(1, batches + 1), values, line, color=style.COLOR[color], label=name)
    ax.set(xlabel="batches", ylabel="running mean", ylim=(0, 11), xlim=(0, batches))
    style.legend_above(ax, columns=3)
    return fig
