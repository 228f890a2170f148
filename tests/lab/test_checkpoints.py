"""Runs that are interrupted, killed and resumed, and checkpoints that must be refused."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from bncore.lab import data, networks, probes, training


class Noisy(nn.Module):
    """Batch norm whose noise comes from a generator of its own, with buffers of either kind."""

    def __init__(self, units):
        super().__init__()
        self.norm = nn.BatchNorm1d(units)
        self.source = torch.Generator().manual_seed(5)
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("level", torch.tensor(0.1), persistent=False)

    def forward(self, x):
        if self.training:
            self.calls += 1
            self.level *= 0.99
        noise = torch.randn(x.shape, generator=self.source)
        return self.norm(x) + self.level * noise


def restless(model, split):
    """A probe that draws random numbers, and lets the model draw some."""
    model(split.x_train[:4])
    return torch.rand(2).numpy()


RECORD = {
    "accuracy": probes.test_accuracy,
    "percentiles": probes.percentiles("activation1", 0),
    "gradients": probes.gradient_norms(examples=50),
    "restless": restless,
}
OPTIMIZERS = {
    "momentum": functools.partial(torch.optim.SGD, momentum=0.9, weight_decay=1e-3),
    "adam": torch.optim.Adam,
}


class Interrupted(Exception):
    pass


def stopping(after):
    """A progress bar that ends the run before its step number ``after``."""

    def bar(steps, description, unit):
        for step in steps:
            if step == after:
                raise Interrupted
            yield step

    return bar


@pytest.fixture(scope="module")
def split():
    whole = data.digits()
    return data.Split(*(tensor[:200] for tensor in whole))


def run(split, path=None, **arguments):
    model = networks.mlp((64, 8, 8, 10), "relu", Noisy, dropout=0.2, seed=1)
    arguments = {
        "steps": 23,
        "batch_size": 32,
        "learning_rate": 0.05,
        "seed": 3,
        "record": RECORD,
        "every": 5,
        "checkpoint": path,
        "checkpoint_every": 4,
        **arguments,
    }
    return model, training.train(model, split, **arguments)


def assert_same(first, second):
    (model, history), (again, same) = first, second
    for (name, value), (_, other) in zip(
        [*model.named_parameters(), *model.named_buffers()],
        [*again.named_parameters(), *again.named_buffers()],
        strict=True,
    ):
        assert torch.equal(value, other), name
    assert history.losses.tobytes() == same.losses.tobytes()
    np.testing.assert_array_equal(history.steps, same.steps)
    for name, values in history.records.items():
        assert values.dtype == same.records[name].dtype
        assert values.tobytes() == same.records[name].tobytes(), name
    assert torch.equal(model.norm1.source.get_state(), again.norm1.source.get_state())


@pytest.fixture(scope="module")
def whole(split):
    return {name: run(split, optimizer=optimizer) for name, optimizer in OPTIMIZERS.items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_keeping_checkpoints_does_not_change_a_run(split, whole, tmp_path, optimizer):
    kept = run(split, tmp_path / "run.pt", optimizer=OPTIMIZERS[optimizer])
    assert_same(whole[optimizer], kept)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stops", [[0], [3], [4], [5], [6], [10], [11, 12, 13], [22], range(23)])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    split, whole, tmp_path, monkeypatch, optimizer, stops
):
    path, arguments = tmp_path / "run.pt", {"optimizer": OPTIMIZERS[optimizer]}
    for step in stops:
        with monkeypatch.context() as patch:
            patch.setattr(training.progress, "bar", stopping(step))
            with pytest.raises(Interrupted):
                run(split, path, checkpoint_every=1 if len(stops) > 3 else 4, **arguments)
        assert path.exists() == (step > 4 or (step > 1 and len(stops) > 3))
        torch.manual_seed(step)
    assert_same(whole[optimizer], run(split, path, **arguments))


def test_a_probe_cannot_advance_the_noise_of_a_module(split):
    def losses(record):
        return run(split, record=record, every=2)[1].losses

    np.testing.assert_array_equal(losses({}), losses({"p": RECORD["percentiles"]}))


def test_a_finished_run_is_read_and_not_repeated(split, whole, tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    run(split, path, optimizer=OPTIMIZERS["adam"])
    monkeypatch.setattr(training._Run, "descend", None)
    monkeypatch.setattr(training._Run, "measure", None)
    assert_same(whole["adam"], run(split, path, optimizer=OPTIMIZERS["adam"]))


def test_resuming_touches_no_other_randomness(split, tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    with monkeypatch.context() as patch:
        patch.setattr(training.progress, "bar", stopping(12))
        with pytest.raises(Interrupted):
            run(split, path)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run(split, path)
    assert torch.equal(torch.rand(3), expected)


KILLED = Path(__file__).parent / "killed_run.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path):
    path, result = tmp_path / "runs" / "run.pt", tmp_path / "result.pt"
    path.parent.mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, KILLED, path, result]
    subprocess.run(command, env=environment, check=True, timeout=300)
    found = torch.load(result)
    assert found["kills"] >= 3
    assert found["steps"][1] > 0
    assert not found["left"]
    whole, resumed = found["whole"], found["resumed"]
    assert resumed["losses"] == whole["losses"]
    assert resumed["records"] == whole["records"]
    for name, value in whole["model"].items():
        assert torch.equal(value, resumed["model"][name]), name


def interrupted(split, path, **arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.progress, "bar", stopping(10))
        with pytest.raises(Interrupted):
            run(split, path, **arguments)


def sum_of_squares(outputs, targets):
    return (outputs**2).sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 24}, "steps is 23 there and 24 here"),
        ({"batch_size": 16}, "batch_size is 32 there and 16 here"),
        ({"learning_rate": 0.06}, "learning_rate is 0.05 there and 0.06 here; optimizer differs"),
        ({"seed": 4}, "seed is 3 there and 4 here"),
        ({"every": 6}, "every is 5 there and 6 here"),
        ({"optimizer": torch.optim.Adam}, "optimizer differs"),
        ({"optimizer": OPTIMIZERS["momentum"]}, "optimizer differs"),
        ({"loss": sum_of_squares}, "loss differs"),
        ({"record": {}}, r"record is list\('accuracy'.* there and list\(\) here"),
    ],
)
def test_a_checkpoint_of_other_arguments_is_refused(split, tmp_path, arguments, message):
    path = tmp_path / "run.pt"
    interrupted(split, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"run.pt belongs to another run: {message}; give another"):
        run(split, path, **arguments)
    assert path.read_bytes() == before


def other_weights(model):
    model.output.bias.data[0] += 1e-6


def other_structure(model):
    model.activation1 = nn.Tanh()


def other_buffer(model):
    model.norm1.level += 0.1


def other_noise(model):
    model.norm1.source.manual_seed(6)


def frozen(model):
    model.linear1.weight.requires_grad_(False)


@pytest.mark.parametrize(
    "change", [other_weights, other_structure, other_buffer, other_noise, frozen]
)
def test_a_checkpoint_of_another_model_is_refused(split, tmp_path, monkeypatch, change):
    path = tmp_path / "run.pt"
    interrupted(split, path)
    mlp = networks.mlp

    def changed(*arguments, **keywords):
        model = mlp(*arguments, **keywords)
        change(model)
        return model

    monkeypatch.setattr(networks, "mlp", changed)
    with pytest.raises(ValueError, match=r"belongs to another run: .*model differs"):
        run(split, path)


@pytest.mark.parametrize("part", range(4))
def test_a_checkpoint_of_other_data_is_refused(split, tmp_path, part):
    path = tmp_path / "run.pt"
    interrupted(split, path)
    parts = [tensor.clone() for tensor in split]
    parts[part].reshape(-1)[-1] += 1
    with pytest.raises(ValueError, match="belongs to another run: split is"):
        run(data.Split(*parts), path)


@pytest.mark.parametrize("length", [0, 1, 20, 52, 1000, -1])
def test_a_truncated_checkpoint_is_refused(split, tmp_path, length):
    path = tmp_path / "run.pt"
    interrupted(split, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"run.pt is not a complete checkpoint .* remove it to"):
        run(split, path)


@pytest.mark.parametrize("place", [0, 30, 100, 0.5, 0.9])
def test_a_checkpoint_with_one_wrong_bit_is_refused(split, tmp_path, place):
    path = tmp_path / "run.pt"
    interrupted(split, path)
    content = bytearray(path.read_bytes())
    content[place if place >= 1 else int(place * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"run.pt is not a complete checkpoint .* remove it to"):
        run(split, path)


def test_another_file_of_torch_is_refused(split, tmp_path):
    path = tmp_path / "run.pt"
    torch.save({"state": {}}, path)
    with pytest.raises(ValueError, match=r"run.pt is not a complete checkpoint"):
        run(split, path)


def test_a_record_that_a_checkpoint_cannot_hold_is_named(split, tmp_path):
    message = r"record\['odd'\] returned a object that is no array of numbers"
    with pytest.raises(TypeError, match=message):
        run(split, tmp_path / "run.pt", record={"odd": lambda model, split: object()})


def test_a_regression_is_resumed_too(tmp_path):
    split = data.gaussian_regression(100, 4, 3)
    path = tmp_path / "run.pt"
    arguments = {"steps": 10, "batch_size": 75, "learning_rate": 0.01, "loss": mse_loss}

    def fitted(**keywords):
        model = networks.deep_linear(4, 3, 6, 8, "batch")
        return training.train(model, split, **arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.progress, "bar", stopping(7))
        with pytest.raises(Interrupted):
            fitted(checkpoint=path, checkpoint_every=2)
    resumed, whole = fitted(checkpoint=path), fitted()
    np.testing.assert_array_equal(resumed.losses, whole.losses)
