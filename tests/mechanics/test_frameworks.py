"""The table of conventions says what the frameworks say, and says it alike in both forms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.mechanics import conventions, frameworks
from bncore.mechanics.frameworks import CONVENTIONS, markdown, table


def test_torchs_defaults_and_names_are_those_of_torch():
    layer = torch.nn.BatchNorm1d(4)
    torch_convention = CONVENTIONS["torch"]
    assert (layer.momentum, layer.eps) == (torch_convention.momentum, torch_convention.eps)
    names = {torch_convention.names[key] for key in ("gamma", "beta", "mean", "var", "updates")}
    assert names == set(layer.state_dict())
    initial = torch_convention.initial
    assert (layer.running_mean == initial[0]).all()
    assert (layer.running_var == initial[1]).all()


def test_the_table_answers_each_question_for_each_framework():
    rows = table()
    titles = [convention.title for convention in CONVENTIONS.values()]
    assert all(list(row) == ["", *titles] for row in rows)
    assert all(isinstance(answer, str) and answer for row in rows for answer in row.values())
    answers = {row[""]: row for row in rows}
    assert answers["update"]["torch"] == "0.9 × old + 0.1 × batch"
    assert answers["update"]["Keras 3"] == "0.99 × old + 0.01 × batch"
    assert answers["batches looked back over"]["torch"] == "10"
    assert answers["batches looked back over"]["Flax"] == "100"
    assert answers["variance kept, divisor"]["torch"] == "m − 1"
    assert answers["variance kept, divisor"]["Keras 3"] == "m"
    assert answers["epsilon"]["the paper"] == "unspecified"
    assert answers["number of batches"]["torch"] == "`num_batches_tracked`"
    assert answers["number of batches"]["Flax"] == "—"


def test_the_markdown_table_gives_each_answer_of_the_table_to_those_who_give_it():
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in markdown().splitlines()]
    assert cells[:2] == [["question", "answers"], ["---", "---"]]
    titles = [convention.title for convention in CONVENTIONS.values()]
    for (question, answers), row in zip(cells[2:], table(), strict=True):
        assert question == row[""]
        if question == "source":
            assert answers.split("<br>") == [row[title] for title in titles]
            continue
        read = {}
        for group in answers.split("<br>"):
            answer, who = group.removesuffix(")").rsplit(" (", 1)
            for title in titles if who == "all" else who.split(", "):
                assert title not in read
                read[title] = "—" if answer == "none" and row[title] == "—" else answer
        assert read == {title: row[title] for title in titles}


@pytest.mark.parametrize("key", [key for key in CONVENTIONS if key != "paper"])
@given(percent=st.integers(0, 100))
def test_a_momentum_is_the_weight_of_the_newest_batch_and_back_again(key, percent):
    convention, momentum = CONVENTIONS[key], percent / 100
    weight = convention.newest_weight(momentum)
    assert weight == ((100 - percent) / 100 if key != "torch" else momentum)
    assert convention.momentum_for(weight) == momentum
    assert convention.momentum_for(None) is None


def test_a_momentum_that_a_convention_does_not_have_is_refused():
    for convention in CONVENTIONS.values():
        with pytest.raises(ValueError, match=r"momentum is 1\.5, expected a number in \[0, 1\]"):
            convention.newest_weight(1.5)
    with pytest.raises(ValueError, match=r"momentum is None, .*: Keras 3 has no plain average"):
        CONVENTIONS["keras"].newest_weight(None)
    with pytest.raises(
        ValueError, match=r"momentum is 0\.1, expected None: the paper averages all"
    ):
        CONVENTIONS["paper"].newest_weight(0.1)


def test_conventions_offers_the_table_too():
    for name in frameworks.__all__:
        assert getattr(conventions, name) is getattr(frameworks, name)
