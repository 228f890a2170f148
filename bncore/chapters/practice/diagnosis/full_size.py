"""The recorded run of the chapter on diagnosis: healthy networks, sick ones and their twins.

``make full CHAPTER=practice/diagnosis`` writes recorded.json again, in 3.6 minutes of one core (9 on a
machine that was busy otherwise); if it is interrupted, it goes on where it was. No seed of the healthy
networks and the graded faults in it has chosen a rule.
"""

from pathlib import Path

import xarray as xr

from bncore.chapters.practice.diagnosis import experiments, graded, healthy, sick
from bncore.lab import studies

CONFIGURATION = {
    "healthy": {"kind": list(healthy.KINDS), "seeds": list(range(5000, 5030))},
    "graded": {
        "fault": list(graded.FAULTS),
        "level": list(range(graded.LEVELS)),
        "seeds": list(range(6000, 6010)),
    },
    "patients": {"patient": [*sick.MISTAKES, *sick.BESIDES], "seeds": list(range(2000, 2020))},
    "curves": 5,
    "many": {"layers": [1000], "seeds": [0]},
}
REDUCED = {
    "healthy": {"kind": ["perceptron", "sequence"], "seeds": [5000]},
    "graded": {"fault": ["pruned", "momentum"], "level": [0, 4], "seeds": [6000]},
    "patients": {"patient": ["momentum", "pairs", "infinity"], "seeds": [2000]},
    "curves": 1,
    "many": {"layers": [10], "seeds": [0]},
}
PATH = Path(__file__).with_name("recorded.json")


def run(configuration: dict, store=None) -> dict:
    """What is found on healthy networks, and on sick ones and their twins, and how long it takes.

    Returns
    -------
    dict
        "healthy", "graded" and "many", as from the functions of ``experiments``; "patients",
        "found" as from ``on_patient`` and the accuracy at the "begin" and "end" of training; and
        "curves", its "loss" and "accuracy" on the first seeds.
    """
    codes, course = {"code": experiments.ALARMS}, {"course": ["sick", "twin"]}
    axes = {
        "found": course | codes,
        "loss": course | {"piece": list(range(experiments.PIECES))},
        "accuracy": course | {"steps": list(range(0, sick.STEPS + 1, sick.EVERY))},
    }
    found = {
        "healthy": _rows(experiments.on_healthy, configuration["healthy"], store, {"found": codes}),
        "graded": _rows(experiments.on_graded, configuration["graded"], store),
        "many": _rows(experiments.on_many_layers, configuration["many"], store),
    }
    rows = _rows(experiments.on_patient, configuration["patients"], store, axes)
    begin, end = (rows.accuracy.isel(steps=step, drop=True) for step in (0, -1))
    found["patients"] = xr.Dataset({"found": rows.found, "begin": begin, "end": end})
    found["curves"] = rows[["loss", "accuracy"]].isel(seed=slice(configuration["curves"]))
    return {name: studies.rounded(some, digits=3) for name, some in found.items()}


def _rows(call, grid, store, axes=None):
    grid = dict(grid)
    seeds = grid.pop("seeds")
    return studies.study(call, grid, seeds, axes=axes, store=store, n_jobs=1)
