"""The chapter on inference."""

MODULES = (
    "mechanics/inference",
    "mechanics/averaging",
    "mechanics/folding",
    "mechanics/conventions",
    "mechanics/frameworks",
    "lab/inference",
)
