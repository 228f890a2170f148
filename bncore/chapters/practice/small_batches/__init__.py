"""The chapter on small batches."""

MODULES = ("practice/renormalization", "practice/recalibration", "explanations/ghost_batches")
