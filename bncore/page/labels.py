"""How a figure's parameters are named and their values written."""

import re

import numpy as np

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eps": "ε", "eta": "η",
    "kappa": "κ", "lambda_": "λ", "mu": "μ", "rho": "ρ", "sigma": "σ", "theta": "θ",
}  # fmt: skip
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def label(name):
    """The reader's name of a parameter: Greek letters as letters, underscores as spaces."""
    return GREEK.get(name, name.replace("_", " ").strip())


def unbroken(text):
    """`text` with spaces inside numbers and before % at which no line breaks."""
    return re.sub(r"(?<=\d) (?=\d{3}(?!\d)|%)", "\N{NO-BREAK SPACE}", text)


def is_choice(grid):
    """Whether the values of `grid` are names to choose from, and not the values of a quantity."""
    return any(isinstance(value, str | bool | np.bool_) for value in grid)


def value_text(value):
    """A grid value as people write it: text as it is, whole numbers in full, others to three digits.

    Below 0.00001 and from a million on a power of ten stands for the zeros; a truth is yes or no.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    number = float(value) + 0.0  # plus 0: a zero has no sign
    if number.is_integer() and abs(number) < 1e6:
        text = f"{number:.0f}"
    else:
        mantissa, _, exponent = f"{number:.2e}".partition("e")
        if not exponent:  # infinite, or no number
            text = mantissa
        elif -5 <= int(exponent) < 6:
            text = np.format_float_positional(float(f"{number:.2e}"), trim="-")
        else:
            factor = f"{float(mantissa):g} × ".removeprefix("1 × ").replace("-1 × ", "-")
            text = f"{factor}10{str(int(exponent)).translate(RAISED)}"
    return text.replace("-", "−")
