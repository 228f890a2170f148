"""What torch, Keras, Flax and the paper mean by the same words.

The four disagree on momentum, on the variance they keep, on epsilon and on every name;
``conventions`` goes from one to another.
Sources: each framework's own documentation, cited in ``CONVENTIONS``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Literal

from bncore import arguments as check

__all__ = ["CONVENTIONS", "Convention", "markdown", "table"]


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

    def newest_weight(self, momentum: float | int | None) -> float | None:
        """Weight of the newest batch in the average; None for the plain average.

        Raises
        ------
        TypeError
            If momentum is not a real number.
        ValueError
            If momentum lies outside [0, 1], is None where there is no plain average, or a number
            where there is nothing else.
        """
        if momentum is None:
            if not self.plain_average:
                raise ValueError(
                    f"momentum is None, expected a number: {self.title} has no plain average"
                )
            return None
        momentum = check.fraction("momentum", momentum)
        if self.momentum_weighs is None:
            raise ValueError(
                f"momentum is {momentum}, expected None: {self.title} averages all batches alike"
            )
        return momentum if self.momentum_weighs == "new" else _complement(momentum)

    def momentum_for(self, weight: float | None) -> float | None:
        """The setting that gives the newest batch this weight: the inverse of ``newest_weight``.

        The complement is taken in decimal, so that 0.1 becomes 0.9, and 0.1 again.
        """
        if weight is None or self.momentum_weighs != "old":
            return weight
        return _complement(weight)

    def setting_names(self) -> list[str]:
        """Its words for momentum and eps, where it has them."""
        return [self.names[key] for key in ("momentum", "eps") if key in self.names]


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
            "all" if c.momentum is None else f"{1 / c.newest_weight(c.momentum):.0f}"
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


def _complement(fraction):
    return float(1 - Decimal(repr(fraction)))


def _update_rule(convention):
    if convention.momentum is None:
        return "mean over the batches"
    weight = convention.newest_weight(convention.momentum)
    return f"{_complement(weight):g} × old + {weight:g} × batch"


def _or_dash(value):
    return "—" if value is None else f"{value:g}"


def _code(convention, key):
    return f"`{convention.names[key]}`" if key in convention.names else "—"
