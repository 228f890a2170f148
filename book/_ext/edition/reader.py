"""The copy of the book that `make lab` opens: a reader writes in it, and what a reader wrote is never overwritten."""

import hashlib
import json

import nbformat

RECORD = ".derived.json"
"""Beside the notebooks: for each, what it was when it was derived."""


class Copy:
    """The notebooks in a folder, some of them changed by now.

    Parameters
    ----------
    folder : pathlib.Path
    """

    def __init__(self, folder):
        self.folder = folder
        self._record = folder / RECORD
        self._derived = {}
        if self._record.exists():
            self._derived = json.loads(self._record.read_text(encoding="utf-8"))

    def take(self, editions):
        """Bring the copy up to date, and return the names of the notebooks that were left alone.

        A notebook is left alone where it is not as it was derived. One that the book no longer has goes.

        Parameters
        ----------
        editions : dict of str to nbformat.NotebookNode
            By the path in the folder.
        """
        kept = []
        for name in sorted({*editions, *self._derived}):
            path = self.folder / name
            new = nbformat.writes(editions[name]) + "\n" if name in editions else None
            found = path.read_text(encoding="utf-8") if path.exists() else None
            if found not in (None, new) and _hash(found) != self._derived.get(name):
                kept.append(name)
                continue
            self._derived.pop(name, None)
            if new is None:
                path.unlink(missing_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(new, encoding="utf-8")
            self._derived[name] = _hash(new)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._record.write_text(json.dumps(self._derived, indent=1), encoding="utf-8")
        return kept


def _hash(text):
    return hashlib.sha256(text.encode()).hexdigest()
