"""A recurrent network that reads an image row by row, with batch norm in one of three places.

Sources: Laurent et al. (2016), batch norm of the input of a recurrence; Cooijmans et al. (2017), of
the recurrence itself.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import nn

from bncore import arguments as check
from bncore.lab.layers import Activation, Layers, Placement, seeded

NORMALIZATIONS = (None, "input", "shared", "per step")

Normalized = Literal["input", "shared", "per step"] | None


class Recurrent(nn.Module):
    r"""A state moved by each row of an image, and scores read off the last state.

    :math:`h_t = \varphi(W x_t + U h_{t-1} + b)` with :math:`h_0 = 0`, scores :math:`V h_T + c`. With
    batch norm N

    - of the "input", :math:`h_t = \varphi(\mathrm{N}(W x_t) + U h_{t-1})`, with one mean and variance
      of all steps and examples of a batch;
    - "shared" or "per step", :math:`h_t = \varphi(\mathrm{N}_t(W x_t + U h_{t-1}))`, or, after the
      activation, :math:`h_t = \mathrm{N}_t(\varphi(W x_t + U h_{t-1} + b))`, with the mean and variance
      of the batch at step t.

    "shared" and "per step" are the same in training. They differ in what they remember for use: one
    running mean and variance, which every step moves, or one for each step. In both, all steps have
    one scale and one shift.

    Parameters
    ----------
    inputs : int
        Numbers in a row.
    units : int
        Of the state.
    outputs : int
    steps : int
        Rows of an image.
    activation : str or callable
        As in ``networks.mlp``.
    normalization : {None, "input", "shared", "per step"}
    placement : {"before", "after"}
        Where the normalisation of the recurrence stands; that of the input is always before.
    gain : float, optional
        Draw weights from N(0, gain² / fan_in), biases 0. Without it torch's own initialisation.
    momentum, eps
        Of the batch norms.
    seed : int
        Of the weights, which are the same with and without normalisation.

    Raises
    ------
    TypeError
        If a number is of the wrong type.
    ValueError
        If a number is outside its range, a name unknown, or the input's normalisation is to stand
        after the activation.

    References
    ----------
    Laurent et al. (2016), section 4; Cooijmans et al. (2017), section 3.
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        outputs: int,
        steps: int,
        activation: Activation = "tanh",
        normalization: Normalized = None,
        *,
        placement: Placement = "before",
        gain: float | None = None,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        seed: int = 0,
    ):
        super().__init__()
        for name, value in (("inputs", inputs), ("units", units), ("outputs", outputs)):
            check.positive_integer(name, value)
        self.steps, self.inputs = check.positive_integer("steps", steps), inputs
        if normalization not in NORMALIZATIONS:
            expected = ", ".join(map(repr, NORMALIZATIONS))
            raise ValueError(f"normalization is {normalization!r}, expected one of {expected}")
        if (normalization, placement) == ("input", "after"):
            raise ValueError(
                "placement is 'after' with the normalization 'input', expected 'before': what is "
                "normalised is the input of the recurrence, not what its activation returns"
            )
        self.normalization, self.placement = normalization, placement
        kind = None if normalization is None else "batch"
        make = Layers(activation, kind, gain, seed, momentum=momentum, eps=eps, placement=placement)
        with seeded(seed):
            self.input = make.linear(inputs, units, make.bias)
            self.recurrence = make.linear(units, units, False)
            self.output = make.linear(units, outputs)
        count = {None: 0, "input": 1, "shared": 1, "per step": steps}[normalization]
        self.norms = nn.ModuleList(make.norm(units) for _ in range(count))
        for norm in self.norms:
            norm.weight, norm.bias = self.norms[0].weight, self.norms[0].bias
        self.activation = make.activation()

    def forward(self, x: Float[torch.Tensor, "batch *pixels"]):
        moves = self.input(self._rows(x))
        if self.normalization == "input":
            moves = self.norms[0](moves.flatten(0, 1)).reshape(moves.shape)
        state = moves.new_zeros(moves[:, 0].shape)
        for step in range(self.steps):
            state = self._moved(step, moves[:, step] + self.recurrence(state))
        return self.output(state)

    def _rows(self, x):
        if x.ndim == 1 or x[:1].numel() != min(len(x), 1) * self.steps * self.inputs:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected (batch, {self.steps * self.inputs}), or the "
                f"same in {self.steps} rows of {self.inputs}"
            )
        return x.reshape(len(x), self.steps, self.inputs)

    def _moved(self, step, z):
        if self.normalization in (None, "input"):
            return self.activation(z)
        norm = self.norms[step if self.normalization == "per step" else 0]
        if self.placement == "after":
            return norm(self.activation(z))
        return self.activation(norm(z))
