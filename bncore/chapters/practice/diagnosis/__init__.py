"""The chapter on diagnosis."""
