"""The chapter on internal covariate shift."""
