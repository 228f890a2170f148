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
        raise TypeError(f"{name} is a {type_name(value)}, expected a plain numpy.ndarray")
    if value.dtype not in FLOATS:
        raise TypeError(
            f"{name} has dtype {value.dtype}, expected float16, float32 or float64 in native "
            "byte order"
        )


def finite(name, value):
    """Refuse NaN and infinity, and say where the first one is."""
    if np.count_nonzero(np.isfinite(value)) == value.size:
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


def no_negative(name, value):
    """Refuse negative entries of a vector."""
    if (value < 0).any():
        j = int((value < 0).argmax())
        raise ValueError(f"{name}[{j}] is {value[j]}, expected at least 0")


def number(name, value):
    """The value as a float. Refuse anything but a real number; a boolean is not a number."""
    if type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name} is a {type_name(value)}, expected a real number")
        value = float(value)
    return value


def positive(name, value):
    """The value as a float. Refuse zero, negative numbers, NaN and infinity."""
    return _within(name, value, "a finite number above 0", lambda v: v > 0)


def nonnegative(name, value):
    """The value as a float. Refuse negative numbers, NaN and infinity."""
    return _within(name, value, "a finite number of at least 0", lambda v: v >= 0)


def positive_integer(name, value):
    """The value as an int. Refuse zero, negative integers and anything but an integer."""
    return integer(name, value, least=1)


def integer(name, value, least):
    """The value as an int. Refuse smaller integers and anything but an integer."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is a {type_name(value)}, expected an integer")
    if value < least:
        raise ValueError(f"{name} is {value}, expected at least {least}")
    return int(value)


def fraction(name, value):
    """The value as a float. Refuse anything outside [0, 1]."""
    return _within(name, value, "a number in [0, 1]", lambda v: 0 <= v <= 1)


def values_per_feature(name, x, features=None, least=1):
    """Number of values of each feature of a batch, of which there must be ``least``.

    Refuse anything but finite numbers with features on axis 1, ``features`` of them if given.
    """
    floating(name, x)
    if x.ndim < 2:
        raise ValueError(f"{name} has shape {x.shape}, expected (batch, features, *spatial)")
    if features is not None and x.shape[1] != features:
        raise ValueError(f"{name} has {x.shape[1]} features on axis 1, expected {features}")
    count = x.shape[0] * math.prod(x.shape[2:])
    if x.shape[1] == 0:
        raise ValueError(f"{name} has shape {x.shape}, expected at least one feature on axis 1")
    if count < least:
        raise ValueError(
            f"{name} has shape {x.shape}, {count} values of each feature, expected at least {least}"
        )
    finite(name, x)
    return count


def fixed_statistics(mean, var, gamma, beta, eps, features=None, of="mean"):
    """Refuse anything but the parameters of a batch norm in inference; gamma, beta may be None."""
    if features is None:
        floating("mean", mean)
        if mean.ndim != 1:
            raise ValueError(f"mean has shape {mean.shape}, expected (features,)")
        features = len(mean)
    vector("mean", mean, features, of)
    vector("var", var, features, of)
    no_negative("var", var)
    for name, value in (("gamma", gamma), ("beta", beta)):
        if value is not None:
            vector(name, value, features, of)
    positive("eps", eps)


def _within(name, value, expected, holds):
    result = number(name, value)
    if not (math.isfinite(result) and holds(result)):
        raise ValueError(f"{name} is {value}, expected {expected}")
    return result


def type_name(value):
    return "None" if value is None else type(value).__name__
