"""Compare the running times of functions fairly: in turns, so that a busy machine slows all alike."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from bncore import arguments as check


def median_seconds(
    functions: Sequence[Callable[[], object]], repeats: int = 50
) -> Float[np.ndarray, "functions"]:
    """Median time of each function over calls that take turns.

    Parameters
    ----------
    functions : sequence of callable
        Called without arguments, once more than ``repeats`` says; the first call is not counted.
    repeats : int
        Number of rounds.

    Raises
    ------
    TypeError
        If repeats is not an integer.
    ValueError
        If repeats is below 1 or there is no function.
    """
    check.positive_integer("repeats", repeats)
    if not functions:
        raise ValueError("functions is empty, expected at least one to time")
    seconds = np.empty((repeats + 1, len(functions)))
    for row in seconds:
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            row[i] = time.perf_counter() - start
    return np.median(seconds[1:], axis=0)
