"""The table of conventions says what the frameworks say, and says it alike in both forms."""

import dataclasses

import torch

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
    assert answers["default momentum"]["Haiku"] == "—"
    assert answers["update"]["Haiku"] == "—"
    assert answers["update"]["the paper"] == "mean over the batches"
    plain = answers["setting for the plain average"]
    assert plain["torch"] == "momentum=None"
    assert plain["Caffe"] == "moving_average_fraction=1"
    assert plain["the paper"] == "none needed"
    assert plain["Keras 3"] == "not offered"


def test_a_convention_of_ones_own_stands_beside_the_others():
    own = dataclasses.replace(CONVENTIONS["mlx"], title="old MLX", variance="biased", source="")
    for row, plain in zip(table(own), table(), strict=True):
        assert list(row) == [*plain, "old MLX"]
        assert {title: row[title] for title in plain} == plain
    answers = {row[""]: row["old MLX"] for row in table(own)}
    assert answers["variance kept, divisor"] == "m"
    assert answers["source"] == "old MLX"
    assert "old MLX" in markdown(own)


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
        groups = answers.split("<br>")
        for group in groups:
            answer, who = group.removesuffix(")").rsplit(" (", 1)
            others = [title for title in titles if title not in read]
            assert 2 * len(who.split(", ")) <= len(titles)
            assert who not in ("all", "all others") or (group == groups[-1] and len(others) > 6)
            for title in others if who in ("all", "all others") else who.split(", "):
                assert title not in read
                read[title] = "—" if answer == "none" and row[title] == "—" else answer
        assert read == {title: row[title] for title in titles}


def test_conventions_offers_the_table_too():
    for name in frameworks.__all__:
        assert getattr(conventions, name) is getattr(frameworks, name)
