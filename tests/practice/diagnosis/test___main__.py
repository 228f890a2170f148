"""The command: what it reads, what it prints, and with which status it ends."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch

from bncore.lab import data, networks, training
from bncore.practice.diagnosis.__main__ import main, states


@pytest.fixture(scope="module")
def net():
    net = networks.mlp([64, 16, 10], "relu", "batch")
    training.train(net, data.digits(0), 40, 64, 0.1, 0)
    return net


def saved(path, what):
    torch.save(what, path)
    return str(path)


@pytest.mark.parametrize(
    "nest",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"state": {0: torch.ones(1)}}},
        lambda state: {"model_state_dict": {"module": state}},
    ],
)
def test_a_healthy_checkpoint_ends_with_0_wherever_the_state_is(tmp_path, capsys, net, nest):
    assert main([saved(tmp_path / "net.pt", nest(net.state_dict()))]) == 0
    assert capsys.readouterr().out == "1 batch norm examined in a checkpoint: nothing found.\n"


def test_findings_end_with_1_and_come_as_data_too(tmp_path, capsys):
    net = networks.mlp([64, 16, 10], "relu", "batch")
    path = saved(tmp_path / "net.pt", net.state_dict())
    assert main([path]) == 1
    assert "warning: stale-statistics, layer norm1" in capsys.readouterr().out
    assert main([path, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["code"] == "stale-statistics"


def test_momentum_and_eps_are_taken(tmp_path, capsys):
    net = networks.mlp([64, 16, 10], "relu", "batch", momentum=0.001)
    training.train(net, data.digits(0), 40, 64, 0.1, 0)
    path = saved(tmp_path / "net.pt", net.state_dict())
    assert main([path, "--momentum", "0.001"]) == 1
    assert "40 updates with momentum 0.001" in capsys.readouterr().out
    assert main([path, "--eps", "100"]) == 1
    assert "epsilon-rules" in capsys.readouterr().out
    assert main([path, "--eps", "0"]) == 2
    assert "eps is 0.0" in capsys.readouterr().err


def test_two_networks_in_one_file_keep_their_names(net):
    found = states({"student": net.state_dict(), "teacher": net.state_dict()})
    assert "student.norm1.running_mean" in found
    assert len(found) == 2 * len(net.state_dict())


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.path),)


def test_no_code_of_a_file_is_run(tmp_path, capsys):
    path = saved(tmp_path / "evil.pt", {"state_dict": Malicious(tmp_path / "ran")})
    assert main([path]) == 2
    assert "needs code to be read" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["whole model", "text", "no batch norm", "a list", "nothing"])
def test_what_cannot_be_examined_ends_with_2_and_a_sentence(tmp_path, capsys, net, kind):
    path = tmp_path / "net.pt"
    said = {
        "whole model": lambda: (torch.save(net, path), "Save model.state_dict() instead"),
        "text": lambda: (
            path.write_text("hello", encoding="utf-8"),
            "net.pt is no file that torch",
        ),
        "no batch norm": lambda: (saved(path, {"w": torch.ones(1)}), "holds no batch norm"),
        "a list": lambda: (saved(path, [1, 2]), "holds no batch norm"),
        "nothing": lambda: (None, "net.pt: No such file"),
    }[kind]()[1]
    assert main([str(path)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_the_command_itself(tmp_path, net):
    path = saved(tmp_path / "net.pt", net.state_dict())
    run = [sys.executable, "-m", "bncore.practice.diagnosis", path]
    done = subprocess.run(
        run, capture_output=True, text=True, encoding="utf-8", check=False, env=os.environ
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("nothing found.\n")
