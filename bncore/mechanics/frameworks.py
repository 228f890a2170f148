"""What torch, Keras, Flax, the paper and seven others mean by the same words.

They disagree on momentum, on the variance they keep, on epsilon and on every name;
``conventions`` goes from one to another. Caffe's gamma and beta are those of a Scale layer. Haiku has
a counter beside each average, always equal, and its arrays have axes of length 1 to be raveled away.
Equinox has a convention for each ``mode``. MLX kept the biased variance up to 0.32.0. Chainer takes a
plain average too, where a call says ``finetune=True``.
Sources: each framework's own documentation or code, cited in ``CONVENTIONS``.
"""

from collections.abc import Mapping
from types import MappingProxyType

from bncore.mechanics.convention import Convention

__all__ = ["CONVENTIONS", "Convention", "markdown", "table"]

_TORCH_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "momentum": "momentum",
    "eps": "eps",
}
_KERAS_NAMES = {
    "gamma": "gamma",
    "beta": "beta",
    "mean": "moving_mean",
    "var": "moving_variance",
    "momentum": "momentum",
    "eps": "epsilon",
}
_EQUINOX_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "mean": "mean",
    "var": "var",
    "momentum": "momentum",
    "eps": "eps",
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
            feature_axis=1,
            optional_together=True,
            names=_TORCH_NAMES | {"updates": "num_batches_tracked"},
            source="https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html",
        ),
        "keras": Convention(
            title="Keras 3",
            momentum=0.99,
            momentum_weighs="old",
            eps=1e-3,
            variance="biased",
            feature_axis=-1,
            names=_KERAS_NAMES,
            source="https://keras.io/api/layers/normalization_layers/batch_normalization/",
        ),
        "keras-fused": Convention(
            title="fused Keras 2",
            momentum=0.99,
            momentum_weighs="old",
            eps=1e-3,
            variance="unbiased",
            feature_axis=-1,
            names=_KERAS_NAMES,
            source="https://github.com/tensorflow/tensorflow/issues/55545",
        ),
        "flax": Convention(
            title="Flax",
            momentum=0.99,
            momentum_weighs="old",
            eps=1e-5,
            variance="biased",
            feature_axis=-1,
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
            variance="unbiased",
            initial=None,
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
        "onnx": Convention(
            title="ONNX",
            momentum=0.9,
            momentum_weighs="old",
            eps=1e-5,
            variance="biased",
            initial="given",
            feature_axis=1,
            optional_together=True,
            names={
                "gamma": "scale",
                "beta": "B",
                "mean": "input_mean",
                "var": "input_var",
                "momentum": "momentum",
                "eps": "epsilon",
            },
            source="https://onnx.ai/onnx/operators/onnx__BatchNormalization.html",
        ),
        "caffe": Convention(
            title="Caffe",
            momentum=0.999,
            momentum_weighs="old",
            plain_average=True,
            eps=1e-5,
            variance="unbiased",
            initial=(0.0, 0.0),
            keeps="sums",
            feature_axis=1,
            optional_together=True,
            names={
                "gamma": "Scale.blobs[0]",
                "beta": "Scale.blobs[1]",
                "mean": "blobs[0]",
                "var": "blobs[1]",
                "weight": "blobs[2]",
                "momentum": "moving_average_fraction",
                "eps": "eps",
            },
            source="https://github.com/BVLC/caffe/blob/master/src/caffe/layers/batch_norm_layer.cpp",
        ),
        "chainer": Convention(
            title="Chainer",
            momentum=0.9,
            momentum_weighs="old",
            eps=2e-5,
            variance="unbiased",
            feature_axis=1,
            names={
                "gamma": "gamma",
                "beta": "beta",
                "mean": "avg_mean",
                "var": "avg_var",
                "momentum": "decay",
                "eps": "eps",
            },
            source=(
                "https://docs.chainer.org/en/stable/reference/generated/"
                "chainer.links.BatchNormalization.html"
            ),
        ),
        "haiku": Convention(
            title="Haiku",
            momentum=None,
            momentum_weighs="old",
            eps=1e-5,
            variance="biased",
            initial=(0.0, 0.0),
            keeps="both",
            feature_axis=-1,
            names={
                "gamma": "scale",
                "beta": "offset",
                "mean": "mean_ema/average",
                "var": "var_ema/average",
                "hidden_mean": "mean_ema/hidden",
                "hidden_var": "var_ema/hidden",
                "updates": "counter",
                "momentum": "decay_rate",
                "eps": "eps",
            },
            source="https://dm-haiku.readthedocs.io/en/latest/api.html#batchnorm",
        ),
        "equinox": Convention(
            title="Equinox",
            momentum=0.99,
            momentum_weighs="old",
            eps=1e-5,
            variance="biased",
            keeps="hidden",
            feature_axis=1,
            optional_together=True,
            names=_EQUINOX_NAMES | {"updates": "batch_counter"},
            source="https://docs.kidger.site/equinox/api/nn/normalisation/",
        ),
        "equinox-ema": Convention(
            title="Equinox-ema",
            momentum=0.99,
            momentum_weighs="old",
            eps=1e-5,
            variance="biased",
            initial=None,
            training="average",
            feature_axis=1,
            optional_together=True,
            names=_EQUINOX_NAMES,
            source="https://docs.kidger.site/equinox/api/nn/normalisation/",
        ),
        "mlx": Convention(
            title="MLX",
            momentum=0.1,
            momentum_weighs="new",
            eps=1e-5,
            variance="unbiased",
            feature_axis=-1,
            optional_together=True,
            names=_TORCH_NAMES,
            source="https://github.com/ml-explore/mlx/pull/3817",
        ),
    }
)


def table(*more: Convention) -> list[dict[str, str]]:
    """The conventions side by side: one row for each question, one column for each framework.

    Parameters
    ----------
    *more : Convention
        Conventions of one's own, to stand beside those in ``CONVENTIONS``.

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
        "batches looked back over": _window,
        "setting for the plain average": _plain_average,
        "variance kept, divisor": lambda c: {"unbiased": "m − 1", "biased": "m"}[c.variance],
        "normalises in training": lambda c: {
            "batch": "the batch, divisor m",
            "average": "the running average",
        }[c.training],
        "initial mean, variance": _initial,
        "used at inference": lambda c: {
            "average": "what is kept",
            "hidden": "kept ÷ (1 − oldᵗ)",
            "both": "kept ÷ (1 − oldᵗ), kept too",
            "sums": "kept sum ÷ kept weight",
        }[c.keeps],
        "epsilon": lambda c: "unspecified" if c.eps is None else f"{c.eps:g}",
        "axis of the features": lambda c: _or_dash(c.feature_axis),
        "scale γ": lambda c: _code(c, "gamma"),
        "shift β": lambda c: _code(c, "beta"),
        "mean": lambda c: _code(c, "mean"),
        "variance": lambda c: _code(c, "var"),
        "number of batches": lambda c: _code(c, "updates"),
        "name of momentum": lambda c: _code(c, "momentum"),
        "name of epsilon": lambda c: _code(c, "eps"),
        "source": lambda c: f"[{c.title}]({c.source})" if c.source else c.title,
    }
    conventions = (*CONVENTIONS.values(), *more)
    return [
        {"": question} | {c.title: answer(c) for c in conventions}
        for question, answer in questions.items()
    ]


def markdown(*more: Convention) -> str:
    """``table`` as a Markdown table: beside each question its answers, and who gives them.

    Two columns fit on a phone. Frameworks that agree stand together, and of an answer that most of
    them give, the last, it says only that all others give it.
    """
    lines = ["| question | answers |", "| --- | --- |"]
    for row in table(*more):
        question, *answers = row.values()
        given = {}
        for title, answer in zip(list(row)[1:], answers, strict=True):
            given.setdefault(answer.replace("—", "none"), []).append(title)
        cells = list(given) if question == "source" else _grouped(given, len(answers))
        lines.append(f"| {question} | {'<br>'.join(cells)} |")
    return "\n".join(lines)


def _grouped(given, count):
    most = max(given, key=lambda answer: len(given[answer]))
    if 2 * len(given[most]) <= count:
        return [f"{answer} ({', '.join(who)})" for answer, who in given.items()]
    few = {answer: who for answer, who in given.items() if answer != most}
    cells = [f"{answer} ({', '.join(who)})" for answer, who in few.items()]
    return [*cells, f"{most} ({'all others' if few else 'all'})"]


def _update_rule(convention):
    if convention.default_is_plain:
        return "mean over the batches"
    if convention.momentum is None:
        return "—"
    weight = convention.newest_weight(convention.momentum)
    return f"{1 - weight:g} × old + {weight:g} × batch"


def _window(convention):
    if convention.default_is_plain:
        return "all"
    if convention.momentum is None:
        return "—"
    return f"{1 / convention.newest_weight(convention.momentum):.0f}"


def _plain_average(convention):
    if convention.momentum_weighs is None:
        return "none needed"
    if not convention.plain_average:
        return "not offered"
    value = convention.momentum_for(None)
    return f"{convention.names['momentum']}={value if value is None else f'{value:g}'}"


def _initial(convention):
    if isinstance(convention.initial, tuple):
        return "{:g}, {:g}".format(*convention.initial)
    return "the first batch's" if convention.initial is None else "given by the user"


def _or_dash(value):
    return "—" if value is None else f"{value:g}"


def _code(convention, key):
    return f"`{convention.names[key]}`" if key in convention.names else "—"
