"""Inside a chapter's kernel: note what the chapter reads of the repository, as it reads it.

An audit hook sees every file that Python opens, modules among them, and every folder that is listed.
What is kept of a file is a digest of the content at that moment, of a folder its entries. What the
import system lists to find a module is no reading: a new file there changes nothing. What other
processes read is not seen.
"""

import hashlib
import importlib.util
import json
import os
import sys
import threading

_PASSED_OVER = ("__pycache__", "_build", "site-packages")


def counts(name):
    """Whether a folder's entry is part of what a chapter may depend on."""
    return not name.startswith(".") and name not in _PASSED_OVER


def file_state(path):
    """A digest of the file's content; None if there is no such file."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return None


def folder_state(path):
    """The names in the folder; None if there is no such folder."""
    try:
        return sorted(filter(counts, os.listdir(path)))
    except OSError:
        return None


class Observer:
    """What has been read under `root` since `start`."""

    def __init__(self, root):
        self.root = os.path.realpath(root)
        self.files = {}
        self.folders = {}
        self._own = threading.local()

    def start(self):
        sys.addaudithook(self._hear)
        return self

    def _hear(self, event, arguments):
        if event not in ("open", "os.listdir", "os.scandir") or getattr(self._own, "busy", False):
            return
        self._own.busy = True
        try:
            if event == "open":
                self._opened(*arguments)
            else:
                self._listed(arguments[0], sys._getframe(1))
        finally:
            self._own.busy = False

    def _opened(self, path, mode=None, flags=0):
        if (flags or 0) & (os.O_WRONLY | os.O_TRUNC):
            return
        place = self._inside(path)
        if place and place.endswith(".pyc"):
            place = self._inside(importlib.util.source_from_cache(os.fsdecode(path)))
        if place:
            self.files.setdefault(place, file_state(os.path.join(self.root, place)))

    def _listed(self, path, caller):
        importing = caller.f_globals.get("__name__", "").split(".")[0]
        place = self._inside("." if path is None else path)
        if place is None or importing in ("importlib", "_frozen_importlib_external"):
            return
        folder = os.path.join(self.root, place)
        if folder not in map(os.path.realpath, sys.path):
            self.folders.setdefault(place, folder_state(folder))

    def _inside(self, path):
        """The way from the root to `path`; None if it lies elsewhere, does not count or is no path."""
        try:
            full = os.path.realpath(os.fsdecode(path))
        except (TypeError, ValueError):
            return None
        if not full.startswith(self.root + os.sep):
            return None
        place = os.path.relpath(full, self.root).replace(os.sep, "/")
        return place if place.endswith(".pyc") or all(map(counts, place.split("/"))) else None

    def report(self):
        """Files, folders, top-level modules and where bncore comes from, as JSON."""
        for module in list(sys.modules.values()):
            source = getattr(module, "__file__", None)
            if source and os.path.isabs(source):
                self._opened(source)
        modules = sorted({name.split(".")[0] for name in sys.modules})
        seen = {"files": self.files, "folders": self.folders, "modules": modules}
        return json.dumps({**seen, "bncore": getattr(sys.modules.get("bncore"), "__file__", None)})
