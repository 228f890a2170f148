"""How far a running mean is off, and why: noise of the batches, and drift of what it follows."""

import numpy as np
import xarray as xr

from bncore.mechanics import averaging


def errors(found: xr.Dataset, batch_size: int, examples: int = 899) -> xr.Dataset:
    r"""How far a running mean is from the mean over the training set, in deviations: measured, predicted.

    With the weights w of ``averaging.weights`` the running mean is a sum of batch means. Each is the mean
    at its own step plus noise of variance s²/m. Drift is the sum of w times the means at each step, less
    the last mean; noise has the variance ``noise(...)`` s². Root mean squares over the units.

    Parameters
    ----------
    found : Dataset
        Of ``runs.paths``.
    batch_size, examples : int
        Of a batch, and of the training set.
    """
    steps = found.sizes["steps"] - 1
    weights = np.array([averaging.weights(momentum, steps) for momentum in found.momentum.values])
    exact = found.exact.isel(steps=slice(0, steps))
    along = xr.DataArray(
        weights[:, 1:], dims=("momentum", "steps"),
        coords={"momentum": found.momentum, "steps": exact.steps},
    )  # fmt: skip
    now = found.exact.isel(steps=steps, drop=True)

    def size(error):
        return ((error / found.deviations) ** 2).mean("feature") ** 0.5

    drift = size((along * exact).sum("steps") - now)
    of_noise = xr.DataArray(
        [noise(one[1:], batch_size, examples) ** 0.5 for one in weights],
        dims="momentum", coords={"momentum": found.momentum},
    )  # fmt: skip
    measured = size(found.kept - now)
    of_noise = of_noise.expand_dims(batch_size=[batch_size])
    found = xr.Dataset({"measured": measured, "drift": drift, "noise": of_noise})
    return found.transpose("batch_size", "learning_rate", "seed", "layer", "momentum")


def noise(weights: np.ndarray, batch_size: int, examples: int) -> float:
    r"""Variance of a weighted sum of batch means that are drawn without replacement, in units of s².

    Batches of one epoch are parts of one shuffle: a mean has the variance s² (N - m) / (m (N - 1)) and two
    of them the covariance -s² / (N - 1), so that those of an epoch add up to

        s² / (N - 1) (N / m sum of w² - (sum of w)²)

    Parameters
    ----------
    weights : Float[ndarray, "steps"]
        From the oldest batch, the first of an epoch, to the newest.
    batch_size, examples : int
        m and N.
    """
    epoch = examples // batch_size
    parts = [weights[i : i + epoch] for i in range(0, len(weights), epoch)]
    total = sum(examples / batch_size * (one**2).sum() - one.sum() ** 2 for one in parts)
    return float(total / (examples - 1))
