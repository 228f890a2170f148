"""The chapter on the noise of batch statistics."""

MODULES = (
    "explanations/noise",
    "explanations/ghost_batches",
    "explanations/uncertainty",
    "explanations/variance_shift",
)
