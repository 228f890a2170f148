"""What other tools find is recorded of the same patients."""

import numpy as np
import xarray as xr

from bncore.chapters.practice.diagnosis import peers, sick
from bncore.chapters.practice.diagnosis.experiments import ALARMS

NAMES = list(sick.MISTAKES)


def test_the_record_is_of_all_patients():
    record = peers.read()
    assert set(record["versions"]) == {*record["found"], "torch"}
    for found in record["found"].values():
        assert list(found) == NAMES
        for one in found.values():
            assert 0 <= one["seeds"] <= record["seeds"]
            assert bool(one["what"]) == bool(one["seeds"])


def test_a_mistake_is_found_by_its_own_code_and_not_on_the_twin():
    found = np.zeros((10, 4, 2, len(ALARMS)))
    code = {name: ALARMS.index(sick.MISTAKES[name].code) for name in NAMES}
    found[0, :3, 0, code[NAMES[0]]] = 1  # three seeds of four
    found[1, :, :, code[NAMES[1]]] = 1  # on the twin too
    found[2, :, 0, code[NAMES[3]]] = 1  # another code
    rows = xr.Dataset(
        {"found": (("patient", "seed", "course", "code"), found)},
        {"patient": NAMES, "course": ["sick", "twin"], "code": ALARMS},
    )
    shares = peers.shares(rows)
    assert shares["examine"] == [0.75] + 9 * [0.0]
    record = peers.read()
    for tool in record["found"]:
        seeds = [record["found"][tool][name]["seeds"] for name in NAMES]
        assert shares[tool] == [count / record["seeds"] for count in seeds]
