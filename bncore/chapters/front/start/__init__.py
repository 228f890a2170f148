"""Batch norm in ten minutes: for whoever wants to use it."""

MODULES = ()
