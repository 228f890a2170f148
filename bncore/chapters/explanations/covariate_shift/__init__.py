"""The chapter on internal covariate shift."""

MODULES = (
    "explanations/covariate_shift",
    "explanations/layering",
    "explanations/noisy_batch_norm",
    "explanations/two_layers",
)
