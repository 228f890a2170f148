"""The chapter on small batches."""
