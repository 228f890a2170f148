"""Lay out a new chapter, whole enough to pass `make check`, and record it.

python book/_ext/layout.py practice/placement
python book/_ext/layout.py practice/normalizer_free "Normalizer-free"

It writes the module, the chapter's package, their tests and the notebook from the templates beside this
file, and enters the chapter in the table of contents, the list of titles, the front page, the README and
the reference of the package.
"""

import ast
import keyword
import re
import string
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
from check import COLUMNS
from notebooks import ROOT
from record import MYST, Pair, main, only_text

TEMPLATES = Path(__file__).parent / "chapter"
CONTENTS = "bncore/chapters/contents.py"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Refused(ValueError):
    """Why there is no chapter of this name to be laid out."""


class Layout:
    """A chapter that is to be: the names that follow from its own.

    Parameters
    ----------
    chapter : str
        ``"wing/name"``; pages outside the wings have the wing ``front``.
    title : str, optional
        What the chapter is called; by default what its name says.

    Raises
    ------
    Refused
        If there can be no chapter of this name and title.
    """

    def __init__(self, chapter, title="", root=ROOT):
        self.chapter, self.root = chapter, root
        self.wing, _, self.name = chapter.partition("/")
        self.titles = _titles(root)
        self.title = title or self.name.replace("_", " ").capitalize()
        self._require_name()
        front = self.wing == "front"
        chapter_package = f"bncore.chapters.{self.wing}.{self.name}"
        package, module = (
            (chapter_package, "experiments") if front else (f"bncore.{self.wing}", self.name)
        )
        self.page = Pair(chapter, root).notebook.relative_to(root).with_suffix("").as_posix()
        code, tests = f"{package.replace('.', '/')}", f"tests/{package[7:].replace('.', '/')}"
        own = f"{self.wing}/{self.name}"
        self.words = {
            "chapter": chapter,
            "chapter_package": chapter_package,
            "module": module,
            "package": package,
            "slug": self.name.replace("_", "-"),
            "title": self.title,
            "heading": self.wing.capitalize(),
            "words": self.title[0].lower() + self.title[1:],
        }
        self.files = {
            f"{code}/{module}.py": "module.py",
            f"{tests}/test_{module}.py": "test_module.py",
            f"bncore/chapters/{own}/claims.py": "claims.py",
            f"bncore/chapters/{own}/exercises.py": "exercises.py",
            f"bncore/chapters/{own}/figures.py": "figures.py",
            f"tests/chapters/{own}/test_figures.py": "test_figures.py",
        }
        for place in (*self.files, f"{self.page}.ipynb", f"bncore/chapters/{own}"):
            if (root / place).exists():
                raise Refused(f"{place} exists already: nothing was written")

    def _require_name(self):
        from bncore.chapters import WINGS

        for part in (self.wing, self.name):
            if not _NAME.fullmatch(part) or keyword.iskeyword(part):
                raise Refused(
                    f"NAME is {self.chapter!r}, expected wing/name in lower-case letters, digits "
                    "and underscores, such as practice/small_batches"
                )
        if self.wing not in WINGS:
            raise Refused(
                f"NAME is {self.chapter!r}, expected one of the wings {', '.join(WINGS)}; a new one "
                "is entered in bncore/chapters/__init__.py"
            )
        for other in self.titles:
            if other.split("/")[1] == self.name:
                raise Refused(f"there is a chapter {other} already, expected a name of its own")
        words = "_" + re.sub(r"[\W_]+", "_", self.title.lower()).strip("_") + "_"
        if not words.startswith(f"_{self.name}_") and not words.endswith(f"_{self.name}_"):
            raise Refused(
                f"TITLE is {self.title!r}, expected one that begins or ends with what the chapter's name "
                f"says, {self.name.replace('_', ' ')!r}"
            )

    def write(self):
        """Write the files and the entries, and return the files that are new."""
        entries = self._entries()
        declared = "\n\nMODULES = ()" if self.wing == "front" else ""
        new = {path: self.filled(template) for path, template in self.files.items()}
        for folder in ("bncore", "bncore/chapters"):
            path = f"{folder}/{self.wing}/__init__.py"
            if not (self.root / path).exists() and any(
                name.startswith(f"{folder}/{self.wing}/") for name in new
            ):
                new[path] = f'"""The wing {self.wing}."""\n'
        package = f"bncore/chapters/{self.wing}/{self.name}/__init__.py"
        new[package] = f'"""The chapter on {self.words["words"]}."""{declared}\n'
        for path, text in {**new, **entries}.items():
            target = self.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
        notebook = only_text(jupytext.reads(self.filled("chapter.md"), MYST))
        for number, cell in enumerate(notebook.cells):
            cell.id = f"{self.words['slug']}-{number}"
        target = self.root / f"{self.page}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
        return [*new, f"{self.page}.ipynb"]

    def filled(self, template):
        text = (TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
        return string.Template(text).substitute(self.words)

    def _entries(self):
        entered = {}
        for pattern, edit in _ENTRIES.items():
            path = pattern.format(wing=self.wing)
            file = self.root / path
            text = edit(self, file.read_text(encoding="utf-8") if file.exists() else "")
            if text is not None:
                entered[path] = text
        return entered


def _titles(root):
    """The titles of the chapters that there are, in order."""
    text = (root / CONTENTS).read_text(encoding="utf-8")
    return ast.literal_eval(re.search(r"^TITLES = (\{.*?^\})", text, re.MULTILINE | re.DOTALL)[1])


def _after_last(text, pattern, addition):
    """`text` with an addition behind the last match of a pattern, or None if there is no match."""
    matches = list(re.finditer(pattern, text, re.MULTILINE))
    if not matches:
        return None
    end = matches[-1].end()
    return text[:end] + addition + text[end:]


def _before(text, mark, addition):
    start = text.index(mark)
    return text[:start] + addition + text[start:]


def _in_the_contents(layout, text):
    entry = f"      - file: {layout.page}\n"
    if layout.wing == "front":
        pattern = r"^  - chapters:\n(      .*\n)+"
        part, behind = "  - chapters:\n", "parts:\n"
    else:
        caption = layout.wing.capitalize()
        part, behind = f"  - caption: {caption}\n    numbered: 1\n    chapters:\n", None
        pattern = rf"^{part}(      .*\n)+"
    part += entry
    text = _in_the_contents_of_the_reference(layout, text)
    if (found := _after_last(text, pattern, entry)) is not None:
        return found
    if behind:
        return _after_last(text, f"^{behind}", part)
    return _before(text, "  - caption: The book\n", part)


def _in_the_contents_of_the_reference(layout, text):
    entry = f"          - file: book/api/{layout.wing}\n"
    if layout.wing == "front" or entry in text:
        return text
    return _before(text, "          - file: book/api/lab\n", entry)


def _in_the_titles(layout, text):
    entry = f'    "{layout.chapter}": "{layout.title}",\n'
    titles, end, rest = text.partition("\n}\n")
    titles += end
    found = _after_last(titles, rf'^    "{layout.wing}/\w+": .*\n', entry)
    if found is None and layout.wing == "front":
        found = _after_last(titles, r"^TITLES = \{\n", entry)
    return (found or _before(titles, "}\n", entry)) + rest


def _on_the_front_page(layout, text):
    link = layout.page.removeprefix("book/")
    line = f"- [{layout.title}]({link}.ipynb)\n"
    card = "Begin" if layout.wing == "front" else layout.wing.capitalize()
    start = f":::{{grid-item-card}} {card}\n"
    found = _after_last(text, rf"^{re.escape(start)}(- .*\n)*", line)
    return found or _before(text, "::::\n\n## What became", f"\n{start}{line}:::\n")


def _in_the_readme(layout, text):
    line = f"- [{layout.title}]({layout.page}.ipynb): what a reader finds here.\n"
    place = r"\w+" if layout.wing == "front" else rf"{layout.wing}/\w+"
    found = _after_last(text, rf"^- \[[^]]+\]\(book/{place}\.ipynb\).*\n", line)
    if found is None and layout.wing == "front":
        return _after_last(text, r"^## What is in it\n\n", f"{line}\n")
    heading = f"**{layout.wing.capitalize()}**, what the wing is about:\n\n"
    return found or _before(text, "[The ledger](", f"{heading}{line}\n")


def _in_the_reference(layout, text):
    if layout.wing == "front":
        return None
    page = text or layout.filled("api.md")
    return f"{page}\n## {layout.title}\n\n```{{eval-rst}}\n.. automodule:: bncore.{layout.wing}.{layout.name}\n   :members:\n```\n"


def _in_its_index(layout, text):
    page = f"(api/{layout.wing}.md)"
    if layout.wing == "front" or page in text:
        return text
    row = f"| [{layout.wing.capitalize()}]{page} | what the wing is about |\n"
    return _before(text, "| [Lab](", row)


_ENTRIES = {
    "_toc.yml": _in_the_contents,
    CONTENTS: _in_the_titles,
    "book/intro.md": _on_the_front_page,
    "README.md": _in_the_readme,
    "book/api.md": _in_its_index,
    "book/api/{wing}.md": _in_the_reference,
}
"""What lists chapters, and how one is entered there. A file that is not there yet begins with the first chapter."""


def _bring_into_style(paths, root):
    """Sort imports, whose order depends on the chapter's name, and break lines."""
    code = [path for path in paths if path.endswith(".py")]
    cells = [path for path in paths if path.endswith(".ipynb")]
    for command in (["check", "--fix", *paths], ["format", *code], ["format", COLUMNS, *cells]):
        subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet"], cwd=root, check=True)


def lay_out(chapter, title="", root=ROOT):
    """Write the chapter, record it, say what to do next, and return the exit status."""
    try:
        new = Layout(chapter, title, root).write()
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    _bring_into_style(new, root)
    for path in new:
        print(path)
    if main([chapter], root):
        return 1
    print(f"Write it, then: make record CHAPTER={chapter} and make check CHAPTER={chapter}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("Which chapter? make chapter NAME=practice/small_batches")
    sys.exit(lay_out(*sys.argv[1:]))
