"""What torch, Keras, Flax and the paper mean by the same words, and how to go from one to another.

The four disagree on momentum, on the variance they keep, on epsilon and on every name.
Sources: each framework's own documentation, cited in ``CONVENTIONS``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Literal

import numpy as np

from bncore import arguments as check

__all__ = [
    "CONVENTIONS",
    "Convention",
    "convert_settings",
    "convert_state",
    "markdown",
    "rename_state",
    "table",
]


@dataclass(frozen=True)
class Convention:
    """How one framework words, initialises and updates batch normalization.

    Attributes
    ----------
    title : str
        Name to print.
    momentum : float or None
        Default of the setting; None stands for the plain average over the batches.
    momentum_weighs : "new", "old" or None
        Which side of the update the setting multiplies: the newest batch or the old average.
    plain_average : bool
        Whether the framework offers the plain average over the batches.
    eps : float or None
        Default; None where none is given.
    variance : "unbiased" or "biased"
        Divisor of the variance that is kept for inference: m - 1 or m, with m values a feature.
        In training all of them normalise with divisor m.
    initial : tuple of float, or None
        Mean and variance before the first batch.
    feature_axis : int or None
        Default axis of the features; None where the axis is not fixed.
    optional_together : bool
        Whether gamma and beta can only be dropped together.
    names : mapping of str to str
        Its word for each of gamma, beta, mean, var, updates, momentum and eps that it has.
    source : str
        Where this is documented.
    """

    title: str
    momentum: float | None
    momentum_weighs: Literal["new", "old"] | None
    plain_average: bool
    eps: float | None
    variance: Literal["unbiased", "biased"]
    initial: tuple[float, float] | None
    feature_axis: int | None
    optional_together: bool
    names: Mapping[str, str]
    source: str


_KERAS_NAMES = {
    "gamma": "gamma",
    "beta": "beta",
    "mean": "moving_mean",
    "var": "moving_variance",
    "momentum": "momentum",
    "eps": "epsilon",
}

CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        "torch": Convention(
            title="torch",
            momentum=0.1,
            momentum_weighs="new",
            plain_average=True,
            eps=1e-5,
            variance="unbiased",
            initial=(0.0, 1.0),
            feature_axis=1,
            optional_together=True,
            names={
                "gamma": "weight",
                "beta": "bias",
                "mean": "running_mean",
                "var": "running_var",
                "updates": "num_batches_tracked",
                "momentum": "momentum",
                "eps": "eps",
            },
            source="https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html",
        ),
        "keras": Convention(
            title="Keras 3",
            momentum=0.99,
            momentum_weighs="old",
            plain_average=False,
            eps=1e-3,
            variance="biased",
            initial=(0.0, 1.0),
            feature_axis=-1,
            optional_together=False,
            names=_KERAS_NAMES,
            source="https://keras.io/api/layers/normalization_layers/batch_normalization/",
        ),
        "keras-fused": Convention(
            title="fused Keras 2",
            momentum=0.99,
            momentum_weighs="old",
            plain_average=False,
            eps=1e-3,
            variance="unbiased",
            initial=(0.0, 1.0),
            feature_axis=-1,
            optional_together=False,
            names=_KERAS_NAMES,
            source="https://github.com/tensorflow/tensorflow/issues/55545",
        ),
        "flax": Convention(
            title="Flax",
            momentum=0.99,
            momentum_weighs="old",
            plain_average=False,
            eps=1e-5,
            variance="biased",
            initial=(0.0, 1.0),
            feature_axis=-1,
            optional_together=False,
            names={
                "gamma": "scale",
                "beta": "bias",
                "mean": "mean",
                "var": "var",
                "momentum": "momentum",
                "eps": "epsilon",
            },
            source=(
                "https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/normalization.html"
            ),
        ),
        "paper": Convention(
            title="the paper",
            momentum=None,
            momentum_weighs=None,
            plain_average=True,
            eps=None,
            variance="unbiased",
            initial=None,
            feature_axis=None,
            optional_together=True,
            names={
                "gamma": "gamma",
                "beta": "beta",
                "mean": "E[x]",
                "var": "Var[x]",
                "eps": "epsilon",
            },
            source="https://arxiv.org/abs/1502.03167",
        ),
    }
)

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
    _refuse_unknown("settings", settings, _setting_names(old), source)
    eps = settings.get(old.names["eps"], old.eps)
    if eps is None:
        raise ValueError(f"settings lacks {old.names['eps']!r}, for which {source} has no default")
    converted = {new.names["eps"]: check.positive(old.names["eps"], eps)}

    weight = _newest_weight(old, settings.get("momentum", old.momentum))
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
        complement = weight is not None and new.momentum_weighs == "old"
        converted[new.names["momentum"]] = _complement(weight) if complement else weight
    return converted


def rename_state(
    state: Mapping[str, np.ndarray | np.integer | int], source: str, target: str
) -> dict[str, np.ndarray]:
    """Give a layer's arrays the target's names and leave their values alone.

    The layer then computes the same outputs at inference in the target, provided that it keeps its
    epsilon (``convert_settings``): every framework divides by sqrt(var + eps), whichever variance
    it kept. To continue training by the target's rule, see ``convert_state``.

    Parameters
    ----------
    state : mapping of str to Float[ndarray, "features"]
        The layer's arrays by the source's names: mean and variance, and gamma and beta if the
        layer has them. torch's ``num_batches_tracked`` may be there.
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
        If an array is not floating point, or the number of batches not an integer.
    ValueError
        If a convention or name is unknown, mean or variance is missing, shapes disagree, a value is
        not finite, or the variance or the number of batches is negative.
    """
    old, new = _conventions(source, target)
    arrays, updates = _read(state, old, source)
    return _write(arrays, updates, new)


def convert_state(
    state: Mapping[str, np.ndarray | np.integer | int],
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
        t, the number of training batches seen. By default torch's ``num_batches_tracked``, and
        where that is missing so many that the initial value no longer counts.
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
        is unknown, momentum lies outside [0, 1], the variance is smaller than the initial value's
        part in it, or nothing but the initial value is there to be converted to the paper.
    """
    old, new = _conventions(source, target)
    arrays, tracked = _read(state, old, source)
    updates = tracked if updates is None else check.integer("updates", updates, least=0)
    factor = _variance_factor(old, new, batch_size)
    _refuse_unknown("settings", settings, _setting_names(old), source)
    newest = _newest_weight(old, settings.get("momentum", old.momentum))
    left = _initial_weight(old, newest, updates)
    if new.initial is None and left == 1:
        raise ValueError(
            f"the initial value weighs 1 after {updates} updates, expected less: {target} keeps no "
            "initial value, and there is nothing else"
        )
    least = left * (1 - _rounding(arrays["var"], updates))
    if (arrays["var"] < least).any():
        raise ValueError(
            f"{old.names['var']} is {arrays['var'].min():g}, expected at least {left:g}, the part "
            f"of the initial value after {updates} updates: check momentum and updates"
        )
    arrays["mean"] = _convert(arrays["mean"], old, new, 0, left, 1.0)
    arrays["var"] = _convert(arrays["var"], old, new, 1, left, factor)
    return _write(arrays, updates, new)


def table() -> list[dict[str, str]]:
    """The conventions side by side: one row for each question, one column for each framework.

    Returns
    -------
    list of dict
        Each row maps "" to the question and each framework's title to its answer.
    """
    questions = {
        "momentum multiplies": lambda c: {
            "new": "the newest batch",
            "old": "the old average",
            None: "no momentum",
        }[c.momentum_weighs],
        "default momentum": lambda c: _or_dash(c.momentum),
        "update": _update_rule,
        "batches looked back over": lambda c: (
            "all" if c.momentum is None else f"{1 / _newest_weight(c, c.momentum):.0f}"
        ),
        "plain average": lambda c: (
            "always"
            if c.momentum_weighs is None
            else "momentum=None"
            if c.plain_average
            else "not offered"
        ),
        "variance kept, divisor": lambda c: {"unbiased": "m − 1", "biased": "m"}[c.variance],
        "variance in training, divisor": lambda c: "m",
        "epsilon": lambda c: "unspecified" if c.eps is None else f"{c.eps:g}",
        "initial mean, variance": lambda c: (
            "none" if c.initial is None else "{:g}, {:g}".format(*c.initial)
        ),
        "axis of the features": lambda c: _or_dash(c.feature_axis),
        "scale γ": lambda c: _code(c, "gamma"),
        "shift β": lambda c: _code(c, "beta"),
        "mean": lambda c: _code(c, "mean"),
        "variance": lambda c: _code(c, "var"),
        "number of batches": lambda c: _code(c, "updates"),
        "name of epsilon": lambda c: _code(c, "eps"),
        "source": lambda c: f"[{c.title}]({c.source})",
    }
    return [
        {"": question} | {c.title: answer(c) for c in CONVENTIONS.values()}
        for question, answer in questions.items()
    ]


def markdown() -> str:
    """``table`` as a Markdown table: beside each question its answers, and who gives them.

    Two columns fit on a phone, and frameworks that agree stand together.
    """
    lines = ["| question | answers |", "| --- | --- |"]
    for row in table():
        question, *answers = row.values()
        given = {}
        for title, answer in zip(list(row)[1:], answers, strict=True):
            given.setdefault(answer.replace("—", "none"), []).append(title)
        if question == "source":
            cells = list(given)
        else:
            cells = [
                f"{answer} ({'all' if len(who) == len(answers) else ', '.join(who)})"
                for answer, who in given.items()
            ]
        lines.append(f"| {question} | {'<br>'.join(cells)} |")
    return "\n".join(lines)


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


def _setting_names(convention):
    return [convention.names[key] for key in ("momentum", "eps") if key in convention.names]


def _complement(fraction):
    return float(1 - Decimal(repr(fraction)))


def _newest_weight(convention, momentum):
    """Weight of the newest batch in the average; None for the plain average."""
    if momentum is None:
        if not convention.plain_average:
            raise ValueError(
                f"momentum is None, expected a number: {convention.title} has no plain average"
            )
        return None
    momentum = check.fraction("momentum", momentum)
    return momentum if convention.momentum_weighs == "new" else _complement(momentum)


def _initial_weight(convention, newest, updates):
    if convention.initial is None or updates is None:
        return 0.0
    if newest is None:
        return float(updates == 0)
    return (1 - newest) ** updates


def _read(state, old, source):
    """The arrays of a state by the book's names, and its number of updates, all checked."""
    names = old.names
    _refuse_unknown("state", state, [names[key] for key in _STATE if key in names], source)
    arrays = {key: state[names[key]] for key in _STATE if names.get(key) in state}
    for key in ("mean", "var"):
        if key not in arrays:
            raise ValueError(f"state lacks {names[key]!r}")
    updates = arrays.pop("updates", None)
    if updates is not None:
        scalar = isinstance(updates, np.ndarray) and updates.ndim == 0
        updates = check.integer(names["updates"], updates[()] if scalar else updates, least=0)
    mean = arrays["mean"]
    check.array(names["mean"], mean)
    if mean.ndim != 1:
        raise ValueError(f"{names['mean']} has shape {mean.shape}, expected (features,)")
    for key, array in arrays.items():
        check.vector(names[key], array, len(mean), names["mean"])
    check.no_negative(names["var"], arrays["var"])
    return arrays, updates


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
    return (batches * scale + after).astype(value.dtype)


def _rounding(var, updates):
    """Relative error that a running average in var's dtype may have gathered."""
    return 2 * np.finfo(var.dtype).eps * ((updates or 0) + 1)


def _update_rule(convention):
    if convention.momentum is None:
        return "mean over the batches"
    weight = _newest_weight(convention, convention.momentum)
    return f"{_complement(weight):g} × old + {weight:g} × batch"


def _or_dash(value):
    return "—" if value is None else f"{value:g}"


def _code(convention, key):
    return f"`{convention.names[key]}`" if key in convention.names else "—"
