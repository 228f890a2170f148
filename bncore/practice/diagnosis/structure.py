"""Findings on how a network uses its batch norms: what is in front of them, what moves, who shares."""

import math
import statistics
from collections.abc import Iterator

import torch

from bncore.practice.diagnosis.agreement import SAMPLING_ERRORS
from bncore.practice.diagnosis.parts import parts
from bncore.practice.diagnosis.report import Finding, short
from bncore.practice.diagnosis.statistics import apart, together, typical
from bncore.practice.diagnosis.watching import SYNCHRONISED, Seen, Watched

# Distance of two calls' statistics, in deviations: the noise in the mean of a batch of 16.
CALLS_APART = 0.25
# Share of the variance that dropout may add.
DROPOUT_SHARE = 0.05


def wrong_axis(layer: Watched) -> Iterator[Finding]:
    """Features on another axis than 1."""
    for call in layer.calls:
        axis = call.origin.axis
        if len(call.shape) > 2 and axis is not None and axis != 1:
            name = call.origin.layer or "the layer in front"
            text = (
                f"{name} puts its {call.shape[axis]} features on axis {axis} of an input of shape "
                f"{call.shape}; the batch norm takes the {call.shape[1]} positions on axis 1."
            )
            yield Finding("wrong-axis", "error", layer.name, text, {"axis": axis, "expected": 1})
            return


def redundant_bias(layer: Watched) -> Iterator[Finding]:
    """A bias that the mean takes away again."""
    calls = [c for c in layer.calls if c.origin.biased and c.alone and c.origin.axis == 1]
    if layer.frozen or not calls or len(calls) < len(layer.calls):
        return
    features = calls[0].shape[1]
    text = f"The {features} biases of layer {calls[0].origin.biased} change nothing but rounding."
    yield Finding("redundant-bias", "note", layer.name, text, {"biases": features})


def reused_layer(layer: Watched) -> Iterator[Finding]:
    """Calls with different inputs whose distributions differ."""
    calls = [i for i, call in enumerate(layer.calls) if not call.again]
    met = [layer.training[i].pooled() for i in calls if i < len(layer.training)]
    if layer.frozen or len(met) < 2 or any(one is None for one in met):
        return
    eps, most, error = parts(layer.module).eps, 0.0, 0.0
    for i, one in enumerate(met):
        for other in met[:i]:
            far = typical(apart(one.mean, one.var, other.mean, other.var, eps), one.alive(eps))
            if far > most:
                scale = one.var + eps
                scatter = one.mean_scatter / scale + one.variance_scatter / (4 * scale.square())
                most, error = far, typical((2 * scatter / one.batches).sqrt(), one.alive(eps))
    if most > math.hypot(CALLS_APART, SAMPLING_ERRORS * error):
        text = (
            f"It is called {len(layer.calls)} times in a forward pass, on inputs up to {short(most)} "
            "deviations apart, with one running average."
        )
        yield Finding(
            "reused-layer", "warning", layer.name, text, {"apart": most, "calls": len(layer.calls)}
        )


def dropout_before(layer: Watched) -> Iterator[Finding]:
    """A variance that is smaller without dropout."""
    dropouts = sorted(set().union(*(call.origin.dropouts for call in layer.calls)))
    if layer.frozen or not dropouts or not layer.quiet:
        return
    on, off = layer.met, together([each.pooled() for each in layer.quiet])
    if on is None or off is None:
        return
    eps = parts(layer.module).eps
    ratio = float(((off.var + eps) / (on.var + eps)).median())
    if ratio <= 1 - DROPOUT_SHARE:
        names = ", ".join(f"{name or 'dropout'} ({p:g})" for name, p in dropouts[:3])
        text = (
            f"Behind {names} the variance in use is {short(ratio)} times that in training, at the middle "
            "feature."
        )
        values = {"lost": 1 - ratio, "ratio": ratio, "p": max(p for _, p in dropouts)}
        yield Finding("dropout-before", "warning", layer.name, text, values)


def half_frozen(
    layer: Watched, seen: Seen, optimizer: torch.optim.Optimizer | None
) -> Iterator[Finding]:
    """Statistics that stay while the affine map learns, or the other way round."""
    each = parts(layer.module)
    affine = [p for p in (each.gamma, each.beta) if p is not None]
    known = seen.model.training or getattr(layer.module, "statistics_frozen", False)
    if not known or not each.has_statistics or not affine:
        return
    moves = not layer.frozen and each.momentum != 0
    learns = any(p.requires_grad for p in affine)
    if optimizer is not None:
        rates = {id(p): g.get("lr", 1) for g in optimizer.param_groups for p in g["params"]}
        learns = any(p.requires_grad and rates.get(id(p), 0) for p in affine)
    if moves == learns:
        return
    if moves:
        text = "gamma and beta are frozen, and the statistics move with every batch in training."
    elif layer.frozen:
        text = "The statistics are frozen (evaluation mode), and gamma or beta learns."
    else:
        text = "The running statistics are frozen (momentum 0), and gamma or beta learns."
    yield Finding("half-frozen", "warning", layer.name, text, {"statistics_move": int(moves)})


def decayed_affine(layer: Watched, optimizer: torch.optim.Optimizer | None) -> Iterator[Finding]:
    """Gamma or beta in a group with weight decay."""
    if optimizer is None:
        return
    each = parts(layer.module)
    decays = {id(p): g.get("weight_decay", 0) for g in optimizer.param_groups for p in g["params"]}
    found = {
        name: decays[id(p)]
        for name, p in (("gamma", each.gamma), ("beta", each.beta))
        if p is not None and p.requires_grad and decays.get(id(p), 0) > 0
    }
    if found:
        decay = float(max(found.values()))
        text = f"weight_decay is {decay:g} for {' and '.join(found)}."
        yield Finding("decayed-affine", "note", layer.name, text, {"weight_decay": decay})


def unsynchronised(layer: Watched, seen: Seen) -> Iterator[Finding]:
    """Statistics of each device alone."""
    module = layer.module
    together = isinstance(module, SYNCHRONISED) or getattr(module, "process_group", None)
    devices = max(seen.devices, processes())
    if layer.frozen or together or devices < 2:
        return
    counts = [m for each in layer.training for m in each.values]
    alone = f" of {statistics.median_low(counts)} values" if counts else ""
    text = f"Each of {devices} devices takes statistics{alone} of its own."
    yield Finding("unsynchronised", "warning", layer.name, text, {"devices": devices})


def processes() -> int:
    """How many processes train together."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1
