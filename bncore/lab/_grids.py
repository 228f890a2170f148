"""What a study keeps of its runs: an axis for each name of the grid, and where an arm was run."""

import itertools
from collections.abc import Mapping

import numpy as np
import xarray as xr


def dataset(runs, axes):
    """Runs as a dataset over all values of their parameters, numbers in order; ``ran`` says which."""
    values = {}
    for name in runs[0].parameters:
        seen = list(dict.fromkeys(one.parameters[name] for one in runs))
        values[name] = seen if isinstance(seen[0], str) or name == "seed" else sorted(seen)
    shape = tuple(map(len, values.values()))
    first = {name: np.asarray(value) for name, value in runs[0].result.items()}
    arrays = {name: np.full((*shape, *part.shape), np.nan) for name, part in first.items()}
    ran = np.zeros(shape, bool)
    for one in runs:
        at = tuple(values[name].index(value) for name, value in one.parameters.items())
        ran[at] = True
        if set(one.result) != set(first):
            raise ValueError(
                f"the run with {one.parameters} returns {', '.join(one.result)}, expected "
                f"{', '.join(first)}, as the first one does"
            )
        for name, array in arrays.items():
            part, own = np.asarray(one.result[name]), tuple(axes.get(name, ()))
            if part.shape != first[name].shape or part.ndim != len(own):
                raise ValueError(
                    f"{name} has shape {part.shape} in the run with {one.parameters}, expected "
                    f"{first[name].shape} with the axes {own}: name them by axes="
                )
            array[at] = part
    found = {name: ((*values, *axes.get(name, ())), array) for name, array in arrays.items()}
    return xr.Dataset(
        {**found, "ran": (tuple(values), ran)}, coords={**values, **_labels(first, axes)}
    )


def _labels(arrays, axes):
    """What stands along the axes of the arrays of a run, where that is said."""
    known = {}
    for name, array in arrays.items():
        named = axes.get(name, ())
        if not isinstance(named, Mapping):
            continue
        for (axis, labels), size in zip(named.items(), array.shape, strict=True):
            labels = list(labels)
            if len(labels) != size:
                raise ValueError(
                    f"axes[{name!r}][{axis!r}] has {len(labels)} labels, expected {size}, as many as "
                    f"there are values of {name} along it"
                )
            if known.setdefault(axis, labels) != labels:
                raise ValueError(
                    f"axes[{name!r}][{axis!r}] is {labels}, expected {known[axis]}, as for another array"
                )
    return known


def was_run(found, over):
    """Whether each arm was run at each rate."""
    if "ran" in found:
        return found.ran.any("seed") if "seed" in found.ran.dims else found.ran
    return xr.ones_like(found[over], bool)


def worst_last(scores, smaller):
    """The scores such that smaller is better, infinite where there is no number."""
    return (scores if smaller else -scores).fillna(np.inf)


def place_of_best(found, score, over, smaller):
    """For each arm, where along ``over`` the median of its score is best."""
    return _medians(found, score, over, smaller).argmin(over)


def _medians(found, score, over, smaller):
    """The median of the score, such that smaller is better: infinite without a run or a number."""
    for name, known in ((score, found.data_vars), (over, found.dims), ("seed", found.dims)):
        if name not in known:
            raise ValueError(
                f"found lacks {name!r}, expected it among {', '.join(map(str, known))}"
            )
    medians = worst_last(found[score], smaller).median("seed")
    return medians.where(was_run(found, over), np.inf)


def cases(array):
    """Each combination of the coordinates of an array, by name."""
    names = array.dims
    for values in itertools.product(*(array[name].values.tolist() for name in names)):
        yield dict(zip(names, values, strict=True))


def beyond(found, score, over, smaller):
    """The arms whose best rate is at an end of their grid, each with the rate beyond it.

    An arm without a number at any rate counts at both ends: nothing says at which its rates begin.
    """
    medians, ran = _medians(found, score, over, smaller), was_run(found, over)
    at = medians.argmin(over)
    result = []
    for case in cases(at):
        tried = found[over].values[ran.sel({k: v for k, v in case.items() if k in ran.dims}).values]
        chosen = found[over].values[at.sel(case).item()]
        nowhere = medians.sel(case).min() == np.inf
        if nowhere or chosen == tried[0]:
            result.append((case, short(tried[0] ** 2 / tried[1])))
        if nowhere or chosen == tried[-1]:
            result.append((case, short(tried[-1] ** 2 / tried[-2])))
    return result


def short(rate):
    """Three digits, as people write rates."""
    return float(f"{rate:.3g}")
