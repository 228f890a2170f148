"""Run cases on four processes and write down what each found; in the end two of them go missing.

conftest.py starts this by torchrun and says where: the folder has the cases, and takes what comes out.
A case of two processes runs on the first pair or the second, each a group of its own.
"""

import copy
import datetime
import faulthandler
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bncore.practice.distributed import SyncedBatchNorm, convert, messages

FOLDER = Path(sys.argv[1])
PATIENCE = datetime.timedelta(seconds=5)
PAIRS = [[0, 1], [2, 3]]


def layer_of(case, group):
    layer = SyncedBatchNorm(
        case["batches"][0][0].shape[1], process_group=group, **case["options"]
    ).to(case["dtype"])
    layer.load_state_dict(case["state"])
    return layer.train(case["training"])


def one_layer(case, place, group):
    """What each batch gives on this process, which has the part ``place`` of it."""
    layer, found = layer_of(case, group), []
    for (x, dy), sizes in zip(case["batches"], case["sizes"], strict=True):
        x, dy = (v.split(sizes)[place].detach().clone() for v in (x, dy))
        x.requires_grad_(case["to_x"])
        layer.zero_grad()
        with messages() as sent:
            y = layer(x)
            if y.requires_grad:
                y.backward(dy)
        found.append(
            {
                "y": y.detach(),
                "dx": x.grad,
                "gradients": {name: p.grad for name, p in layer.named_parameters()},
                "state": copy.deepcopy(layer.state_dict()),
                "sent": [tuple(one) for one in sent],
            }
        )
    return found


def one_network(case, rank):
    """Gradients of this process for summed losses, and those that DDP makes of weighted means."""
    sizes = case["sizes"]
    x, labels = (v.split(sizes)[rank] for v in (case["x"], case["labels"]))
    summed = copy.deepcopy(case["model"])
    convert(summed)
    nn.functional.cross_entropy(summed(x), labels, reduction="sum").backward()
    found = {"summed": gradients(summed), "state": summed.state_dict()}
    for name, weight in (("mean", 1), ("weighted", len(sizes) * sizes[rank] / sum(sizes))):
        if not all(sizes):
            continue
        model = copy.deepcopy(case["model"])
        convert(model)
        parallel = DistributedDataParallel(model)
        with messages() as sent:
            (weight * nn.functional.cross_entropy(parallel(x), labels)).backward()
        found[name] = gradients(model)
        found["sent"] = [tuple(one) for one in sent]
    return found


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def said(error, call, *arguments, **options):
    """The words of the error that a call raises; none if it raises none."""
    try:
        call(*arguments, **options)
    except error as raised:
        return str(raised)
    return ""


def refusals(rank, pairs):
    """What the layer says to what it cannot do."""
    layer = SyncedBatchNorm(3).double()
    few = torch.ones((int(rank == 2), 3), dtype=torch.double)
    whole = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    before = copy.deepcopy(layer.state_dict())
    found = {"few": said(ValueError, layer, few)}
    found["moved"] = any((v != before[k]).any() for k, v in layer.state_dict().items())
    (once,) = torch.autograd.grad(layer(whole).square().sum(), whole, create_graph=True)
    found["twice"] = said(RuntimeError, once.sum().backward)
    other = pairs[1 - rank // 2]
    found["outside"] = said(ValueError, SyncedBatchNorm, 3, process_group=other)
    found["no group"] = said(TypeError, SyncedBatchNorm, 3, process_group=[0, 1])
    return found


def copies(rank, pairs):
    """Whether copies and conversions keep the group or take the new one."""
    own = pairs[rank // 2]
    layer = SyncedBatchNorm(3, process_group=own)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    copied = copy.deepcopy(model)
    theirs = nn.Sequential(nn.SyncBatchNorm(3, process_group=own), nn.BatchNorm1d(3))
    convert(theirs)
    found = {
        "shared": copied[0].process_group is own and copied[0] is copied[2],
        "apart": copied[0].weight is not layer.weight,
        "kept": [one.process_group is own for one in theirs],
    }
    convert(theirs, own)
    found["given"] = [one.process_group is own for one in theirs]
    return found


def lost(rank, groups):
    """What a process says whose fellow dies before a forward pass, or stays away from a backward one."""
    x = torch.randn(4, 3, requires_grad=True)
    layer = SyncedBatchNorm(3, process_group=groups[rank // 2])
    layer(x).sum().backward()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    y = layer(x) if rank > 1 else None
    if rank == 3:
        for _ in range(300):
            time.sleep(0.1)
            if (FOLDER / "lost2.pt").exists():
                return
    start = time.monotonic()
    words = said(RuntimeError, y.sum().backward if rank == 2 else layer, *[x][: rank == 0])
    keep({"words": words, "seconds": time.monotonic() - start}, FOLDER / f"lost{rank}.pt")


def keep(value, path):
    part = path.with_suffix(".part")
    torch.save(value, part)
    part.replace(path)


def main():
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    rank = dist.get_rank()
    pairs = [dist.new_group(pair) for pair in PAIRS]
    losing = [dist.new_group(pair, timeout=PATIENCE) for pair in PAIRS]
    cases = torch.load(FOLDER / "cases.pt", weights_only=False)
    layers = {}
    for number, case in enumerate(cases["layers"]):
        pair = PAIRS[number % 2]
        if case["processes"] == 4:
            layers[number] = one_layer(case, rank, None)
        elif rank in pair:
            layers[number] = one_layer(case, pair.index(rank), pairs[number % 2])
    found = {
        "layers": layers,
        "networks": [one_network(case, rank) for case in cases["networks"]],
        "refusals": refusals(rank, pairs),
        "copies": copies(rank, pairs),
    }
    keep(found, FOLDER / f"rank{rank}.pt")
    dist.barrier()
    # torchrun ends the others when it sees one die; they stay until they have written what they say.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    lost(rank, losing)
    os._exit(0)


if __name__ == "__main__":
    faulthandler.dump_traceback_later(120, exit=True)
    main()
