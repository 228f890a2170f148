"""The chapter on placement and tuning."""
