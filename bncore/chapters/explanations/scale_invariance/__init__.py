"""The chapter on scale invariance."""
