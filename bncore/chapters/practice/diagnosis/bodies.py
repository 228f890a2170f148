"""Networks that leave the usual chain of layers: rows read one by one, a norm used twice, two heads."""

import torch
from jaxtyping import Float
from torch import nn

from bncore.lab.layers import seeded

Scores = Float[torch.Tensor, "batch classes"]


class Rows(nn.Module):
    """Reads a digit as a sequence of 8 rows of 8 pixels, with two linear layers on each row.

    A linear layer has its features on the last axis, a batch norm on axis 1. The two are brought
    together by a transposition; where it is forgotten, the batch norm takes the 8 rows for its 8
    features, and nothing complains.

    Parameters
    ----------
    transposed : bool
        Whether batch norm meets the features.
    seed : int
    """

    def __init__(self, transposed: bool, seed: int = 0):
        super().__init__()
        self.transposed = transposed
        with seeded(seed):
            self.linear1, self.norm1 = nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8)
            self.linear2, self.norm2 = nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8)
            self.activation = nn.ReLU()
            self.output = nn.Linear(64, 10)

    def forward(self, x: Float[torch.Tensor, "batch 64"]) -> Scores:
        h = x.unflatten(1, (8, 8))
        for linear, norm in ((self.linear1, self.norm1), (self.linear2, self.norm2)):
            h = linear(h)
            h = norm(h.transpose(1, 2)).transpose(1, 2) if self.transposed else norm(h)
            h = self.activation(h)
        return self.output(h.flatten(1))


class Reused(nn.Module):
    """A perceptron with two hidden layers whose one batch norm follows both, or with one for each.

    Parameters
    ----------
    reused : bool
        Whether there is one.
    seed : int
    """

    def __init__(self, reused: bool, seed: int = 0):
        super().__init__()
        with seeded(seed):
            self.linear1, self.norm1 = nn.Linear(64, 32, bias=False), nn.BatchNorm1d(32)
            self.linear2 = nn.Linear(32, 32, bias=False)
            self.norm2 = None if reused else nn.BatchNorm1d(32)
            self.activation = nn.ReLU()
            self.output = nn.Linear(32, 10)

    def forward(self, x: Float[torch.Tensor, "batch 64"]) -> Scores:
        h = self.activation(self.norm1(self.linear1(x)))
        norm = self.norm1 if self.norm2 is None else self.norm2
        return self.output(self.activation(norm(self.linear2(h))))


class TwoHeads(nn.Module):
    """A body with the head that it was trained with, and a new one that answers.

    Parameters
    ----------
    trained : nn.Sequential
        Whose last module is the old head. It is part of what is made, not copied.
    classes : int
        Of the new head.
    seed : int
    """

    def __init__(self, trained: nn.Sequential, classes: int, seed: int = 0):
        super().__init__()
        self.body, self.old = trained[:-1], trained[-1]
        with seeded(seed):
            self.new = nn.Linear(self.old.in_features, classes)

    def forward(self, x: Float[torch.Tensor, "batch 64"]) -> Scores:
        return self.new(self.body(x))

    def as_before(self) -> nn.Sequential:
        """The body with its old head, as a view."""
        return nn.Sequential(self.body, self.old)
