"""Runs that are made again, compared with their record.

Another processor rounds differently, and training multiplies the difference: by little in most runs,
by very much in a few, at rates near the edge of stability and after many steps. Which runs those are
differs from processor to processor. A change of the code moves nearly all of them. So a quantity
repeats if more than half of its runs do, each within a tolerance that is close.

Rounding also decides between rates whose scores are level, and so how far a grid goes on, and at
which rate fresh seeds are run. Only runs at equal rates are compared.
"""

from collections.abc import Collection, Mapping

import numpy as np
import xarray as xr

RATES = ("learning_rate", "step")
NOT_COMPARED = frozenset({"ran", "seconds", *RATES})


def assert_run_again(
    found: Mapping,
    kept: Mapping,
    *,
    rtol: float = 0.01,
    atol: Mapping[str, float] | None = None,
    but: Collection[str] = (),
) -> None:
    """Assert that more than half of the runs of each study repeat, quantity by quantity.

    A run is what stands at one place of a study's grid, with one seed; it repeats if all that it
    measured is within the tolerance. Datasets that stand beside one another are one study.

    Parameters
    ----------
    found, kept : mapping
        The runs made again and the recorded ones: datasets of ``bncore.lab.studies``, nested.
    rtol : float
        Share of a recorded number that it may move.
    atol : mapping of str to float, optional
        By quantity, what a recorded number may move besides.
    but : collection of str
        Quantities that are not compared.
    """
    found, kept = datasets(found), datasets(kept)
    assert found.keys() == kept.keys()
    runs = {}
    for place, theirs in kept.items():
        ours, same = _at_equal_rates(found[place], theirs, place)
        study = place[:-1]
        for name in theirs.data_vars.keys() - NOT_COMPARED - set(but):
            again = _repeats(ours[name], theirs[name], rtol, (atol or {}).get(name, 0))
            compared = xr.ones_like(again) & same
            runs.setdefault((study, name), []).extend(again.values[compared.values].tolist())
    assert {study for study, _ in runs} == {study for (study, _), some in runs.items() if some}
    moved = [
        f"{name} of {'/'.join(study) or 'all'}: {sum(some)} of {len(some)} runs"
        for (study, name), some in sorted(runs.items())
        if some and not sum(some) > len(some) / 2
    ]
    assert not moved, f"At most half of the runs repeat. {'; '.join(moved)}"


def datasets(found, place=()):
    """The datasets of a nested mapping, by the names that lead to them."""
    if isinstance(found, xr.Dataset):
        return {place: found}
    parts = [
        datasets(one, (*place, name))
        for name, one in found.items()
        if isinstance(one, Mapping | xr.Dataset)
    ]
    return {key: value for part in parts for key, value in part.items()}


def _at_equal_rates(ours, theirs, place):
    """Our dataset and whether a run was made in both, on the grid of theirs."""
    assert ours.data_vars.keys() == theirs.data_vars.keys(), place
    for name in theirs.dims:
        if name not in RATES:
            assert ours.sizes[name] == theirs.sizes[name], (place, name)
            assert ours[name].equals(theirs[name]), (place, name)
    grid = [name for name in RATES if name in theirs.dims]
    same = xr.DataArray(True)
    for name in grid:
        same = same & theirs[name].isin(ours[name])
    ours = ours.reindex({name: theirs[name] for name in grid})
    if "ran" in theirs:
        same = same & theirs.ran.astype(bool) & (ours.ran == 1)
    for name in RATES:
        if name not in theirs.dims and name in theirs.variables:
            same = same & (ours[name] == theirs[name])
    return ours, same


def _repeats(ours, theirs, rtol, atol):
    """Whether each run repeats; the axes after that of the seeds are a run's own."""
    assert ours.dims == theirs.dims, theirs.name
    close = np.isclose(ours, theirs, rtol=rtol, atol=atol, equal_nan=True)
    own = theirs.dims[theirs.dims.index("seed") + 1 :] if "seed" in theirs.dims else ()
    return theirs.copy(data=close).all(own)
