"""`make chapter`, and CONTRIBUTING followed to the letter, in a copy of the repository."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import execution
import layout
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = (
    "_toc.yml",
    "README.md",
    "book/intro.md",
    "book/api.md",
    "book/api/mechanics.md",
    layout.CONTENTS,
)


def copied(target):
    """The repository's files, committed or not, without what git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
    return target


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy to run commands in."""
    return copied(tmp_path_factory.mktemp("copy"))


@pytest.fixture
def entered(tmp_path):
    """The files that list chapters, and nothing else."""
    for name in ENTRIES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def surroundings(copy):
    return {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}


def run(copy, *command):
    done = subprocess.run(
        command,
        cwd=copy,
        env=surroundings(copy),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def walk():
    """The section of CONTRIBUTING on a new chapter: its code blocks, with the line before each."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("## Add a chapter\n")[1].split("\n## ")[0]
    pattern = r"^(?P<before>[^\n]+)\n\n(?P<fence>`{3,})(?P<kind>\w+)\n(?P<body>.*?)^(?P=fence)$"
    return [match.groupdict() for match in re.finditer(pattern, section, re.M | re.S)]


def test_contributing_is_true_to_the_letter(copy):
    """Run its commands in their order, put in its code where it says, and look at what it shows."""
    made = ["-o", ".venv/.installed", f"PY={sys.executable}"]
    blocks = walk()
    assert [block["kind"] for block in blocks] == ["sh", *["python"] * 3, "sh", "md", "sh"]
    for block in blocks:
        if block["kind"] == "sh":
            for line in block["body"].splitlines():
                command, *arguments = shlex.split(line)
                assert command == "make"
                said = run(copy, command, *made, *arguments)
            continue
        place = copy / re.search(r"`([^`]+/[^`]+)`", block["before"])[1]
        there = place.read_text(encoding="utf-8")
        if block["kind"] == "python":
            assert there == block["body"]
            assert "import" in block["body"]
            place.write_text(block["body"], encoding="utf-8")
        else:
            assert block["body"].strip() in there
    assert re.search(r"mechanics/spread ok, \d+ s", said), said
    page = (copy / "_build/check/html/book/mechanics/spread.html").read_text(encoding="utf-8")
    assert '<h1><span class="section-number">5 </span>Spread' in page
    assert "predicted 0" in page
    assert 'type="range"' in page
    assert (copy / "_build/check/html/_frames/book/mechanics/spread").is_dir()


def test_a_new_chapter_leaves_the_others_as_they_ran(tmp_path, monkeypatch):
    """Only what lists all chapters, as the ledger does, runs again."""
    copy = copied(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(copy))
    notebooks = {
        "old": "from bncore.chapters import check, ledger\n"
        "from bncore.chapters.mechanics.forward import figures\n"
        "from bncore.page import claims, evidence\n"
        "parts = [claims.untestable('not judged here')]\n"
        "claims.Claim.evidence = lambda entry: evidence.Evidence.of(parts)\n"
        "print(check('forward-undo', lambda x, eps: ...), len(ledger('mechanics/forward').entries))",
        "ledger": "from bncore.chapters import names\nprint(len(names()))",
    }
    for name, code in notebooks.items():
        nbformat.write(new_notebook(cells=[new_code_cell(code)]), copy / f"book/{name}.ipynb")
    store = execution.Store(copy / "_build" / "executed", copy)

    def fresh():
        return {name: store.is_fresh(name, copy / f"book/{name}.ipynb") for name in notebooks}

    for name in notebooks:
        store.execute(name, copy / f"book/{name}.ipynb")
    assert fresh() == {"old": True, "ledger": True}
    layout.Layout("mechanics/spread", root=copy).write()
    assert fresh() == {"old": True, "ledger": False}
    layout.Layout("practice/spread_2", root=copy).write()
    assert fresh() == {"old": True, "ledger": False}


@pytest.mark.parametrize(
    ("chapter", "title", "words"),
    [
        ("spread", "", "expected wing/name"),
        ("mechanics/Spread", "", "expected wing/name in lower-case"),
        ("mechanics/small-batches", "", "underscores"),
        ("mechanics/lambda", "", "expected wing/name"),
        ("mechanics/../x", "", "expected wing/name"),
        ("somewhere/spread", "", "expected one of the wings front, mechanics"),
        ("practice/forward", "", "there is a chapter mechanics/forward already"),
        ("mechanics/forward", "", "there is a chapter mechanics/forward already"),
        (
            "mechanics/spread",
            "Width",
            "expected one that begins or ends with what the chapter's name says",
        ),
    ],
)
def test_a_name_that_cannot_be_is_refused_in_words(entered, chapter, title, words, capsys):
    before = sorted(entered.rglob("*"))
    assert layout.lay_out(chapter, title, entered) == 1
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert sorted(entered.rglob("*")) == before


@pytest.mark.parametrize(
    "place",
    ["bncore/mechanics/spread.py", "book/mechanics/spread.ipynb", "tests/mechanics/test_spread.py"],
)
def test_no_file_is_overwritten(entered, place, capsys):
    (entered / place).parent.mkdir(parents=True, exist_ok=True)
    (entered / place).write_text("mine", encoding="utf-8")
    assert layout.lay_out("mechanics/spread", root=entered) == 1
    assert f"{place} exists already" in capsys.readouterr().err
    assert (entered / place).read_text(encoding="utf-8") == "mine"


def test_the_command_without_a_name_says_how_it_is_called():
    command = [sys.executable, ROOT / "book/_ext/layout.py"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert "make chapter NAME=" in done.stderr


def listed(root):
    """The chapters in the order of each file that lists them."""
    text = {name: (root / name).read_text(encoding="utf-8") for name in ENTRIES}
    return {
        "_toc.yml": re.findall(r"^      - file: book/((?:\w+/)?\w+)$", text["_toc.yml"], re.M),
        "README.md": re.findall(r"^- \[.*?\]\(book/([\w/]+)\.ipynb\)", text["README.md"], re.M),
        "book/intro.md": re.findall(r"^- \[.*?\]\(([\w/]+)\.ipynb\)", text["book/intro.md"], re.M),
        layout.CONTENTS: [
            name.removeprefix("front/")
            for name in re.findall(
                r'^    "([\w/]+)":', text[layout.CONTENTS].split("\n}\n")[0], re.M
            )
        ],
    }


@pytest.mark.parametrize(
    ("chapter", "before"),
    [
        ("mechanics/spread", "mechanics/inference"),
        ("convergence/spread", "convergence/neural_networks"),
        ("practice/spread", "practice/diagnosis"),
        ("front/spread", "start"),
    ],
)
def test_a_chapter_is_entered_behind_the_last_of_its_wing(entered, chapter, before):
    layout.Layout(chapter, "The wide spread", entered).write()
    for name, chapters in listed(entered).items():
        place = chapters.index(chapter.removeprefix("front/"))
        assert (chapters[place - 1] if place else None) == before, name
    for name in ("README.md", "book/intro.md", layout.CONTENTS):
        assert "The wide spread" in (entered / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("wing", ["practice", "front"])
def test_the_second_chapter_of_a_new_wing_follows_the_first(entered, wing):
    layout.Layout(f"{wing}/first", root=entered).write()
    layout.Layout(f"{wing}/second", root=entered).write()
    for name, chapters in listed(entered).items():
        own = [chapter for chapter in chapters if chapter.split("/")[-1] in ("first", "second")]
        assert [chapter.split("/")[-1] for chapter in own] == ["first", "second"], name
    contents = (entered / "_toc.yml").read_text(encoding="utf-8")
    assert contents.count("caption: Practice\n    numbered: 1\n") == 1


def test_a_page_outside_the_wings_has_its_code_in_its_package(entered):
    new = layout.Layout("front/first", root=entered).write()
    assert "book/first.ipynb" in new
    assert "bncore/chapters/front/first/experiments.py" in new
    package = (entered / "bncore/chapters/front/first/__init__.py").read_text(encoding="utf-8")
    assert "MODULES = ()" in package
    notebook = nbformat.read(entered / "book/first.ipynb", as_version=4)
    assert any("{source} bncore.chapters.front.first" in cell.source for cell in notebook.cells)
    assert not (entered / "book/api/front.md").exists()


@pytest.mark.parametrize("chapter", ["mechanics/spread", "practice/spread"])
def test_its_module_is_described_on_the_page_of_its_wing(entered, chapter):
    """A new wing has a page with an example, and the index and the contents name it once."""
    wing = chapter.split("/")[0]
    for name in (chapter, f"{wing}/second"):
        layout.Layout(name, root=entered).write()
        page = (entered / f"book/api/{wing}.md").read_text(encoding="utf-8")
        assert page.endswith(f":: bncore.{name.replace('/', '.')}\n   :members:\n```\n")
    assert page.startswith(f"# {wing.capitalize()}\n")
    assert page.count("```pycon\n") == page.count(".. api-summary::") == 1
    for name, words in (("book/api.md", f"(api/{wing}.md)"), ("_toc.yml", f"book/api/{wing}\n")):
        assert (entered / name).read_text(encoding="utf-8").count(words) == 1
