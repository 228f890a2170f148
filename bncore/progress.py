"""A progress bar for what takes longer than two seconds, silent where TQDM_DISABLE says so."""

import os
from collections.abc import Iterable

from tqdm.auto import tqdm


def bar(iterable: Iterable, description: str, unit: str) -> Iterable:
    """Iterate with a bar that appears after two seconds and leaves nothing behind.

    tqdm's notebook bar does not read the environment variable TQDM_DISABLE, its plain one does;
    here both do.
    """
    silent = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    return tqdm(iterable, desc=description, unit=unit, delay=2, leave=False, disable=silent)
