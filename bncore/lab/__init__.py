"""Networks, data and training loops shared by the book's torch experiments."""

from bncore.lab import data, networks, probes, training

__all__ = ["data", "networks", "probes", "training"]
