"""Studies: one run, over a grid of cases and over seeds, and what is kept of it.

For example::

    found = study(run, {"kind": ["plain", "batch"], "learning_rate": [0.1, 1.0]}, seeds=range(5))
    chosen = best(found, "loss", over="learning_rate", smaller=True)
    difference(chosen.loss.sel(kind="batch"), chosen.loss.sel(kind="plain"), looked_at=6)

Arms are compared each at its own best rate, on a grid whose ends are worse (``tuned``), over a horizon
at which the best arm is done (``until_done``), and on seeds that did not choose the rate
(``confirmed``). What comes back is an ``xarray.Dataset`` with one axis for each name of the grid.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from bncore import arguments as check
from bncore.lab import _grids
from bncore.lab.fingerprint import folder
from bncore.lab.intervals import Interval, MedianInterval, difference, median_difference
from bncore.lab.sweep import sweep

__all__ = [
    "Interval",
    "MedianInterval",
    "at_best_rates",
    "best",
    "confirmed",
    "difference",
    "median_difference",
    "rounded",
    "study",
    "tuned",
    "until_done",
]

Call = Callable[..., Mapping[str, object]]
Axes = Mapping[str, Sequence[str] | Mapping[str, Sequence]]
Store = str | os.PathLike


def study(
    run: Call,
    grid: Mapping[str, Sequence],
    seeds: Iterable[int],
    *,
    axes: Axes | None = None,
    store: Store | None = None,
    n_jobs: int | None = None,
) -> xr.Dataset:
    """Call a run once for each case of the grid and each seed, and keep what it returns.

    Parameters
    ----------
    run : callable
        From one keyword argument for each name in the grid, and ``seed``, to numbers or arrays by
        name: the same names and shapes in every case.
    grid : mapping of str to sequence of str or float
    seeds : iterable of int
    axes : mapping of str to sequence of str, or to mapping of str to sequence, optional
        For each array that a run returns, the names of its axes; or what stands along each, by name:
        ``{"accuracy": {"steps": [10, 100]}}``.
    store : path, optional
        Folder in which finished runs are kept: a study that was interrupted goes on where it was.
        Studies may share one, as each function with its fixed arguments has a folder of its own in it.
    n_jobs
        As in ``sweep``.

    Returns
    -------
    xarray.Dataset
        For each name that a run returns, an array over the grid, then ``seed``, then its own axes.

    Raises
    ------
    TypeError, ValueError
        As ``sweep``; if runs return other names or shapes than the first one, or arrays whose axes
        are not named or have another number of labels.
    """
    runs = _sweep(run, {**grid, "seed": list(seeds)}, store, n_jobs)
    return _grids.dataset(runs, axes or {}).drop_vars("ran")


def _sweep(run, grid, store, n_jobs):
    """A sweep in the function's own folder of the store."""
    if store is not None:
        store = Path(store) / folder(run)
    return sweep(run, grid, store=store, n_jobs=n_jobs)


def tuned(
    run: Call,
    arms: Mapping[str, Sequence],
    rates: Sequence[float],
    seeds: Iterable[int],
    score: str,
    *,
    smaller: bool,
    over: str = "learning_rate",
    extensions: int = 4,
    axes: Axes | None = None,
    store: Store | None = None,
    n_jobs: int | None = None,
) -> xr.Dataset:
    """A study of arms over rates that goes on until each arm's best rate lies inside its grid.

    Where an arm is best at an end of the grid, its grid goes on beyond that end, by the ratio of the
    last two rates there. Where its median score is no number at any rate, it goes on at both ends.

    Parameters
    ----------
    arms : mapping of str to sequence
        The rest of the grid: each of its cases is one arm.
    rates : sequence of float
        Ascending, positive, at least three.
    score : str
        What an arm is judged by: the name of a number that a run returns.
    smaller : bool
        Whether a smaller score is better.
    over : str
        What a run calls the rate.
    extensions : int
        How often a grid may go on. Where that is not enough, ``best`` says so.
    run, seeds, axes, store, n_jobs
        As in ``study``.

    Returns
    -------
    xarray.Dataset
        As from ``study``, with ``ran``: whether an arm was run at a rate. Where it was not, numbers
        are NaN.

    Raises
    ------
    TypeError, ValueError
        As ``study``, or if rates are not as described.
    """
    rates = check.array("rates", rates, 1).tolist()
    if len(rates) < 3 or not all(0 < low < high for low, high in itertools.pairwise(rates)):
        raise ValueError(f"rates is {rates}, expected at least three, ascending from above 0")
    check.integer("extensions", extensions, least=0)
    seeds = list(seeds)

    def runs(case, rates):
        grid = {**case, over: rates, "seed": seeds}
        return _sweep(run, grid, store, n_jobs)

    kept = runs(arms, rates)
    for _ in range(extensions):
        found = _grids.dataset(kept, axes or {})
        beyond = _grids.beyond(found, score, over, smaller)
        if not beyond:
            break
        for case, rate in beyond:
            kept += runs({name: [value] for name, value in case.items()}, [rate])
    return _grids.dataset(kept, axes or {})


def best(
    found: xr.Dataset, score: str, *, smaller: bool, over: str = "learning_rate"
) -> xr.Dataset:
    """Each arm at the rate at which the median of its score over the seeds is best.

    A score that is NaN where a run was made, as after a divergence, is worse than any number.

    Parameters
    ----------
    found : xarray.Dataset
        From ``study`` or ``tuned``.
    score, smaller, over
        As in ``tuned``.

    Returns
    -------
    xarray.Dataset
        Without the axis ``over``, which becomes a variable: the rate of each arm. ``at_an_end``
        says whether that is the smallest or the largest rate at which the arm was run, so that a
        better one may lie beyond.

    Raises
    ------
    ValueError
        If there is no such score or axis.
    """
    at = _grids.place_of_best(found, score, over, smaller)
    ran = _grids.was_run(found, over)
    first, last = (
        ran.argmax(over),
        ran.sizes[over] - 1 - ran[{over: slice(None, None, -1)}].argmax(over),
    )
    chosen = found.isel({over: at}).reset_coords(over)
    return chosen.assign(at_an_end=(at == first) | (at == last)).drop_vars("ran", errors="ignore")


def until_done(
    runs: Callable[[int], xr.Dataset],
    steps: int,
    score: str,
    *,
    smaller: bool,
    gain: float,
    over: str = "learning_rate",
    doublings: int = 6,
) -> xr.Dataset:
    """Double the number of steps until that improves the best arm's score by less than ``gain``.

    Parameters
    ----------
    runs : callable
        From a number of steps to what ``tuned`` returns.
    steps : int
        The first number of steps.
    score, smaller, over
        As in ``tuned``.
    gain : float
        The least improvement of the best arm's median score that counts.
    doublings : int
        How often the number may be doubled.

    Returns
    -------
    xarray.Dataset
        What ``runs`` returned for each number of steps, along a first axis ``steps``. The best arm
        is done at the last but one.

    Raises
    ------
    ValueError
        If the best arm is not done after so many doublings.
    """
    steps = check.positive_integer("steps", steps)
    found, before = [], None
    for _ in range(check.positive_integer("doublings", doublings) + 1):
        found.append(runs(steps).expand_dims(steps=[steps]))
        medians = best(found[-1].isel(steps=0), score, smaller=smaller, over=over)[score]
        now = float(_grids.worst_last(medians.median("seed"), smaller).min())
        if before is not None and before - now < gain:
            whole = xr.concat(found, "steps", join="outer")
            return whole.assign(ran=whole.ran.fillna(False).astype(bool))
        before, steps = now, 2 * steps
    raise ValueError(
        f"the best arm still improves by {gain:g} or more after {steps // 2} steps, expected it done: "
        "allow more doublings, or hand in a larger gain"
    )


def confirmed(
    run: Call,
    chosen: xr.Dataset,
    seeds: Iterable[int],
    *,
    over: str = "learning_rate",
    axes: Axes | None = None,
    store: Store | None = None,
    n_jobs: int | None = None,
) -> xr.Dataset:
    """Run each arm again at its best rate, on fresh seeds: those that chose the rate flatter it.

    Parameters
    ----------
    chosen : xarray.Dataset
        From ``best``.
    run, seeds, over, axes, store, n_jobs
        As in ``tuned``; the seeds are none of those behind ``chosen``.

    Raises
    ------
    ValueError
        If a seed has been used to choose a rate.
    """
    seeds = list(seeds)
    if used := sorted(set(seeds) & set(chosen.seed.values.tolist())):
        raise ValueError(f"seeds has {used[0]}, which chose the rates, expected fresh ones")
    kept = []
    for case in _grids.cases(chosen[over]):
        arm = {name: [value] for name, value in case.items()}
        rate = chosen[over].sel(case).item()
        kept += _sweep(run, {**arm, over: [rate], "seed": seeds}, store, n_jobs)
    found = _grids.dataset(kept, axes or {})
    return (
        found.isel({over: _grids.was_run(found, over).argmax(over)})
        .reset_coords(over)
        .drop_vars("ran")
    )


def at_best_rates(
    run: Call,
    arms: Mapping[str, Sequence],
    rates: Sequence[float],
    seeds: Iterable[int],
    fresh_seeds: Iterable[int],
    score: str,
    *,
    smaller: bool,
    **options,
) -> dict[str, xr.Dataset]:
    """Tune each arm (``tuned``), and run it at its best rate on fresh seeds (``confirmed``).

    Parameters
    ----------
    run, arms, rates, seeds, score, smaller
        As in ``tuned``.
    fresh_seeds : iterable of int
        None of ``seeds``.
    options
        The rest of what ``tuned`` and ``confirmed`` take, the same for both, and ``extensions``.

    Returns
    -------
    dict
        "tuning" and "fresh".

    Raises
    ------
    TypeError, ValueError
        As ``tuned`` and ``confirmed``.
    """
    seeds, fresh_seeds = list(seeds), list(fresh_seeds)
    if used := sorted(set(seeds) & set(fresh_seeds)):
        raise ValueError(f"fresh_seeds has {used[0]}, one of seeds, expected fresh ones")
    grow = {"extensions": options.pop("extensions")} if "extensions" in options else {}
    tuning = tuned(run, arms, rates, seeds, score, smaller=smaller, **grow, **options)
    over = {"over": options["over"]} if "over" in options else {}
    chosen = best(tuning, score, smaller=smaller, **over)
    return {"tuning": tuning, "fresh": confirmed(run, chosen, fresh_seeds, **options)}


def rounded(found: xr.Dataset, digits: int = 4) -> xr.Dataset:
    """The same to so many significant digits: more would not come out on another processor."""
    digits = check.positive_integer("digits", digits)

    def short(values):
        return np.vectorize(lambda value: float(f"{value:.{digits}g}"), otypes=[float])(values)

    return found.map(lambda array: array if array.dtype == bool else xr.apply_ufunc(short, array))
