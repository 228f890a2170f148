"""A small book with the book's own configuration, read by Sphinx: what the tests of the edition look into."""

from pathlib import Path

import nbformat
import pytest
from edition import editions, links
from edition.derive import edition
from edition.resolved import Page
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[3]
SITE = "https://some-one.github.io/the-book/"
METADATA = {
    "language_info": {"name": "python"},
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
}

FIRST = [
    "# First\n\n```{prf:theorem} One\n:label: thm-first\n\nIt holds.\n```\n",
    "```{exercise-start} Try\n:label: ex-first\n```\nTry it.",
    "```{exercise-end}\n```\n\n```{solution-start} ex-first\n:class: dropdown\n```\nSo.",
    "```{solution-end}\n```\n\n(first-end)=\n## The end of $x_1$",
]
SECOND = [
    "# Second\n\n```{prf:definition} A *thing*\n:label: def-second\n\nA thing.\n```\n",
    "```{prf:theorem}\n:label: thm-second\n\nIt holds too.\n```\n",
    "```{exercise} Again\n:label: ex-second\n\nTry again.\n```\n",
    "$$e = 1$$ (eq-second)\n\n```{figure} dot.png\n:name: fig-second\n:alt: A dot\n\nThe *dot*.\n```\n",
]
CODE = '''\
"""A module."""


def twice(x):
    """Twice x."""

    return 2 * x


last = twice(1)
'''
REFERENCES = """\
@book{lone, author = {Lone, Ann}, title = {On One}, year = {1990}, publisher = {P}, doi = {10.1/x}}
@book{pair, author = {Lone, Ann and Mate, Bo}, title = {On Two}, year = {1991}, publisher = {P}}
@book{many, author = {Lone, A. and Mate, B. and Third, C.}, title = {On}, year = {1992}, publisher = {P}}
"""
DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
)


def notebook(*cells):
    """A notebook of Markdown cells, and of code cells where a cell is in a tuple."""
    made = [
        new_code_cell(cell[0], id=f"code-{index}", metadata={"tags": list(cell[1:])})
        if isinstance(cell, tuple)
        else new_markdown_cell(cell, id=f"text-{index}")
        for index, cell in enumerate(cells)
    ]
    return new_notebook(cells=made, metadata=METADATA)


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """The folder of the small book."""
    root = tmp_path_factory.mktemp("small")
    for name in ("book/_ext", "book/_static", "book/_templates", "_config.yml"):
        target = root / name
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(ROOT / name)
    book = root / "book"
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nparts:\n"
        "- numbered: 1\n  chapters:\n  - file: book/wing/first\n  - file: book/second\n"
        "- chapters:\n  - file: book/bibliography\n",
        encoding="utf-8",
    )
    (book / "references.bib").write_text(REFERENCES, encoding="utf-8")
    (book / "intro.md").write_text("# Intro\n\nSee {cite}`lone,pair,many`.\n", encoding="utf-8")
    (book / "bibliography.md").write_text(
        "# Bibliography\n\n```{bibliography}\n```\n", encoding="utf-8"
    )
    (book / "code.py").write_text(CODE, encoding="utf-8")
    (book / "dot.png").write_bytes(DOT)
    (book / "wing").mkdir()
    nbformat.write(notebook(*FIRST), book / "wing" / "first.ipynb")
    nbformat.write(notebook(*SECOND), book / "second.ipynb")
    return root


@pytest.fixture(scope="session")
def app(root, sphinx_for_editions):
    """Sphinx, when it has read the small book."""
    app = sphinx_for_editions(root, root / "_build/lab", root / "_build/.doctrees")
    app.build()
    return app


@pytest.fixture
def derive(app):
    """Derive an edition of cells as if they stood on the first page, with links to a site."""

    def derived(*cells):
        page = Page(app, "book/wing/first", links.to_site(SITE))
        return edition(notebook(*cells), page, lambda path: f"pictures/{path}")

    return derived


@pytest.fixture
def text(derive):
    """The Markdown that one cell becomes."""
    return lambda markdown: "\n----\n".join(cell.source for cell in derive(markdown).cells)


@pytest.fixture
def whole(app):
    """The editions of the small book."""
    return lambda *where: editions(app, *where)
