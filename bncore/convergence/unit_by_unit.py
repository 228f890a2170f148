"""GDNP on the hidden units of a network, one after the other.

Kohler et al. (2019), section 5.
"""

from typing import NamedTuple

import numpy as np

from bncore import arguments as check
from bncore.convergence.network import EmpiricalNetwork, GaussianNetwork, Layer, LayerLike
from bncore.convergence.solvers import gdnp
from bncore.convergence.trace import Trace


class NetworkTrace(NamedTuple):
    """The runs of ``gdnp_network``, unit by unit, and the weights that they end with."""

    traces: list[Trace]
    weights: Layer


def gdnp_network(
    network: GaussianNetwork | EmpiricalNetwork,
    W0: LayerLike,
    *,
    steps: int = 100,
    bisection_steps: int = 20,
    sweeps: int = 1,
    others: str = "zero",
) -> NetworkTrace:
    """Run GDNP on one unit after the other.

    Parameters
    ----------
    network : GaussianNetwork or EmpiricalNetwork
        What to train.
    W0 : Real[ndarray, "units dimension"]
        Where each unit starts, not orthogonal to u.
    steps, bisection_steps : int
        As for ``gdnp``, for each unit.
    sweeps : int
        How often each unit takes its turn.
    others : str
        Where units wait that have not had a turn: at "zero", as the theorem needs, or at the
        "start" in W0.

    Raises
    ------
    TypeError, ValueError
        As ``gdnp``; if ``others`` is neither.

    References
    ----------
    Kohler et al. (2019), section 5, theorem 3.
    """
    if not isinstance(network, GaussianNetwork | EmpiricalNetwork):
        raise TypeError(
            f"network is a {check.type_name(network)}, expected a GaussianNetwork or an "
            "EmpiricalNetwork; gdnp takes problems"
        )
    if others not in ("zero", "start"):
        raise ValueError(f"others is {others!r}, expected 'zero' or 'start'")
    check.positive_integer("sweeps", sweeps)
    W0 = network._layer(W0)
    W = np.zeros_like(W0) if others == "zero" else W0.copy()
    traces = []
    for sweep in range(sweeps):
        for i in range(len(W)):
            start = W0[i] if sweep == 0 else W[i]
            trace = gdnp(network.unit(i, W), start, steps=steps, bisection_steps=bisection_steps)
            traces.append(trace)
            W[i] = trace.weights[-1]
    return NetworkTrace(traces, W)
