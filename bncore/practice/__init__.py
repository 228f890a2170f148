"""Batch norm in use: what a practitioner decides, repairs and looks for."""
