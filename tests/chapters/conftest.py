"""What the tests of several chapters share."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from bncore.chapters import full
from bncore.lab import data, recorded


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def record(request):
    """The recorded run of the chapter in whose folder the test stands."""
    chapter = request.path.parent.relative_to(Path(__file__).parent).as_posix()
    return recorded.load(full.path(chapter))


@pytest.fixture
def small_images(monkeypatch):
    """Random pixels in the shape of MNIST or CIFAR-10 in place of the download, and what was asked."""
    asked = []

    def openml(name="mnist", cache=None, train=None):
        asked.append((name, cache))
        generator = torch.Generator().manual_seed(0)
        x, y = torch.rand(64, *data.OPENML[name].shape, generator=generator), torch.arange(64) % 10
        return data.Split(x[:40], y[:40], x[40:], y[40:])

    monkeypatch.setattr(data, "openml", openml)
    data.standard_images.cache_clear()
    yield asked
    data.standard_images.cache_clear()


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Call the command of a chapter's recorded run; with --paper, load what it has written.

    The files go to a folder of their own, finished runs among them.
    """

    def call(chapter, *arguments):
        monkeypatch.setattr(full, "path", lambda chapter: tmp_path / "recorded.json")
        full.main(chapter, list(arguments))
        if "--paper" not in arguments:
            return None
        assert {path.name for path in tmp_path.iterdir()} - {"runs"} == {"paper.json"}
        return recorded.load(tmp_path / "paper.json")

    return call
