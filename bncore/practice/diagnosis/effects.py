"""What running statistics do to a network's outputs, beside the statistics of the batches themselves.

A distance of statistics says little of what it costs. So a network is run in evaluation mode with its
running statistics, with those of the batches, and with the latter off by what sampling explains. Where
batches bring labels, right answers are counted too: what is lost is the cost itself.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float

from bncore.practice.diagnosis.parts import Parts
from bncore.practice.diagnosis.statistics import Pooled, Statistics, share_of_scatter
from bncore.practice.handed import leaves

# Outputs are compared on so many examples: a share of 2 % is then known to 0.6 %.
EXAMPLES = 512

Vector = Float[torch.Tensor, "features"]


class Effect(NamedTuple):
    """How evaluation with the running statistics differs from evaluation with those of the batches.

    Attributes
    ----------
    moved : float
        Mean square change of the outputs over their variance.
    chance : float
        The same for statistics that are off by sampling alone.
    changed : float
        Share of decisions, each the largest of several scores, that are others; NaN without any.
    lost : float
        Answers that become wrong, minus those that become right, as a share; NaN without labels.
    lost_error : float
        Standard error of that share: of as many answers that change either way by luck.
    """

    moved: float
    chance: float
    changed: float
    lost: float
    lost_error: float


class Fit(NamedTuple):
    """A layer's running statistics, as tensors to write to, and what they are to be in three runs."""

    tensors: tuple[torch.Tensor, torch.Tensor]
    kept: tuple[torch.Tensor, torch.Tensor]
    fitted: tuple[Vector, Vector]
    sampled: tuple[Vector, Vector]


def fit(each: Parts, met: Pooled, calls: Sequence[Statistics], weights: Vector) -> Fit:
    """What a layer's statistics are to be.

    A normal weight for each batch, the same in all layers, gives sampling errors with the covariance
    that statistics of batches have; their size is that of ``statistics.sampling``.
    """
    share = math.sqrt(share_of_scatter(met.batches, each.momentum, each.updates))
    mean, var = (
        sum(share * one for one in errors) / len(calls)
        for errors in zip(*(call.drawn(weights) for call in calls), strict=True)
    )
    own = each.mean, each.var
    runs = own, (met.mean, met.var), (met.mean + mean, (met.var + var).clamp_min(0))
    kept, fitted, sampled = (
        tuple(value.to(tensor, copy=True) for value, tensor in zip(run, own, strict=True))
        for run in runs
    )
    return Fit(own, kept, fitted, sampled)


@dataclass
class _Part:
    """Sums over the examples of one tensor of the outputs."""

    moved: float = 0.0
    chance: float = 0.0
    spread: float = 0.0
    changed: int = 0
    decisions: int = 0
    wrong: int = 0
    right: int = 0
    labels: int = 0

    def add(self, kept, fitted, sampled, labels):
        kept, fitted, sampled = (one.double() for one in (kept, fitted, sampled))
        self.moved += (kept - fitted).square().sum().item()
        self.chance += (sampled - fitted).square().sum().item()
        self.spread += (fitted - fitted.mean(0)).square().sum().item()
        if kept.ndim != 2 or kept.shape[1] < 2:
            return
        now, before = kept.argmax(1), fitted.argmax(1)
        self.changed += int((now != before).sum())
        self.decisions += len(kept)
        if labels is not None and labels.shape == now.shape:
            labels = labels.to(now.device)
            self.wrong += int(((before == labels) & (now != labels)).sum())
            self.right += int(((before != labels) & (now == labels)).sum())
            self.labels += len(labels)

    @property
    def effect(self) -> Effect:
        n, labels = self.decisions or math.nan, self.labels or math.nan
        return Effect(
            self.moved / self.spread,
            self.chance / self.spread,
            self.changed / n,
            (self.wrong - self.right) / labels,
            math.sqrt(self.wrong + self.right) / labels,
        )


@dataclass
class Effects:
    """Outputs compared, batch by batch."""

    parts: list[_Part] = field(default_factory=list)

    def add(
        self, fits: Sequence[Fit], run: Callable[[], object], labels: torch.Tensor | None
    ) -> None:
        """Run the network on a batch with each kind of statistics; it keeps its own afterwards."""
        outputs = []
        for name in ("fitted", "sampled", "kept"):
            for one in fits:
                for tensor, value in zip(one.tensors, getattr(one, name), strict=True):
                    tensor.copy_(value)
            outputs.append(leaves(run()))
        fitted, sampled, kept = outputs
        for number, three in enumerate(zip(kept, fitted, sampled, strict=False)):
            if len({one.shape for one in three}) > 1 or not _numbers(three[0]):
                continue
            while len(self.parts) <= number:
                self.parts.append(_Part())
            self.parts[number].add(*three, labels)

    @property
    def effect(self) -> Effect | None:
        """That of the outputs that move most; None if there are none with a finite one."""
        found = [one.effect for one in self.parts if one.spread > 0 and math.isfinite(one.moved)]
        return max(found, default=None)


def _numbers(output):
    return output.is_floating_point() and output.ndim > 0 and output.numel() > 0
