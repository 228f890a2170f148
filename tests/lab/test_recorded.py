import json
import math
import os
import platform

import numpy as np
import pytest
import torch
import xarray as xr

from bncore.lab import recorded


def test_what_is_loaded_is_what_was_saved(tmp_path):
    path = tmp_path / "recorded.json"
    full = {
        "loss": np.array([[1.5, 0.1 + 0.2], [1e-300, 3.0]]),
        "accuracy": np.float32(0.1),
        "grid": (1, 2),
        "tensor": torch.arange(3),
        "nested": {"text": "a", "flag": True, "nothing": None, "zero": -0.0},
    }
    recorded.save(path, configuration={"seed": 3, "rates": [0.1]}, full=full, reduced={"loss": 2})
    run = recorded.load(path)
    assert run["configuration"] == {"seed": 3, "rates": [0.1]}
    assert run["reduced"] == {"loss": 2}
    assert run["full"] == {
        "loss": [[1.5, 0.1 + 0.2], [1e-300, 3.0]],
        "accuracy": float(np.float32(0.1)),
        "grid": [1, 2],
        "tensor": [0, 1, 2],
        "nested": {"text": "a", "flag": True, "nothing": None, "zero": 0.0},
    }


def test_a_study_comes_back_as_it_was(tmp_path):
    path = tmp_path / "recorded.json"
    found = xr.Dataset(
        {
            "loss": (("kind", "rate", "seed"), [[[1.5, math.nan], [math.inf, 1e-300]]]),
            "ran": (("kind", "rate"), [[True, False]]),
        },
        coords={"kind": ["batch norm"], "rate": [0.1, 1.0], "seed": [4, 2]},
    )
    recorded.save(path, configuration={}, full={"study": found}, reduced={})
    again = recorded.load(path)["full"]["study"]
    assert again.identical(found)
    assert again.ran.dtype == bool
    assert again.seed.dtype.kind == "i"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_any_precision_are_kept_with_their_numbers(tmp_path, dtype):
    path, value = tmp_path / "recorded.json", torch.tensor([0.5, 0.1], dtype=dtype)
    recorded.save(path, configuration={}, full={"a": value.requires_grad_()}, reduced={})
    assert recorded.load(path)["full"]["a"] == value.double().tolist()


def test_a_run_that_diverged_is_kept_in_a_file_that_any_reader_accepts(tmp_path):
    path = tmp_path / "recorded.json"
    losses = [1.0, math.inf, -math.inf, math.nan]
    recorded.save(path, configuration={}, full={"losses": np.array(losses)}, reduced={})

    def refuse(constant):
        raise AssertionError(constant)

    json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    np.testing.assert_array_equal(recorded.load(path)["full"]["losses"], losses)


def test_a_run_says_where_it_came_from_without_names(tmp_path):
    path = tmp_path / "recorded.json"
    recorded.save(path, configuration={}, full={}, reduced={})
    run = recorded.load(path)
    assert run["versions"].keys() == {"python", "numpy", "scipy", "torch"}
    assert run["versions"]["torch"] == torch.__version__
    assert run["hardware"].keys() == {"architecture", "cores", "threads"}
    assert run["hardware"]["cores"] == os.cpu_count()
    assert platform.node() not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("full", "error", "message"),
    [
        ({"a": [1, object()]}, TypeError, r"full\['a'\]\[1\] is a object, expected numbers"),
        ({"a": np.ma.ones(2)}, TypeError, r"full\['a'\] is a MaskedArray, expected numbers"),
        ({"a": torch.eye(2).to_sparse()}, TypeError, r"full\['a'\] is a Tensor, expected numbers"),
        ({"a": torch.ones(2) * 1j}, TypeError, r"full\['a'\]\[0\] is a complex, expected numbers"),
        ({1: 2}, TypeError, "full has the key 1, expected text as keys"),
        ({"a": {"b": "NaN"}}, TypeError, r"full\['a'\]\['b'\] is the text 'NaN', which stands"),
        ({"a": list(range(30_000))}, ValueError, "takes 1[0-9]{5} bytes, expected at most 100000"),
    ],
)
def test_what_cannot_be_recorded_is_named_and_no_file_written(tmp_path, full, error, message):
    path = tmp_path / "recorded.json"
    with pytest.raises(error, match=message):
        recorded.save(path, configuration={}, full=full, reduced={})
    assert not list(tmp_path.iterdir())


def test_a_run_may_take_as_many_bytes_as_the_limit_says(tmp_path):
    path, run = tmp_path / "recorded.json", {"configuration": {}, "full": {}, "reduced": {}}
    recorded.save(path, **run)
    size = path.stat().st_size
    recorded.save(path, **run, limit=size)
    with pytest.raises(ValueError, match=f"takes {size} bytes, expected at most {size - 1}"):
        recorded.save(path, **run, limit=size - 1)


def test_a_missing_run_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"recorded.json does not exist; full_size.py"):
        recorded.load(tmp_path / "recorded.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"configuration": ', r"recorded.json is no JSON \(.*\), expected a recorded run"),
        ('{"full": {}, "configuration": {}}', "lacks reduced, versions, hardware, expected a"),
        ("[]", "lacks configuration, full, reduced, versions, hardware"),
    ],
)
def test_a_file_that_is_no_recorded_run_is_refused(tmp_path, text, message):
    path = tmp_path / "recorded.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        recorded.load(path)


@pytest.fixture
def command(tmp_path):
    """Call the command line of a run; what was run comes back."""

    def call(*arguments, **options):
        ran = []

        def run(configuration, *cache):
            ran.append((configuration, *cache))
            return {"seen": configuration}

        recorded.command(
            tmp_path / "recorded.json",
            run,
            configuration={"steps": 2},
            reduced={"steps": 1},
            paper={"steps": 9},
            arguments=list(arguments),
            **options,
        )
        return ran

    return call


def test_the_command_makes_the_recorded_run(command, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert command() == [({"steps": 2},), ({"steps": 1},)]
    finally:
        torch.set_num_threads(before)
    kept = recorded.load(tmp_path / "recorded.json")
    assert kept["configuration"] == {"steps": 2}
    assert kept["full"] == {"seen": {"steps": 2}}
    assert kept["reduced"] == {"seen": {"steps": 1}}
    assert kept["hardware"]["threads"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["recorded.json"]


def test_a_run_that_can_be_interrupted_gets_a_folder_for_what_is_finished(tmp_path):
    seen = []

    def run(configuration, cache=None, store=None):
        seen.append(store)
        return {}

    for arguments in ([], ["--part"]):
        recorded.command(
            tmp_path / "recorded.json", run, configuration={}, reduced={}, paper={},
            others={"part": lambda store: seen.append(store)}, arguments=arguments,
        )  # fmt: skip
    assert seen == [tmp_path / "runs", None, tmp_path / "runs"]


@pytest.mark.parametrize(("arguments", "folder"), [((), None), (("--cache", "images"), "images")])
def test_the_command_runs_near_the_papers_size(command, tmp_path, arguments, folder):
    assert command("--paper", *arguments) == [({"steps": 9}, folder)]
    kept = recorded.load(tmp_path / "paper.json")
    assert kept["configuration"] == {"steps": 9}
    assert kept["full"] == {"seen": {"steps": 9}}
    assert kept["reduced"] == {}
    assert [path.name for path in tmp_path.iterdir()] == ["paper.json"]


def test_a_run_of_hours_is_saved_however_large(command, tmp_path):
    found = {"loss": np.linspace(0, 1, 20_000)}
    assert command("--paper", run_paper=lambda configuration, cache: found) == []
    assert len(recorded.load(tmp_path / "paper.json")["full"]["loss"]) == 20_000
    assert (tmp_path / "paper.json").stat().st_size > recorded.LIMIT


def test_another_command_runs_instead(command, tmp_path, capsys):
    called = []

    def again():
        """Do a part of it again.

        At length.
        """
        called.append(True)

    assert command("--part", others={"part": again}) == []
    assert called == [True]
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        command("--help", others={"part": again})
    text = capsys.readouterr().out
    assert "--part" in text
    assert "Do a part of it again." in text
    assert "At length" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cache", "images"], "--cache is the folder of the images that --paper downloads: give"),
        (["--paper", "--part"], "argument --part: not allowed with argument --paper"),
        (["--large"], "unrecognized arguments: --large"),
    ],
)
def test_a_wrong_command_is_explained_and_runs_nothing(
    command, tmp_path, capsys, arguments, message
):
    with pytest.raises(SystemExit):
        command(*arguments, others={"part": print})
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_where_no_paper_has_a_size_there_is_no_such_option(tmp_path, capsys):
    with pytest.raises(SystemExit):
        recorded.command(
            tmp_path / "recorded.json", print, configuration={}, reduced={}, paper=None,
            arguments=["--paper"],
        )  # fmt: skip
    assert "unrecognized arguments: --paper" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_part_is_repeated_and_the_rest_is_kept(tmp_path):
    path, stores = tmp_path / "recorded.json", []
    configuration = {
        name: {"steps": steps} for steps, name in enumerate(("one", "other", "long"), 4)
    }
    reduced = {name: {"steps": 1} for name in ("one", "other")}
    old = dict.fromkeys(configuration, "old")
    recorded.save(path, configuration={}, full=old, reduced=dict.fromkeys(reduced, "old"))

    def part(c, store):
        stores.append(store)
        return {"steps": 10 * c["steps"]}

    others = recorded.repeats(path, dict.fromkeys(("one", "long"), part), configuration, reduced)
    assert set(others) == {"one", "long"}
    others["one"](store="here")
    run = recorded.load(path)
    assert run["configuration"] == configuration
    assert run["full"] == {"one": {"steps": 40}, "other": "old", "long": "old"}
    assert run["reduced"] == {"one": {"steps": 10}, "other": "old"}
    assert stores == ["here", None]
    others["long"]()
    run = recorded.load(path)
    assert run["full"]["long"] == {"steps": 60}
    assert run["reduced"] == {"one": {"steps": 10}, "other": "old"}


def test_the_command_names_what_it_repeats(command, capsys, tmp_path):
    others = recorded.repeats(tmp_path / "recorded.json", {"part": print}, {}, {})
    with pytest.raises(SystemExit):
        command("--help", others=others)
    assert "repeat the part 'part' of the recorded run" in capsys.readouterr().out
