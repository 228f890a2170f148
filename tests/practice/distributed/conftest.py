"""Four processes are started once for all tests of this folder, with the cases that they run."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from torch import nn

ROOT = Path(__file__).parents[3]
PROGRAM = Path(__file__).with_name("four_processes.py")
SHAPES = [(), (5,), (3, 2), (2, 1, 3), (1, 2, 2, 2)]


def layer_case(seed, processes=None, dtype=torch.double, far=0.0, to_x=True, training=True):
    """Two batches, each divided at random, and a layer whose state has moved."""
    rng = torch.Generator().manual_seed(seed)

    def drawn(low, high):
        return int(torch.randint(low, high + 1, (), generator=rng))

    def numbers(*shape, kind=torch.double):
        return torch.randn(*shape, generator=rng, dtype=torch.double).to(kind)

    features, axes = drawn(1, 5), SHAPES[drawn(0, len(SHAPES) - 1)]
    processes = processes or (2, 4)[seed % 2]
    options = {
        "eps": (1e-5, 1e-2)[drawn(0, 1)],
        "momentum": (0.1, 1.0, None)[drawn(0, 2)],
        "affine": drawn(0, 3) > 0,
        "track_running_stats": drawn(0, 3) > 0,
    }
    state = {"weight": numbers(features), "bias": numbers(features)} if options["affine"] else {}
    if options["track_running_stats"]:
        state["running_mean"], state["running_var"] = numbers(features), numbers(features).exp()
        state["num_batches_tracked"] = torch.tensor(drawn(0, 5))
    batches, sizes = [], []
    for _ in range(2):
        m, shares = drawn(2, 20), torch.rand(processes, generator=rng) ** 3
        places = torch.multinomial(shares, m, replacement=True, generator=rng)
        sizes.append(torch.bincount(places, minlength=processes).tolist())
        x = numbers(features, 1, *[1] * len(axes)) + numbers(features, m, *axes) + far
        batches.append([v.transpose(0, 1).to(dtype) for v in (x, numbers(*x.shape))])
    half = dtype in (torch.half, torch.bfloat16)
    return {
        "batches": batches,
        "sizes": sizes,
        "processes": processes,
        "options": options,
        "dtype": torch.float if half else dtype,
        "state": state,
        "to_x": to_x,
        "training": training,
        "far": far,
    }


def network_case(sizes):
    torch.manual_seed(sum(sizes))
    return {
        "model": nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 6),
            nn.BatchNorm1d(6),
            nn.Tanh(),
            nn.Linear(6, 3),
        ).double(),
        "x": torch.randn(sum(sizes), 1, 5, 5, dtype=torch.double),
        "labels": torch.randint(3, (sum(sizes),)),
        "sizes": sizes,
    }


def all_cases():
    return {
        "layers": [
            *map(layer_case, range(60)),
            *(layer_case(100 + seed, far=1e6) for seed in range(8)),
            *(layer_case(200 + seed, dtype=torch.float) for seed in range(8)),
            *(layer_case(300 + seed, dtype=torch.half) for seed in range(6)),
            *(layer_case(400 + seed, dtype=torch.bfloat16) for seed in range(6)),
            *(layer_case(500 + seed, to_x=False) for seed in range(6)),
            *(layer_case(600 + seed, training=False) for seed in range(12)),
        ],
        "networks": [network_case(sizes) for sizes in ([9, 2, 3, 4], [7, 0, 1, 5], [4, 4, 4, 4])],
    }


def run_processes(folder):
    """Have four processes run the cases that the folder has; they leave their results there."""
    torch.save(all_cases(), folder / "cases.pt")
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    loops = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if loops:
        environment["GLOO_SOCKET_IFNAME"] = loops[0]
    address = ["--standalone", "--local-addr", "127.0.0.1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *address, "--nproc-per-node", "4"]
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*torchrun, str(PROGRAM), str(folder)],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            # The programs end by themselves before that, and torchrun with them.
            process.wait(150)
        except BaseException:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            raise
    wanted = [*(f"rank{rank}.pt" for rank in range(4)), "lost0.pt", "lost2.pt"]
    missing = [name for name in wanted if not (folder / name).exists()]
    if missing:
        log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        pytest.fail(f"four processes left no {', '.join(missing)}:\n{log[-6000:]}", pytrace=False)


@pytest.fixture(scope="session")
def together(tmp_path_factory):
    """The cases, what the four processes found in each, and what was said when two went missing."""
    if os.name == "nt":
        pytest.skip("torchrun needs libuv, which torch for Windows is built without")
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "four_processes"
    folder.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            run_processes(folder)
            (folder / "done").touch()

    def read(name):
        return torch.load(folder / f"{name}.pt", weights_only=False)

    cases = read("cases")
    return SimpleNamespace(
        layers=cases["layers"],
        networks=cases["networks"],
        found=[read(f"rank{rank}") for rank in range(4)],
        lost=[read("lost0"), read("lost2")],
    )
