"""Sweeps in turn, in processes, and on a cluster whose workers die."""

import functools
import importlib
import itertools
import os
import pickle
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from uuid import uuid4

import joblib
import pytest
import torch

from bncore import progress
from bncore.lab.sweep import Run, sweep

POSIX = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
GRID = {"a": [1, 2, 3], "b": ["x", None]}
PAIRS = list(itertools.product(GRID["a"], GRID["b"]))


def product(a, b):
    return a, b, 2 * a


def counted(folder):
    """A function that leaves a file for each of its calls that came to its end."""

    def function(a, b):
        if Path(folder).with_name(f"broken-{a}-{b}").exists():
            raise ZeroDivisionError("at the pole")
        Path(folder, f"{a}-{b}-{uuid4().hex}").touch()
        return {"a": a, "b": b}

    return function


def calls(folder):
    return sorted(path.name.rsplit("-", 1)[0] for path in Path(folder).iterdir())


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "calls").mkdir()
    return tmp_path / "calls", tmp_path / "store"


@pytest.mark.parametrize("n_jobs", [None, 1, 3])
def test_each_combination_is_run_once_in_the_order_of_the_grid(folders, n_jobs):
    done, store = folders
    with joblib.parallel_config(backend="threading"):
        runs = sweep(counted(done), GRID, store=store, n_jobs=n_jobs)
    assert runs == [Run({"a": a, "b": b}, {"a": a, "b": b}) for a, b in PAIRS]
    assert calls(done) == sorted(f"{a}-{b}" for a, b in PAIRS)


def test_order_does_not_depend_on_what_finishes_first():
    def slow_at_first(a):
        time.sleep(0.05 * (4 - a))
        return a

    with joblib.parallel_config(backend="threading", n_jobs=4):
        runs = sweep(slow_at_first, {"a": [1, 2, 3, 4]})
    assert [run.result for run in runs] == [1, 2, 3, 4]


def test_without_a_store_every_sweep_computes(folders):
    done, _ = folders
    assert sweep(counted(done), GRID) == sweep(counted(done), GRID)
    assert len(calls(done)) == 2 * len(PAIRS)


def test_a_sweep_that_is_repeated_or_extended_computes_only_what_is_missing(folders):
    done, store = folders
    first = sweep(counted(done), GRID, store=store)
    assert sweep(counted(done), GRID, store=store) == first
    longer = sweep(counted(done), {"a": [0, 3, 1], "b": ["x"]}, store=store)
    assert [run.parameters["a"] for run in longer] == [0, 3, 1]
    assert calls(done) == sorted([*(f"{a}-{b}" for a, b in PAIRS), "0-x"])
    assert not [path for path in store.iterdir() if path.suffix == ".part"]


def add(a=0, b=0):
    return 100 * a + b


def test_a_store_tells_parameters_apart_by_their_names(folders):
    _, store = folders
    for grid, expected in (
        ({"a": [1, 2]}, [100, 200]),
        ({"b": [1, 2]}, [1, 2]),
        ({"a": [1], "b": [2]}, [102]),
        ({"b": [1], "a": [2]}, [201]),
    ):
        assert [run.result for run in sweep(add, grid, store=store)] == expected
    assert len(list(store.glob("*.pickle"))) == 6


def kind(a):
    return type(a).__name__


def test_a_store_tells_values_of_different_types_apart(folders):
    _, store = folders
    values = [1, 1.0, "1", True, None, (1,)]
    for value in values:
        assert sweep(kind, {"a": [value]}, store=store)[0].result == type(value).__name__
    assert len(list(store.glob("*.pickle"))) == len(values)


def test_a_failed_run_says_which_and_loses_none_before_it(folders):
    done, store = folders
    broken = done.with_name("broken-2-x")
    broken.touch()
    with pytest.raises(ZeroDivisionError, match="at the pole") as caught:
        sweep(counted(done), GRID, store=store)
    assert "in the run with a=2, b='x'" in caught.value.__notes__
    assert calls(done) == ["1-None", "1-x"]
    broken.unlink()
    assert len(sweep(counted(done), GRID, store=store)) == len(PAIRS)
    assert len(calls(done)) == len(PAIRS)


def test_a_run_that_another_process_has_stored_meanwhile_is_read(folders):
    done, store = folders
    whole = sweep(counted(done), GRID, store=store)
    hidden = {path: path.read_bytes() for path in store.glob("*.pickle")}
    for path in hidden:
        path.unlink()

    def restored(steps, *_):
        for path, content in hidden.items():
            path.write_bytes(content)
        yield from steps

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "bar", restored)
        assert sweep(counted(done), GRID, store=store) == whole
    assert len(calls(done)) == len(PAIRS)


def test_results_of_workers_on_another_disk_are_stored_where_the_sweep_was_called(
    folders, monkeypatch
):
    done, store = folders
    here = importlib.import_module("bncore.lab.sweep")

    def call(i, function, parameters, path, threads):
        return i, function(**parameters)

    with monkeypatch.context() as patch:
        patch.setattr(here, "_call", call)
        first = sweep(counted(done), GRID, store=store)
    assert sweep(counted(done), GRID, store=store) == first
    assert len(calls(done)) == len(PAIRS)


def test_torch_has_the_threads_asked_for_in_each_run_and_before_and_after_its_own():
    def threads(seed):
        return torch.get_num_threads()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for asked, found in ((1, 1), (2, 2), (None, 3)):
            assert sweep(threads, {"seed": [0]}, threads=asked)[0].result == found
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_store_of_another_function_or_version_or_fixed_argument_is_refused(folders):
    _, store = folders

    def first(a, scale=1):
        return scale * a

    def changed(a, scale=1):
        return scale * a + 1

    grid = {"a": [1, 2]}
    sweep(first, grid, store=store)
    changed.__qualname__ = first.__qualname__
    for function in (product, changed, functools.partial(first, scale=2)):
        message = "store .* holds results of .*first, expected of .*; where the names agree"
        used = {**grid, "b": [1]} if function is product else grid
        with pytest.raises(ValueError, match=message):
            sweep(function, used, store=store)
    assert [run.result for run in sweep(first, grid, store=store)] == [1, 2]


def test_a_folder_of_other_files_is_refused(folders):
    _, store = folders
    store.mkdir()
    (store / "x.pickle").touch()
    with pytest.raises(ValueError, match=r"store .* holds results but no function.txt"):
        sweep(product, GRID, store=store)


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"\x80\x04K", b"cos\nnothing\n.", pickle.dumps(list(range(100)))[:50]]
)
def test_a_damaged_result_is_named(folders, content):
    _, store = folders
    sweep(product, GRID, store=store)
    path = next(store.glob("*.pickle"))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path.name} cannot be read as a result .*; remove it"):
        sweep(product, GRID, store=store)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("function", "grid", "options", "error", "message"),
    [
        (3, GRID, {}, TypeError, "function is a int, expected a callable"),
        (product, [1], {}, TypeError, "grid is a list, expected values by parameter"),
        (product, {}, {}, ValueError, "grid is empty, expected at least one parameter"),
        (product, {"a": []}, {}, ValueError, r"grid\['a'\] is empty, expected at least one value"),
        (product, {"a": 3}, {}, TypeError, r"grid\['a'\] is a int, expected a sequence of values"),
        (product, {"a": "xy"}, {}, TypeError, r"grid\['a'\] is a str, expected a sequence"),
        (product, {"a": [1, 2, 1]}, {}, ValueError, r"grid\['a'\] holds 1 twice, expected once"),
        (product, {"a": [1], "c": [1]}, {}, TypeError, "cannot be called with .* a, c: .* 'b'"),
        (product, {"a": [object()]}, {}, TypeError, r"grid\['a'\] is a object, expected something"),
        (product, GRID, {"n_jobs": 0}, ValueError, "n_jobs is 0, expected a positive number"),
        (product, GRID, {"n_jobs": 1.5}, ValueError, "n_jobs is 1.5, expected a positive number"),
        (product, GRID, {"threads": 0}, ValueError, "threads is 0, expected at least 1"),
    ],
)
def test_bad_arguments_are_named(function, grid, options, error, message):
    with pytest.raises(error, match=message):
        sweep(function, grid, **options)


def traced(folder, seconds):
    """A function that leaves a file at the start and one at the end of each call."""

    def function(i, seed):
        name = f"{i}-{seed}-{os.getpid()}"
        Path(folder, f"start-{name}").touch()
        time.sleep(seconds)
        Path(folder, f"end-{i}-{seed}-{uuid4().hex}").touch()
        return 10 * i + seed

    return function


def starts(folder):
    return [path.name.split("-")[1:] for path in folder.glob("start-*")]


@POSIX
def test_a_killed_worker_of_a_cluster_loses_nothing_and_no_run_counts_twice(folders):
    distributed = pytest.importorskip("dask.distributed")
    done, store = folders
    grid = {"i": range(5), "seed": [0, 1]}
    combinations = list(itertools.product(*grid.values()))
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
    )
    with cluster, distributed.Client(cluster) as client:
        victim, other = client.run(os.getpid).values()

        def kill():
            """In the middle of a run, when the victim has finished another one before."""
            while sum(process == str(victim) for *_, process in starts(done)) < 2:
                if over.wait(0.01):
                    return
            os.kill(victim, signal.SIGKILL)

        over = threading.Event()
        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with joblib.parallel_config(backend="dask"):
                runs = sweep(traced(done, 0.3), grid, store=store)
        finally:
            over.set()
            killer.join()
    assert runs == [Run({"i": i, "seed": seed}, 10 * i + seed) for i, seed in combinations]
    ends = sorted(path.name.split("-")[1:3] for path in done.glob("end-*"))
    assert ends == sorted([str(i), str(seed)] for i, seed in combinations)
    assert len(list(store.glob("*.pickle"))) == len(combinations)
    processes = {process for *_, process in starts(done)}
    assert {str(victim), str(other)} <= processes
    begun = [(i, seed) for i, seed, _ in starts(done)]
    assert len(begun) == len(combinations) + 1, "the run that the victim was in began twice"


@POSIX
def test_a_killed_process_of_joblibs_own_pool_loses_no_finished_run(folders):
    done, store = folders
    flag = done.with_name("killed")

    def function(i):
        if i == 3 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        Path(done, f"{i}-{os.getpid()}-{uuid4().hex}").touch()
        return i**2

    grid = {"i": range(6)}
    with pytest.raises(BrokenProcessPool):
        sweep(function, grid, store=store, n_jobs=2)
    before = {path.name.split("-")[0] for path in done.iterdir()}
    assert "3" not in before
    assert os.getpid() not in {int(path.name.split("-")[1]) for path in done.iterdir()}
    runs = sweep(function, grid, store=store)
    assert [run.result for run in runs] == [i**2 for i in range(6)]
    assert sorted(path.name.split("-")[0] for path in done.iterdir()) == list("012345")
