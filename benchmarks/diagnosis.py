"""How long ``examine`` takes, and what other tools find on the ten sick networks of its chapter.

The time is that of one processor for 10, 100 and 1000 batch norms on 32 batches; with ``--time`` it is
all that is looked at, and needs no other tool.

Each tool gets a patient's network and the batches that its owner has, as its documentation says, and
the same of the patient's healthy twin. What it says of the patient and not of the twin, it has found.

- torch-audit runs one step of training on each batch, and all its rules.
- neural-net-checklist looks at networks before training: a fresh one of the patient's architecture,
  all its checks for classification. That a batch can be learned by heart counts from a loss of
  ``LOSS`` within ``STEPS`` steps; its own threshold, 0.0001, takes these networks many times as long.

Both look for much besides batch norm, and a patient's mistake may lie outside what they are for.

    pip install torch-audit==0.3.0
    pip install --no-deps neural-net-checklist==1.1.0  # would install torchvision, and needs none
    python benchmarks/diagnosis.py

It writes peers.json beside the chapter's code, in some minutes.
"""

import contextlib
import copy
import io
import json
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from bncore.chapters.practice import diagnosis
from bncore.chapters.practice.diagnosis import experiments, sick

SEEDS = range(2)
STEPS, LOSS = 1000, 0.01
PATH = Path(diagnosis.__file__).with_name("peers.json")


def fresh(model, seed):
    """The same architecture with new weights and statistics, its modes and frozen parts as they are."""
    new = copy.deepcopy(model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in new.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return new


def torch_audit(course):
    """The ids of the rules that are broken in a step of training on each batch."""
    from torch_audit import audit_dynamic

    model = copy.deepcopy(course.model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    with audit_dynamic(model, optimizer=optimizer, every_n_steps=1) as auditor:
        for x, y in course.batches:
            optimizer.zero_grad()
            scores = auditor.forward(x)
            auditor.backward(cross_entropy(scores, y % scores.shape[1]))
            auditor.optimizer_step()
    return {finding.rule_id for finding in auditor.finish(report=False).findings}


def checklist(course, seed):
    """The names of the checks that fail."""
    from neural_net_checklist import torch_diagnostics as checks

    x, y = (torch.cat(parts) for parts in zip(*course.batches, strict=True))
    classes = course.model(x).shape[1]
    size = len(course.batches[0][0])
    batch = x, y % classes
    make = partial(fresh, course.model, seed)
    calls = {
        "loss at init": lambda: checks.assert_balanced_classification_cross_entropy_loss_at_init(
            make(), batch, num_classes=classes
        ),
        "calibration at init": lambda: (
            checks.assert_balanced_classification_cross_entropy_init_calibrated(
                make(), batch, num_classes=classes
            )
        ),
        "forward independence": lambda: checks.assert_forward_batch_independence(make, batch),
        "gradients": lambda: checks.assert_non_zero_gradients(make(), batch),
        "backward independence": lambda: checks.assert_backward_batch_independence(make, batch),
        "input matters": lambda: checks.assert_input_independent_baseline_worse(
            make, batch, batch_size=size
        ),
        "overfits a batch": lambda: checks.assert_overfit_to_batch(
            make(), batch, batch_size=size, max_steps=STEPS, threshold=LOSS
        ),
    }
    return {name for name, call in calls.items() if _fails(call)}


def _fails(call):
    silent = io.StringIO()
    try:
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            call()
    except (AssertionError, ValueError, RuntimeError):
        return True
    return False


TOOLS = {
    "torch-audit": lambda course, seed: torch_audit(course),
    "neural-net-checklist": checklist,
}


def time_it():
    """Print how long it takes to examine networks of several depths."""
    for layers in (10, 100, 1000):
        seconds = experiments.on_many_layers(layers, seed=0)["seconds"]
        print(f"{layers:5} batch norms: {seconds:.2f} s")


def main():
    """For each tool and patient, in how many seeds something is found, and what."""
    found = {tool: {} for tool in TOOLS}
    for name in tqdm(sick.MISTAKES):
        seen = {tool: [] for tool in TOOLS}
        for seed in SEEDS:
            patient = sick.patient(name, seed)
            for tool, look in TOOLS.items():
                seen[tool].append(look(patient.sick, seed) - look(patient.twin, seed))
        for tool, each in seen.items():
            found[tool][name] = {
                "seeds": sum(map(bool, each)),
                "what": sorted(set().union(*each)),
            }
    content = {
        "seeds": len(SEEDS),
        "versions": {name: version(name) for name in (*TOOLS, "torch")},
        "found": found,
    }
    PATH.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    time_it()
    if "--time" not in sys.argv:
        main()
