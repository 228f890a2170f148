"""The same seed gives the same run: in every process, and how nearly on any number of threads."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from bncore.lab import data, fingerprint, networks, training

# Run in a fresh process, and its functions in this one too.
PROGRAM = """
import json, os, random, sys
import numpy as np, torch

random.seed(1), np.random.seed(2), torch.manual_seed(3)

def state():
    return str([random.getstate(), np.random.get_state(), torch.get_rng_state().tolist(),
                torch.get_num_threads(), torch.get_num_interop_threads(),
                torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled(),
                torch.is_grad_enabled(), np.geterr(),
                sorted((key, value) for key, value in os.environ.items() if "THREADS" in key)])

before = state()
import bncore.lab
unchanged = state() == before

sys.path.insert(0, sys.argv[1])
import test_training_determinism
print(json.dumps({"unchanged": unchanged, "runs": test_training_determinism.runs(),
                  "description": test_training_determinism.description()}))
"""


def runs():
    split, images = data.digits(), data.digit_images()
    torch.set_num_threads(1)
    arguments = {"steps": 10, "learning_rate": 0.05, "seed": 4}
    models = {
        "mlp": (networks.mlp((64, 30, 10), "relu", "batch", dropout=0.3), split),
        "vgg": (networks.vgg(11, "batch", width=4, channels=1, size=8, hidden=()), images),
        "residual": (networks.residual(2, 4), images),
    }
    found = {}
    for name, (model, examples) in models.items():
        losses = training.train(model, examples, **arguments).losses
        weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
        found[name] = [hashlib.sha256(losses.tobytes() + weights).hexdigest(), losses.tolist()]
    return found


def description():
    value = ({"a", "b", "c"}, {"x": 1, "y": np.arange(3.0)}, nn.ReLU, nn.ReLU(), runs, losses)
    return fingerprint.describe(value).replace(__name__, "")


def losses(threads, steps, batch_size):
    model = networks.mlp((64, 200, 200, 10), "relu", "batch")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return training.train(model, data.digits(), steps, batch_size, 0.1).losses
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def elsewhere():
    """What a fresh process finds, with another seed for the hashing of text and more threads."""
    environment = os.environ | {"PYTHONHASHSEED": "12", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", PROGRAM, os.path.dirname(__file__)]
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", check=True, timeout=300
    )
    return json.loads(done.stdout)


def test_importing_the_lab_changes_no_random_state_and_no_number_of_threads(elsewhere):
    assert elsewhere["unchanged"]


def test_a_run_is_the_same_to_the_last_bit_in_another_process(elsewhere):
    before = torch.get_num_threads()
    try:
        assert runs() == elsewhere["runs"]
    finally:
        torch.set_num_threads(before)


def test_a_description_is_the_same_in_another_process(elsewhere):
    assert description() == elsewhere["description"]


def test_with_as_many_threads_a_run_is_the_same_to_the_last_bit():
    np.testing.assert_array_equal(losses(2, 2, 500), losses(2, 2, 500))


def test_with_more_threads_a_run_begins_the_same_to_single_precision():
    one, two = losses(1, 2, 500), losses(2, 2, 500)
    # Gradients sum 500 terms of either sign, in another order.
    np.testing.assert_allclose(one, two, rtol=4 * 500**0.5 * np.finfo(np.float32).eps)
