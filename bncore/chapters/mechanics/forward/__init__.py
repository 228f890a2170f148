"""The chapter on the transform."""

MODULES = (
    "mechanics/transform",
    "mechanics/textbook",
)
