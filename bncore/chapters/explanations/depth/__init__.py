"""The chapter on depth."""

MODULES = (
    "explanations/depth",
    "explanations/gradient_independence",
    "explanations/gradient_norms",
    "explanations/propagation",
)
