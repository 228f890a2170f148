"""The chapter on least squares."""

MODULES = (
    "convergence/least_squares",
    "convergence/bounds",
)
