"""How long arms are trained before they are compared: until none of them still gains."""

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float

GAIN = 0.01
"""What the mean accuracy of an arm may gain in the second half of the training."""
COUNT = 5


def moments(steps: int) -> tuple[int, ...]:
    """Five moments in the tenth of the steps before their half, and five in the last tenth.

    At a constant rate accuracy goes up and down: five measurements do so less than one.
    """
    every = max(1, steps // (10 * (COUNT - 1)))
    ends = steps // 2, steps
    return tuple(sorted({max(0, end - every * k) for end in ends for k in range(COUNT)}))


def settled(
    values: Float[np.ndarray, "networks moments"], steps: int
) -> dict[str, Float[np.ndarray, "networks"]]:
    """ "half" and "accuracy", the means of what was measured at ``moments`` up to the half, and after."""
    first = np.array(moments(steps)) <= steps // 2
    return {"half": values[:, first].mean(1), "accuracy": values[:, ~first].mean(1)}


def gained(fresh: xr.Dataset) -> xr.DataArray:
    """What the mean accuracy over the seeds gains in the second half of the training, by arm."""
    return (fresh.accuracy - fresh.half).mean("seed")


def until_done(
    run: Callable[[int], Mapping[str, Mapping]], steps: int, doublings: int
) -> dict[str, dict]:
    """Run studies again with twice the steps as long as an arm of any gains more than GAIN.

    Parameters
    ----------
    run : callable
        From a number of steps to studies by name, each with a "fresh" that has "half" and "accuracy".
    steps : int
        The first number of steps.
    doublings : int
        How often it may be doubled.

    Returns
    -------
    dict
        The last studies, each with its number of "steps".
    """
    found = run(steps)
    if doublings and max(gained(one["fresh"]).max() for one in found.values()) > GAIN:
        return until_done(run, 2 * steps, doublings - 1)
    return {name: {**one, "steps": steps} for name, one in found.items()}
