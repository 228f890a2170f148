"""What callers hand in: one rule for the whole package.

- A plain NumPy array of float16, float32 or float64 is taken as it is.
- Lists, tuples and integers become the dtype of the main array they stand beside, or float64 if
  they are the main array; so do floats of another byte order and long doubles. Nothing may be lost
  on the way, but that Python's own numbers are rounded, as NumPy rounds them.
- Booleans, complex numbers, strings and objects are refused, and so are NaN and infinity, tensors,
  sparse matrices and NumPy's subclasses, each by its name and with what to hand in instead.
- Results come in the dtype and the memory order of the main array. ``result`` and ``narrowed`` check
  what leaves.

Each refusal says which argument is wrong, what it was and what it should be, before anything is
computed. Wrong types raise TypeError, wrong values ValueError.
"""

import math
import numbers
from typing import NamedTuple

import numpy as np
from jaxtyping import Real

FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))

Listed = list | tuple
Vector = Real[np.ndarray, "features"]
VectorLike = Vector | Listed


def array(name, value, ndim=None, dtype=None):
    """The value as a plain float array of ``ndim`` axes, if given.

    ``dtype`` is that of the main array, which lists and integers take; float arrays keep their own.
    Entries may be NaN or infinite: see ``finite``.
    """
    if type(value) is not np.ndarray or value.dtype not in FLOATS:
        value = _converted(name, value, np.dtype(dtype or np.float64))
    if ndim is not None and value.ndim != ndim:
        axes = "1 axis" if ndim == 1 else f"{ndim} axes"
        raise ValueError(f"{name} has shape {value.shape}, expected {axes}")
    return value


def exactly(name, value, dtype, ndim=None):
    """The value as a finite array of just this dtype. Refuse what it cannot hold exactly."""
    dtype = np.dtype(dtype)
    value = array(name, value, ndim, dtype)
    finite(name, value)
    if value.dtype == dtype:
        return value
    return _without_loss(name, value, dtype)


def narrowed(name, value, dtype):
    """The finite result ``value`` in the dtype. Refuse what leaves the range of the dtype."""
    with np.errstate(over="ignore"):
        result = value.astype(dtype, copy=False)
    outside = ~np.isfinite(result)
    if outside.any():
        first = np.unravel_index(outside.argmax(), result.shape)
        raise ValueError(
            f"{name}{_at(first)} is {value[first]:.3g}, beyond the largest {np.dtype(dtype)}, "
            f"{np.finfo(dtype).max:.3g}: hand in arrays of higher precision, or smaller values"
        )
    return result


def result(name, value, main):
    """The finite result ``value`` in the dtype and memory order of the main array."""
    kept = np.empty_like(main)
    kept[...] = narrowed(name, value, main.dtype)
    return kept


def finite(name, value):
    """Refuse NaN and infinity, and say where the first one is."""
    if np.count_nonzero(np.isfinite(value)) == value.size:
        return
    first = np.unravel_index(np.isfinite(value).argmin(), value.shape)
    raise ValueError(f"{name}{_at(first)} is {value[first]}, expected finite values only")


def vector(name, value, features, of, dtype=None):
    """The value as ``features`` finite floats, one for each feature of the array ``of``."""
    value = array(name, value, dtype=dtype)
    if value.shape != (features,):
        raise ValueError(
            f"{name} has shape {value.shape}, expected ({features},): one entry for each of the "
            f"{features} features of {of}"
        )
    finite(name, value)
    return value


def no_negative(name, value):
    """Refuse negative entries of a vector."""
    if (value < 0).any():
        j = int((value < 0).argmax())
        raise ValueError(f"{name}[{j}] is {value[j]}, expected at least 0")


def batch(name, x, features=None, least=1):
    """The value as a float array with features on axis 1, ``features`` of them if given.

    Refuse fewer than ``least`` values of a feature, NaN and infinity.
    """
    x = with_features(name, x, features)
    count = values_per_feature(x)
    if count < least:
        raise ValueError(
            f"{name} has shape {x.shape}, {count} values of each feature, expected at least {least}"
        )
    finite(name, x)
    return x


def with_features(name, x, features=None):
    """The value as a float array with features on axis 1, ``features`` of them if given.

    Entries may be NaN or infinite.
    """
    x = array(name, x)
    if x.ndim < 2:
        raise ValueError(
            f"{name} has shape {x.shape}, expected at least two axes: (batch, features, *spatial)"
        )
    if features is not None and x.shape[1] != features:
        raise ValueError(f"{name} has {x.shape[1]} features on axis 1, expected {features}")
    if x.shape[1] == 0:
        raise ValueError(f"{name} has shape {x.shape}, expected at least one feature on axis 1")
    return x


def values_per_feature(x):
    """How many values of each feature the batch x has, over every axis but axis 1."""
    return x.shape[0] * math.prod(x.shape[2:])


def kept(cache, kind, forward="forward"):
    """Refuse a cache that is not of the kind that ``forward`` returns."""
    if not isinstance(cache, kind):
        raise TypeError(
            f"cache is a {type_name(cache)}, expected the Cache that {forward} returned"
        )


class FixedStatistics(NamedTuple):
    """The parameters of a batch norm with fixed statistics; gamma and beta may be None."""

    mean: np.ndarray
    var: np.ndarray
    gamma: np.ndarray | None
    beta: np.ndarray | None
    eps: float


def fixed_statistics(mean, var, gamma, beta, eps, features=None, of="mean", dtype=None):
    """The parameters of a batch norm at inference, as arrays and a float."""
    if features is None:
        mean = array("mean", mean, dtype=dtype)
        if mean.ndim != 1:
            raise ValueError(f"mean has shape {mean.shape}, expected (features,)")
        features = len(mean)
    mean = vector("mean", mean, features, of, dtype)
    var = vector("var", var, features, of, dtype)
    no_negative("var", var)
    gamma, beta = (
        None if value is None else vector(name, value, features, of, dtype)
        for name, value in (("gamma", gamma), ("beta", beta))
    )
    return FixedStatistics(mean, var, gamma, beta, positive("eps", eps))


def number(name, value):
    """The value as a float. Refuse anything but a real number; a boolean is not a number."""
    if type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name} is a {type_name(value)}, expected a real number")
        try:
            value = float(value)
        except OverflowError:
            raise ValueError(
                f"{name} is an integer beyond the largest float64, expected a finite number"
            ) from None
    return value


def finite_number(name, value):
    """The value as a float. Refuse NaN and infinity."""
    return _within(name, value, "a finite number", lambda v: True)


def positive(name, value):
    """The value as a float. Refuse zero, negative numbers, NaN and infinity."""
    return _within(name, value, "a finite number above 0", lambda v: v > 0)


def nonnegative(name, value):
    """The value as a float. Refuse negative numbers, NaN and infinity."""
    return _within(name, value, "a finite number of at least 0", lambda v: v >= 0)


def fraction(name, value):
    """The value as a float. Refuse anything outside [0, 1]."""
    return _within(name, value, "a number in [0, 1]", lambda v: 0 <= v <= 1)


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


def is_tensor(value):
    """Whether the value is a tensor of torch, told without importing torch."""
    return any(base.__module__.partition(".")[0] == "torch" for base in type(value).__mro__)


def type_name(value):
    """What the value is called in an error."""
    return "None" if value is None else type(value).__name__


def _within(name, value, expected, holds):
    result = number(name, value)
    if not (math.isfinite(result) and holds(result)):
        raise ValueError(f"{name} is {value}, expected {expected}")
    return result


def _at(index):
    return f"[{', '.join(map(str, index))}]" if index else ""


def _converted(name, value, dtype):
    """A plain float array from a list, integers, or floats of another kind."""
    if isinstance(value, list | tuple):
        return _from_list(name, value, dtype)
    if type(value) not in (np.ndarray, np.memmap):
        raise TypeError(_refusal(name, value))
    if value.dtype in FLOATS:
        return value
    if value.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {value.dtype}, expected real numbers")
    native = value.dtype.newbyteorder("=")
    if native in FLOATS:
        return value.astype(native)
    return _without_loss(name, value, dtype)


def _from_list(name, value, dtype):
    if any(is_tensor(entry) for entry in value):
        raise TypeError(f"{name} is a {type_name(value)} of tensors, expected numbers")
    try:
        found = np.array(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{name} is a {type_name(value)} whose rows do not form an array, expected rows of "
            "numbers, all of one length"
        ) from error
    if found.size and found.dtype.kind not in "iuf":
        raise TypeError(f"{name} is a {type_name(value)} of {found.dtype}, expected real numbers")
    if found.dtype.kind == "f" and found.dtype.itemsize <= 8:
        with np.errstate(over="ignore"):
            result = found.astype(dtype)
        if np.isinf(result).sum() > np.isinf(found).sum():
            narrowed(name, found, dtype)
        return result
    return _without_loss(name, found, dtype)


def _without_loss(name, value, dtype):
    with np.errstate(over="ignore"):
        result = value.astype(dtype)
    if value.dtype.kind == "f":
        lost = (result != value) & ~np.isnan(value)
    else:
        lost = np.zeros(value.shape, bool)
        large = np.abs(result.astype(np.float64)) >= 2 / np.finfo(dtype).eps
        lost[large] = [
            not math.isfinite(b) or int(a) != int(b)
            for a, b in zip(value[large], result[large], strict=True)
        ]
    if lost.any():
        first = np.unravel_index(lost.argmax(), value.shape)
        raise ValueError(
            f"{name}{_at(first)} is {value[first]}, which {dtype} cannot hold exactly; where "
            f"rounding is meant, hand in {name}.astype({str(dtype)!r})"
        )
    return result


def _refusal(name, value):
    kind = type_name(value)
    if is_tensor(value):
        return (
            f"{name} is a torch {kind}, expected a numpy.ndarray: hand in "
            f"{name}.detach().numpy(force=True)"
        )
    if hasattr(value, "tocsr"):
        return f"{name} is a sparse {kind}, expected a dense array: hand in {name}.toarray()"
    if isinstance(value, np.ndarray):
        return (
            f"{name} is a {kind}, expected a plain numpy.ndarray: of NumPy's subclasses only memmap "
            "computes as arrays do"
        )
    return f"{name} is a {kind}, expected a numpy.ndarray or a list of numbers"
