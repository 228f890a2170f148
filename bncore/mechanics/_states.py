"""A layer's arrays as the caller has them, and by the book's names: read, checked and written."""

import numpy as np

from bncore import arguments as check

_STATE = ("gamma", "beta", "mean", "var", "hidden_mean", "hidden_var", "weight", "updates")
_VECTORS = ("gamma", "beta", "mean", "var", "hidden_mean", "hidden_var")


def refuse_unknown(name, mapping, known, source):
    for key in mapping:
        if key not in known:
            raise ValueError(
                f"{name} has the name {key!r}, expected of {source} only {', '.join(known)}"
            )


def read(state, old, source):
    """What a state stores by the book's names, all checked."""
    names = old.names
    for key, value in state.items():
        if check.is_tensor(value):
            raise TypeError(
                f"state holds the torch {check.type_name(value)} {key!r}, expected NumPy arrays: "
                "hand in {name: value.numpy(force=True) for name, value in state.items()}"
            )
    refuse_unknown("state", state, [names[key] for key in _STATE if key in names], source)
    stored = {key: state[names[key]] for key in _STATE if names.get(key) in state}
    for key in ("mean", "var", *(["weight"] if old.keeps == "sums" else [])):
        if key not in stored:
            raise ValueError(f"state lacks {names[key]!r}")
    if "updates" in stored:
        stored["updates"] = count(names["updates"], stored["updates"])
    mean = stored["mean"] = check.array(names["mean"], stored["mean"], 1)
    for key in _VECTORS:
        if key in stored:
            stored[key] = check.vector(
                names[key], stored[key], len(mean), names["mean"], mean.dtype
            )
    check.no_negative(names["var"], stored["var"])
    if "weight" in stored:
        stored["weight"] = _weight(names["weight"], stored["weight"], mean.dtype)
    return stored


def _weight(name, value, dtype):
    """The weight of sums, an array of no axes."""
    value = check.array(name, np.atleast_1d(value) if np.isscalar(value) else value, dtype=dtype)
    value = check.vector(name, value.ravel(), 1, "weight")
    check.no_negative(name, value)
    return value[0]


def count(name, value):
    """A number of updates that fits the 64 bits of a counter."""
    scalar = isinstance(value, np.ndarray) and value.ndim == 0
    value = check.integer(name, value[()] if scalar else value, least=0)
    most = np.iinfo(np.int64).max
    if value > most:
        raise ValueError(f"{name} is above {most}, expected at most that: a counter has 64 bits")
    return value


def replaced(stored, result, new):
    """The state with new statistics, in the dtypes of the old ones."""
    dtypes = {"var": stored["var"].dtype, "hidden_var": stored["var"].dtype}
    for key, value in result.items():
        if key != "updates":
            dtype = dtypes.get(key, stored["mean"].dtype)
            result[key] = check.narrowed(new.names[key], np.asarray(value, np.float64), dtype)
    return {key: stored[key] for key in ("gamma", "beta") if key in stored} | result


def write(stored, old, new):
    for key in ("gamma", "beta"):
        if key in stored and key not in new.names:
            raise ValueError(
                f"state has {old.names[key]!r}, for which {new.title} has no word: fold it into the "
                "next layer, or leave it out"
            )
    arrays = {key: np.array(value) for key, value in stored.items() if key in new.names}
    if new.optional_together and ("gamma" in arrays) != ("beta" in arrays):
        arrays.setdefault("gamma", np.ones_like(arrays["mean"]))
        arrays.setdefault("beta", np.zeros_like(arrays["mean"]))
    if "weight" in arrays:
        arrays["weight"] = arrays["weight"].reshape(1)
    return {new.names[key]: arrays[key] for key in _STATE if key in arrays}
