"""The chapter on length and direction."""

MODULES = ("convergence/reparametrization",)
