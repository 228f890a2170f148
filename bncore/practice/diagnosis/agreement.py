"""Findings on running statistics that do not describe what reaches the layer.

Sampling explains a distance between the two, which theory gives. What goes beyond it is the drift of
weights that learn, or a fault. It counts where it matters: from half a deviation, at the layer or at the
outputs, or from two answers in a hundred that are lost.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from scipy import stats

from bncore.practice.diagnosis.effects import Effect
from bncore.practice.diagnosis.parts import Parts, parts
from bncore.practice.diagnosis.report import Finding, short
from bncore.practice.diagnosis.statistics import Pooled, apart, sampling, typical
from bncore.practice.diagnosis.watching import Seen, Watched

# Half a deviation, the noise in the mean of a batch of four: of a layer's values, or of the outputs.
TOLERANCE = 0.5
# Share of right answers that running statistics may lose.
LOST = 0.02
# Data prepared otherwise upset the first batch norms, which hide it from those behind: where such a gap
# was open, these had at most 0.26 of it. Where weights have changed they had at least 0.5.
BEHIND = 0.4
# Batches from which on one sees that they are apart.
ENOUGH = 8
# Sampling errors that a gap exceeds before it counts.
SAMPLING_ERRORS = 3


@dataclass
class Gap:
    """How far a layer's running statistics are from those of batches.

    Attributes
    ----------
    size : float
        Middle distance over features, in deviations.
    chance : float
        What sampling explains.
    shift, stretch : float
        Middle distance of the means, in deviations, and middle ratio of a variance met to a running
        one.
    """

    size: float
    chance: float
    shift: float
    stretch: float

    @property
    def allowed(self) -> float:
        """The size up to which a gap is no fault, whatever it does."""
        return math.hypot(TOLERANCE, self.chance)

    @property
    def open(self) -> bool:
        """Whether it is a fault for its size alone."""
        return self.size > self.allowed


def gap(met: Pooled, each: Parts) -> Gap:
    """The distance of running statistics from those that batches have."""
    mean, var = each.mean.double().cpu(), each.var.double().cpu()
    alive = met.alive(each.eps)
    error = typical(sampling(met, each.momentum, each.updates, each.eps), alive)
    return Gap(
        typical(apart(met.mean, met.var, mean, var, each.eps), alive),
        SAMPLING_ERRORS * error,
        typical((met.mean - mean).abs() / (met.var + each.eps).sqrt(), alive),
        typical((met.var + each.eps) / (var.clamp_min(0) + each.eps), alive),
    )


def matters(seen: Seen) -> bool:
    """Whether running statistics do more to the outputs than sampling explains, and than is tolerable.

    How much statistics of batches scatter is known from the batches: the fewer they are, the more
    sampling errors are allowed, by Student's distribution.
    """
    effect, others = seen.effect, seen.batches - 1
    if effect is None or others < 1:
        return False
    allowed = stats.t.isf(stats.norm.sf(SAMPLING_ERRORS), others)
    if not effect.moved > allowed**2 * effect.chance:
        return False
    certain = effect.lost > SAMPLING_ERRORS * effect.lost_error
    return effect.moved > TOLERANCE**2 or (certain and effect.lost > LOST)


def harmful(seen: Seen) -> float:
    """From which distance on layers make what running statistics do to the outputs: half of the largest.

    It is infinite where that does not matter.
    """
    if not matters(seen):
        return math.inf
    sizes = [
        gap(layer.met, each).size
        for layer in seen.layers
        if layer.met and not layer.frozen and (each := parts(layer.module)).has_statistics
    ]
    return max(sizes) / 2 if sizes else math.inf


def stale(name: str, each: Parts, met: Pooled | None, least: float = math.inf) -> Iterator[Finding]:
    """Initial values that still weigh enough to matter: (1 - a)^n of the mean and the variance.

    With M and V the statistics met, the running ones are then (1 - k) M and k + (1 - k) V. From a
    checkpoint alone V is found from this: (running - k) / (1 - k). A variance below k contradicts the
    count, and then nothing is said. Where a distance of ``least`` does harm to the outputs, it is enough that
    this alone makes it.
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
    found = None if met is None else gap(met, each)
    if found:
        M, V = met.mean, met.var
        if not (found.open or found.size >= least):
            return
    else:
        M, V = mean / (1 - k), (var - k) / (1 - k)
        if (-1e-3 * k > V).any():
            return
        V = V.clamp_min(0)
    expected = typical(apart(M, V, (1 - k) * M, k + (1 - k) * V, each.eps), each.eps < V)
    if expected > TOLERANCE or (found and expected >= least):
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
    every = {}
    for layer in seen.layers:
        each, met = parts(layer.module), layer.met
        if met is None or not each.has_statistics or layer.name in explained or not layer.calls:
            continue
        first = not any(call.origin.normalized for call in layer.calls)
        if layer.frozen:
            # It stands for all batches together, also where these are apart.
            met = replace(met, var=met.total)
        if first or not layer.frozen:
            every[layer.name] = first, gap(met, each), layer.frozen
    found = {name for name, (_, this, _) in every.items() if this.open}
    if not found and not explained:
        least = harmful(seen)
        found = {
            name for name, (_, this, still) in every.items() if this.size >= least and not still
        }
    if not found:
        return
    sizes = {True: [0.0], False: [0.0]}
    for first, this, _ in every.values():
        sizes[first].append(this.size)
    behind = max(sizes[False])
    code = "shifted-input" if behind <= BEHIND * max(sizes[True]) else "train-eval-gap"
    worst = max(found, key=lambda name: every[name][1].size)
    for name, (first, this, _) in every.items():
        if name not in found or (code == "shifted-input" and not first):
            continue
        usual = f", where {short(this.allowed)} is usual" if this.open else ""
        text = (
            f"Running statistics are {short(this.size)} deviations from those of batches{usual}: means "
            f"{short(this.shift)} deviations apart, the variance {short(this.stretch)} times the running "
            "one."
        )
        if name == worst:
            if code == "train-eval-gap" and len(found) > 1:
                text += " No layer is further off."
            if code == "shifted-input" and len(every) > 1:
                text += f" Behind them it is {short(behind)} at most."
            text += _consequence(seen.effect)
        values = {
            "gap": this.size,
            "allowed": this.allowed,
            "shift": this.shift,
            "ratio": this.stretch,
        }
        yield Finding(code, "warning", name, text, values)


def unlike(layer: Watched) -> Iterator[Finding]:
    """Batches whose means scatter more than those of examples drawn at random, as of sorted data."""
    eps, most, usual = parts(layer.module).eps, 0.0, 0.0
    for call, met in ((call, call.pooled()) for call in layer.training):
        if layer.frozen or met is None or not met.finite or met.batches < ENOUGH:
            continue
        alive, scale = met.alive(eps), (met.var + eps)
        kept = [one for one, m in zip(call.means, call.values, strict=True) if m >= met.values]
        if len(kept) < ENOUGH:
            continue
        between = typical(torch.stack(kept).cpu().double().var(0) / scale, alive)
        drawn = typical(met.mean_scatter / scale, alive)
        certain = 1 + SAMPLING_ERRORS * math.sqrt(2 / (len(kept) - 1))
        if between > certain * drawn and between - drawn > max(TOLERANCE, most) ** 2:
            most, usual = math.sqrt(between - drawn), math.sqrt(drawn)
    if most:
        text = (
            f"Batches do not fit each other: beyond the {short(usual)} deviations of examples drawn at "
            f"random their means scatter by {short(most)}, as where data are sorted. Shuffle them."
        )
        values = {"apart": most, "drawn": usual}
        yield Finding("train-eval-gap", "warning", layer.name, text, values)


def _consequence(effect: Effect | None) -> str:
    """What the difference does to the network's outputs, as a sentence, or nothing."""
    if effect is None:
        return ""
    if not math.isfinite(effect.changed):
        return f" It moves outputs by {short(math.sqrt(effect.moved))} deviations in evaluation."
    lost = f", {_percent(effect.lost)} are lost" if effect.lost > 0 else ""
    return f" It changes {_percent(effect.changed)} of the decisions in evaluation{lost}."


def _percent(share: float) -> str:
    return f"{short(100 * share)} %"
