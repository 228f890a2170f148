"""How a figure's parameters are named and their values written."""

import numpy as np

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eps": "ε", "eta": "η",
    "kappa": "κ", "lambda_": "λ", "mu": "μ", "rho": "ρ", "sigma": "σ", "theta": "θ",
}  # fmt: skip


def label(name):
    """The reader's name of a parameter: Greek letters as letters, underscores as spaces."""
    return GREEK.get(name, name.replace("_", " ").strip())


def value_text(value):
    """A grid value as the reader sees it: text as it is, numbers to three digits."""
    if isinstance(value, str | bool | np.bool_):
        return str(value)
    return f"{value + 0:.3g}".replace("-", "−")  # plus 0: a zero has no sign
