"""Networks, data and training loops shared by the book's torch experiments."""

from bncore.lab import data, networks, probes, recorded, sweep, training

__all__ = ["data", "networks", "probes", "recorded", "sweep", "training"]
