"""Checks of arguments, shared by this wing.

Each says which argument is wrong, what it was and what it should be, and is called before anything
is computed. Wrong types raise TypeError, wrong values ValueError.
"""

import math
import numbers

import numpy as np

FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


def floating(name, value):
    """Refuse anything but a plain array of float16, float32 or float64.

    Of NumPy's subclasses only memmap is let in: matrices and masked arrays compute differently.
    """
    if type(value) not in (np.ndarray, np.memmap):
        raise TypeError(f"{name} is a {_type_name(value)}, expected a plain numpy.ndarray")
    if value.dtype not in FLOATS:
        raise TypeError(
            f"{name} has dtype {value.dtype}, expected float16, float32 or float64 in native "
            "byte order"
        )


def finite(name, value):
    """Refuse NaN and infinity, and say where the first one is."""
    if np.isfinite(value).all():
        return
    first = np.unravel_index(np.isfinite(value).argmin(), value.shape)
    where = ", ".join(map(str, first))
    raise ValueError(f"{name}[{where}] is {value[first]}, expected finite values only")


def vector(name, value, features, of):
    """Refuse anything but ``features`` finite numbers, one for each feature of the array ``of``."""
    floating(name, value)
    if value.shape != (features,):
        raise ValueError(
            f"{name} has shape {value.shape}, expected ({features},): one entry for each of the "
            f"{features} features of {of}"
        )
    finite(name, value)


def number(name, value):
    """The value as a float. Refuse anything but a real number; a boolean is not a number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is a {_type_name(value)}, expected a real number")
    return float(value)


def positive(name, value):
    """The value as a float. Refuse zero, negative numbers, NaN and infinity."""
    return _within(name, value, "a finite number above 0", lambda v: v > 0)


def nonnegative(name, value):
    """The value as a float. Refuse negative numbers, NaN and infinity."""
    return _within(name, value, "a finite number of at least 0", lambda v: v >= 0)


def positive_integer(name, value):
    """The value as an int. Refuse zero, negative integers and anything but an integer."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is a {_type_name(value)}, expected an integer")
    if value < 1:
        raise ValueError(f"{name} is {value}, expected at least 1")
    return int(value)


def _within(name, value, expected, holds):
    result = number(name, value)
    if not (math.isfinite(result) and holds(result)):
        raise ValueError(f"{name} is {value}, expected {expected}")
    return result


def _type_name(value):
    return "None" if value is None else type(value).__name__
