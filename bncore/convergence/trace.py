"""What a run leaves behind: plain arrays, one row an iterate, from which figures are drawn elsewhere."""

import time
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Real

from bncore import arguments as check
from bncore import progress
from bncore.convergence.boxes import Unresolved


@dataclass(frozen=True, eq=False)
class Trace:
    """A run of T steps. All arrays have T + 1 rows, the start included.

    Attributes
    ----------
    w : Float[ndarray, "iterates dimension"]
        Directions, of any length; what the solver steps.
    g : Float[ndarray, "iterates"]
        Lengths of the effective weights in the norm of S (in the plain norm for weight
        normalization), with a sign.
    weights : Float[ndarray, "iterates dimension"]
        Effective weights, at which f is evaluated.
    value, gradient_norm : Float[ndarray, "iterates"]
        f and the plain norm of its gradient at the effective weights.
    rayleigh_gap : Float[ndarray, "iterates"]
        rho(w) - rho*; NaN where w is 0.
    bound : Float[ndarray, "iterates"]
        (1 - mu/L)^(2t) rayleigh_gap[0] for GDNP without relaxation, whose gap it bounds; NaN for other
        solvers.
    seconds : Float[ndarray, "iterates"]
        Since the run began.
    brackets : Float[ndarray, "iterates 2"] or None
        Where the search for the length began, for GDNP.
    halvings : Int[ndarray, "iterates"] or None
        How often bisection halved it; fewer than asked for once its ends are neighbours.
    status : str
        "tolerance" (the gradient is small enough), "budget" (all steps were made), "stalled" (the
        method finds no further step), "diverged", "unresolved" (f is not computed to its accuracy
        where the next step leads), and for GDNP "no finite length" (f falls for ever along the last
        direction).
    message : str
        The status in words.
    """

    w: Float[np.ndarray, "iterates dimension"]
    g: Float[np.ndarray, "iterates"]
    weights: Float[np.ndarray, "iterates dimension"]
    value: Float[np.ndarray, "iterates"]
    gradient_norm: Float[np.ndarray, "iterates"]
    rayleigh_gap: Float[np.ndarray, "iterates"]
    bound: Float[np.ndarray, "iterates"]
    seconds: Float[np.ndarray, "iterates"]
    brackets: Float[np.ndarray, "iterates 2"] | None
    halvings: Int[np.ndarray, "iterates"] | None
    status: str
    message: str

    @property
    def steps(self) -> int:
        """T, the number of steps made."""
        return len(self.g) - 1


def held(values: Real[np.ndarray, "iterates"], steps: int) -> Real[np.ndarray, "iterates_and_more"]:
    """Return a quantity of a run at each of steps + 1 points: a run that ended before stays where it is.

    A run ends before its budget where its gradient is exactly 0, which rounding decides.
    """
    return np.pad(values, (0, max(steps + 1 - len(values), 0)), mode="edge")


class Recorder:
    """Collects the rows of a trace and decides when a run ends."""

    def __init__(self, steps, tolerance, description):
        self.rows, self.searches = [], []
        self.steps = steps = check.integer("steps", steps, least=0)
        self.tolerance = check.nonnegative("tolerance", tolerance)
        self.status, self.message = "budget", f"all {steps} steps were made"
        self._bar = progress.bar(range(steps + 1), description, "steps")
        self._began = time.perf_counter()

    def __iter__(self):
        for t in self._bar:
            yield t
            if self.status != "budget":
                return

    def add(self, line, t, gradient, w=None, g=None):
        """Keep the iterate t * line.w; say whether another step is wanted."""
        value = line.value(t)
        size = float(np.linalg.norm(gradient))
        if not (np.isfinite(value) and np.isfinite(size)):
            if not self.rows:
                raise ValueError(
                    f"f is {value:.3g} at the start and its gradient has the norm {size:.3g}, "
                    "expected finite numbers: start nearer to 0"
                )
            self.stop("diverged", f"f or its gradient is not finite after {len(self.rows)} steps")
            return False
        weights = t * line.w
        gap = line.rayleigh_gap if line.norm > 0 else np.nan
        g = t * line.norm if g is None else g
        now = time.perf_counter() - self._began
        self.rows.append((line.w if w is None else w, g, weights, value, size, gap, now))
        if size <= self.tolerance:
            self.stop("tolerance", f"the gradient's norm is at most {self.tolerance:g}")
            return False
        return len(self.rows) <= self.steps

    @contextmanager
    def until_unresolved(self):
        """End the run where f is not computed to its accuracy; at the start, refuse it."""
        try:
            yield
        except Unresolved as refusal:
            if not self.rows:
                raise
            self.stop("unresolved", str(refusal))

    def stop(self, status, message):
        """End the run with this status."""
        self.status, self.message = status, message

    def trace(self, rate=None):
        """The rows as a Trace; ``rate`` is the factor of the Rayleigh gap's bound a step."""
        w, g, weights, value, size, gap, seconds = map(np.array, zip(*self.rows, strict=True))
        bound = np.full(len(g), np.nan) if rate is None else gap[0] * rate ** np.arange(len(g))
        brackets, halvings = (
            map(np.array, zip(*self.searches[: len(g)], strict=True))
            if self.searches
            else (None, None)
        )
        return Trace(
            w, g, weights, value, size, gap, bound, seconds, brackets, halvings,
            self.status, self.message,
        )  # fmt: skip
