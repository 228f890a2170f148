"""The set-up cell installs where bncore is missing and nowhere else; Binder gets bncore at the commit."""

import subprocess

import pytest
from edition import launch
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ADDRESS = "https://github.com/a/b"


@pytest.fixture
def asked(monkeypatch):
    """What pip is asked for when the set-up cell runs, where bncore is missing or there."""

    def run(there, *where):
        notebook = new_notebook(cells=[new_markdown_cell("# T"), new_code_cell("1")])
        cell = launch.with_setup_cell(notebook, *where).cells[1]
        shell, lines = InteractiveShell(), []
        shell.register_magic_function(lines.append, magic_name="pip")
        monkeypatch.setattr("importlib.util.find_spec", lambda name: there)
        shell.run_cell(cell.source).raise_error()
        return lines

    return run


def test_what_is_missing_is_installed_at_the_commit(asked):
    assert asked(None, ADDRESS, "c0ffee") == [
        'install --quiet "bncore[lab,page] @ git+https://github.com/a/b@c0ffee"'
    ]
    assert asked(None, ADDRESS, None) == [
        'install --quiet "bncore[lab,page] @ git+https://github.com/a/b"'
    ]


def test_nothing_is_installed_where_bncore_is_there(asked):
    assert asked("there", ADDRESS, "c0ffee") == []


def test_the_set_up_cell_comes_before_all_code_and_changes_nothing_else():
    notebook = new_notebook(cells=[new_markdown_cell("# T"), new_code_cell("1")])
    prepared = launch.with_setup_cell(notebook, ADDRESS, "c0ffee")
    assert [prepared.cells[0], prepared.cells[2]] == notebook.cells
    assert len(notebook.cells) == 2


def test_binder_installs_bncore_at_the_commit_beside_the_book_s_torch(tmp_path):
    (tmp_path / "requirements.txt").write_text("# x\ntorch==2.1.0\nnumpy>=2\n", encoding="utf-8")
    launch.binder(tmp_path / ".binder", tmp_path, ADDRESS, "c0ffee")
    script = tmp_path / ".binder" / "postBuild"
    wanted = '"torch==2.1.0" "bncore[lab,page] @ git+https://github.com/a/b@c0ffee"'
    assert wanted in script.read_text(encoding="utf-8").splitlines()[-1]
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert script.stat().st_mode & 0o111
    assert (tmp_path / ".binder" / "runtime.txt").read_text(encoding="utf-8") == "python-3.12\n"
