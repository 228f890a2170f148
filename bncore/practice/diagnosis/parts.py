"""What a batch norm consists of, whichever class it is of."""

from typing import NamedTuple

import torch
from torch import nn

# Multiples of a dtype's eps by which computed numbers may differ for rounding alone.
ROUNDINGS = 16


class Parts(NamedTuple):
    """The tensors and settings of a batch norm; what it lacks is None.

    Attributes
    ----------
    mean, var : Tensor or None
        Running statistics.
    gamma, beta : Tensor or None
    updates : int or None
        How often the running statistics have been updated, by the layer's own count.
    momentum : float or None
        Weight of the newest batch; None averages all batches equally.
    eps : float
    """

    mean: torch.Tensor | None
    var: torch.Tensor | None
    gamma: torch.Tensor | None
    beta: torch.Tensor | None
    updates: int | None
    momentum: float | None
    eps: float

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Those that it has, by their names in torch."""
        names = ("running_mean", "running_var", "weight", "bias")
        values = (self.mean, self.var, self.gamma, self.beta)
        return {n: v for n, v in zip(names, values, strict=True) if v is not None}

    @property
    def has_statistics(self) -> bool:
        """Whether it keeps running statistics."""
        return self.mean is not None and self.var is not None

    @property
    def initial(self) -> bool:
        """Whether the running statistics are just what torch begins with, mean 0 and variance 1."""
        return bool((self.mean == 0).all() and (self.var == 1).all())

    @property
    def initial_weight(self) -> float | None:
        """(1 - a)^n, what the initial values weigh after n updates; None where it is not known."""
        if self.updates is None:
            return None
        if self.updates == 0:
            return 1.0 if self.initial else None
        return 0.0 if self.momentum is None else (1 - self.momentum) ** self.updates

    def vanished(self) -> torch.Tensor | None:
        """Which features have a gamma that is 0 to rounding, of the largest one."""
        if self.gamma is None or self.updates == 0:
            return None
        size = self.gamma.detach().abs().double().cpu()
        return size <= ROUNDINGS * torch.finfo(self.gamma.dtype).eps * size.max()


def parts(module: nn.Module) -> Parts:
    """The parts of a batch norm, under torch's names or as gamma and beta."""

    def tensor(*names):
        found = (getattr(module, name, None) for name in names)
        return next((one for one in found if isinstance(one, torch.Tensor)), None)

    updates = tensor("num_batches_tracked")
    momentum = getattr(module, "momentum", 0.1)
    return Parts(
        tensor("running_mean"),
        tensor("running_var"),
        tensor("weight", "gamma"),
        tensor("bias", "beta"),
        None if updates is None else int(updates),
        None if momentum is None else float(momentum),
        float(getattr(module, "eps", 1e-5)),
    )
