"""The chapter on halfspaces."""

MODULES = ("convergence/halfspace",)
