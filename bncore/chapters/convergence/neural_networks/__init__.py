"""The chapter on neural networks."""

MODULES = ("convergence/network", "convergence/unit", "convergence/unit_by_unit")
