"""A convention says what momentum means, and is refused in words where it contradicts itself."""

import copy
import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncore.mechanics.convention import Convention
from bncore.mechanics.frameworks import CONVENTIONS

NEW = ("torch", "mlx")
OWN = {
    "title": "own",
    "names": {"mean": "m", "var": "v", "eps": "e", "momentum": "rate"},
    "momentum": 0.1,
    "momentum_weighs": "new",
    "variance": "biased",
}


@pytest.mark.parametrize("key", [key for key in CONVENTIONS if key != "paper"])
@given(percent=st.integers(0, 99))
def test_a_momentum_is_the_weight_of_the_newest_batch_and_back_again(key, percent):
    convention, momentum = CONVENTIONS[key], percent / 100
    weight = convention.newest_weight(momentum)
    assert weight == (momentum if key in NEW else (100 - percent) / 100)
    assert convention.momentum_for(weight) == momentum
    if key != "caffe":
        assert convention.momentum_for(None) is None
        assert convention.newest_weight(1) == (1 if key in NEW else 0)


def test_sums_that_forget_nothing_are_a_plain_average():
    caffe = CONVENTIONS["caffe"]
    assert caffe.newest_weight(1) is None
    assert caffe.momentum_for(None) == 1
    with pytest.raises(
        ValueError, match=r"momentum is None, .* Caffe has no plain average but at 1"
    ):
        caffe.newest_weight(None)


def test_a_momentum_that_a_convention_does_not_have_is_refused():
    for convention in CONVENTIONS.values():
        with pytest.raises(ValueError, match=r"momentum is 1\.5, expected a number in \[0, 1\]"):
            convention.newest_weight(1.5)
    for key in ("keras", "haiku", "equinox", "mlx", "onnx", "chainer"):
        with pytest.raises(ValueError, match=r"momentum is None, .* has no plain average$"):
            CONVENTIONS[key].newest_weight(None)
    with pytest.raises(
        ValueError, match=r"momentum is 0\.1, expected None: the paper averages all"
    ):
        CONVENTIONS["paper"].newest_weight(0.1)


def test_a_convention_of_ones_own_has_the_usual_initial_values_and_forms():
    own = Convention(**OWN)
    assert (own.initial, own.keeps, own.training, own.plain_average) == (
        (0.0, 1.0), "average", "batch", False,
    )  # fmt: skip
    assert own.setting_names() == ["rate", "e"]
    for again in (pickle.loads(pickle.dumps(own)), copy.deepcopy(own), dataclasses.replace(own)):
        assert again == own
    OWN["names"]["gamma"] = "g"
    assert "gamma" not in own.names
    del OWN["names"]["gamma"]


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"title": ""}, ValueError, "title is empty, expected a name to print"),
        ({"title": 3}, TypeError, "title is a int, expected a str"),
        ({"momentum_weighs": "both"}, ValueError, "momentum_weighs is 'both', expected one of 'new'"),
        ({"variance": "m"}, ValueError, "variance is 'm', expected one of 'unbiased', 'biased'"),
        ({"keeps": "all"}, ValueError, "keeps is 'all', expected one of 'average', 'hidden', 'both'"),
        ({"training": "ema"}, ValueError, "training is 'ema', expected one of 'batch', 'average'"),
        ({"momentum": 2}, ValueError, r"momentum is 2, expected a number in \[0, 1\]"),
        ({"eps": 0}, ValueError, "eps is 0, expected a finite number above 0"),
        ({"initial": (0,)}, ValueError, r"initial is \(0,\), expected \(mean, variance\), 'given' or"),
        ({"initial": (0, -1)}, ValueError, r"initial\[1\] is -1, expected a finite number of at least"),
        ({"initial": "zero"}, ValueError, "initial is 'zero', expected"),
        ({"names": ["m"]}, TypeError, "names is a list, expected a mapping of str to str"),
        ({"names": {"mean": "m"}}, ValueError, "names lacks 'var', 'momentum', 'eps'"),
        ({"names": OWN["names"] | {"eps": "m"}}, ValueError, "names has one word for two things: m, v"),
        ({"names": OWN["names"] | {"eps": 1}}, TypeError, r"names\['eps'\] is a int, expected a str"),
        ({"names": OWN["names"] | {"sd": "s"}}, ValueError, "a key of names is 'sd', expected one of"),
        ({"keeps": "hidden"}, ValueError, "names lacks 'updates'"),
        ({"keeps": "both"}, ValueError, "names lacks 'hidden_mean', 'hidden_var', 'updates'"),
        ({"keeps": "sums"}, ValueError, "names lacks 'weight'"),
        (
            {"keeps": "sums", "names": OWN["names"] | {"weight": "w"}},
            ValueError,
            "plain_average is False, expected True: sums",
        ),
        (
            {"momentum_weighs": None, "momentum": None},
            ValueError,
            "momentum_weighs is None, expected 'new' or 'old', or plain_average=True",
        ),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(unchecked, wrong, error, message):
    with pytest.raises(error, match=message):
        Convention(**OWN | wrong)
