"""What reaches a batch norm, batch by batch, and how far statistics of batches scatter."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float

HALF = (torch.float16, torch.bfloat16)

# Batches on which it is measured how much the statistics of batches scatter.
SCATTER_BATCHES = 4


@dataclass
class Statistics:
    """Means and biased variances of the batches that reach one call of a batch norm.

    ``add`` takes the batches in, as they are; ``pooled`` sums them up.
    """

    values: list[int] = field(default_factory=list)
    means: list[torch.Tensor] = field(default_factory=list)
    variances: list[torch.Tensor] = field(default_factory=list)
    scatter: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def add(self, x: torch.Tensor, part: int) -> None:
        """Take in a batch (examples, features, *spatial) that is normalised in parts of this size."""
        if x.dtype in HALF:
            x = x.float()
        if x.ndim > 3:
            x = x.flatten(2)
        axes = 0 if x.ndim == 2 else (0, 2)
        var, mean = torch.var_mean(x, axes, correction=0)
        self.values.append(part * (x.shape[2] if x.ndim > 2 else 1))
        self.means.append(mean)
        self.variances.append(var)
        if len(self.scatter) < SCATTER_BATCHES and len(x) > 1:
            x = x[:, :, None] if x.ndim == 2 else x
            squares = (x - mean[:, None]).square().mean(2)
            self.scatter.append((x.mean(2).var(0) / len(x), squares.var(0) / len(x)))

    def drawn(
        self, weights: Float[torch.Tensor, "batches"]
    ) -> tuple[Float[torch.Tensor, "features"], Float[torch.Tensor, "features"]]:
        """Errors of a mean and a variance, in float64: batches' distances from their average, weighted.

        Independent weights of variance 1 give them the covariance that these have in one batch.
        """
        rows = [torch.stack(one).cpu().double() for one in (self.means, self.variances)]
        n = len(self.means)
        return tuple(weights[:n] @ (one - one.mean(0)) / max(n - 1, 1) ** 0.5 for one in rows)

    def pooled(self) -> "Pooled | None":
        """What the batches of at least two values say together, in float64; None if there is none."""
        kept = [i for i, m in enumerate(self.values) if m > 1]
        if not kept:
            return None
        m = torch.tensor([self.values[i] for i in kept], dtype=torch.float64)[:, None]
        rounding = torch.finfo(self.means[0].dtype).eps
        means, variances = (
            torch.stack([one[i] for i in kept]).cpu().double()
            for one in (self.means, self.variances)
        )
        weights = m / m.sum()
        mean = (weights * means).sum(0)
        total = (weights * (variances + (means - mean).square())).sum(0)
        unbiased = (weights * variances * m / (m - 1)).sum(0)
        scatter = [
            torch.stack(one).cpu().double().mean(0) for one in zip(*self.scatter, strict=True)
        ] or [mean.new_zeros(mean.shape)] * 2
        values = int(m.flatten().median())
        return Pooled(mean, unbiased, total, *scatter, len(kept), values, rounding)


@dataclass
class Pooled:
    """Statistics of all batches of one call.

    Attributes
    ----------
    mean : Float[Tensor, "features"]
        Mean of the batches' means.
    var : Float[Tensor, "features"]
        Mean of the batches' unbiased variances: what a running variance is an average of.
    total : Float[Tensor, "features"]
        Variance over all values of all batches.
    mean_scatter, variance_scatter : Float[Tensor, "features"]
        Variance of one batch's mean, and of its variance, as examples drawn at random give it. It is
        taken from how whole examples differ, since the places of an image are alike.
    batches : int
    values : int
        Values of each feature in a typical batch: their median.
    rounding : float
        The unit of rounding in which it was computed.
    """

    mean: Float[torch.Tensor, "features"]
    var: Float[torch.Tensor, "features"]
    total: Float[torch.Tensor, "features"]
    mean_scatter: Float[torch.Tensor, "features"]
    variance_scatter: Float[torch.Tensor, "features"]
    batches: int
    values: int
    rounding: float

    def alive(self, eps: float) -> Bool[torch.Tensor, "features"]:
        """Features whose variance is above eps, so that they are normalised at all."""
        return self.var > eps

    @property
    def finite(self) -> bool:
        """Whether all of it is."""
        return bool(torch.isfinite(self.mean).all() and torch.isfinite(self.total).all())


def together(found: list[Pooled | None]) -> Pooled | None:
    """Statistics of several calls as those of one; None if there is nothing, or anything not finite."""
    found = [one for one in found if one is not None]
    if not found or not all(one.finite for one in found):
        return None
    if len(found) == 1:
        return found[0]

    def average(name):
        return torch.stack([getattr(one, name) for one in found]).mean(0)

    mean = average("mean")
    between = torch.stack([(one.mean - mean).square() for one in found]).mean(0)
    return replace(
        found[0],
        mean=mean,
        var=average("var"),
        total=average("total") + between,
        mean_scatter=average("mean_scatter"),
        variance_scatter=average("variance_scatter"),
    )


def apart(
    mean: Float[torch.Tensor, "features"],
    var: Float[torch.Tensor, "features"],
    other_mean: Float[torch.Tensor, "features"],
    other_var: Float[torch.Tensor, "features"],
    eps: float,
) -> Float[torch.Tensor, "features"]:
    """How far two distributions of each feature are apart, in deviations of the first.

    d² = (mean - other mean)² / (var + eps) + (log((var + eps) / (other var + eps)) / 2)²:
    the first is by how much the normalised values move, the second by which factor they stretch.
    """
    shift = (mean - other_mean).square() / (var + eps)
    stretch = torch.log((var + eps) / (other_var.clamp_min(0) + eps)) / 2
    return (shift + stretch.square()).sqrt()


def share_of_scatter(batches: int, momentum: float | None, updates: int | None) -> float:
    """The variance of running statistics minus those pooled over batches, over that in one batch.

    A running average with momentum a has a / (2 - a) of it, an average of n batches 1 / n.
    """
    running = 1 / max(updates or 1, 1) if momentum is None else momentum / (2 - momentum)
    return running + 1 / batches


def sampling(
    pooled: Pooled, momentum: float | None, updates: int | None, eps: float
) -> Float[torch.Tensor, "features"]:
    """How far sampling alone takes running statistics from those pooled over batches, as ``apart``.

    That is ``share_of_scatter`` of how much statistics of batches scatter. For independent normal
    values the mean square is (1 + 1 / 2) / m times it.
    """
    share = share_of_scatter(pooled.batches, momentum, updates)
    floor = pooled.var + eps
    squares = pooled.mean_scatter / floor + pooled.variance_scatter / (4 * floor.square())
    return (share * squares).sqrt()


def typical(
    distances: Float[torch.Tensor, "features"],
    alive: Bool[torch.Tensor, "features"] | None = None,
) -> float:
    """The middle distance over the features that are alive; 0 if none is.

    A few units that hardly ever fire have statistics that no average of batches pins down, and a
    constant one has no scale.
    """
    if alive is not None:
        distances = distances[alive]
    return float(distances.median()) if len(distances) else 0.0
