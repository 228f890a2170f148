"""Record chapters: bring in what was edited as Markdown, run, and keep the text outputs only.

python book/_ext/record.py                      every chapter
python book/_ext/record.py mechanics/forward    one chapter

Notebook and Markdown twin are compared with the text on which they last agreed, kept under
`text/.agreed`: the one that was edited since wins. If both were, nothing is changed.
"""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from jupytext.combine import combine_inputs_with_outputs
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from notebooks import ROOT, read, run
from tqdm import tqdm

MYST = "md:myst"
_OPENING = re.compile(r"(`{3,}|~{3,})\{code-cell\}")
_CONFLICT = re.compile(r"(<{7}|>{7}) ")


class CannotRecord(Exception):
    """Why a chapter is not recorded, and what to do; both of its versions are as they were."""


def only_text(notebook):
    """Strip from `notebook`, in place, whatever is not stable text: images, HTML, widget state."""
    for name in ("widgets", "jupytext"):
        notebook.metadata.pop(name, None)
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            output.get("metadata", {}).clear()
            if "data" in output:
                output["data"] = {
                    kind: value
                    for kind, value in output["data"].items()
                    if kind in ("text/plain", "text/markdown")
                }
    return notebook


@dataclass(frozen=True)
class Pair:
    """The notebook of a chapter and its Markdown twin."""

    chapter: str
    root: Path = ROOT

    @property
    def _place(self):
        return self.chapter.removeprefix("front/")

    @property
    def notebook(self):
        return self.root / "book" / f"{self._place}.ipynb"

    @property
    def twin(self):
        return self.root / "text" / f"{self._place}.md"

    @property
    def agreed(self):
        """The twin as it was when both last said the same."""
        return self.root / "text" / ".agreed" / f"{self._place}.md"

    def named(self, path):
        return path.relative_to(self.root).as_posix()

    def contents(self):
        """What the notebook and the twin say; None for one that is not there."""
        sides = ((self.notebook, self._read_notebook), (self.twin, self._read_twin))
        return tuple(_content(read()) if path.exists() else None for path, read in sides)

    def twin_is_ahead(self):
        """Whether the twin was edited and the notebook does not say so yet."""
        notebook, twin = self.contents()
        return twin not in (None, notebook) and twin != self._agreed_content()

    def newest(self):
        """The chapter as a notebook, from the side that was edited since both last agreed.

        Raises
        ------
        CannotRecord
            If there is neither, both were edited, or one cannot be read.
        """
        notebook, twin = self.contents()
        if notebook is None and twin is None:
            raise CannotRecord(
                f"There is no chapter {self.chapter!r}: neither {self.named(self.notebook)} nor "
                f"{self.named(self.twin)} exists."
            )
        if twin in (None, notebook):
            return self._read_notebook()
        if notebook is None:
            return self._read_twin()
        agreed = self._agreed_content()
        if agreed not in (notebook, twin):
            raise CannotRecord(self._conflict(notebook, twin, agreed))
        if agreed == twin:
            return self._read_notebook()
        return combine_inputs_with_outputs(self._read_twin(), self._read_notebook(), MYST)

    def write_twin(self, notebook):
        """Let the twin say what the notebook says, and note that they agree."""
        text = jupytext.writes(notebook, MYST)
        if self.contents()[1] != _content(notebook):
            _replace(self.twin, text)
        _replace(self.agreed, text)

    def _read_notebook(self):
        try:
            return read(self.notebook)
        except Exception as error:
            raise CannotRecord(
                f"{self.named(self.notebook)} is no notebook ({type(error).__name__}): restore it "
                "from git, or move it away and let the twin stand."
            ) from None

    def _read_twin(self):
        name = self.named(self.twin)
        try:
            text = self.twin.read_text(encoding="utf-8")
            _require_whole(text)
            notebook = jupytext.reads(text, MYST)
        except Exception as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise CannotRecord(
                f"{name} cannot be read as a chapter: {said[0]}. Mend it, or move it away and let "
                "the notebook stand."
            ) from None
        return notebook

    def _agreed_content(self):
        try:
            return _content(jupytext.reads(self.agreed.read_text(encoding="utf-8"), MYST))
        except Exception:  # gone or damaged: then nothing is known
            return None

    def _conflict(self, notebook, twin, agreed):
        names = (self.named(self.notebook), self.named(self.twin))
        if agreed is None:
            why = "they differ, and nothing is known of when they last agreed"
        else:
            why = "both were edited since they last agreed"
        number = sum(a == b for a, b in zip(notebook, twin, strict=False))
        return (
            f"{names[0]} and {names[1]}: {why}. Nothing was changed. {number} cells are the same "
            f"in both, of {len(notebook)} and {len(twin)}. Carry the edits over by hand until "
            "both say the same, or move away the one that is not to count; then record again."
        )


def _content(notebook):
    """What is edited of a chapter: the kind, text and metadata of its cells, as Markdown keeps them."""
    plain = jupytext.reads(jupytext.writes(notebook, MYST), MYST)
    return [(cell.cell_type, cell.source, dict(cell.metadata)) for cell in plain.cells]


def _require_whole(text):
    """Refuse a twin that was cut off or that git has left unmerged: it would be read, but wrongly."""
    fence, start = None, 0
    for number, line in enumerate(text.splitlines(), 1):
        if _CONFLICT.match(line):
            raise ValueError(f"line {number} is a mark of a conflict that git left")
        opening = _OPENING.match(line)
        if fence and opening:
            break
        if opening:
            fence, start = opening[1], number
        elif fence and line.startswith(fence) and not line.strip(fence[0]).strip():
            fence = None
    if fence:
        raise ValueError(f"the code cell that begins in line {start} does not end")
    if not text.strip():
        raise ValueError("it is empty")


def _replace(path, text):
    """Write a file in one step: an interruption leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    os.replace(part, path)


def record(pair):
    """Run the chapter and write it back with its text outputs, on both sides.

    Raises
    ------
    CannotRecord
        If the two sides contradict each other, or one was edited while the chapter ran.
    nbclient.exceptions.CellExecutionError, nbclient.exceptions.CellTimeoutError
        If a cell fails or hangs; then the notebook is as it was.
    """
    notebook, before = pair.newest(), pair.contents()
    if _content(notebook) == before[0]:
        pair.write_twin(notebook)
        before = pair.contents()
    count = sum(cell.cell_type == "code" for cell in notebook.cells)
    with tqdm(total=count, desc=pair.chapter, unit="cell") as bar:
        notebook = run(notebook, pair.notebook.parent, {"BNCORE_FACE": "text"}, bar.update)
    if pair.contents() != before:
        raise CannotRecord(
            f"{pair.chapter} was edited while it ran: nothing was written. Record it again."
        )
    _replace(pair.notebook, nbformat.writes(only_text(notebook)) + "\n")
    pair.write_twin(notebook)


def main(names, root=ROOT):
    """Record the chapters of these names, or all; return the exit status."""
    if not names:
        found = sorted((root / "book").rglob("*.ipynb"))
        places = [path.relative_to(root / "book") for path in found]
        names = [
            p.with_suffix("").as_posix() for p in places if ".ipynb_checkpoints" not in p.parts
        ]
    pairs = [Pair(name, root) for name in names]
    problems = []
    for pair in pairs:
        try:
            pair.newest()
        except CannotRecord as error:
            problems.append(str(error))
    for pair in () if problems else pairs:
        try:
            record(pair)
        except CannotRecord as error:
            problems.append(str(error))
        except (CellExecutionError, CellTimeoutError) as error:
            problems.append(f"{pair.chapter} does not run, its notebook is as it was:\n{error}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
