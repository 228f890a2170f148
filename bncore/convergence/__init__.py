"""Batch normalization as an algorithm with a guarantee: length-direction decoupling and GDNP.

NumPy and SciPy only. z = -y x is a labelled example, u = E[z], S = E[zz'].
Kohler et al. (2019), "Exponential convergence rates for batch normalization".
"""

from bncore.convergence import bounds, losses, reparametrization, textbook, yardsticks
from bncore.convergence.boxes import Unresolved
from bncore.convergence.halfspace import EmpiricalHalfspace, GaussianHalfspace
from bncore.convergence.least_squares import LeastSquares
from bncore.convergence.network import EmpiricalNetwork, GaussianNetwork
from bncore.convergence.solvers import (
    accelerated_gradient_descent,
    batch_norm_gradient_descent,
    gdnp,
    gradient_descent,
    weight_normalization,
)
from bncore.convergence.trace import Trace
from bncore.convergence.unit_by_unit import gdnp_network

__all__ = [
    "EmpiricalHalfspace",
    "EmpiricalNetwork",
    "GaussianHalfspace",
    "GaussianNetwork",
    "LeastSquares",
    "Trace",
    "Unresolved",
    "accelerated_gradient_descent",
    "batch_norm_gradient_descent",
    "bounds",
    "gdnp",
    "gdnp_network",
    "gradient_descent",
    "losses",
    "reparametrization",
    "textbook",
    "weight_normalization",
    "yardsticks",
]
