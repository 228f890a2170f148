"""The recorded runs of the chapter on small batches: test error against batch size, for each remedy.

``make full CHAPTER=practice/small_batches`` writes recorded.json again, in some twenty minutes on one
core; if it is interrupted, it goes on where it was.
"""

from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from bncore.chapters.practice.small_batches import experiments
from bncore.lab import studies
from bncore.lab.fingerprint import folder
from bncore.lab.sweep import sweep

CONFIGURATION = {
    "learning_rates": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
    "seeds": list(range(13, 18)),
    "fresh_seeds": list(range(18, 38)),
    "arms": list(experiments.ARMS),
    "batch_sizes": [1, 2, 4, 8, 16, 32, 64],
    "examples": [40960, 40960, 40960, 20480, 20480, 40960, 81920],
    "accumulated_examples": 81920,
    "unlike": {
        "arms": ["batch norm", "renormalised"],
        "batch_sizes": [32],
        "examples": [40960],
        "learning_rates": [0.01, 0.03, 0.1, 0.3, 1.0],
    },
}
REDUCED = {
    "learning_rates": [0.1, 0.7, 5.0],
    "seeds": [0],
    "fresh_seeds": [1, 2],
    "arms": ["batch norm", "epsilon 1", "renormalised"],
    "batch_sizes": [16],
    "examples": [320],
    "accumulated_examples": 320,
    "unlike": {
        "arms": ["batch norm"],
        "batch_sizes": [32],
        "examples": [640],
        "learning_rates": [0.1, 0.7, 5.0],
    },
}
PATH = Path(__file__).with_name("recorded.json")


def run(configuration: dict, cache=None, store=None) -> dict:
    """Test error of each arm at each batch size, at its best rate.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION``, with the examples that a network sees at each batch size, and where
        gradients are accumulated; grids go on beyond an end at which an arm is best. Batches of one
        are for ``experiments.OF_ONE``.
    cache
        Not used: the digits need no download.
    store : path, optional
        Folder in which finished runs are kept.

    Returns
    -------
    dict
        "sizes" and "unlike" (on batches of two digits), each a dict of "tuning" and "fresh", over arm,
        batch size and seed. "recalibrated" is an arm there: batch norm with the statistics of the
        whole training set.
    """
    c = configuration
    found = {}
    for name, part in (("sizes", c), ("unlike", {**c, **c["unlike"]})):
        tuning, fresh = {}, {}
        for m, of_size in zip(part["batch_sizes"], part["examples"], strict=True):
            for arm in part["arms"]:
                if m == 1 and arm not in experiments.OF_ONE:
                    continue
                examples = c["accumulated_examples"] if arm == "accumulated" else of_size
                call = partial(_train, name, arm, m, examples, store)
                tuned = _by_score(arm, m, _tuned(call, part, _scores(name, arm)))
                for case, rows in tuned.items():
                    rate = _best(rows, "error")
                    again = {rate: call([(rate, seed) for seed in c["fresh_seeds"]])[rate]}
                    fresh[case] = _by_score(arm, m, again)[case]
                tuning |= tuned
        pair = {"tuning": _dataset(tuning)[["error", "ran"]], "fresh": _dataset(fresh)}
        chosen = pair["fresh"]
        at = chosen.ran.argmax("learning_rate")
        at_best = chosen.isel(learning_rate=at).reset_coords("learning_rate")
        at_best["learning_rate"] = at_best.learning_rate.where(at_best.ran)
        pair["fresh"] = at_best.drop_vars("ran")
        found[name] = {key: studies.rounded(some) for key, some in pair.items()}
    return found


def _scores(part, arm):
    return ("error", "recalibrated") if arm == "batch norm" and part != "unlike" else ("error",)


def _train(part, arm, batch_size, examples, store, runs):
    """What the experiment returns for these runs, by rate and seed."""
    if part == "unlike":
        one, case = partial(experiments.unlike, examples=examples), {"arm": [arm]}
    else:
        one = partial(experiments.trained, examples=examples)
        case = {"arm": [arm], "batch_size": [batch_size]}
    where = None if store is None else Path(store) / folder(one)
    result = sweep(one, {**case, "runs": [tuple(runs)]}, store=where, n_jobs=1)[0].result
    found = {}
    for place, (rate, seed) in enumerate(runs):
        row = {name: float(values[place]) for name, values in result.items()}
        found.setdefault(rate, {})[seed] = row
    return found


def _tuned(call, c, scores, extensions=3):
    """Rows by rate and seed, on a grid that goes on until its ends are worse in each score."""
    rates = list(c["learning_rates"])
    found = call([(rate, seed) for rate in rates for seed in c["seeds"]])
    for _ in range(extensions):
        rates = sorted(found)
        best = {_best(found, score) for score in scores}
        beyond = [rates[0] ** 2 / rates[1]] if rates[0] in best else []
        beyond += [rates[-1] ** 2 / rates[-2]] if rates[-1] in best else []
        if not beyond:
            break
        beyond = [float(f"{rate:.2g}") for rate in beyond]
        found |= call([(rate, seed) for rate in beyond for seed in c["seeds"]])
    return dict(sorted(found.items()))


def _best(rows, score):
    """The rate at which the median over the seeds is least."""
    return min(rows, key=lambda rate: np.median([row[score] for row in rows[rate].values()]))


def _by_score(arm, m, rows):
    """The rows of an arm; and those of batch norm once more, with recalibrated statistics."""
    found = {(arm, m): rows}
    if arm == "batch norm" and "recalibrated" in next(iter(rows[next(iter(rows))].values())):
        found["recalibrated", m] = {
            rate: {seed: {**row, "error": row["recalibrated"]} for seed, row in seeds.items()}
            for rate, seeds in rows.items()
        }
    return found


def _dataset(cases):
    """The rows by arm, batch size, rate and seed; NaN where there was no run, as ``ran`` says."""
    arms, sizes = (list(dict.fromkeys(case[i] for case in cases)) for i in (0, 1))
    rates = sorted({rate for rows in cases.values() for rate in rows})
    first = next(iter(cases.values()))
    seeds = list(next(iter(first.values())))
    names = next(iter(next(iter(first.values())).values()))
    axes = {"arm": arms, "batch_size": sizes, "learning_rate": rates, "seed": seeds}
    shape = tuple(map(len, axes.values()))
    values = {name: np.full(shape, np.nan) for name in names}
    ran = np.zeros(shape[:-1], bool)
    for (arm, m), rows in cases.items():
        for rate, by_seed in rows.items():
            at = arms.index(arm), sizes.index(m), rates.index(rate)
            ran[at] = True
            for place, row in enumerate(by_seed.values()):
                for name, value in row.items():
                    values[name][(*at, place)] = value
    data = {name: (tuple(axes), array) for name, array in values.items()}
    return xr.Dataset(data | {"ran": (tuple(axes)[:-1], ran)}, axes)
