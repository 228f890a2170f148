"""The editions of the whole book, against the notebooks, the built site, and JupyterLab."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from html import unescape
from pathlib import Path

import nbformat
import pytest
from built import SITE
from edition import editions
from nbformat.v4 import new_notebook

ROOT = SITE.parents[1]
ADDRESS = "https://github.com/some-one/the-book"
HOME = "https://some-one.github.io/the-book/"
PAGES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "book").rglob("*.ipynb")
)
pytestmark = pytest.mark.xdist_group("jupyterlab")

FENCE = re.compile(r"^[> ]*(`{3,}).*?^[> ]*\1$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
FORMULA = re.compile(r"\$\$.+?\$\$|\$(?:\\.|[^$\\])+\$", re.DOTALL)
LEFT = re.compile(r"\{[\w:.+-]+\}`|^\s*\([\w-]+\)=\s*$|^[> ]*[`:]{3,}\{|\{\{|\[\^", re.MULTILINE)
LINK = re.compile(r"\]\((\S+?)\)")
KINDS = "Axiom|Theorem|Lemma|Algorithm|Definition|Remark|Conjecture|Corollary|Example|Proposition"
CAPTION = re.compile(
    rf"^> \*\*((?:{KINDS}) \d[\d.]*)|^#+ ((?:Solution to )?Exercise \d[\d.]*)", re.M
)
SHOWN = re.compile(rf">\s*((?:{KINDS}|(?:Solution to )?Exercise) \d[\d.]*)\s")


@pytest.fixture(scope="session")
def app(tmp_path_factory, sphinx_for_editions):
    """Sphinx as the build of the site left it."""
    if not (SITE / "index.html").exists():
        pytest.fail("the site is not built: run `make site` first")
    doctrees = tmp_path_factory.mktemp("editions") / ".doctrees"
    shutil.copytree(SITE.parent / ".doctrees", doctrees)
    app = sphinx_for_editions(ROOT, doctrees.with_name("edition"), doctrees)
    app.builder.read()
    return app


@pytest.fixture(scope="session")
def derived(app):
    """The editions, as they are where the repository's address is known."""
    return editions(app, ADDRESS, "c0ffee")


@pytest.fixture(scope="session")
def neighbours(app):
    """The editions, as they are where it is not."""
    return editions(app)


def source(page):
    return nbformat.read(ROOT / f"{page}.ipynb", as_version=4)


def prose(notebook):
    """The Markdown of a notebook without its code."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return "\n\n".join(SPAN.sub("CODE", FENCE.sub("CODE", text)) for text in texts)


def code(notebook):
    """What the code cells are, and what they show."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [(cell.id, cell.source, cell.outputs) for cell in cells]


def test_every_notebook_has_an_edition(derived, neighbours):
    assert sorted(derived) == sorted(neighbours) == PAGES


@pytest.mark.parametrize("name", PAGES)
def test_the_code_is_that_of_the_notebook(derived, neighbours, name):
    assert code(neighbours[name]) == code(source(name))
    assert code(derived[name])[1:] == code(source(name))
    assert "bncore[lab,page] @ git+" in code(derived[name])[0][1]


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_left_that_only_the_site_understands(derived, neighbours, name):
    for notebook in (derived[name], neighbours[name]):
        assert LEFT.findall(FORMULA.sub("", prose(notebook))) == []
        nbformat.validate(notebook)


@pytest.mark.parametrize("name", PAGES)
def test_numbers_are_those_of_the_page(derived, name):
    page = (SITE / f"{name}.html").read_text(encoding="utf-8")
    titles = re.findall(r'<p class="admonition-title".*?</p>', page, re.DOTALL)
    words = [" ".join(unescape(re.sub(r"<[^>]*>", "", title)).split()) for title in titles]
    shown = [re.match(rf"((?:{KINDS}|(?:Solution to )?Exercise) \d[\d.]*)", each) for each in words]
    captions = [a or b for a, b in CAPTION.findall(prose(derived[name]))]
    assert captions == [each[0] for each in shown if each]


def ids(file, known={}):  # noqa: B006
    """The anchors of a page of the site."""
    if file not in known:
        known[file] = set(re.findall(r'\sid="([^"]+)"', file.read_text(encoding="utf-8")))
    return known[file]


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(derived, neighbours, name):
    for target in LINK.findall(FORMULA.sub("", prose(derived[name]))):
        if target.startswith(HOME):
            path, _, anchor = target.removeprefix(HOME).partition("#")
            assert anchor == "" or anchor in ids(SITE / path), target
            assert (SITE / path).is_file(), target
        else:
            assert target.startswith("https://"), target
    for target in LINK.findall(FORMULA.sub("", prose(neighbours[name]))):
        if not target.startswith("https://"):
            assert (ROOT / name).parent.joinpath(target).is_file(), target


def solved(page):
    """The ids of the code cells of a notebook that stand in solutions."""
    inside, found = False, []
    for cell in source(page).cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else []:
            inside = (inside and "{solution-end}" not in line) or "{solution-start}" in line
        if inside and cell.cell_type == "code":
            found.append(cell.id)
    return found


def folded(notebook):
    """Which cells a notebook hides when it is opened."""
    level, hidden = 7, []
    for cell in notebook.cells:
        match = re.match("(#+) ", cell.source) if cell.cell_type == "markdown" else None
        if match and len(match[1]) <= level:
            level = 7
        hidden.append(level < 7)
        if cell.metadata.get("jp-MarkdownHeadingCollapsed"):
            assert "\n" not in cell.source, "the heading of a fold stands alone"
            level = min(level, len(match[1]))
    return hidden


@pytest.mark.parametrize("name", PAGES)
def test_solutions_are_folded_and_nothing_else(neighbours, name):
    cells = neighbours[name].cells
    hidden = [cell for cell, hides in zip(cells, folded(neighbours[name]), strict=True) if hides]
    assert [cell.id for cell in hidden if cell.cell_type == "code"] == solved(name)
    assert not any(cell.source.startswith("#") for cell in hidden if cell.cell_type == "markdown")
    solutions = [cell for cell in cells if re.match("#+ Solution to ", cell.source)]
    assert all(cell.metadata["jp-MarkdownHeadingCollapsed"] for cell in solutions)
    headings = [cell.id for cell in solutions]
    assert neighbours[name].metadata.get("colab", {}).get("collapsed_sections", []) == headings


@pytest.mark.parametrize("name", PAGES)
def test_hidden_inputs_are_folded(neighbours, name):
    for cell in neighbours[name].cells:
        hides = "hide-input" in cell.metadata.get("tags", [])
        assert (cell.metadata.get("cellView") == "form") is hides
        assert bool(cell.metadata.get("jupyter", {}).get("source_hidden")) is hides


READ = """() => {
  const cells = [...document.querySelectorAll('.jp-Notebook .jp-Cell')];
  const failed = 'mjx-merror, [data-mjx-error], mjx-container [style*="red"]';
  const words = [];
  for (const cell of document.querySelectorAll('.jp-RenderedMarkdown')) {
    const copy = cell.cloneNode(true);
    copy.querySelectorAll('code, pre, mjx-container').forEach(e => e.remove());
    words.push(copy.textContent);
  }
  return {
    hidden: cells.map(cell => cell.offsetParent === null),
    errors: [...document.querySelectorAll(failed)].map(e => e.outerHTML),
    formulas: document.querySelectorAll('mjx-container').length,
    above: document.querySelectorAll('blockquote mjx-container .mjx-c3E').length,
    words: words.join('\\n'),
  };
}"""


def formulas(text):
    return FORMULA.findall(SPAN.sub("", FENCE.sub("", text)).replace("\\$", ""))


def test_jupyterlab_shows_every_formula_of_the_book(lab, neighbours):
    """All that the book says in one notebook, so that it is opened once."""
    cells = [cell for made in neighbours.values() for cell in made.cells]
    cells = [cell for cell in cells if cell.cell_type == "markdown"]
    for number, cell in enumerate(cells):
        cell = cells[number] = nbformat.from_dict(dict(cell))
        cell.id, cell.metadata = f"text-{number}", {}
    tab = lab(new_notebook(cells=cells))
    wanted = sum(len(formulas(cell.source)) for cell in cells)
    tab.wait_for_function(
        f"() => document.querySelectorAll('mjx-container').length >= {wanted}", timeout=240_000
    )
    found = tab.evaluate(READ)
    assert found["errors"] == []
    assert found["formulas"] == wanted
    assert not re.search(r"[$\\]|\{\w+\}", found["words"])
    quotes = "\n\n".join(
        re.sub("^> ?", "", line, flags=re.MULTILINE)
        for cell in cells
        for line in re.findall(r"(?:^>.*\n?)+", cell.source, re.MULTILINE)
    )
    assert found["above"] == sum(formula.count(">") for formula in formulas(quotes))


@pytest.mark.parametrize("name", ["book/mechanics/forward", "book/convergence/least_squares"])
def test_jupyterlab_opens_it_with_solutions_folded(lab, neighbours, name):
    made = neighbours[name]
    tab = lab(made)
    tab.wait_for_timeout(500)
    assert tab.evaluate(READ)["hidden"] == folded(made)


def test_the_look_at_jupyterlab_sees_what_fails(lab):
    texts = ["> $$\n> x\n> y\n> $$", "$a^b^c$", r"$\nope$", "A $ and {ref}`x`"]
    cells = [nbformat.v4.new_markdown_cell(text) for text in texts]
    tab = lab(new_notebook(cells=cells))
    tab.wait_for_function("() => document.querySelectorAll('mjx-container').length >= 3")
    found = tab.evaluate(READ)
    assert found["above"] > 0
    assert len({re.search("a.b.c|Double|red", error)[0] for error in found["errors"]}) >= 2
    assert "$" in found["words"]
    assert "{ref}" in found["words"]


@pytest.fixture(scope="session")
def wheel_alone(tmp_path_factory):
    """A Python with the wheel of bncore and its dependencies, and nothing else of the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.check_output([python, "-c", ask], encoding="utf-8").strip())
    wheel = next(folder.glob("*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--target", packages, wheel], check=True)
    # A folder that is named here gives its packages, not what its own `.pth` files name.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return python


RUN = """
import importlib.util, sys
import bncore, nbclient, nbformat
assert bncore.__file__.startswith(sys.prefix), bncore.__file__
assert not any(importlib.util.find_spec(name) for name in ("tests", "book", "edition"))
notebook = nbformat.read("edition.ipynb", as_version=4)
nbclient.NotebookClient(notebook, kernel_name="python3", timeout=300).execute()
"""


@pytest.mark.parametrize(
    "name",
    [
        "book/mechanics/scaling",
        "book/explanations/noise",
        "book/convergence/decoupling",
        "book/practice/diagnosis",
    ],
)
def test_it_runs_from_the_wheel_alone(wheel_alone, neighbours, tmp_path, name):
    nbformat.write(neighbours[name], tmp_path / "edition.ipynb")
    dropped = ("PYTHONPATH", "BNCORE_FACE")
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    subprocess.run(
        [wheel_alone, "-c", RUN],
        cwd=tmp_path,
        env={**environment, "TQDM_DISABLE": "1", "IPYTHONDIR": str(tmp_path / "ipython")},
        check=True,
    )


def test_a_notebook_of_each_wing_runs_from_the_wheel():
    run = test_it_runs_from_the_wheel_alone.pytestmark[0].args[1]
    assert {name.split("/")[1] for name in run} == {
        page.split("/")[1] for page in PAGES if page.count("/") > 1
    }
