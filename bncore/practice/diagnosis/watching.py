"""Run a network on batches as in training and as in use, and keep what its batch norms meet.

Each batch goes through the network once or twice:

- in training's modes: batch norms use the statistics of the batch, and dropout drops,
- if the network draws random numbers then, once more with everything but batch norms at rest.

The first few go through it in evaluation mode too, see ``effects``. In the first two a layer's inputs do not depend on the running statistics of other layers. So where
they differ from the layer's own running statistics, the fault is the layer's.
"""

import copy
import functools
import itertools
from collections.abc import Iterable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn
from torch.nn.functional import batch_norm

from bncore.lab.modes import held, is_batch_norm
from bncore.practice import handed
from bncore.practice.diagnosis.effects import EXAMPLES, Effect, Effects, fit
from bncore.practice.diagnosis.origins import Origin, Origins
from bncore.practice.diagnosis.parts import parts
from bncore.practice.diagnosis.statistics import Pooled, Statistics, together
from bncore.practice.diagnosis.unchanged import random_state, unchanged
from bncore.practice.distributed import SyncedBatchNorm

EMPTY = object()
SYNCHRONISED = (nn.SyncBatchNorm, SyncedBatchNorm)


@dataclass
class Call:
    """One call of a batch norm in the first batch.

    Attributes
    ----------
    shape : tuple of int
        Of the input.
    origin : Origin
    alone : bool
        Whether nothing else was given the input.
    again : bool
        Whether an earlier call of the batch norm was given the same input.
    """

    shape: tuple[int, ...]
    origin: Origin
    alone: bool
    again: bool


@dataclass
class Watched:
    """One batch norm, as it was watched.

    Attributes
    ----------
    name : str
    module : nn.Module
    frozen : bool
        Whether it stays in evaluation mode while the model trains.
    training, quiet : list of Statistics
        One for each call in a forward pass; quiet is empty where nothing is random.
    calls : list of Call
    fewest : int or None
        The fewest values of a feature that it was given in training. Of a batch norm with a method
        ``counted``, as of padded sequences, only the values count that this returns.
    """

    name: str
    module: nn.Module
    frozen: bool
    training: list[Statistics] = field(default_factory=list)
    quiet: list[Statistics] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    fewest: int | None = None

    @cached_property
    def met(self) -> Pooled | None:
        """What all calls met in training, together; None if that is nothing, or not finite."""
        return together([each.pooled() for each in self.training])


@dataclass
class Seen:
    """A network, as it was watched.

    Attributes
    ----------
    model : nn.Module
        Without wrappers, as its owner has it.
    layers : list of Watched
        In the order in which the network calls them; those that it does not call are last.
    batches : int
    devices : int
        On how many devices a wrapper divides each batch.
    effect : Effect or None
        What the running statistics do to the outputs; None if there is nothing to compare.
    bad_batch, bad_output : int or None
        The first batch that is not finite, and the first whose outputs in training are not.
    """

    model: nn.Module
    layers: list[Watched]
    batches: int = 0
    devices: int = 1
    effect: Effect | None = None
    bad_batch: int | None = None
    bad_output: int | None = None


def unwrapped(model: nn.Module) -> tuple[nn.Module, int]:
    """The network in wrappers for speed or several devices, and how many parts they cut a batch in."""
    devices = 1
    while True:
        if isinstance(model, nn.DataParallel):
            devices *= max(len(model.device_ids), 1)
            model = model.module
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        else:
            return model, devices


def watch(model: nn.Module, batches: Iterable, most: int) -> Seen:
    """What the batch norms of a network meet in the first ``most`` batches."""
    model, devices = unwrapped(model)
    with random_state(batches):
        given = itertools.islice(iter(batches), most)
        first = next(given, EMPTY)
        if first is EMPTY:
            raise ValueError("batches is empty, expected at least one batch")
        if not any(map(is_batch_norm, model.modules())):
            return Seen(model, [])
        if any(nn.parameter.is_lazy(t) for t in (*model.parameters(), *model.buffers())):
            model = _materialized(model, first)
        with unchanged(model) as lent, torch.no_grad(), _eager(model):
            watching = _Watch(model, lent, devices)
            with watching.hooks():
                return watching.over(itertools.chain([first], given))


class _Watch:
    def __init__(self, model, lent, devices):
        self.model = model
        self.names = {module: name for name, module in model.named_modules()}
        norms = {name: one for one, name in self.names.items() if is_batch_norm(one)}
        whole = not model.training
        learns = any(parameter.requires_grad for parameter in model.parameters())
        stay = set() if whole and not learns else set(held(model))
        stay |= {name for name, one in norms.items() if getattr(one, "statistics_frozen", False)}
        modes = {module: name not in stay for module, name in self.names.items()}
        self.modes = {
            "training": modes,
            "quiet": {module: mode and is_batch_norm(module) for module, mode in modes.items()},
            "running": dict.fromkeys(modes, False),
        }
        self.layers = {name: Watched(name, norm, name in stay) for name, norm in norms.items()}
        kept = {id(buffer) for norm in norms.values() for buffer in norm.buffers()}
        self.lent = [(copied, own) for copied, own in lent if id(copied) in kept]
        for norm in norms.values():
            if isinstance(norm, SYNCHRONISED):
                vars(norm)["forward"] = functools.partial(_alone, norm)
        self.seen = Seen(model, [], devices=devices)
        self.first, self.order, self.random = "training", {}, False
        self.pass_ = None

    @contextmanager
    def hooks(self):
        """Let each pass meet what the batch norms are called with."""
        handles = []
        try:
            for layer in self.layers.values():
                hook = functools.partial(self.meet, layer)
                handle = layer.module.register_forward_pre_hook(hook, with_kwargs=True)
                handles.append(handle)
            yield
        finally:
            for handle in handles:
                handle.remove()

    def meet(self, layer, module, arguments, kwargs):
        if self.pass_ is not None:
            self.pass_.meet(layer, module, arguments, kwargs)

    def over(self, batches):
        seen, held = self.seen, []
        for number, batch in enumerate(batches):
            arguments = handed.arguments(batch, self.model, number)
            if seen.bad_batch is None and not handed.finite(arguments):
                seen.bad_batch = number
            outputs = self.training(arguments, number)
            if self.random and outputs is not None:
                outputs = self.run("quiet", arguments, number)
            if seen.bad_output is None and not handed.finite(outputs):
                seen.bad_output = number
            if sum(handed.examples(one) for one, *_ in held) < EXAMPLES:
                held.append((arguments, number, handed.labels(batch)))
            seen.batches += 1
        rest = [name for name in self.layers if name not in self.order]
        seen.layers = [self.layers[name] for name in (*self.order, *rest)]
        seen.effect = self.effect(held)
        return seen

    def effect(self, held):
        """What running statistics that are not frozen do to the outputs for the batches held."""
        weights = torch.randn(self.seen.batches, dtype=torch.float64)
        found = [
            fit(each, layer.met, layer.training, weights)
            for layer in self.seen.layers
            if (each := parts(layer.module)).has_statistics and layer.met and not layer.frozen
        ]
        effects = Effects()
        for *one, labels in held if found else ():
            effects.add(found, functools.partial(self.run, "running", *one), labels)
        return effects.effect

    def training(self, arguments, number):
        """The outputs in training's modes; where a network asks for more than inputs in training,
        such as targets, with batch norms alone in training."""
        if self.first == "training" and not self.order:
            try:
                return self.run("training", arguments, number)
            except Exception:
                self.first = "quiet"
                for layer in self.layers.values():
                    layer.training.clear()
        return self.run(self.first, arguments, number)

    def run(self, kind, arguments, number):
        """The outputs of one pass, or None where a batch norm refuses a single value."""
        for module, mode in self.modes[kind].items():
            if module.training != mode:
                module.training = mode
        pass_ = None
        if kind != "running":
            pass_ = _Pass(self, "training" if kind == self.first else kind)
        self.pass_ = pass_
        origins = None if self.order or kind == "running" else Origins(self.names)
        try:
            with nullcontext() if origins is None else origins.follow():
                outputs = handed.apply(self.model, arguments, number, "examine")
            if origins is not None:
                self._still()
        except ValueError:
            if pass_ is not None and pass_.single:
                return None
            raise
        finally:
            if kind != "running":
                for copied, own in self.lent:
                    copied.copy_(own)
        if origins is not None:
            self.random = origins.random
            pass_.note(origins)
        return outputs

    def _still(self):
        """What kept its running statistics in training is frozen, whatever its mode says."""
        moved = {id(copied) for copied, own in self.lent if not torch.equal(copied, own)}
        for layer in self.layers.values():
            module, each = layer.module, parts(layer.module)
            keeps = each.has_statistics and each.momentum != 0 and layer.training
            if keeps and not isinstance(module, SYNCHRONISED):
                layer.frozen |= not any(id(one) in moved for one in module.buffers(recurse=False))


class _Pass:
    """What one pass in training meets at each batch norm."""

    def __init__(self, watch, kind):
        self.watch, self.kind, self.single = watch, kind, False
        self.counts, self.inputs = {}, []

    def meet(self, layer, module, arguments, kwargs):
        """Take in what a batch norm is called with."""
        x = arguments[0] if arguments else None
        if not isinstance(x, torch.Tensor):
            x = next(iter(handed.leaves((arguments, kwargs))), None)
        if x is None or x.ndim < 2 or not x.numel():
            return
        counted = x
        if hasattr(module, "counted"):
            counted = module.counted(*arguments, **kwargs)
            if not len(counted):
                return
        statistics = getattr(layer, self.kind)
        call = self.counts.get(layer.name, 0)
        self.counts[layer.name] = call + 1
        if not self.watch.order:
            self.inputs.append((layer, x))
        if call == len(statistics):
            statistics.append(Statistics())
        part = _part(module, len(counted), self.watch.seen.devices)
        statistics[call].add(counted, part)
        values = statistics[call].values[-1]
        layer.fewest = values if layer.fewest is None else min(values, layer.fewest)
        self.single = self.single or (module.training and values == 1)

    def note(self, origins):
        """Keep what the calls of the first batch were given."""
        given = {}
        for layer, x in self.inputs:
            self.watch.order[layer.name] = None
            before = given.setdefault(layer.name, [])
            again = any(one is x for one in before)
            alone = origins.uses(x) == 1
            layer.calls.append(Call(tuple(x.shape), origins.of(x), alone, again))
            before.append(x)


def _part(module, examples, devices):
    """How many examples share statistics: those of a device, or of a part that a layer cuts."""
    size = getattr(module, "size", None)
    share = -(-examples // devices)
    return min(share, size) if type(size) is int and size > 0 else share


def _materialized(model, batch):
    """A copy of a network with lazy layers, in which these have the shapes that a batch gives them."""
    lazy = {
        id(buffer): type(buffer)(device=buffer.device, dtype=buffer.dtype)
        for buffer in model.buffers()
        if nn.parameter.is_lazy(buffer)
    }
    copied = copy.deepcopy(model, lazy)
    modes = {module: module.training for module in copied.modules()}
    with torch.no_grad():
        handed.apply(copied.eval(), handed.arguments(batch, copied, 0), 0, "examine")
    for module, mode in modes.items():
        module.training = mode
    return copied


def _alone(norm, x):
    """What a synchronised batch norm computes of its own part, without waiting for others."""
    batch = norm.training or norm.running_mean is None
    kept = (norm.running_mean, norm.running_var) if norm.track_running_stats else (None, None)
    return batch_norm(x, *kept, norm.weight, norm.bias, batch, 0.0, norm.eps)


def _eager(model):
    """Compiled parts would pass hooks by."""
    compiled = any(
        getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")
        for module in model.modules()
    )
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
