"""What folding is worth: networks with batch norm timed beside their folded forms."""

from collections.abc import Sequence

import torch
from torch import nn

from bncore.lab import timing
from bncore.lab.inference import folded
from bncore.lab.layers import seeded


def convolutional(seed: int = 0) -> nn.Sequential:
    """An untrained network with two convolutions, 16 and 32 channels, for 8 by 8 images of one channel."""
    with seeded(seed):
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 10),
        )  # fmt: skip


def times_faster(
    model: nn.Module, shape: Sequence[int], counts: Sequence[int], repeats: int = 60
) -> list[float]:
    """Time of a network in evaluation mode over that of its folded form, for so many random examples at once.

    Medians of calls in turns.
    """
    model.eval()
    short = folded(model, torch.rand(1, *shape)).eval()
    ratios = []
    for count in counts:
        x = torch.rand(count, *shape)
        with torch.inference_mode():
            long_time, short_time = timing.median_seconds(
                [lambda x=x: model(x), lambda x=x: short(x)], repeats=repeats
            )
        ratios.append(long_time / short_time)
    return ratios
