"""Findings on running statistics that do not describe what reaches the layer.

A running average whose layer learns lags behind by some 1 / a steps. On networks that train well, also
at rates near the best, it was less than ``TOLERANCE`` off: half a deviation of the values, the size of
the noise in a batch of four. What lies beyond that, and beyond sampling, is a fault.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from bncore.practice.diagnosis.parts import Parts, parts
from bncore.practice.diagnosis.report import Finding, short
from bncore.practice.diagnosis.statistics import Pooled, apart, sampling, typical
from bncore.practice.diagnosis.watching import Seen

TOLERANCE = 0.5
# Data prepared otherwise upset the first batch norms, which hide it from those behind: where such a gap
# was open, these had at most 0.26 of it. Where weights have changed they had at least 0.5.
BEHIND = 0.4
# Sampling errors that a gap exceeds before it counts.
SAMPLING_ERRORS = 3


@dataclass
class Gap:
    """How far a layer's running statistics are from those of batches.

    Attributes
    ----------
    size : float
        Middle distance over features, in deviations.
    allowed : float
        What drift and sampling explain together.
    shift, stretch : float
        Middle distance of the means, in deviations, and middle ratio of a variance met to a running
        one.
    """

    size: float
    allowed: float
    shift: float
    stretch: float

    @property
    def open(self) -> bool:
        """Whether it is a fault."""
        return self.size > self.allowed


def gap(met: Pooled, each: Parts) -> Gap:
    """The distance of running statistics from those that batches have."""
    mean, var = each.mean.double().cpu(), each.var.double().cpu()
    alive = met.alive(each.eps)
    size = typical(apart(met.mean, met.var, mean, var, each.eps), alive)
    error = typical(sampling(met, each.momentum, each.updates, each.eps), alive)
    return Gap(
        size,
        math.hypot(TOLERANCE, SAMPLING_ERRORS * error),
        typical((met.mean - mean).abs() / (met.var + each.eps).sqrt(), alive),
        typical((met.var + each.eps) / (var.clamp_min(0) + each.eps), alive),
    )


def stale(name: str, each: Parts, met: Pooled | None) -> Iterator[Finding]:
    """Initial values that still weigh enough to matter: (1 - a)^n of the mean and the variance.

    With M and V the statistics met, the running ones are then (1 - k) M and k + (1 - k) V. From a
    checkpoint alone V is found from this: (running - k) / (1 - k). A variance below k contradicts the
    count, and then nothing is said.
    """
    if not each.has_statistics or each.momentum == 0:
        return
    k = each.initial_weight
    if k is None or k == 0:
        return
    if each.updates == 0:
        yield Finding(
            "stale-statistics",
            "warning",
            name,
            "0 updates: the running statistics are still mean 0 and variance 1.",
            {"initial_weight": 1.0, "updates": 0},
        )
        return
    mean, var = each.mean.double().cpu(), each.var.double().cpu()
    if met is not None:
        M, V = met.mean, met.var
        if not gap(met, each).open:
            return
    else:
        M, V = mean / (1 - k), (var - k) / (1 - k)
        if (-1e-3 * k > V).any():
            return
        V = V.clamp_min(0)
    expected = typical(apart(M, V, (1 - k) * M, k + (1 - k) * V, each.eps), each.eps < V)
    if expected > TOLERANCE:
        text = (
            f"After {each.updates} updates with momentum {each.momentum:g} the initial mean 0 and "
            f"variance 1 still weigh {_percent(k)}: that alone moves them by {short(expected)} deviations."
        )
        values = {
            "initial_weight": k,
            "updates": each.updates,
            "momentum": each.momentum,
            "gap": expected,
        }
        yield Finding("stale-statistics", "warning", name, text, values)


def gaps(seen: Seen, explained: set[str]) -> Iterator[Finding]:
    """Running statistics that do not fit, but for the layers whose gap is explained already."""
    found, sizes = {}, {}
    for layer in seen.layers:
        each, met = parts(layer.module), layer.met
        if met is None or not each.has_statistics or layer.name in explained or not layer.calls:
            continue
        first = not any(call.origin.normalized for call in layer.calls)
        if layer.frozen and not first:
            continue
        this = gap(met, each)
        sizes.setdefault(first, []).append(this.size)
        if this.open:
            found[layer.name] = first, this
    if not found:
        return
    every = {side: max(sizes.get(side, [0.0])) for side in (True, False)}
    code = "shifted-input" if every[False] <= BEHIND * every[True] else "train-eval-gap"
    worst = max(found, key=lambda name: found[name][1].size)
    for name, (first, this) in found.items():
        if code == "shifted-input" and not first:
            continue
        text = (
            f"Running statistics are {short(this.size)} deviations from those of batches, where "
            f"{short(this.allowed)} is usual: means {short(this.shift)} deviations apart, the variance "
            f"{short(this.stretch)} times the running one."
        )
        if name == worst:
            if code == "train-eval-gap" and len(found) > 1:
                text += " No layer is further off."
            if code == "shifted-input" and len(sizes) > 1:
                text += f" Behind them it is {short(every[False])} at most."
            text += effect(seen)
        values = {
            "gap": this.size,
            "allowed": this.allowed,
            "shift": this.shift,
            "ratio": this.stretch,
        }
        yield Finding(code, "warning", name, text, values)


def effect(seen: Seen) -> str:
    """What the difference does to the network's outputs, as a sentence, or nothing."""
    if not seen.changes:
        return ""
    moved, spread, decided = (sum(one) for one in zip(*seen.changes, strict=True))
    if math.isfinite(decided):
        return (
            f" {_percent(decided / len(seen.changes))} of the decisions are others in evaluation."
        )
    if math.isfinite(moved) and spread > 0:
        return f" Outputs move by {short(math.sqrt(moved / spread))} deviations in evaluation."
    return ""


def _percent(share: float) -> str:
    return f"{short(100 * share)} %"
