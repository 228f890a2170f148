"""The order in which a training set is seen, as something that can be stopped and taken up again."""

import torch
from jaxtyping import Int

from bncore import arguments as check


class Batches:
    """Indices of batches drawn without replacement, epoch after epoch, without end.

    What does not fill a batch at the end of an epoch is left out.

    Parameters
    ----------
    count : int
        Size of the training set.
    size : int
        Of a batch, at most count.
    seed : int

    Raises
    ------
    TypeError
        If a number is not an integer.
    ValueError
        If count or size is below 1, size above count, or seed negative.
    """

    def __init__(self, count: int, size: int, seed: int):
        self._count = check.positive_integer("count", count)
        self._size = check.positive_integer("size", size)
        check.integer("seed", seed, least=0)
        if size > count:
            raise ValueError(f"size is {size}, expected at most count, {count}")
        self._generator = torch.Generator().manual_seed(seed)
        self._order, self._next = torch.empty(0, dtype=torch.int64), 0

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Int[torch.Tensor, "size"]:
        if self._next + self._size > len(self._order):
            self._order = torch.randperm(self._count, generator=self._generator)
            self._next = 0
        batch = self._order[self._next : self._next + self._size]
        self._next += self._size
        return batch

    def state(self) -> dict:
        """Where the order stands."""
        return {
            "generator": self._generator.get_state(),
            "order": self._order,
            "next": self._next,
        }

    def restore(self, state: dict) -> None:
        """Go on from where another order stood."""
        self._generator.set_state(state["generator"])
        self._order, self._next = state["order"], state["next"]
