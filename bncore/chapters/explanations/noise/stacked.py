"""Fully connected networks of one shape, trained side by side as one: many seeds in the time of a few.

What the networks do is what they do alone, but for rounding and for the random numbers of dropout and of
injected noise.
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bncore.lab.batches import Batches


class Stack(nn.Module):
    """Networks side by side.

    Parameters
    ----------
    models : sequence of nn.Sequential
        From ``networks.mlp``, of one shape, and with parameters of their own.
    normalization : callable
        From a number of features to the batch norm in place of theirs; features are normalised one by
        one, so that all networks share it.
    """

    def __init__(self, models, normalization=nn.BatchNorm1d):
        super().__init__()
        layers = [_of_all(group, normalization) for group in zip(*models, strict=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        """From (networks, examples, inputs) to (networks, examples, classes)."""
        return self.layers(x)


def _of_all(layers, normalization):
    """One layer that does what each of these does for its own network."""
    if isinstance(layers[0], nn.Linear):
        return _Linear(layers)
    if isinstance(layers[0], BatchNorm):
        return _Norm(normalization(len(layers) * layers[0].num_features))
    return layers[0]


class _Linear(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]))
        self.bias = None
        if layers[0].bias is not None:
            self.bias = nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in layers]))

    def forward(self, x):
        return x @ self.weight if self.bias is None else torch.baddbmm(self.bias, x, self.weight)


class _Norm(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        examples = x.transpose(0, 1)
        return self.norm(examples.flatten(1)).reshape(examples.shape).transpose(0, 1)


def train(stack, splits, batch, learning_rate, seeds, *, counted, decay, moments, measure):
    """Train a stack as ``training.train`` trains each network on its split, with its seed.

    Parameters
    ----------
    counted : int or None
        Examples of a batch that enter the loss; None for all.
    decay : float
        Strength of the L2 penalty.
    moments : sequence of int
        Numbers of steps after which to measure, ascending; the last ends the training.
    measure : callable
        From the stack.

    Returns
    -------
    list
        What was measured.
    """
    orders = [
        Batches(len(split.x_train), batch, seed) for split, seed in zip(splits, seeds, strict=True)
    ]
    x = torch.stack([split.x_train for split in splits])
    y = torch.stack([split.y_train for split in splits])
    network = torch.arange(len(splits))[:, None]
    descent = torch.optim.SGD(stack.parameters(), learning_rate, weight_decay=decay)
    found = []
    with torch.random.fork_rng():
        torch.manual_seed(seeds[0])
        for step in range(moments[-1] + 1):
            if step in moments:
                found.append(measure(stack.eval()))
            if step == moments[-1]:
                break
            at = torch.stack([next(order) for order in orders])
            scores = stack.train()(x[network, at])[:, :counted].flatten(0, 1)
            loss = cross_entropy(scores, y[network, at[:, :counted]].flatten())
            descent.zero_grad()
            (len(splits) * loss).backward()
            descent.step()
    return found


@torch.no_grad()
def scored(stack, x, y):
    """Accuracy and cross-entropy of each network on its examples, with running statistics."""
    scores = stack(x)
    losses = cross_entropy(scores.flatten(0, 1), y.flatten(), reduction="none").reshape(y.shape)
    right = (scores.argmax(2) == y).double()
    return right.mean(1).numpy(), losses.double().mean(1).numpy()
