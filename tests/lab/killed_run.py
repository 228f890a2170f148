"""Train in processes that are killed again and again; keep how the last one and an undisturbed one end.

Run by test_checkpoints.py in a process of its own, because it forks, with one thread, because what
forks must not have started others.
"""

import functools
import io
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from bncore.lab import checkpoints, data, files, networks, probes, training

STEPS = 40
SPLIT = data.digits()


def run(path=None):
    model = networks.mlp((64, 64, 10), "relu", "batch", dropout=0.2)
    history = training.train(
        model,
        SPLIT,
        STEPS,
        seed=2,
        record={"accuracy": probes.test_accuracy},
        checkpoint=path,
        checkpoint_every=1,
        optimizer=functools.partial(torch.optim.SGD, momentum=0.9),
    )
    return {
        "model": model.state_dict(),
        "losses": history.losses.tolist(),
        "records": history.records["accuracy"].tolist(),
    }


def child(path, prepare=lambda: None):
    process = os.fork()
    if process == 0:
        prepare()
        run(path)
        os._exit(0)
    return process


def was_killed(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_mid_write(size):
    """Kill this process once it has written so many bytes of its next checkpoint."""

    class File:
        def __init__(self, file):
            self.file, self.left = file, size

        def write(self, content):
            if len(content) > self.left:
                self.file.write(bytes(content)[: self.left])
                self.file.flush()
                die()
            self.left -= len(content)
            return self.file.write(content)

    write = files.write_atomically
    checkpoints.write_atomically = lambda path, f: write(path, lambda file: f(File(file)))


def die_before_naming():
    """Kill this process once it has written its next checkpoint, before it takes its name."""
    os.replace = die


def killed_soon(path, seconds):
    """A process killed at some moment after its first checkpoint."""
    before = stamp(path)
    process = child(path)
    while stamp(path) == before:
        time.sleep(0.001)
        assert os.waitpid(process, os.WNOHANG) == (0, 0), "the run ended without a checkpoint"
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    return process


def stamp(path):
    return path.stat().st_mtime_ns if path.exists() else None


def step(path):
    content = io.BytesIO(path.read_bytes()[len(checkpoints.FORMAT) + 32 :])
    return torch.load(content)["state"]["step"]


def main(path, result):
    generator, kills, steps = random.Random(0), 0, [0]
    while steps[-1] < STEPS:
        kills += was_killed(killed_soon(path, generator.uniform(0, 0.05)))
        steps.append(step(path))
        if steps[-1] > STEPS - 2 or len(steps) > 2:
            break
        size = generator.randrange(path.stat().st_size)
        for prepare in (functools.partial(die_in_mid_write, size), die_before_naming):
            assert was_killed(child(path, prepare))
            assert step(path) == steps[-1], "a part of a checkpoint was taken for a whole one"
            kills += 1
    assert steps == sorted(steps), steps
    resumed = run(path)
    left = [file.name for file in path.parent.iterdir() if file != path]
    found = {"kills": kills, "steps": steps, "left": left, "resumed": resumed, "whole": run()}
    torch.save(found, result)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
