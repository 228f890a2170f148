"""Why does it work? The wing's opening, drawn from the records of its chapters."""

MODULES = ("explanations/smoothness",)
