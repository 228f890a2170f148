"""Checkpoints of a run: written atomically, and taken up by the run that they belong to only."""

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped, UInt8

from bncore.lab.files import write_atomically

FORMAT = b"bncore checkpoint 1\n"


def save(path: str | os.PathLike, configuration: Mapping[str, str], state: dict) -> None:
    """Write a checkpoint, which replaces the one before in one step.

    Parameters
    ----------
    path : path
    configuration : mapping of str to str
        What the run depends on.
    state : dict
        Tensors, numbers, text, and lists and dicts of them.
    """
    content = io.BytesIO()
    torch.save({"configuration": dict(configuration), "state": state}, content)
    payload = content.getbuffer()

    def write(file):
        file.write(FORMAT)
        file.write(hashlib.sha256(payload).digest())
        file.write(payload)

    write_atomically(path, write)


def load(
    path: str | os.PathLike,
    configuration: Mapping[str, str],
    device: torch.device | None = None,
) -> dict | None:
    """The state that a checkpoint holds, or None where there is no checkpoint.

    Raises
    ------
    ValueError
        If the file is not a complete checkpoint, or belongs to another configuration.
    """
    if not Path(path).exists():
        return None
    with open(path, "rb") as file:
        known = file.read(len(FORMAT)) == FORMAT
        digest, payload = file.read(32), file.read()
    if not known or hashlib.sha256(payload).digest() != digest:
        raise ValueError(
            f"checkpoint {path} is not a complete checkpoint of this version of bncore; give "
            "another path, or remove it to start afresh"
        )
    content = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    differences = _differences(content["configuration"], configuration)
    if differences:
        raise ValueError(
            f"checkpoint {path} belongs to another run: {'; '.join(differences)}; give another "
            "path, or remove it to start afresh"
        )
    return content["state"]


def packed(arrays: Sequence[object], name: str) -> list[UInt8[torch.Tensor, "bytes"]]:
    """Numbers or arrays in a form that a checkpoint can hold, exactly.

    Raises
    ------
    TypeError
        If one is neither a number, nor text, nor an array of them.
    """
    result = []
    for array in arrays:
        file = io.BytesIO()
        try:
            np.save(file, np.asarray(array), allow_pickle=False)
        except ValueError:
            raise TypeError(
                f"{name} returned a {type(array).__name__} that is no array of numbers, which a "
                "checkpoint cannot hold"
            ) from None
        result.append(torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8))
    return result


def unpacked(tensors: Sequence[torch.Tensor]) -> list[Shaped[np.ndarray, "..."]]:
    """What ``packed`` packed."""
    return [np.load(io.BytesIO(tensor.numpy(force=True).tobytes())) for tensor in tensors]


def _differences(there, here):
    found = []
    for name in dict.fromkeys((*there, *here)):
        old, new = there.get(name, "missing"), here.get(name, "missing")
        if old == new:
            continue
        if max(len(old), len(new)) <= 80:
            found.append(f"{name} is {old} there and {new} here")
        else:
            found.append(f"{name} differs")
    return found
