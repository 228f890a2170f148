"""The chapter on scale invariance."""

MODULES = (
    "explanations/scale_invariance",
    "explanations/effective_rate",
    "explanations/weight_length",
)
