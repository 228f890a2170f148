"""Time GDNP against gradient descent, L-BFGS and scikit-learn on learning a halfspace.

One thread each. The first table is the median time of one iteration on 100,000 examples of 200
numbers, in turns in one process, beside that of gradient descent. The second is the way to a
gradient of norm 1e-6 on 20,000 examples whose second-moment matrix has condition number 100. The last line is
one run on a million examples of 100 numbers in single precision, with the memory that it took.
"""

import resource
import sys
import time
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

from bncore.convergence import (
    EmpiricalHalfspace,
    accelerated_gradient_descent,
    batch_norm_gradient_descent,
    gdnp,
    gradient_descent,
    weight_normalization,
    yardsticks,
)

ROUNDS = 5
TOLERANCE = 1e-6
# Kilobytes on Linux, bytes on macOS.
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024


def problem(samples, dimension, dtype=np.float64, seed=0):
    """Correlated examples with noisy labels; the condition number is about 100."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((samples, dimension), dtype=dtype)
    X *= np.geomspace(1, 0.1, dimension).astype(dtype)
    noise = rng.standard_normal(samples, dtype=dtype)
    direction = rng.standard_normal(dimension, dtype=dtype)
    X *= -np.where(X @ direction + 2 * noise > 0, 1, -1).astype(dtype)[:, np.newaxis]
    return EmpiricalHalfspace(X), rng.standard_normal(dimension)


def solvers(halfspace, w0):
    """Every solver with steps and tolerance left open."""
    step = 1 / halfspace.smoothness
    return {
        "gradient descent": lambda **k: gradient_descent(halfspace, w0, **k),
        "GDNP": lambda **k: gdnp(halfspace, w0, **k),
        "GDNP, Brent's search": lambda **k: gdnp(halfspace, w0, length_search="brentq", **k),
        "accelerated": lambda **k: accelerated_gradient_descent(halfspace, w0, **k),
        "batch norm, plain": lambda **k: batch_norm_gradient_descent(
            halfspace, w0, learning_rate=step, **k
        ),
        "weight normalization": lambda **k: weight_normalization(
            halfspace, w0, learning_rate=step, **k
        ),
        "L-BFGS": lambda **k: yardsticks.lbfgs(halfspace, w0, **k),
    }


def iteration_times():
    chosen = solvers(*problem(100_000, 200))
    seconds = {name: [] for name in chosen}
    for _ in range(ROUNDS):
        for name, run in chosen.items():
            seconds[name].extend(np.diff(run(steps=10).seconds))
    plain = median(seconds["gradient descent"])
    print(f"{'one iteration, 100,000 x 200':>30} {'ms':>9} {'/ gradient descent':>19}")
    for name, times in seconds.items():
        print(f"{name:>30} {1e3 * median(times):9.1f} {median(times) / plain:19.2f}")


def ways_to_the_optimum():
    halfspace, w0 = problem(20_000, 100)
    print(f"\n{'to a gradient of 1e-6':>30} {'steps':>9} {'seconds':>9} {'gradient':>9}")
    for name, run in solvers(halfspace, w0).items():
        trace = run(steps=5000, tolerance=TOLERANCE)
        report(name, trace, trace.steps)
    report("scikit-learn", yardsticks.logistic_regression(halfspace), "")


def report(name, trace, steps):
    print(f"{name:>30} {steps!s:>9} {trace.seconds[-1]:9.3f} {trace.gradient_norm[-1]:9.1e}")


def a_million():
    start = time.perf_counter()
    halfspace, w0 = problem(1_000_000, 100, np.float32)
    trace = gdnp(halfspace, w0, steps=20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT / 2**30
    print(
        f"\n1,000,000 x 100 in float32: {1e3 * np.median(np.diff(trace.seconds)):.0f} ms an iteration, "
        f"{time.perf_counter() - start:.0f} s in all, peak {peak:.1f} GiB"
    )


if __name__ == "__main__":
    with threadpool_limits(1):
        iteration_times()
        ways_to_the_optimum()
        a_million()
