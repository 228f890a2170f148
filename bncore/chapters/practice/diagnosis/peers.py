"""What other tools find on the patients, as benchmarks/diagnosis.py has recorded it."""

import json
from pathlib import Path

import xarray as xr

from bncore.chapters.practice.diagnosis import sick

PATH = Path(__file__).with_name("peers.json")


def read() -> dict:
    """The record: "seeds", their number; "versions"; and "found", by tool and patient."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def shares(patients: xr.Dataset) -> dict[str, list[float]]:
    """For ``examine`` and each other tool, in which share of seeds it finds each patient's mistake.

    ``examine`` has found it when the patient's code is in the report and not in that of the twin;
    another tool when it says anything of the patient that it does not say of the twin.
    """
    ours = []
    for name, mistake in sick.MISTAKES.items():
        found = patients.found.sel(patient=name, code=mistake.code)
        ours.append(float((found.sel(course="sick") > found.sel(course="twin")).mean("seed")))
    record = read()
    return {"examine": ours} | {
        tool: [found[name]["seeds"] / record["seeds"] for name in sick.MISTAKES]
        for tool, found in record["found"].items()
    }
