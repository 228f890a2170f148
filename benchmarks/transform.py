"""Time the batch-normalizing transform against torch and against plain memory copies.

Forward plus backward, float32, one thread each, medians of interleaved rounds. torch runs
``torch.nn.functional.batch_norm`` in training mode and autograd, with gradients for the input,
weight and bias and without running statistics.

The copy moves as much memory as the transform must: forward reads x and writes y, backward reads
x and dy and writes dx. That is five arrays, so two and a half copies of one array into another.
"""

import time
from statistics import geometric_mean, median

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from bncore.mechanics import transform

SHAPES = ((256, 128), (4096, 512), (65536, 256), (64, 128, 32, 32))
EPS = 1e-5
SECONDS_PER_SHAPE = 8
ROUNDS = (15, 400)


def contestants(shape, rng):
    """Ours, torch's and the copy, as functions without arguments, on the same numbers."""
    x, dy = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    gamma, beta = (rng.standard_normal(shape[1], dtype=np.float32) for _ in range(2))
    leaves = [torch.from_numpy(a).requires_grad_() for a in (x.copy(), gamma, beta)]
    incoming = torch.from_numpy(dy)
    source, target = x.reshape(-1), np.empty(x.size, np.float32)
    half = x.size // 2

    def ours():
        y, cache = transform.forward(x, gamma, beta, EPS)
        return y, transform.backward(dy, cache)

    def theirs():
        x, weight, bias = leaves
        y = torch.nn.functional.batch_norm(x, None, None, weight, bias, training=True, eps=EPS)
        return y, torch.autograd.grad(y, leaves, incoming)

    def copy():
        np.copyto(target, source)
        np.copyto(target, source)
        np.copyto(target[:half], source[:half])

    return ours, theirs, copy


def milliseconds(functions, progress):
    """Median time of each function; the rounds take turns so that all meet the same machine."""
    seconds = [[] for _ in functions]
    started = time.perf_counter()
    while len(seconds[0]) < ROUNDS[0] or (
        len(seconds[0]) < ROUNDS[1] and time.perf_counter() - started < SECONDS_PER_SHAPE
    ):
        for function, times in zip(functions, seconds, strict=True):
            before = time.perf_counter()
            function()
            times.append(time.perf_counter() - before)
        progress.update()
    return [1e3 * median(times) for times in seconds]


def main():
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    print(f"{'shape':>18} {'ours/ms':>9} {'torch/ms':>9} {'copy/ms':>9} {'/torch':>7} {'/copy':>7}")
    ratios = []
    with threadpool_limits(1), tqdm(unit=" rounds", leave=False) as progress:
        for shape in SHAPES:
            progress.set_description(str(shape))
            ours, theirs, copy = milliseconds(contestants(shape, rng), progress)
            ratios.append((ours / theirs, ours / copy))
            tqdm.write(
                f"{shape!s:>18} {ours:9.3f} {theirs:9.3f} {copy:9.3f} "
                f"{ratios[-1][0]:7.2f} {ratios[-1][1]:7.2f}"
            )
    means = [geometric_mean(column) for column in zip(*ratios, strict=True)]
    print(f"{'geometric mean':>18} {'':9} {'':9} {'':9} {means[0]:7.2f} {means[1]:7.2f}")


if __name__ == "__main__":
    main()
