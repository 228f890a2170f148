"""The chapter on neural networks."""

MODULES = ("convergence/network",)
