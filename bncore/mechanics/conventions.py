"""How to go from one framework's settings and state of batch normalization to another's.

What each framework means stands in ``frameworks``, whose names are offered here too.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from bncore import arguments as check
from bncore.mechanics.frameworks import CONVENTIONS, Convention, markdown, table

__all__ = [
    "CONVENTIONS",
    "Convention",
    "convert_settings",
    "convert_state",
    "markdown",
    "rename_state",
    "table",
]

_STATE = ("gamma", "beta", "mean", "var", "updates")


def convert_settings(
    settings: Mapping[str, float | int | None], source: str, target: str
) -> dict[str, float | None]:
    """Translate momentum and epsilon, so that the target keeps the same averages as the source.

    Parameters
    ----------
    settings : mapping
        Settings by the source's names; one left out has the source's default.
    source, target : str
        Keys of ``CONVENTIONS``.

    Returns
    -------
    dict
        All settings of the target, by its names. Momentum m means 1 - m where it weighs the other
        side; the complement is taken in decimal, so that 0.1 becomes 0.9 and 0.1 again.

    Raises
    ------
    TypeError
        If a setting is not a real number.
    ValueError
        If a convention or a setting is unknown, momentum lies outside [0, 1], epsilon is not
        positive or, from the paper, missing, or the target cannot average the way the source does:
        Keras and Flax have no plain average, and the paper has nothing else.
    """
    old, new = _conventions(source, target)
    _refuse_unknown("settings", settings, old.setting_names(), source)
    eps = settings.get(old.names["eps"], old.eps)
    if eps is None:
        raise ValueError(f"settings lacks {old.names['eps']!r}, for which {source} has no default")
    converted = {new.names["eps"]: check.positive(old.names["eps"], eps)}

    weight = old.newest_weight(settings.get("momentum", old.momentum))
    if weight is None and not new.plain_average:
        raise ValueError(
            f"momentum is None, expected a number: {target} has no plain average over the batches"
        )
    if new.momentum_weighs is None and weight is not None:
        raise ValueError(
            f"momentum is {settings.get('momentum', old.momentum)}, expected None: {target} "
            "averages all batches alike"
        )
    if "momentum" in new.names:
        converted[new.names["momentum"]] = new.momentum_for(weight)
    return converted


def rename_state(state: Mapping[str, object], source: str, target: str) -> dict[str, np.ndarray]:
    """Give a layer's arrays the target's names and leave their values alone.

    The layer then computes the same outputs at inference in the target, provided that it keeps its
    epsilon (``convert_settings``): every framework divides by sqrt(var + eps), whichever variance
    it kept. To continue training by the target's rule, see ``convert_state``.

    Parameters
    ----------
    state : mapping of str to Float[ndarray, "features"]
        The layer's arrays by the source's names: mean and variance, and gamma and beta if the
        layer has them; lists and integers take the dtype of the mean. torch's
        ``num_batches_tracked`` may be there, an integer or an array of no axes. A state dict of
        torch holds tensors; hand in
        ``{name: value.numpy(force=True) for name, value in state.items()}``.
    source, target : str
        Keys of ``CONVENTIONS``.

    Returns
    -------
    dict
        New arrays by the target's names, in the dtypes they came in. Where only one of gamma and
        beta is there and the target has both or none, the other is filled in with ones or zeros.

    Raises
    ------
    TypeError
        If an array does not hold real numbers, or the number of batches is not an integer.
    ValueError
        If a convention or name is unknown, mean or variance is missing, shapes disagree, a value is
        not finite, the variance or the number of batches is negative, or that number is beyond the
        64 bits of torch's counter.
    """
    old, new = _conventions(source, target)
    arrays, updates = _read(state, old, source)
    return _write(arrays, updates, new)


def convert_state(
    state: Mapping[str, object],
    source: str,
    target: str,
    *,
    batch_size: int | None = None,
    updates: int | None = None,
    settings: Mapping[str, float | int | None] = MappingProxyType({}),
) -> dict[str, np.ndarray]:
    """Translate a layer's state to what the target would hold after the same training batches.

    The kept variance is multiplied by (m - 1) / m or its inverse where the conventions differ. That
    factor belongs to the batches and not to the initial value, which after t updates weighs
    w = (1 - weight of the newest batch)^t. From an initial variance of 1:

    biased = (unbiased - w) (m - 1) / m + w

    The paper has no initial value: converting to it takes that part out and divides by 1 - w. The
    conversion is exact when every training batch had m values a feature, and no formula can be when
    they had not. It changes the outputs at inference by as much as the two variances differ;
    ``rename_state`` does not.

    Parameters
    ----------
    state, source, target
        As in ``rename_state``.
    batch_size : int, optional
        m, the number of values of each feature in a training batch: examples times positions. At
        least 2; needed when one convention keeps the biased variance and the other the unbiased.
    updates : int, optional
        t, the number of training batches seen, in place of ``num_batches_tracked``. By default
        torch's counter, and where that is missing so many that the initial value no longer counts.
    settings : mapping
        As in ``convert_settings``. Its momentum says how much of the initial value is left.

    Returns
    -------
    dict
        As ``rename_state``.

    Raises
    ------
    TypeError
        As ``rename_state``, and if batch_size is not an integer or momentum not a number.
    ValueError
        As ``rename_state``, and if batch_size is missing or below 2, updates is negative, a setting
        is unknown, momentum lies outside [0, 1], epsilon is not positive, nothing but the initial
        value is there to be converted to the paper, or a result leaves the range of its dtype.
        Also if the number of updates contradicts the state and the result hangs on it: the state
        moved, but there were none (checkpoints of torch's first versions have no counter, and
        loading one sets it to 0); the state is the initial one, and t is not known; or the variance
        is smaller than the initial value's part in it.
    """
    old, new = _conventions(source, target)
    arrays, tracked = _read(state, old, source)
    updates = tracked if updates is None else _count("updates", updates)
    factor = _variance_factor(old, new, batch_size)
    _refuse_unknown("settings", settings, old.setting_names(), source)
    if old.names["eps"] in settings:
        check.positive(old.names["eps"], settings[old.names["eps"]])
    newest = old.newest_weight(settings.get("momentum", old.momentum))
    left = _initial_weight(old, newest, updates)
    if old.initial is not None and (factor != 1 or new.initial != old.initial):
        _refuse_contradiction(old, arrays, updates, left)
    if new.initial is None and left == 1:
        raise ValueError(
            f"the initial value weighs 1 after {updates} updates, expected less: {target} keeps no "
            "initial value, and there is nothing else"
        )
    for key, which, scale in (("mean", 0, 1.0), ("var", 1, factor)):
        result = _convert(arrays[key], old, new, which, left, scale)
        arrays[key] = check.narrowed(new.names[key], result, arrays[key].dtype)
    return _write(arrays, updates, new)


def _conventions(*keys):
    for name, key in zip(("source", "target"), keys, strict=True):
        if key not in CONVENTIONS:
            raise ValueError(f"{name} is {key!r}, expected one of {', '.join(CONVENTIONS)}")
    return [CONVENTIONS[key] for key in keys]


def _refuse_unknown(name, mapping, known, source):
    for key in mapping:
        if key not in known:
            raise ValueError(
                f"{name} has the name {key!r}, expected of {source} only {', '.join(known)}"
            )


def _initial_weight(convention, newest, updates):
    if convention.initial is None or updates is None:
        return 0.0
    if newest is None:
        return float(updates == 0)
    return (1 - newest) ** updates


def _read(state, old, source):
    """The arrays of a state by the book's names, and its number of updates, all checked."""
    names = old.names
    for key, value in state.items():
        if check.is_tensor(value):
            raise TypeError(
                f"state holds the torch {check.type_name(value)} {key!r}, expected NumPy arrays: "
                "hand in {name: value.numpy(force=True) for name, value in state.items()}"
            )
    _refuse_unknown("state", state, [names[key] for key in _STATE if key in names], source)
    arrays = {key: state[names[key]] for key in _STATE if names.get(key) in state}
    for key in ("mean", "var"):
        if key not in arrays:
            raise ValueError(f"state lacks {names[key]!r}")
    updates = arrays.pop("updates", None)
    if updates is not None:
        updates = _count(names["updates"], updates)
    mean = arrays["mean"] = check.array(names["mean"], arrays["mean"], 1)
    for key, array in arrays.items():
        arrays[key] = check.vector(names[key], array, len(mean), names["mean"], mean.dtype)
    check.no_negative(names["var"], arrays["var"])
    return arrays, updates


def _count(name, value):
    """A number of updates that fits the 64 bits of a counter."""
    scalar = isinstance(value, np.ndarray) and value.ndim == 0
    value = check.integer(name, value[()] if scalar else value, least=0)
    most = np.iinfo(np.int64).max
    if value > most:
        raise ValueError(f"{name} is above {most}, expected at most that: a counter has 64 bits")
    return value


def _refuse_contradiction(old, arrays, updates, left):
    """Refuse a number of updates that the state gives the lie to."""
    names = {key: old.names[key] for key in ("mean", "var")}
    start = "{:g} and {:g}".format(*old.initial)
    moved = (arrays["mean"] != old.initial[0]) | (arrays["var"] != old.initial[1])
    if left == 1 and moved.any():
        j = int(moved.argmax())
        raise ValueError(
            f"the initial value weighs 1 after {updates} updates, but {names['mean']}[{j}] is "
            f"{arrays['mean'][j]:g} and {names['var']}[{j}] {arrays['var'][j]:g}, expected {start}: "
            "there were updates, or momentum is wrong. Old checkpoints have no counter; hand in "
            "updates=, the number of training batches, or leave the counter out of the state where "
            "they were so many that the initial value no longer counts"
        )
    if updates is None and not moved.any():
        raise ValueError(
            f"{names['mean']} and {names['var']} are {start}, as before the first batch, and the "
            "number of updates is not given: hand in updates=, 0 if there were none"
        )
    least = left * (1 - _rounding(arrays["var"], updates))
    if (arrays["var"] < least * old.initial[1]).any():
        raise ValueError(
            f"{names['var']} is {arrays['var'].min():g}, expected at least {left:g}, the part of "
            f"the initial value after {updates} updates: check momentum and updates"
        )


def _write(arrays, updates, new):
    arrays = {key: array.copy() for key, array in arrays.items()}
    if new.optional_together and ("gamma" in arrays) != ("beta" in arrays):
        arrays.setdefault("gamma", np.ones_like(arrays["mean"]))
        arrays.setdefault("beta", np.zeros_like(arrays["mean"]))
    if updates is not None and "updates" in new.names:
        arrays["updates"] = np.array(updates)
    return {new.names[key]: arrays[key] for key in _STATE if key in arrays}


def _variance_factor(old, new, batch_size):
    if batch_size is not None:
        check.integer("batch_size", batch_size, least=2)
    if old.variance == new.variance:
        return 1.0
    if batch_size is None:
        raise ValueError(
            f"batch_size is None, expected the number of values of each feature in a batch: "
            f"{old.title} keeps the {old.variance} variance, {new.title} the {new.variance} one"
        )
    biased = (batch_size - 1) / batch_size
    return biased if new.variance == "biased" else 1 / biased


def _convert(value, old, new, which, left, factor):
    """Scale the batches' part of an average by factor and exchange the initial value's part."""
    before = 0.0 if old.initial is None else left * old.initial[which]
    after = 0.0 if new.initial is None else left * new.initial[which]
    scale = factor if new.initial is not None else factor / (1 - left)
    if scale == 1 and before == after:
        return value
    batches = value.astype(np.float64) - before
    if which == 1:
        batches = np.maximum(batches, 0)
    with np.errstate(over="ignore"):
        return batches * scale + after


def _rounding(var, updates):
    """Relative error that a running average in var's dtype may have gathered."""
    return 2 * np.finfo(var.dtype).eps * ((updates or 0) + 1)
