"""Runs that take minutes, kept as small files that say how they came about."""

import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy
import torch

from bncore.lab.files import write_atomically
from bncore.mechanics import _arguments as check

LIMIT = 100_000
PARTS = ("configuration", "full", "reduced", "versions", "hardware")
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def save(
    path: str | os.PathLike, *, configuration: Mapping, full: Mapping, reduced: Mapping
) -> None:
    """Write a recorded run as JSON, with the versions and the kind of hardware it came from.

    Parameters
    ----------
    path : path
    configuration : mapping
        Arguments of the full run, its seeds among them.
    full, reduced : mapping
        Results of the full run and of the reduced one that a test repeats: numbers, text,
        booleans, None, arrays, and lists and mappings of them. NaN and infinity are kept.

    Raises
    ------
    TypeError
        If a value is none of those, or a name is not text.
    ValueError
        If the file would exceed 100 kB.
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
    if len(text) > LIMIT:
        raise ValueError(
            f"the recorded run takes {len(text)} bytes, expected at most {LIMIT}; round its "
            "numbers or keep fewer"
        )
    write_atomically(path, lambda file: file.write(text.encode()))


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
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}), expected a recorded run") from None
    missing = [part for part in PARTS if not isinstance(content, dict) or part not in content]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}, expected a recorded run")
    return _restored(content)


def _plain(value, name):
    if isinstance(value, torch.Tensor):
        value = value.numpy(force=True)
    if isinstance(value, np.generic | np.ndarray):
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
        return {key: _restored(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_restored(entry) for entry in value]
    return _SPECIAL.get(value, value) if isinstance(value, str) else value
