"""Train a network and keep what was measured on the way.

Gradient descent on batches or the whole set; the same seed gives the same run, also if the run was
interrupted and resumed from a checkpoint.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn
from torch.nn.functional import cross_entropy

from bncore import arguments as check
from bncore import progress, tensors
from bncore.lab import checkpoints
from bncore.lab.batches import Batches
from bncore.lab.data import Split
from bncore.lab.files import discard_parts
from bncore.lab.fingerprint import describe, digest, qualified_name
from bncore.lab.modes import prepare_training
from bncore.lab.probes import Probe

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class History(NamedTuple):
    """What was measured in one run of training.

    Attributes
    ----------
    losses : Float[ndarray, "steps"]
        Loss of each step's batch, before the step; by default mean cross-entropy in nats. Not
        finite once training has diverged.
    steps : Int[ndarray, "records"]
        Number of steps taken when the probes were called: 0, every, 2 every, ..., and the last.
    records : dict of str to Float[ndarray, "records *_"]
        What each probe returned, by its name.
    """

    losses: Float[np.ndarray, "steps"]
    steps: Int[np.ndarray, "records"]
    records: dict[str, Float[np.ndarray, "records *_"]]


def train(
    model: nn.Module,
    split: Split,
    steps: int,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    seed: int = 0,
    record: Mapping[str, Probe] | None = None,
    *,
    every: int = 10,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    loss: Loss | None = None,
    device: str | torch.device | None = None,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 100,
) -> History:
    """Train a network in place on batches drawn without replacement, epoch after epoch.

    The model is put in training mode. A batch norm that was frozen stays frozen, its statistics as
    they are: freeze one by ``model.norm1.eval()``, and its scale and shift by
    ``model.norm1.requires_grad_(False)``. More precisely, a model in training mode keeps the modes
    of all its modules; in a model in evaluation mode, batch norms whose parameters do not learn
    stay in it.

    With a checkpoint, a run that was interrupted, even killed while it wrote, goes on from its
    last complete checkpoint, and ends exactly as if it had not been interrupted: weights, buffers,
    losses and records are the same to the last bit. What the checkpoint keeps is the model's
    parameters, buffers and ``torch.Generator`` attributes, the optimiser, the order of the
    batches, torch's random numbers, and what was measured; what a model or a probe remembers in
    any other way is not kept. Call ``train`` again with a model made in the same way.

    On one machine and with one number of threads the same arguments give the same bits in every
    process. Another number of threads, another processor or another version of torch adds float32
    numbers in another order. With two threads instead of one, losses of a fully connected network
    with batch norm stayed within a relative 1e-6 over 100 steps, and those of a VGG-11 with batch
    norm within 1e-6 over the first ten, but 4 % apart ten steps later, because training amplifies
    differences. On CUDA the bits repeat only under ``torch.use_deterministic_algorithms(True)``.

    Parameters
    ----------
    model : nn.Module
        From examples to one score a class, or to whatever the loss compares with the targets.
    split : Split
    steps : int
        Number of gradient steps.
    batch_size : int
        At least 2, because a batch norm needs two values, and at most the training set, with which
        each step is one of full gradient descent.
    learning_rate : float
        Positive.
    seed : int
        Of the order of the batches and of anything random in the model. Nothing outside the
        training is reseeded.
    record : mapping of str to probe, optional
        What to measure, see ``bncore.lab.probes``; each probe is a function of (model, split).
    every : int
        Steps between two records.
    optimizer : callable
        Called as ``optimizer(parameters, lr=learning_rate)``.
    loss : callable, optional
        From (outputs, targets) of a batch to a scalar; by default mean cross-entropy.
    device : str or torch.device, optional
        "cpu" or "cuda": the model is moved there and stays there, the data are copied. By default
        where the model is.
    checkpoint : path, optional
        File to keep the state of the run in, and to resume it from if it is there.
    checkpoint_every : int
        Steps between two checkpoints; one more is written at the end.

    Returns
    -------
    History

    Raises
    ------
    TypeError
        If a number is of the wrong type, a part of the split holds no real numbers, a probe or the
        loss is not callable, or the loss does not return a tensor.
    ValueError
        If a number is outside its range, the split is not finite, targets do not fit the loss, the device is unknown or
        absent, the loss is not a scalar, or the checkpoint is damaged or belongs to a run with
        other arguments, other initial weights, or other data.
    """
    record = dict(record or {})
    split = _tensors(split, model)
    _check(split, steps, batch_size, learning_rate, every, record, loss, checkpoint_every)
    device = _device(device, model)
    model.to(device)
    prepare_training(model)
    split = Split(*(tensor.to(device) for tensor in split))
    descent = optimizer(model.parameters(), lr=learning_rate)
    batches = Batches(len(split.x_train), batch_size, seed)
    run = _Run(model, split, descent, loss or cross_entropy, batches, record, steps)
    with _seeded(seed, device):
        if checkpoint is not None:
            configuration = _configuration(
                run,
                {
                    "steps": steps,
                    "batch_size": batch_size,
                    "learning_rate": float(learning_rate),
                    "seed": seed,
                    "every": every,
                    "device": device.type,
                },
            )
            run.restore(checkpoints.load(checkpoint, configuration, torch.device("cpu")))
            discard_parts(checkpoint)
        start = run.step
        for step in progress.bar(range(start, steps), "Training", "step"):
            if checkpoint is not None and step > start and step % checkpoint_every == 0:
                checkpoints.save(checkpoint, configuration, run.state())
            if step % every == 0:
                run.measure()
            run.descend()
        if not run.finished:
            run.measure()
            run.finished = True
            if checkpoint is not None:
                checkpoints.save(checkpoint, configuration, run.state())
    return run.history()


class _Run:
    """A run of training as far as it has come."""

    def __init__(self, model, split, descent, loss, batches, record, steps):
        self.model, self.split, self.descent = model, split, descent
        self.loss, self.batches, self.record = loss, batches, record
        self.device = split.x_train.device
        self.step, self.finished = 0, False
        self.losses, self.taken = np.empty(steps), []
        self.records = {name: [] for name in record}

    def descend(self):
        batch = next(self.batches).to(self.device)
        outputs = self.model(self.split.x_train[batch])
        loss = self.loss(outputs, self.split.y_train[batch])
        _check_scalar(loss)
        self.descent.zero_grad()
        loss.backward()
        self.descent.step()
        self.losses[self.step] = loss.item()
        self.step += 1

    def measure(self):
        """Call the probes, without their random numbers or modes changing the run."""
        modes = {module: module.training for module in self.model.modules()}
        generators = {key: g.get_state() for key, g in _generators(self.model).items()}
        with torch.random.fork_rng(devices=_cuda(self.device)):
            self.taken.append(self.step)
            for name, probe in self.record.items():
                self.records[name].append(probe(self.model, self.split))
                for module, mode in modes.items():
                    module.training = mode
        for key, generator in _generators(self.model).items():
            if key in generators:
                generator.set_state(generators[key])

    def history(self):
        records = {name: np.array(values) for name, values in self.records.items()}
        return History(self.losses, np.array(self.taken), records)

    def state(self):
        cuda = self.device.type == "cuda"
        return {
            "step": self.step,
            "finished": self.finished,
            "model": self.model.state_dict(),
            "buffers": dict(self.model.named_buffers()),
            "generators": {key: g.get_state() for key, g in _generators(self.model).items()},
            "descent": self.descent.state_dict(),
            "batches": self.batches.state(),
            "random": torch.default_generator.get_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
            "losses": torch.from_numpy(self.losses[: self.step]),
            "taken": self.taken,
            "records": {
                name: checkpoints.packed(values, f"record[{name!r}]")
                for name, values in self.records.items()
            },
        }

    def restore(self, state):
        if state is None:
            return
        self.step, self.finished = state["step"], state["finished"]
        self.model.load_state_dict(state["model"])
        for name, buffer in self.model.named_buffers():
            buffer.copy_(state["buffers"][name])
        for key, generator in _generators(self.model).items():
            generator.set_state(state["generators"][key])
        self.descent.load_state_dict(state["descent"])
        self.batches.restore(state["batches"])
        torch.default_generator.set_state(state["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)
        self.losses[: self.step] = state["losses"].numpy()
        self.taken = state["taken"]
        self.records = {
            name: checkpoints.unpacked(values) for name, values in state["records"].items()
        }


def _tensors(split, model):
    x_train = tensors.examples("x_train", split.x_train, model)
    kind = {"dtype": x_train.dtype, "device": x_train.device}
    x_test = tensors.tensor("x_test", split.x_test, **kind, of="x_train")
    tensors.finite("x_test", x_test)
    y_train, y_test = (tensors.targets(n, getattr(split, n), **kind) for n in ("y_train", "y_test"))
    found = Split(x_train, y_train, x_test, y_test)
    for part in ("train", "test"):
        x, y = getattr(found, f"x_{part}"), getattr(found, f"y_{part}")
        if y.ndim == 0 or len(x) != len(y):
            raise ValueError(
                f"y_{part} has shape {tuple(y.shape)}, expected a target for each of the {len(x)} "
                f"examples of x_{part}"
            )
    return found


def _configuration(run, arguments):
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in run.descent.param_groups
    ]
    kind = qualified_name(type(run.descent))
    generators = {key: g.get_state() for key, g in _generators(run.model).items()}
    return {
        **{name: describe(value) for name, value in arguments.items()},
        "optimizer": f"{kind} {describe(groups, 'optimizer')}",
        "loss": describe(run.loss, "loss"),
        "record": describe(list(run.record)),
        "model": f"{describe(run.model, 'model')} {describe(generators)}",
        "split": digest(describe(tuple(run.split))),
    }


def _generators(model):
    return {
        f"{name}.{attribute}": value
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, torch.Generator)
    }


def _device(device, model):
    if device is None:
        first = next(model.parameters(), None)
        return torch.device("cpu") if first is None else first.device
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}, expected 'cpu' or 'cuda'")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but torch finds no CUDA device here; use 'cpu'")
    return found


def _cuda(device):
    return [device] if device.type == "cuda" else []


@contextmanager
def _seeded(seed, device) -> Iterator[None]:
    with torch.random.fork_rng(devices=_cuda(device)):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _check_scalar(loss):
    if not isinstance(loss, torch.Tensor):
        raise TypeError(f"loss returned a {check.type_name(loss)}, expected a scalar tensor")
    if loss.numel() != 1:
        raise ValueError(f"loss returned a tensor of shape {tuple(loss.shape)}, expected a scalar")


def _check(split, steps, batch_size, learning_rate, every, record, loss, checkpoint_every):
    for name, value in (
        ("steps", steps),
        ("batch_size", batch_size),
        ("every", every),
        ("checkpoint_every", checkpoint_every),
    ):
        check.positive_integer(name, value)
    count = len(split.x_train)
    if not 2 <= batch_size <= count:
        raise ValueError(
            f"batch_size is {batch_size}, expected at least 2 (a batch norm needs two values) and "
            f"at most {count}, the size of the training set"
        )
    check.positive("learning_rate", learning_rate)
    for name, probe in record.items():
        if not callable(probe):
            raise TypeError(
                f"record[{name!r}] is a {type(probe).__name__}, expected a function of "
                "(model, split)"
            )
    if loss is None and split.y_train.is_floating_point():
        raise ValueError(
            "loss is None, which means cross-entropy on labels, but split.y_train holds real "
            "numbers; give a loss such as torch.nn.functional.mse_loss"
        )
    if loss is not None and not callable(loss):
        raise TypeError(
            f"loss is a {check.type_name(loss)}, expected a function of (outputs, targets)"
        )
