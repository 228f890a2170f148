"""`make check`: what it runs for a chapter, and what it says."""

import subprocess
import sys

import check
import nbformat
import pytest
import record

from bncore.chapters import modules, names


def test_the_steps_cover_lint_modules_claims_exercises_notebook_and_page():
    commands = check.steps("mechanics/forward")
    assert list(commands) == [
        "lint",
        "format",
        "format of cells",
        "width of cells",
        "notebook",
        "page",
        "tests",
        "claims and exercises",
    ]
    assert commands["notebook"][-1] == "book/mechanics/forward.ipynb"
    assert commands["page"][-1] == "book/mechanics/forward"
    assert "tests/mechanics/test_transform.py" in commands["tests"]
    assert "tests/chapters/mechanics/forward" in commands["tests"]
    assert commands["claims and exercises"][-2:] == ["-k", "mechanics/forward-"]


def test_a_page_under_a_chapter_is_checked_with_the_tests_of_the_chapter():
    own, parent = (
        check.steps(f"convergence/{name}") for name in ("deep_network", "neural_networks")
    )
    assert own["notebook"][-1] == "book/convergence/deep_network.ipynb"
    assert own["page"][-1] == "book/convergence/deep_network"
    different = ("notebook", "page", "format of cells", "width of cells")
    assert {name for name in own if own[name] != parent[name]} == set(different)


@pytest.mark.parametrize("chapter", names())
def test_every_module_behind_a_chapter_is_there_and_tested(chapter):
    found = check.paths_of_tests(chapter)
    for module in modules(chapter):
        assert (check.ROOT / "bncore" / f"{module}.py").exists() or (
            check.ROOT / "bncore" / module / "__init__.py"
        ).exists(), module
        assert any(path.startswith(f"tests/{module.rpartition('/')[0]}/") for path in found), module


def test_the_claims_and_exercises_are_those_of_the_chapter_and_no_other():
    command = [*check.steps("convergence/least_squares")["claims and exercises"], "--collect-only"]
    well, words, _ = check.run(command)
    assert well, words
    chosen = [line for line in words.splitlines() if "::" in line]
    assert len(chosen) > 8
    assert all("convergence/least_squares-" in line for line in chosen)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository in which two commands stand for the steps."""
    notebook = tmp_path / "book" / "mechanics" / "forward.ipynb"
    notebook.parent.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), notebook)
    commands = {"good": ["-c", "print('hidden')"], "bad": ["-c", "print('why ε'); exit(3)"]}
    monkeypatch.setattr(check, "steps", lambda chapter, root: commands)
    return tmp_path, commands


def test_what_fails_is_said_with_its_words_and_fails_the_whole(repository, capsys):
    root, commands = repository
    assert check.main("mechanics/forward", root) == 1
    said = capsys.readouterr().out
    assert "why ε" in said
    assert "hidden" not in said
    assert "mechanics/forward failed: bad" in said
    del commands["bad"]
    assert check.main("mechanics/forward", root) == 0
    assert "mechanics/forward ok" in capsys.readouterr().out


def test_an_edit_that_is_not_recorded_is_said_and_nothing_is_run(repository, capsys):
    root, commands = repository
    del commands["bad"]
    pair = record.Pair("mechanics/forward", root)
    pair.write_twin(pair.newest())
    pair.twin.write_text("# Edited\n\n```{code-cell}\n1\n```\n", encoding="utf-8")
    assert check.main("mechanics/forward", root) == 1
    assert "make record CHAPTER=mechanics/forward" in capsys.readouterr().out


def test_no_test_is_no_failure_of_tests_and_of_nothing_else():
    assert check.run(["-m", "pytest", "--collect-only", "-k", "no-such", "tests/test_progress.py"])[
        0
    ]
    assert not check.run(["-c", "exit(5)"])[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [([], "make check CHAPTER="), (["mechanics/backwards"], "expected one of front/start")],
)
def test_a_chapter_that_is_not_there_is_named(arguments, words):
    command = [sys.executable, "book/_ext/check.py", *arguments]
    done = subprocess.run(
        command, cwd=check.ROOT, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 1
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
