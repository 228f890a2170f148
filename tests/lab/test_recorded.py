import json
import math
import os

import numpy as np
import pytest
import torch

from bncore.lab import recorded


def test_what_is_loaded_is_what_was_saved(tmp_path):
    path = tmp_path / "recorded.json"
    full = {
        "loss": np.array([[1.5, 0.1 + 0.2], [1e-300, 3.0]]),
        "accuracy": np.float32(0.1),
        "grid": (1, 2),
        "tensor": torch.arange(3),
        "nested": {"text": "a", "flag": True, "nothing": None, "zero": -0.0},
    }
    recorded.save(path, configuration={"seed": 3, "rates": [0.1]}, full=full, reduced={"loss": 2})
    run = recorded.load(path)
    assert run["configuration"] == {"seed": 3, "rates": [0.1]}
    assert run["reduced"] == {"loss": 2}
    assert run["full"] == {
        "loss": [[1.5, 0.1 + 0.2], [1e-300, 3.0]],
        "accuracy": float(np.float32(0.1)),
        "grid": [1, 2],
        "tensor": [0, 1, 2],
        "nested": {"text": "a", "flag": True, "nothing": None, "zero": 0.0},
    }


def test_a_run_that_diverged_is_kept_in_a_file_that_any_reader_accepts(tmp_path):
    path = tmp_path / "recorded.json"
    losses = [1.0, math.inf, -math.inf, math.nan]
    recorded.save(path, configuration={}, full={"losses": np.array(losses)}, reduced={})

    def refuse(constant):
        raise AssertionError(constant)

    json.loads(path.read_text(), parse_constant=refuse)
    np.testing.assert_array_equal(recorded.load(path)["full"]["losses"], losses)


def test_a_run_says_where_it_came_from_without_names(tmp_path):
    path = tmp_path / "recorded.json"
    recorded.save(path, configuration={}, full={}, reduced={})
    run = recorded.load(path)
    assert run["versions"].keys() == {"python", "numpy", "scipy", "torch"}
    assert run["versions"]["torch"] == torch.__version__
    assert run["hardware"].keys() == {"architecture", "cores", "threads"}
    assert run["hardware"]["cores"] == os.cpu_count()
    assert os.uname().nodename not in path.read_text()


@pytest.mark.parametrize(
    ("full", "error", "message"),
    [
        ({"a": [1, object()]}, TypeError, r"full\['a'\]\[1\] is a object, expected numbers"),
        ({1: 2}, TypeError, "full has the key 1, expected text as keys"),
        ({"a": {"b": "NaN"}}, TypeError, r"full\['a'\]\['b'\] is the text 'NaN', which stands"),
        ({"a": list(range(30_000))}, ValueError, "takes 1[0-9]{5} bytes, expected at most 100000"),
    ],
)
def test_what_cannot_be_recorded_is_named_and_no_file_written(tmp_path, full, error, message):
    path = tmp_path / "recorded.json"
    with pytest.raises(error, match=message):
        recorded.save(path, configuration={}, full=full, reduced={})
    assert not list(tmp_path.iterdir())


def test_a_missing_run_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"recorded.json does not exist; full_size.py"):
        recorded.load(tmp_path / "recorded.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"configuration": ', r"recorded.json is no JSON \(.*\), expected a recorded run"),
        ('{"full": {}, "configuration": {}}', "lacks reduced, versions, hardware, expected a"),
        ("[]", "lacks configuration, full, reduced, versions, hardware"),
    ],
)
def test_a_file_that_is_no_recorded_run_is_refused(tmp_path, text, message):
    path = tmp_path / "recorded.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        recorded.load(path)
