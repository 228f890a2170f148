"""How many iterations GDNP needs beside gradient descent and Nesterov's method, each at its own best step.

All start from one point, the best length along a random direction. A run ends when the excess of f
over its least value is a given part of the excess at w = 0.
"""

import itertools
from functools import cache
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_diabetes, load_iris

from bncore.chapters.convergence.halfspaces import experiments
from bncore.convergence import (
    EmpiricalHalfspace,
    GaussianHalfspace,
    accelerated_gradient_descent,
    gdnp,
    gradient_descent,
)
from bncore.convergence.losses import LOSSES as NAMED
from bncore.convergence.problem import Problem
from bncore.lab import studies

LOSSES = {"softplus": NAMED["softplus"], "huber": experiments.huber()}
METHODS = ("GDNP", "gradient descent", "Nesterov")
REAL = ("digits", "breast cancer", "diabetes", "iris")
HORIZONS = (40, 160, 640, 4000)


class Task(NamedTuple):
    """A problem, where methods start, the least value, and the excess at w = 0."""

    problem: Problem
    start: np.ndarray
    least: float
    first: float


def skewed(seed, count=1000, dimension=10):
    """Rows z_i = -y_i x_i: mixed exponential features, standardised, and labels of a logistic law."""
    rng = np.random.default_rng([seed, 0])
    x = rng.exponential(size=(count, dimension)) @ experiments.moments(dimension, seed)[1]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    w = rng.normal(size=dimension)
    score = 2 * x @ w / (x @ w).std()
    y = np.where(rng.random(count) < 1 / (1 + np.exp(-score)), 1.0, -1.0)
    return -y[:, np.newaxis] * x


def examples(data, seed):
    """Rows z_i of a data set, which the seed changes for "skewed" only.

    Diabetes: more than the median or not. Iris: versicolor or not. The others are those of the
    chapter, all without a threshold; none is separable.
    """
    if data == "skewed":
        return skewed(seed)
    if data in ("digits", "breast cancer"):
        return experiments.real_data(data)
    load, is_positive = {
        "diabetes": (load_diabetes, lambda target: target > np.median(target)),
        "iris": (load_iris, lambda target: target == 1),
    }[data]
    x, target = load(return_X_y=True)
    y = np.where(is_positive(target), 1.0, -1.0)
    return -y[:, np.newaxis] * (x - x.mean(axis=0)) / x.std(axis=0)


@cache
def task(data, loss, seed):
    """The task of a data set, or "Gaussian" for moments in eight dimensions, and of a seed."""
    if data == "Gaussian":
        problem = GaussianHalfspace(*experiments.moments(8, seed), LOSSES[loss])
        best = gdnp(problem, problem.solution_direction, steps=0, bisection_steps=60).weights[0]
    else:
        Z = examples(data, seed)
        problem = EmpiricalHalfspace(Z, LOSSES[loss])
        best = experiments.newton(problem, Z)
    direction = np.random.default_rng([seed, 1]).normal(size=problem.dimension)
    start = gdnp(problem, direction, steps=0).weights[0]
    least = problem.value(best)
    return Task(problem, start, least, problem.value(np.zeros(problem.dimension)) - least)


def trace(method, problem, start, step, steps):
    """Run a method with `step` times the step of its theory: 1/zeta, or s for GDNP.

    GDNP finds its lengths by Brent's method, which needs fewer evaluations than bisection.
    """
    if method == "GDNP":
        return gdnp(problem, start, steps=steps, relaxation=step, length_search="brentq")
    solver = {"gradient descent": gradient_descent, "Nesterov": accelerated_gradient_descent}
    return solver[method](problem, start, steps=steps, learning_rate=step / problem.smoothness)


def run(method, data, loss, accuracy, step, seed):
    """Iterations to the accuracy, NaN where the last horizon does not suffice; median seconds of one.

    Parameters
    ----------
    method, data, loss : str
        One of ``METHODS``; one of ``REAL``, "skewed" or "Gaussian"; one of ``LOSSES``.
    accuracy : float
        Excess of f that is left, over that at w = 0.
    step : float
        As for ``trace``.
    seed : int
        Of the start, and of the problem where that is random.
    """
    problem, start, least, first = task(data, loss, seed)
    for horizon in HORIZONS[:-1] if data == "Gaussian" else HORIZONS:
        found = trace(method, problem, start, step, horizon)
        excess = (found.value - least) / first
        reached = np.flatnonzero(excess <= accuracy)
        before, after = np.array_split(excess, 2)
        stuck = method != "Nesterov" and after.min() >= before.min()  # the others fall all the way
        if len(reached) or found.status != "budget" or stuck:
            break
    iterations = float(reached[0]) if len(reached) else np.nan
    return {"iterations": iterations, "seconds": float(np.median(np.diff(found.seconds)))}


COMPARED = 2 * len(LOSSES) * 11
"""Yardsticks, losses, and data sets of both accuracies that are recorded."""


def against(found, data, loss, other):
    """Logarithm of GDNP's iterations less that of another method's, and its interval.

    Parameters
    ----------
    found : xarray.Dataset
        Of one accuracy, by method, data, loss and seed.
    other : str
        One of ``METHODS``.

    Returns
    -------
    Interval or None
        Mean over the seeds, 95 % for ``COMPARED`` comparisons; None where a run did not arrive.
    """
    logs = np.log(found.iterations.isel(accuracy=0).sel(data=data, loss=loss))
    pair = [
        logs.sel({"method": method}, drop=True).reset_coords(drop=True)
        for method in ("GDNP", other)
    ]
    if any(one.isnull().any() for one in pair):
        return None
    return studies.difference(*pair, looked_at=COMPARED)


def largest_lead(tuning):
    """Data set, not Gaussian, and loss on which the medians give GDNP its largest lead on descent."""
    medians = (
        tuning.iterations.isel(accuracy=0).median("seed").min("step").drop_sel(data="Gaussian")
    )
    leads = medians.sel({"method": "GDNP"}) / medians.sel({"method": "gradient descent"})
    return leads.stack(case=["data", "loss"]).idxmin().item()


def summary(record):
    """How often GDNP is ahead of each yardstick on data that are not Gaussian, and its time, as text."""
    counts = {
        other: dict.fromkeys(("ahead", "not separated", "behind", "no number"), 0)
        for other in METHODS[1:]
    }
    times = []
    for found in record.values():
        fresh = found["fresh"].drop_sel(data="Gaussian")
        for data, loss in itertools.product(fresh.data.values, fresh.loss.values):
            seconds = fresh.seconds.sel(data=data, loss=loss).median(["seed", "accuracy"])
            times.append(
                (seconds / seconds.sel({"method": METHODS[1]})).sel({"method": "GDNP"}).item()
            )
            for other, count in counts.items():
                ratio = against(fresh, data, loss, other)
                count[_standing(ratio)] += 1
    lines = [f"{'GDNP is':14}" + "".join(f"{other:>{len(other) + 2}}" for other in counts)]
    for standing in counts[METHODS[1]]:
        cells = (f"{count[standing]:{len(other) + 2}}" for other, count in counts.items())
        lines.append(f"{standing:14}" + "".join(cells))
    lines.append(f"time of an iteration over descent's: {min(times):.0f}-{max(times):.0f}")
    return "\n".join(lines)


def _standing(ratio):
    if ratio is None:
        return "no number"
    return "not separated" if not ratio.separates else "ahead" if ratio.high < 0 else "behind"
