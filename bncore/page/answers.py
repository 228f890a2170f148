"""Say in words how an answer differs from the expected one, and print values for a reader.

Numbers agree when they differ by at most `atol` plus `rtol` times the largest magnitude in the
expected array: entries that cancel to almost nothing are held to the scale of their neighbours.
"""

import math
from collections.abc import Mapping
from numbers import Number, Real

import numpy as np

DIGITS = 4


def difference(
    expected: object, answer: object, rtol: Real, atol: Real, name: str = "the answer"
) -> str | None:
    """Return what distinguishes `answer` from `expected`, or None if they agree.

    Parameters
    ----------
    expected, answer : object
        Numbers, strings, booleans, arrays, tensors, or tuples, lists and dictionaries of them.
    rtol, atol : float
        Tolerances, relative to the largest expected magnitude and absolute.
    name : str
        What to call the answer.

    Returns
    -------
    str or None
    """
    if answer is None and expected is not None:
        return f"{name} is None: is a `return` missing?"
    if isinstance(expected, Mapping):
        return _mapping_difference(expected, answer, rtol, atol, name)
    if isinstance(expected, tuple | list):
        return _sequence_difference(expected, answer, rtol, atol, name)
    if isinstance(expected, bool | np.bool_):
        if not isinstance(answer, bool | np.bool_):
            return f"{name} is {_a(answer)}, expected a bool"
        return None if answer == expected else f"{name} is the opposite of what is expected"
    if isinstance(expected, Number):
        if isinstance(answer, bool | np.bool_) or not (
            isinstance(answer, Number) or getattr(answer, "shape", None) == ()
        ):
            return f"{name} is {_a(answer)}, expected a number"
        return _array_difference(np.asarray(expected), np.asarray(answer), rtol, atol, name)
    if _is_tensor(expected) or isinstance(expected, np.ndarray):
        if _is_tensor(expected) != _is_tensor(answer) or not hasattr(answer, "dtype"):
            kind = "torch tensor" if _is_tensor(expected) else "NumPy array"
            return f"{name} is {_a(answer)}, expected a {kind}"
        if isinstance(expected, np.ndarray) and not _same_precision(expected, answer):
            return f"{name} has dtype {answer.dtype}, expected {expected.dtype}"
        if _is_tensor(expected) and expected.dtype != answer.dtype:
            return f"{name} has dtype {answer.dtype}, expected {expected.dtype}"
        return _array_difference(_numpy(expected), _numpy(answer), rtol, atol, name)
    if type(answer) is not type(expected):
        return f"{name} is {_a(answer)}, expected {_a(expected)}"
    return None if answer == expected else f"{name} is not what is expected"


def _mapping_difference(expected, answer, rtol, atol, name):
    if not isinstance(answer, Mapping):
        return f"{name} is {_a(answer)}, expected a dictionary"
    if set(answer) != set(expected):
        found = ", ".join(sorted(map(repr, answer))) or "none"
        return f"{name} has the keys {found}, expected {', '.join(sorted(map(repr, expected)))}"
    for key, value in expected.items():
        if problem := difference(value, answer[key], rtol, atol, f"entry {key!r}"):
            return problem
    return None


def _sequence_difference(expected, answer, rtol, atol, name):
    fields = getattr(expected, "_fields", None)
    of = f" ({', '.join(fields)})" if fields else ""
    kind = "list" if isinstance(expected, list) else "tuple"
    if not isinstance(answer, tuple | list):
        return f"{name} is {_a(answer)}, expected a {kind} of {len(expected)} values{of}"
    if len(answer) != len(expected):
        return f"{name} has {len(answer)} values, expected {len(expected)}{of}"
    names = fields or [f"value {i} of {name}" for i in range(len(expected))]
    for part, value, given in zip(names, expected, answer, strict=True):
        if problem := difference(value, given, rtol, atol, part):
            return problem
    return None


def _array_difference(expected, answer, rtol, atol, name):
    if answer.shape != expected.shape:
        return f"{name} has shape {answer.shape}, expected {expected.shape}"
    if expected.dtype.kind not in "biufc" or answer.dtype.kind not in "biufc":
        same = np.array_equal(expected, answer)
        return None if same else f"{name} is not what is expected"
    agree = (answer == expected) | (np.isnan(answer) & np.isnan(expected))
    both = np.isfinite(expected) & np.isfinite(answer)
    if (lost := ~agree & ~both).any():
        index = np.unravel_index(np.argmax(lost), lost.shape)
        return f"{name} is {answer[index]:.4g}{_at(index)}, expected {expected[index]:.4g}"
    wide = np.result_type(expected, answer, np.float64)
    apart = np.zeros(expected.shape)
    apart[both] = np.abs(answer[both].astype(wide) - expected[both].astype(wide))
    scale = np.abs(expected[both].astype(wide)).max(initial=0.0)
    if (apart <= atol + rtol * float(scale)).all():
        return None
    index = np.unravel_index(np.argmax(apart), apart.shape)
    return f"{name} is off by {apart[index]:.2g}{_at(index)}"


def _at(index):
    return f" at index {[int(i) for i in index]}" if index else ""


def _same_precision(expected, answer):
    if expected.dtype.kind in "iu":
        return answer.dtype.kind in "iu"
    return expected.dtype == answer.dtype


def identical(first: object, second: object) -> bool:
    """Return whether two arguments have the same type, shape and values, NaN included."""
    if type(first) is not type(second):
        return False
    if isinstance(first, Mapping):
        return list(first) == list(second) and all(identical(first[k], second[k]) for k in first)
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(map(identical, first, second))
    if _is_tensor(first) or isinstance(first, np.ndarray):
        first, second = _numpy(first), _numpy(second)
        return first.shape == second.shape and first.tobytes() == second.tobytes()
    if hasattr(first, "__dict__") and not callable(first):
        return identical(vars(first), vars(second))
    return callable(first) or first == second or first != first


def shown(value: object) -> str:
    """Return a short text for a value, numbers rounded to four digits of the largest."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {shown(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        inner = (f"{n}={shown(v)}" for n, v in zip(value._fields, value, strict=True))
        return f"{type(value).__name__}({', '.join(inner)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if _is_tensor(value):
        return _array_text(_numpy(value), "tensor")
    if isinstance(value, np.ndarray):
        return _array_text(value, "array")
    if isinstance(value, float | np.floating):
        return f"{float(value):.{DIGITS}g}"
    if isinstance(value, np.generic):
        return repr(value.item())
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    text = repr(value)
    return f"{_a(value)}" if " at 0x" in text else text if len(text) <= 200 else f"{text[:200]}…"


def _array_text(array, kind):
    if array.size == 0:
        return f"an empty {kind} of shape {array.shape}"
    if array.dtype.kind == "f":
        finite = array[np.isfinite(array)]
        scale = float(np.abs(finite).max()) if finite.size else 0.0
        places = DIGITS - 1 - math.floor(math.log10(scale)) if scale > 0 else 0
        array = np.round(array.astype(float), min(max(places, 0), 300)) + 0.0
    text = np.array2string(
        array, separator=", ", threshold=60, precision=DIGITS + 4, prefix=f"{kind}("
    )
    return f"{kind}({text})"


def _is_tensor(value):
    return hasattr(value, "detach") and hasattr(value, "numpy")


def _numpy(value):
    return value.detach().cpu().numpy() if _is_tensor(value) else np.asarray(value)


def _a(value):
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
