"""A notebook's edition: the notebook as it is written, with its Markdown made plain and its folds closed."""

import copy

from edition.blocks import Converter
from edition.folding import END, Heading, fold_heading, fold_input, level, list_folds
from edition.resolved import CannotDerive


def edition(notebook, page, picture):
    """A copy of `notebook` that stands alone.

    Its code cells are those of the notebook, with their outputs. A Markdown cell may have become several: the first keeps
    its id, and those of the others begin with it.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
    page : edition.resolved.Page
    picture : callable
        See `edition.blocks.Converter`.

    Raises
    ------
    CannotDerive
        If something in it has no edition; the message says where.
    """
    derived = copy.deepcopy(notebook)
    derived.cells = []
    fold = ended = None  # the levels of the heading that folds, and of the fold that has just ended
    for place, cell, part in _parts(notebook, Converter(page, picture)):
        if part is END:
            ended = fold
            continue
        if ended is not None and level(cell) > ended:
            raise CannotDerive(
                f"{place}: what follows a solution would fold with it; begin it with a heading"
            )
        ended = None
        if isinstance(part, Heading):
            fold = part.level
            fold_heading(cell)
        fold_input(cell)
        derived.cells.append(cell)
    list_folds(derived)
    return derived


def _parts(notebook, converter):
    """The cells of the edition, each with its place in the notebook and the `Heading` that it is, if it is one.

    An `END` comes with a cell that is no part of the edition.
    """
    for index, cell in enumerate(notebook.cells):
        place = f"{converter.page.name}, cell {index}"
        if cell.cell_type != "markdown":
            yield place, copy.deepcopy(cell), None
            continue
        made = 0
        for part in _texts(converter.cell(cell.source, place)):
            new = copy.deepcopy(cell)
            if part is not END:
                made += 1
                new.id = cell.id if made == 1 else f"{cell.id}-{made}"
                new.source = part.markdown if isinstance(part, Heading) else part
            yield place, new, part


def _texts(pieces):
    """Lines joined to texts, between headings that fold and ends of folds; empty texts are left out."""
    parts, lines = [], []
    for piece in [*pieces, None]:
        if isinstance(piece, str):
            lines.append(piece)
            continue
        if text := "\n".join(lines).strip("\n"):
            parts.append(text)
        if piece is not None:
            parts.append(piece)
        lines = []
    return parts
