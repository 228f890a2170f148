"""Files that are either complete or not there at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

PART = ".part"


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that readers find the old one, or the new one, never a part of it.

    The content goes to a temporary file in the same folder, is forced onto the disk, and takes the
    name in one step. A process that is killed meanwhile leaves a file that ends in ".part".

    Parameters
    ----------
    path : path
        Its folder is created where there is none.
    write : callable
        Called with a file open for writing bytes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex}{PART}")
    try:
        with open(part, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def discard_parts(path: str | os.PathLike) -> None:
    """Remove what killed writers of this file left behind; no other writer may be at work."""
    path = Path(path)
    prefix = f".{path.name}."
    if path.parent.is_dir():
        for part in path.parent.iterdir():
            if part.name.startswith(prefix) and part.suffix == PART:
                part.unlink(missing_ok=True)
