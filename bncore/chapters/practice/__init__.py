"""The wing practice."""
