"""Runs that take minutes, kept as small files that say how they came about."""

import argparse
import functools
import inspect
import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy
import torch
import xarray as xr

from bncore import arguments as check
from bncore.lab.files import write_atomically

LIMIT = 100_000
PARTS = ("configuration", "full", "reduced", "versions", "hardware")
DATASET = "xarray.Dataset"
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def command(
    path: str | os.PathLike,
    run: Callable[..., Mapping],
    *,
    configuration: Mapping,
    reduced: Mapping,
    paper: Mapping | None,
    run_paper: Callable[..., Mapping] | None = None,
    others: Mapping[str, Callable[[], object]] | None = None,
    arguments: Sequence[str] | None = None,
) -> None:
    """The command line of a recorded run, the same for each.

    Without options it runs two configurations, in one thread, and saves them at `path`. With
    ``--paper`` it runs one near the paper's size instead, and saves it as paper.json in the same
    folder, however large; ``--cache FOLDER`` is where the images of that run are kept.

    Parameters
    ----------
    path : path
    run : callable
        From a configuration to results as ``save`` takes them; without ``run_paper`` it also takes
        the folder or None as a second argument. If it takes ``store``, it gets a folder beside
        `path` in which to keep finished runs, so that it goes on after an interruption; the reduced
        run, which is short, gets none.
    configuration, reduced : mapping
        Of the recorded run, and of the part of it that a test repeats.
    paper : mapping or None
        Of the run near the paper's size; without one there is no such option.
    run_paper : callable, optional
        From ``paper`` and the folder or None to results; by default ``run``.
    others : mapping of str to callable, optional
        What to do instead with ``--name``, by name; with a store too. The first line of the
        docstring says what.
    arguments : sequence of str, optional
        By default those of the command line.

    Raises
    ------
    SystemExit
        If the arguments are not as described.
    """
    parser = argparse.ArgumentParser(
        description="Make the recorded run of a chapter again, or run near the paper's size."
    )
    parser.set_defaults(other=None, paper=False, cache=None)
    some = paper is not None or others
    ways = parser.add_mutually_exclusive_group() if some else parser
    if paper is not None:
        ways.add_argument("--paper", action="store_true", help="run near the paper's size")
        parser.add_argument(
            "--cache", metavar="FOLDER", help="of the images that --paper downloads"
        )
    for name, other in (others or {}).items():
        text = (other.__doc__ or "").split("\n")[0]
        ways.add_argument(f"--{name}", dest="other", action="store_const", const=other, help=text)
    options = parser.parse_args(arguments)
    store = Path(path).with_name("runs")

    def stored(call):
        takes = "store" in inspect.signature(call).parameters
        return functools.partial(call, store=store) if takes else call

    run, without_store = stored(run), run
    if options.cache is not None and not options.paper:
        parser.error("--cache is the folder of the images that --paper downloads: give both")
    if options.paper:
        found = (run_paper or run)(paper, options.cache)
        path = Path(path).with_name("paper.json")
        save(path, configuration=paper, full=found, reduced={}, limit=None)
        return
    torch.set_num_threads(1)
    if options.other is not None:
        stored(options.other)()
    else:
        save(
            path,
            configuration=configuration,
            full=run(configuration),
            reduced=without_store(reduced),
        )


def repeats(
    path: str | os.PathLike,
    parts: Mapping[str, Callable[..., Mapping]],
    configuration: Mapping,
    reduced: Mapping,
) -> dict[str, Callable[..., None]]:
    """For each part of a recorded run, what repeats it and keeps the rest: the ``others`` of ``command``.

    Parameters
    ----------
    path : path
        Of the recorded run.
    parts : mapping of str to callable
        From the part's configuration, and a store or None, to its results.
    configuration, reduced : mapping
        As in ``command``, by part; a part that the second lacks has no run that a test repeats.
    """

    def repeat(name, store=None):
        kept = load(path)
        full = {**kept["full"], name: parts[name](configuration[name], store)}
        again = {name: parts[name](reduced[name], None)} if name in reduced else {}
        again = {**kept["reduced"], **again}
        save(path, configuration=configuration, full=full, reduced=again)

    found = {name: functools.partial(repeat, name) for name in parts}
    for name, one in found.items():
        one.__doc__ = f"repeat the part {name!r} of the recorded run, and keep the rest as it is"
    return found


def save(
    path: str | os.PathLike,
    *,
    configuration: Mapping,
    full: Mapping,
    reduced: Mapping,
    limit: int | None = LIMIT,
) -> None:
    """Write a recorded run as JSON, with the versions and the kind of hardware it came from.

    Parameters
    ----------
    path : path
    configuration : mapping
        Arguments of the full run, its seeds among them.
    full, reduced : mapping
        Results of the full run and of the reduced one that a test repeats: numbers, text,
        booleans, None, arrays, datasets of xarray, and lists and mappings of them. NaN and infinity
        are kept.
    limit : int, optional
        Bytes that the file may take; None for any number.

    Raises
    ------
    TypeError
        If a value is none of those, or a name is not text.
    ValueError
        If the file would exceed the limit.
    """
    content = {
        "configuration": _plain(configuration, "configuration"),
        "full": _plain(full, "full"),
        "reduced": _plain(reduced, "reduced"),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "torch": torch.__version__,
        },
        "hardware": {
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
    }
    text = json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n"
    if limit is not None and len(text) > limit:
        raise ValueError(
            f"the recorded run takes {len(text)} bytes, expected at most {limit}; round its "
            "numbers or keep fewer"
        )
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def load(path: str | os.PathLike) -> dict:
    """A recorded run: configuration, full, reduced, versions and hardware.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If the file is not a recorded run.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; full_size.py beside it, run as a module, writes it"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}), expected a recorded run") from None
    missing = [part for part in PARTS if not isinstance(content, dict) or part not in content]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}, expected a recorded run")
    return _restored(content)


def _without_empty_attributes(dataset):
    """What ``Dataset.from_dict`` needs: an array without attributes need not say so."""
    content = dataset.to_dict()
    for array in (content, *content["coords"].values(), *content["data_vars"].values()):
        if not array["attrs"]:
            del array["attrs"]
    return content


def _plain(value, name):
    if isinstance(value, xr.Dataset):
        return {DATASET: _plain(_without_empty_attributes(value), name)}
    if isinstance(value, torch.Tensor) and value.layout == torch.strided:
        value = value.detach().tolist()
    if isinstance(value, np.generic) or type(value) in (np.ndarray, np.memmap):
        value = value.tolist()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else json.dumps(value)
    if isinstance(value, str):
        if value in _SPECIAL:
            raise TypeError(f"{name} is the text {value!r}, which stands for a number in the file")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{name} has the key {key!r}, expected text as keys")
        return {key: _plain(entry, f"{name}[{key!r}]") for key, entry in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(entry, f"{name}[{i}]") for i, entry in enumerate(value)]
    raise TypeError(
        f"{name} is a {check.type_name(value)}, expected numbers, text, arrays, lists or mappings"
    )


def _restored(value):
    if isinstance(value, dict):
        value = {key: _restored(entry) for key, entry in value.items()}
        return xr.Dataset.from_dict(value[DATASET]) if DATASET in value else value
    if isinstance(value, list):
        return [_restored(entry) for entry in value]
    return _SPECIAL.get(value, value) if isinstance(value, str) else value
