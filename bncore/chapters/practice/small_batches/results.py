"""What the recorded run of the chapter on small batches says, with epsilon chosen as the rates are."""

import xarray as xr

from bncore.chapters.practice.small_batches.experiments import EPSILONS

LARGE = "large epsilon"


def fresh(record: dict) -> xr.Dataset:
    """The fresh runs of all sizes, and "large epsilon": those of the epsilon that is best on the tuning
    seeds, at each size, with the variable ``epsilon``.

    Parameters
    ----------
    record : dict
        Of ``full_size.run``.
    """
    pair, names = record["sizes"], list(EPSILONS)
    tried = pair["tuning"].error.sel(arm=names).median("seed").min("learning_rate")
    ran = tried.notnull().any("arm")
    at = tried.fillna(1.0).argmin("arm")
    values = xr.DataArray(list(EPSILONS.values()), dims="arm", coords={"arm": names})
    one = pair["fresh"].sel(arm=names).assign(epsilon=values).isel(arm=at).where(ran)
    return xr.concat([pair["fresh"], one.drop_vars("arm").expand_dims(arm=[LARGE])], "arm")
