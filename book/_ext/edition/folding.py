"""What a reader finds folded: solutions and hidden inputs, in the words of JupyterLab and of Colab.

A heading folds all cells up to the next heading of its level, in both; so it stands alone in its cell, and what follows the
fold begins with a heading. JupyterLab reads `jp-MarkdownHeadingCollapsed` and `jupyter.source_hidden`; Colab reads its own
cell ids, of which it lists the folded ones in the notebook's metadata, and `cellView`.
"""

import re
from typing import NamedTuple

HIDDEN = "hide-input"
"""The tag of a code cell whose input is folded."""

_HEADING = re.compile(r"(#{1,6})\s")


class Heading(NamedTuple):
    """A heading that stands alone in its cell and folds what follows, up to `END`."""

    level: int
    words: str

    @property
    def markdown(self):
        return f"{'#' * self.level} {self.words}"


END = object()
"""Where the fold of the last `Heading` ends."""


def fold_heading(cell):
    """Fold the section that this cell, a heading, begins."""
    cell.metadata["jp-MarkdownHeadingCollapsed"] = True
    cell.metadata["id"] = cell.id


def fold_input(cell):
    """Fold the input of this code cell where it is tagged so."""
    if HIDDEN in cell.metadata.get("tags", []):
        cell.metadata["jupyter"] = {**cell.metadata.get("jupyter", {}), "source_hidden": True}
        cell.metadata["cellView"] = "form"


def list_folds(notebook):
    """Tell Colab which headings are folded."""
    folded = [
        cell.id for cell in notebook.cells if cell.metadata.get("jp-MarkdownHeadingCollapsed")
    ]
    if folded:
        notebook.metadata["colab"] = {"collapsed_sections": folded}


def level(cell):
    """The level of the heading that this cell begins with; 7, below all, if it begins with none."""
    match = _HEADING.match(cell.source) if cell.cell_type == "markdown" else None
    return len(match[1]) if match else 7
