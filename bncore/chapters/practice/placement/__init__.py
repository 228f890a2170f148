"""The chapter on placement and tuning."""

MODULES = ("lab/recurrent", "lab/layers", "lab/networks")
