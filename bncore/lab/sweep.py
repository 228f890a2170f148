"""Call a function on a grid of parameters: in turn, in parallel, or on a cluster.

joblib runs the calls, so that where they run is decided outside::

    with joblib.parallel_config(backend="dask"):     # or "ray", or n_jobs=8
        runs = sweep(function, {"learning_rate": [0.1, 1.0], "seed": range(5)}, store="runs")
"""

import inspect
import itertools
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import joblib
import torch
from threadpoolctl import threadpool_limits

from bncore import arguments as check
from bncore import progress
from bncore.lab.files import write_atomically
from bncore.lab.fingerprint import describe, digest

OWNER = "function.txt"


class Run(NamedTuple):
    """One call of a sweep: its parameters by name, and what it returned."""

    parameters: dict[str, object]
    result: object


def sweep(
    function: Callable[..., object],
    grid: Mapping[str, Sequence],
    *,
    store: str | os.PathLike | None = None,
    n_jobs: int | None = None,
    threads: int | None = 1,
) -> list[Run]:
    """Call a function once for each combination of parameters.

    With a store, each finished run is a file of its own, written atomically by the process that
    ran it. A sweep that was interrupted and is called again computes only what is missing, and so
    does one with more values in its grid; no run counts twice.

    On Dask a run whose worker dies is run again on another worker, by Dask itself, and at most
    three times (Dask's setting ``distributed.scheduler.allowed-failures``); a run that had
    finished is then read from the store, if there is one, and else computed again. joblib's own
    process pool does not go on after a worker's death: it raises, and calling again with the same
    store takes up the rest. On a cluster without a shared disk results return over the network and
    are stored where the sweep was called.

    Parameters
    ----------
    function : callable
        Called with one keyword argument for each name in the grid. Fix others by
        ``functools.partial``. Seed what is random within it.
    grid : mapping of str to sequence
        Values to try, by parameter: numbers, text, None, tuples, functions.
    store : path, optional
        Folder of results, by default none. Results are pickled: open only stores that you trust.
    n_jobs : int, optional
        Calls at a time, -1 for one a core. By default what ``joblib.parallel_config`` says, or 1.
    threads : int, optional
        Threads that torch and BLAS may use in each run; None leaves them alone. With a fixed
        number results do not depend on how many runs go on at a time.

    Returns
    -------
    list of Run
        In the order of ``itertools.product(*grid.values())``, whatever finished first.

    Raises
    ------
    TypeError
        If the function is not callable or does not take the grid's parameters, the grid is no
        mapping, values are not a sequence, or one has no description that is the same in every process.
    ValueError
        If the grid is empty, a value occurs twice, or the store holds results of another function
        (or of another version of it, or with other fixed arguments), or a damaged file.
    """
    described = _check(function, grid, n_jobs, threads)
    combinations = [
        dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
    ]
    paths = [None] * len(combinations)
    if store is not None:
        store = Path(store)
        _claim(store, describe(function, "function"))
        names = itertools.product(*described.values())
        paths = [store / f"{digest(repr((list(grid), name)))}.pickle" for name in names]
    results = {}
    for i, path in enumerate(paths):
        if path is not None and path.exists():
            results[i] = _read(path)
    missing = [i for i in range(len(combinations)) if i not in results]
    calls = joblib.Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator_unordered")(
        joblib.delayed(_call)(i, function, combinations[i], paths[i], threads) for i in missing
    )
    for _ in progress.bar(range(len(missing)), "Sweep", "run"):
        i, result = next(calls)
        results[i] = result
        if paths[i] is not None and not paths[i].exists():
            _write(paths[i], result)
    return [Run(parameters, results[i]) for i, parameters in enumerate(combinations)]


def _call(i, function, parameters, path, threads):
    """Run in a worker. Another worker may have finished the same run just before it died."""
    if path is not None and path.exists():
        return i, _read(path)
    try:
        with _limited(threads):
            result = function(**parameters)
    except Exception as error:
        listed = ", ".join(f"{name}={value!r}" for name, value in parameters.items())
        error.add_note(f"in the run with {listed}")
        raise
    if path is not None:
        _write(path, result)
    return i, result


@contextmanager
def _limited(threads) -> Iterator[None]:
    if threads is None:
        yield
        return
    before = torch.get_num_threads()
    with threadpool_limits(threads):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _write(path, result):
    write_atomically(path, lambda file: pickle.dump(result, file))


def _read(path):
    try:
        return pickle.loads(path.read_bytes())
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as a result ({error}); remove it to compute it again"
        ) from error


def _claim(store, owner):
    """Refuse a store of another function; mark a new one."""
    mark = store / OWNER
    if not mark.exists():
        if any(store.glob("*.pickle")):
            raise ValueError(
                f"store {store} holds results but no {OWNER}, expected a store or a new folder"
            )
        write_atomically(mark, lambda file: file.write(owner.encode("utf-8")))
    there = mark.read_text(encoding="utf-8")
    if there != owner:
        raise ValueError(
            f"store {store} holds results of {there.partition(' ')[0]}, expected of {owner.partition(' ')[0]}; "
            "where the names agree, the function's code or its fixed arguments have changed. Give "
            "another store, or remove this one"
        )


def _check(function, grid, n_jobs, threads):
    if not callable(function):
        raise TypeError(f"function is a {check.type_name(function)}, expected a callable")
    if n_jobs is not None and (
        isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs == 0
    ):
        raise ValueError(f"n_jobs is {n_jobs!r}, expected a positive number of calls, or -1")
    if threads is not None:
        check.positive_integer("threads", threads)
    if not isinstance(grid, Mapping):
        raise TypeError(f"grid is a {check.type_name(grid)}, expected values by parameter")
    if not grid:
        raise ValueError("grid is empty, expected at least one parameter with its values")
    described = {}
    for name, values in grid.items():
        if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
            raise TypeError(
                f"grid[{name!r}] is a {check.type_name(values)}, expected a sequence of values"
            )
        if len(values) == 0:
            raise ValueError(f"grid[{name!r}] is empty, expected at least one value")
        described[name] = [describe(value, f"grid[{name!r}]") for value in values]
        for i, text in enumerate(described[name]):
            if text in described[name][:i]:
                raise ValueError(f"grid[{name!r}] holds {values[i]!r} twice, expected once")
    try:
        inspect.signature(function).bind(**dict.fromkeys(grid))
    except TypeError as error:
        raise TypeError(
            f"function cannot be called with the grid's parameters {', '.join(grid)}: {error}"
        ) from None
    except ValueError:
        pass  # A builtin without a signature.
    return described
