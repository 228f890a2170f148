"""Many small networks trained side by side in one: at other rates, from other seeds, none seeing another.

A batch norm treats its features one by one. So R networks of C units are one batch norm of R C
features, and a layer norm of each is one group norm of R groups: the layers are those of torch and of
bncore, and a step of two dozen networks takes little longer than that of one. ``lab.together`` stacks
networks with ``vmap``, where a layer cannot read its own counter, as renormalization's schedules do.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import nn
from torch.nn.functional import cross_entropy, relu

from bncore.lab import networks
from bncore.lab.batches import Batches

Norm = Callable[[int], nn.Module]


class SideBySide(nn.Module):
    """R perceptrons, from (batch, R, inputs) to (batch, R, outputs), each as ``networks.mlp``'s.

    Parameters
    ----------
    widths : sequence of int
    norm : callable, optional
        From a number of features to a module; it is given R times those of a layer.
    seeds : sequence of int
        Of the weights, one for each of R networks.
    """

    def __init__(self, widths: Sequence[int], norm: Norm | None, seeds: Sequence[int]):
        super().__init__()
        chosen = None if norm is None else "batch"
        models = [networks.mlp(widths, "relu", chosen, gain=2**0.5, seed=seed) for seed in seeds]
        self.copies = len(models)
        linear = [[layer for layer in one if isinstance(layer, nn.Linear)] for one in models]
        self.weights, self.biases, self.norms = (
            nn.ParameterList(),
            nn.ParameterList(),
            nn.ModuleList(),
        )
        for layers in zip(*linear, strict=True):
            self.weights.append(torch.stack([layer.weight.detach().T for layer in layers]))
            units = len(layers[0].weight)
            self.biases.append(torch.zeros(self.copies, units))
        if norm is not None:
            self.norms.extend(norm(self.copies * units) for units in widths[1:-1])

    def forward(
        self, x: Float[torch.Tensor, "batch copies inputs"]
    ) -> Float[torch.Tensor, "batch copies outputs"]:
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.bmm(x.transpose(0, 1), weight).transpose(0, 1)
            if i == last or not self.norms:
                x = x + bias
            if i < last:
                if self.norms:
                    x = self.norms[i](x.reshape(len(x), -1)).reshape(x.shape)
                x = relu(x)
        return x


class Pool:
    """The examples of several splits, from which each network takes its own batches.

    Each split's batches are those of ``Batches`` with its seed; a whole pass is drawn at a time.
    """

    def __init__(self, splits: Sequence, which: Sequence[int], seeds: Sequence[int], size: int):
        self.x = torch.stack([split.x_train for split in splits])
        self.y = torch.stack([split.y_train for split in splits])
        self.which = torch.tensor(which)
        self.size, self.orders = size, [Batches(self.x.shape[1], size, seed) for seed in seeds]
        self.drawn = iter(())

    def batch(
        self,
    ) -> tuple[Float[torch.Tensor, "batch copies inputs"], Int[torch.Tensor, "batch copies"]]:
        """The next batch of each split, for every network that learns from it."""
        rows = torch.arange(len(self.orders))[:, None]
        chosen = next(self.drawn, None)
        if chosen is None:
            passes = self.x.shape[1] // self.size
            drawn = [torch.cat([next(order) for _ in range(passes)]) for order in self.orders]
            self.drawn = iter(torch.stack(drawn).split(self.size, 1))
            chosen = next(self.drawn)
        x, y = self.x[rows, chosen], self.y[rows, chosen]
        return x[self.which].transpose(0, 1), y[self.which].T


def step(
    model: SideBySide,
    x: Float[torch.Tensor, "batch copies inputs"],
    y: Int[torch.Tensor, "batch copies"],
    rates: Float[torch.Tensor, "copies"],
) -> None:
    """A step of gradient descent of every network, each down its own mean loss at its own rate."""
    scores = model(x)
    # A sum over the networks, so that the gradient of each is that of its own mean.
    loss = cross_entropy(scores.flatten(0, 1), y.flatten(), reduction="sum") / len(x)
    parameters = [p for p in model.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, slope in zip(parameters, slopes, strict=True):
            if slope is not None:
                each = parameter.view(model.copies, -1)
                each.addcmul_(slope.reshape(model.copies, -1), rates[:, None], value=-1)


def errors(
    model: SideBySide,
    x: Float[torch.Tensor, "copies examples inputs"],
    y: Int[torch.Tensor, "copies examples"],
) -> Float[torch.Tensor, "copies"]:
    """The share of examples that each network gets wrong, in evaluation mode; of a diverged one all.

    The model is left in evaluation mode.
    """
    with torch.no_grad():
        scores = model.eval()(x.transpose(0, 1))
    wrong = (scores.argmax(2) != y.T) | ~scores.isfinite().all(2)
    return wrong.double().mean(0)


def refitted(model: SideBySide, x: Float[torch.Tensor, "copies examples inputs"]) -> SideBySide:
    """A copy whose running statistics are those of all these examples, taken in one batch."""
    fitted = copy.deepcopy(model).train()
    for norm in fitted.norms:
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        fitted(x.transpose(0, 1))
    return fitted
