"""What a framework means by momentum, by the variance it keeps and by the averages it stores.

A ``Convention`` says it for one framework; those that ship stand in ``frameworks``, and
``conventions`` goes from one to another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from bncore import arguments as check

__all__ = ["Convention"]

KEPT = {
    "average": set(),
    "hidden": {"updates"},
    "both": {"updates", "hidden_mean", "hidden_var"},
    "sums": {"weight"},
}
"""The forms in which averages are kept, and the words that each needs beside mean and variance."""

NEEDED = ("mean", "var", "eps")
WORDS = (
    "gamma", "beta", "mean", "var", "hidden_mean", "hidden_var", "weight", "updates",
    "momentum", "eps",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How one framework words, initialises and updates batch normalization.

    After t batches with values s, old average weighing d and newest batch 1 - d, the running
    average is d^t initial + (1 - d) (s_t + d s_(t-1) + ... + d^(t-1) s_1). The attribute ``keeps``
    says what of it a layer stores, and what it uses at inference:

    - "average": the running average, and uses it as it is.
    - "hidden": the running average, and uses it divided by 1 - d^t. Where the initial value is 0,
      that takes the initial value out: zero-debiasing.
    - "both": the running average from 0, which is hidden, and beside it the average that is used,
      which is the hidden one divided by 1 - d^t.
    - "sums": s_t + d s_(t-1) + ... + d^(t-1) s_1, and the weight 1 + d + ... + d^(t-1) by which
      it divides them. At d = 1 that is the plain average over the batches.

    A copy with one thing changed: ``dataclasses.replace(CONVENTIONS["mlx"], variance="biased")``.

    Attributes
    ----------
    title : str
        Name to print.
    names : mapping of str to str
        Its word for each of gamma, beta, mean, var, updates, momentum and eps that it has; mean,
        var and eps it must have. "hidden" and "both" need updates, "both" hidden_mean and
        hidden_var, "sums" the word for their weight.
    momentum : float or None
        Default of the setting; None stands for the plain average over the batches, or, where there
        is none, for a setting without default.
    momentum_weighs : "new", "old" or None
        Which side of the update the setting multiplies: the newest batch or the old average. None
        where there is no setting, but the plain average.
    variance : "unbiased" or "biased"
        Divisor of the variance that is kept for inference: m - 1 or m, with m values a feature.
    plain_average : bool
        Whether a value of the setting, or its absence, stands for the plain average.
    eps : float or None
        Default; None where none is given.
    initial : pair of float, "given" or None
        Mean and variance before the first batch; "given" where the user hands them in; None where
        the first batch takes their place.
    feature_axis : int or None
        Default axis of the features; None where the axis is not fixed.
    optional_together : bool
        Whether gamma and beta can only be dropped together.
    keeps : "average", "hidden", "both" or "sums"
        See above.
    training : "batch" or "average"
        What normalises in training: the statistics of the batch, with divisor m, or the average
        that has just been updated with them.
    source : str
        Where this is documented.

    Raises
    ------
    TypeError, ValueError
        If an attribute is not what is said here; the error names it.
    """

    title: str
    names: Mapping[str, str]
    momentum: float | int | None
    momentum_weighs: Literal["new", "old"] | None
    variance: Literal["unbiased", "biased"]
    plain_average: bool = False
    eps: float | int | None = None
    initial: tuple[float | int, float | int] | Literal["given"] | None = (0.0, 1.0)
    feature_axis: int | None = None
    optional_together: bool = False
    keeps: Literal["average", "hidden", "both", "sums"] = "average"
    training: Literal["batch", "average"] = "batch"
    source: str = ""

    def __post_init__(self):
        _text("title", self.title)
        _one_of("momentum_weighs", self.momentum_weighs, ("new", "old", None))
        _one_of("variance", self.variance, ("unbiased", "biased"))
        _one_of("keeps", self.keeps, tuple(KEPT))
        _one_of("training", self.training, ("batch", "average"))
        _check_names(self)
        _check_initial(self.initial)
        if self.eps is not None:
            check.positive("eps", self.eps)
        if self.momentum_weighs is None and not self.plain_average:
            raise ValueError(
                "momentum_weighs is None, expected 'new' or 'old', or plain_average=True: without "
                "momentum there is only the plain average"
            )
        if self.keeps == "sums" and not self.plain_average:
            raise ValueError(
                "plain_average is False, expected True: sums whose old ones weigh 1 are those of a "
                "plain average"
            )
        if self.momentum is not None:
            self.newest_weight(self.momentum)

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
            if self.momentum_weighs is not None and not (
                self.plain_average and self.keeps != "sums"
            ):
                raise ValueError(
                    f"momentum is None, expected a number: {self.title} has no plain average"
                    + (f" but at {self.momentum_for(None):g}" if self.plain_average else "")
                )
            return None
        momentum = check.fraction("momentum", momentum)
        if self.momentum_weighs is None:
            raise ValueError(
                f"momentum is {momentum}, expected None: {self.title} averages all batches alike"
            )
        if self.keeps == "sums" and self.plain_average and momentum == self.momentum_for(None):
            return None
        return momentum if self.momentum_weighs == "new" else _complement(momentum)

    def momentum_for(self, weight: float | None) -> float | None:
        """The setting that gives the newest batch this weight: the inverse of ``newest_weight``.

        The complement is taken in decimal, so that 0.1 becomes 0.9, and 0.1 again.
        """
        if weight is None:
            if self.keeps != "sums":
                return None
            weight = 0.0
        return weight if self.momentum_weighs != "old" else _complement(weight)

    @property
    def default_is_plain(self) -> bool:
        """Whether all batches weigh the same unless the setting says otherwise."""
        return self.momentum is None and self.plain_average and self.keeps != "sums"

    @property
    def has_default(self) -> bool:
        """Whether momentum has a default."""
        return self.momentum is not None or self.default_is_plain

    def setting_names(self) -> list[str]:
        """Its words for momentum and eps, where it has them."""
        return [self.names[key] for key in ("momentum", "eps") if key in self.names]


def _complement(fraction):
    return float(1 - Decimal(repr(float(fraction))))


def _text(name, value):
    if not isinstance(value, str):
        raise TypeError(f"{name} is a {check.type_name(value)}, expected a str")
    if not value:
        raise ValueError(f"{name} is empty, expected a name to print")


def _one_of(name, value, known):
    if value not in known:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, known))}")


def _check_names(convention):
    names, needed = convention.names, {*NEEDED, *KEPT[convention.keeps]}
    if not isinstance(names, Mapping):
        raise TypeError(f"names is a {check.type_name(names)}, expected a mapping of str to str")
    if convention.momentum_weighs is not None:
        needed.add("momentum")
    for key, word in names.items():
        _one_of("a key of names", key, WORDS)
        _text(f"names[{key!r}]", word)
    missing = [key for key in WORDS if key in needed and key not in names]
    if missing:
        raise ValueError(f"names lacks {', '.join(map(repr, missing))}")
    if len(set(names.values())) < len(names):
        raise ValueError(f"names has one word for two things: {', '.join(names.values())}")
    object.__setattr__(convention, "names", dict(names))


def _check_initial(initial):
    if initial is None or (isinstance(initial, str) and initial == "given"):
        return
    if not isinstance(initial, tuple) or len(initial) != 2:
        raise ValueError(f"initial is {initial!r}, expected (mean, variance), 'given' or None")
    check.finite_number("initial[0]", initial[0])
    check.nonnegative("initial[1]", initial[1])
