"""The chapter on the noise of batch statistics."""

MODULES = (
    "explanations/noise",
    "explanations/uncertainty",
    "explanations/variance_shift",
)
