"""The chapter on the gradient of the transform."""

MODULES = (
    "mechanics/transform",
    "mechanics/textbook",
    "mechanics/projection",
)
