"""Findings on the values that reach a batch norm, and on those that it keeps."""

import statistics
from collections.abc import Iterator

import torch

from bncore.practice.diagnosis.parts import ROUNDINGS, Parts, parts
from bncore.practice.diagnosis.report import Finding
from bncore.practice.diagnosis.statistics import HALF, Pooled
from bncore.practice.diagnosis.watching import Seen, Watched

# 1 / sqrt(8) = 0.35: of fewer values the mean is off by over a third of a deviation.
FEW_VALUES = 8
# Features of a layer of which it says nothing: some pixels of an image are always paper.
SHARE = 0.1


def not_finite(seen: Seen) -> Iterator[Finding]:
    """NaN and infinity where they first appear: in what is kept, in the data, or on the way."""
    bad = list(not_finite_state(dict(_state(seen))))
    if bad:
        yield from bad
        return
    if seen.bad_batch is not None:
        yield _not_finite("", f"Batch {seen.bad_batch} holds NaN or infinity itself.")
        return
    for layer in seen.layers:
        for each in layer.training if layer.met is None else ():
            for number, (mean, var) in enumerate(zip(each.means, each.variances, strict=True)):
                if not (torch.isfinite(mean).all() and torch.isfinite(var).all()):
                    text = f"Its input is not finite in batch {number}, and no other's before it."
                    yield _not_finite(layer.name, text)
                    return
    if seen.bad_output is not None:
        text = f"The outputs for batch {seen.bad_output} are not finite, the inputs of all batch norms are."
        yield _not_finite("", text)


def not_finite_state(state: dict[tuple[str, str], torch.Tensor]) -> Iterator[Finding]:
    """The same for tensors by layer and name within it: one finding for each batch norm, and one for
    the rest of the network, whose layer is "". A negative variance counts, as its root is NaN."""
    wrong, below = {}, {}
    for (layer, name), value in state.items():
        if not value.is_floating_point():
            continue
        if bad := value.numel() - int(torch.isfinite(value).sum()):
            wrong.setdefault(layer, []).append((name, bad, value.numel()))
        if layer and name == "running_var" and (bad := int(((value < 0) & value.isfinite()).sum())):
            below.setdefault(layer, []).append((name, bad, value.numel()))
    for layer in dict.fromkeys((*wrong, *below)):
        text = []
        if layer in wrong:
            text.append(f"Not finite: {_entries(wrong[layer])}.")
        if layer in below:
            text.append(f"Negative: {_entries(below[layer])}, as no variance is; its root is NaN.")
        count = sum(bad for _, bad, _ in (*wrong.get(layer, ()), *below.get(layer, ())))
        yield _not_finite(layer, " ".join(text), entries=count)


def _entries(found):
    said = ", ".join(f"{name} ({bad} of {size})" for name, bad, size in found[:3])
    return said + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def few_values(layer: Watched, seen: Seen) -> Iterator[Finding]:
    """Too few values of a feature in a typical batch; or, of a network that trains, one in any."""
    counts = [m for each in layer.training for m in each.values]
    if layer.frozen or not counts:
        return
    m = statistics.median_low(counts)
    if m < FEW_VALUES:
        text = {
            1: "1 value of a feature in a batch: in training torch refuses it.",
            2: "2 values of a feature in a batch: nearly all become -1 and 1.",
        }.get(
            m,
            f"{m} values of a feature in a batch: their mean is off by {m**-0.5:.0%} of a deviation.",
        )
        severity = "error" if m <= 2 else "warning"
        yield Finding(
            "few-values", severity, layer.name, text, {"mean_error": m**-0.5, "values": m}
        )
    elif layer.fewest == 1 and seen.model.training:
        text = "One of the batches has 1 value of a feature: in training torch refuses it."
        yield Finding("few-values", "error", layer.name, text, {"mean_error": 1.0, "values": 1})


def dead_features(name: str, each: Parts, pooled: Pooled | None) -> Iterator[Finding]:
    """More than a tenth of the features constant to rounding, or with a gamma of 0."""
    constant = _constant(each, pooled)
    dead, lost = constant, each.vanished()
    if lost is not None:
        dead = lost if dead is None else dead | lost
    if dead is None or not (share := float(dead.double().mean())) > SHARE:
        return
    what = []
    if constant is not None and constant.any():
        what.append(f"{int(constant.sum())} constant")
    if lost is not None and lost.any():
        what.append(f"{int(lost.sum())} with gamma 0")
    text = f"{int(dead.sum())} of {len(dead)} features are dead: {', '.join(what)}."
    yield Finding("dead-feature", "warning", name, text, {"share": share, "features": len(dead)})


def epsilon_rules(name: str, each: Parts, pooled: Pooled | None) -> Iterator[Finding]:
    """More than a tenth of the features with a variance that is not 0 but not above eps."""
    var = pooled.var if pooled else each.var.double().cpu() if each.has_statistics else None
    if var is None:
        return
    small = (var <= each.eps) & ~_constant(each, pooled)
    share = float(small.double().mean())
    if share > SHARE:
        middle = float(var[small].median())
        text = (
            f"{int(small.sum())} of {len(var)} features have a variance of at most eps, "
            f"{each.eps:g}; it is {middle:.1e} in the middle."
        )
        values = {"share": share, "var": middle, "eps": each.eps}
        yield Finding("epsilon-rules", "warning", name, text, values)


def low_precision(name: str, each: Parts) -> Iterator[Finding]:
    """Statistics or parameters in half precision."""
    low = {
        key: str(t.dtype).removeprefix("torch.")
        for key, t in each.tensors.items()
        if t.dtype in HALF
    }
    if low:
        kinds = ", ".join(sorted(set(low.values())))
        text = f"{', '.join(low)} {'is' if len(low) == 1 else 'are'} kept in {kinds}."
        yield Finding("low-precision", "warning", name, text, {"tensors": len(low), "dtype": kinds})


def _constant(each, pooled):
    """Which features do not vary but for rounding; None where nothing is known."""
    if pooled is None:
        return None if not each.has_statistics else each.var.cpu().double() == 0
    return pooled.total.sqrt() <= ROUNDINGS * pooled.rounding * pooled.mean.abs()


def _state(seen):
    names = {layer.name for layer in seen.layers}
    for layer in seen.layers:
        for key, value in parts(layer.module).tensors.items():
            yield (layer.name, key), value.detach()
    for key, value in (*seen.model.named_parameters(), *seen.model.named_buffers()):
        if key.rpartition(".")[0] not in names:
            yield ("", key), value.detach()


def _not_finite(layer, text, **values):
    return Finding("not-finite", "error", layer, text, values)
