"""The chapter on depth."""

MODULES = (
    "explanations/depth",
    "explanations/gradient_independence",
)
