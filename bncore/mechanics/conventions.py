"""How to go from one framework's settings and state of batch normalization to another's.

What each framework means stands in ``frameworks``, whose names are offered here too. Wherever a key
of ``CONVENTIONS`` is taken, so is a ``Convention`` of one's own.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from bncore import arguments as check
from bncore.mechanics import _kept, _refusals, _states
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

_NO_SETTINGS: Mapping[str, float | int | None] = MappingProxyType({})


def convert_settings(
    settings: Mapping[str, float | int | None],
    source: str | Convention,
    target: str | Convention,
) -> dict[str, float | None]:
    """Translate momentum and epsilon, so that the target keeps the same averages as the source.

    Parameters
    ----------
    settings : mapping
        Settings by the source's names; one left out has the source's default.
    source, target : str or Convention
        Keys of ``CONVENTIONS``, or conventions of one's own.

    Returns
    -------
    dict
        All settings of the target, by its names. Momentum m means 1 - m where it weighs the other
        side; the complement is taken in decimal, so that 0.1 becomes 0.9 and 0.1 again.

    Raises
    ------
    TypeError
        If a setting is not a real number, or a convention neither a key nor a ``Convention``.
    ValueError
        If a convention or a setting is unknown, momentum lies outside [0, 1], epsilon is not
        positive, one of them is missing and has no default, or the target cannot average the way
        the source does: Keras and Flax have no plain average, and the paper has nothing else.
    """
    (old, source), (new, target) = _conventions(source, target)
    _states.refuse_unknown("settings", settings, old.setting_names(), source)
    eps = settings.get(old.names["eps"], old.eps)
    if eps is None:
        raise ValueError(f"settings lacks {old.names['eps']!r}, for which {source} has no default")
    converted = {new.names["eps"]: check.positive(old.names["eps"], eps)}

    weight = _newest(old, settings, source)
    setting = old.names.get("momentum", "momentum")
    if weight is None and not new.plain_average:
        raise ValueError(
            f"{setting} is {old.momentum_for(None)}, expected "
            f"{'a number' if old.keeps != 'sums' else 'a number below it'}: {target} has no plain "
            "average over the batches"
        )
    if new.momentum_weighs is None and weight is not None:
        raise ValueError(
            f"{setting} is {old.momentum_for(weight):g}, expected None: {target} "
            "averages all batches alike"
        )
    if "momentum" in new.names:
        _refusals.refuse_other_meaning(setting, old, new, target, weight)
        converted[new.names["momentum"]] = new.momentum_for(weight)
    return converted


def rename_state(
    state: Mapping[str, object],
    source: str | Convention,
    target: str | Convention,
    *,
    settings: Mapping[str, float | int | None] = _NO_SETTINGS,
) -> dict[str, np.ndarray]:
    """Give a layer's arrays the target's names and leave the statistics it uses alone.

    The layer then computes the same outputs at inference in the target, provided that it keeps its
    epsilon (``convert_settings``): every framework divides by sqrt(var + eps), whichever variance
    it kept. Where the two keep their averages in different forms, the mean and variance that are
    used at inference are carried over, as averages in which no initial value is left: Haiku and
    Equinox get a count of 2^30, Caffe the weight that its sums tend to. To continue training by the
    target's rule, see ``convert_state``.

    Parameters
    ----------
    state : mapping of str to Float[ndarray, "features"]
        The layer's arrays by the source's names: mean and variance, and gamma and beta if the
        layer has them; lists and integers take the dtype of the mean. torch's
        ``num_batches_tracked`` may be there, an integer or an array of no axes, and so may the
        other frameworks' counters; Caffe's third blob must be. A state dict of torch holds tensors;
        hand in ``{name: value.numpy(force=True) for name, value in state.items()}``.
    source, target : str or Convention
        Keys of ``CONVENTIONS``, or conventions of one's own.
    settings : mapping
        As in ``convert_settings``. Its momentum matters where the source divides by 1 - old^t what
        it keeps.

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
        not finite, the variance or the number of batches is negative, that number is beyond the
        64 bits of torch's counter, or the target has no word for what is there.
    """
    (old, source), (new, _) = _conventions(source, target)
    stored = _states.read(state, old, source)
    newest = _checked_settings(old, settings, source, needed=old.keeps == "hidden")
    if old.keeps != new.keeps:
        left = 0.0
        if old.keeps == "hidden":
            left = _kept.left_over(newest, stored.get("updates"))
        moments = _kept.used(old, stored, left)
        counted = {key: stored[key] for key in ("updates",) if key in stored}
        stored = _states.replaced(stored, counted | _kept.from_used(new, moments), new)
    return _states.write(stored, old, new)


def convert_state(
    state: Mapping[str, object],
    source: str | Convention,
    target: str | Convention,
    *,
    batch_size: int | None = None,
    updates: int | None = None,
    settings: Mapping[str, float | int | None] = _NO_SETTINGS,
) -> dict[str, np.ndarray]:
    """Translate a layer's state to what the target would hold after the same training batches.

    The kept variance is multiplied by (m - 1) / m or its inverse where the conventions differ. That
    factor belongs to the batches and not to the initial value, which after t updates weighs
    w = (1 - weight of the newest batch)^t. From an initial variance of 1:

    biased = (unbiased - w) (m - 1) / m + w

    A target without an initial value, such as the paper, gets that part taken out and the rest
    divided by 1 - w. Zero-debiased averages are that too: Haiku's ``average`` times 1 - w is what
    torch would hold but for the initial value, and Caffe's sums are it times the newest batch's
    inverse weight. The conversion is exact when every training batch had m values a feature, and no
    formula can be when they had not. It changes the outputs at inference by as much as the two
    conventions differ; ``rename_state`` does not.

    Parameters
    ----------
    state, source, target
        As in ``rename_state``.
    batch_size : int, optional
        m, the number of values of each feature in a training batch: examples times positions. At
        least 2; needed when one convention keeps the biased variance and the other the unbiased.
    updates : int, optional
        t, the number of training batches seen, in place of the state's counter. By default that
        counter, and where it is missing so many that the initial value no longer counts. Caffe
        needs neither: its third blob says how much of the initial value is left.
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
        is unknown or missing, momentum lies outside [0, 1], epsilon is not positive, nothing but
        the initial value is there to be converted to the paper, or a result leaves the range of its
        dtype. Also if the number of updates contradicts the state and the result hangs on it: the
        state moved, but there were none (checkpoints of torch's first versions have no counter, and
        loading one sets it to 0); the state is the initial one, and t is not known; the variance is
        smaller than the initial value's part in it; Caffe's weight is beyond what its sums tend to;
        or Haiku's hidden and visible averages do not belong together.
    """
    (old, source), (new, target) = _conventions(source, target)
    stored = _states.read(state, old, source)
    if updates is not None:
        updates = stored["updates"] = _states.count("updates", updates)
    updates = stored.get("updates")
    factor = _variance_factor(old, new, batch_size)
    same = factor == 1 and (new.initial, new.keeps) == (old.initial, old.keeps)
    needed = not same and (updates is not None or "sums" in (old.keeps, new.keeps))
    newest = _checked_settings(old, settings, source, needed)
    if same:
        return _states.write(stored, old, new)

    left = _left(old, stored, newest, updates)
    _refusals.refuse_contradiction(old, stored, newest, updates, left)
    _refusals.refuse_impossible(old, new, target, newest, updates, left)
    averages = _exchange(old, new, _kept.running(old, stored, left, newest), left, factor)
    if old.keeps == "sums" and newest is None:
        updates = round(float(stored["weight"]))
    counted = _counted(old, newest, updates, left)
    result = _kept.from_running(new, averages, left, newest, updates, counted)
    return _states.write(_states.replaced(stored, result, new), old, new)


def _conventions(*given):
    """Each convention with what to call it in an error."""
    found = []
    for name, value in zip(("source", "target"), given, strict=True):
        if isinstance(value, Convention):
            found.append((value, value.title))
        elif not isinstance(value, str):
            raise TypeError(
                f"{name} is a {check.type_name(value)}, expected a key of CONVENTIONS or a Convention"
            )
        elif value not in CONVENTIONS:
            raise ValueError(
                f"{name} is {value!r}, expected one of {', '.join(CONVENTIONS)}, or a Convention of "
                "your own"
            )
        else:
            found.append((CONVENTIONS[value], value))
    return found


def _newest(old, settings, source):
    """Weight of the newest batch by the settings or the default."""
    name = old.names.get("momentum")
    if name not in settings and not old.has_default:
        raise ValueError(f"settings lacks {name!r}, for which {source} has no default")
    return old.newest_weight(settings.get(name, old.momentum))


def _checked_settings(old, settings, source, needed):
    """Weight of the newest batch; None, too, where it is not needed and has no default."""
    _states.refuse_unknown("settings", settings, old.setting_names(), source)
    if old.names["eps"] in settings:
        check.positive(old.names["eps"], settings[old.names["eps"]])
    known = old.has_default or old.names.get("momentum") in settings
    return _newest(old, settings, source) if known or needed else None


def _left(old, stored, newest, updates):
    """What is left of the initial value in a state."""
    if old.initial is None:
        return 0.0
    if old.keeps == "sums" and (newest is None or updates is None):
        return _kept.left_in_sums(stored["weight"], newest)
    return _kept.left_over(newest, updates)


def _counted(old, newest, updates, left):
    """The number of updates that explains what is left of the initial value, if one does."""
    if old.initial is None or newest is None:
        return 0 if left == 1 else None
    if old.keeps == "sums" and updates is None:
        return _kept.count_in_sums(left, newest)
    return updates


def _exchange(old, new, averages, left, factor):
    """Scale the batches' part of running averages, and exchange the initial value's part."""
    before = old.initial if isinstance(old.initial, tuple) else (0.0, 0.0)
    after = old.initial if new.initial == "given" else new.initial
    after = after if isinstance(after, tuple) else None
    result = []
    for which, (average, scale) in enumerate(zip(averages, (1.0, factor), strict=True)):
        batches = average - left * before[which]
        if which == 1:
            batches = np.maximum(batches, 0)
        with np.errstate(over="ignore"):
            if after is None:
                result.append(batches * (scale / (1 - left)))
            elif scale == 1 and after[which] == before[which]:
                result.append(average)
            else:
                result.append(batches * scale + left * after[which])
    return result


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
