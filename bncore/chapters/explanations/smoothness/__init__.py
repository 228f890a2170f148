"""The chapter on smoothness."""

MODULES = (
    "explanations/smoothness",
    "explanations/spectrum",
    "explanations/landscape",
)
