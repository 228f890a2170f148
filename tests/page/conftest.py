"""A figure with two sliders, and the environment of a site build."""

import pytest

from bncore.page import explore, style


@pytest.fixture(scope="session")
def line():
    """A function from two parameters to a figure."""

    def line(slope=1, offset=0):
        """The line turns and shifts."""
        fig, ax = style.axes()
        ax.plot([0, 1], [offset, offset + slope], color=style.BLUE)
        ax.set(xlabel="x", ylabel="y", ylim=(-9, 9))
        return fig

    return line


@pytest.fixture(scope="session")
def explorer(line):
    """Make that function explorable, over given grids or a small one."""

    def make(**grids):
        grids = grids or {"slope": [-1, 0, 1], "offset": [0, 2]}
        return explore(alt="A line of slope {slope} and offset {offset}.", **grids)(line)

    return make


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The environment of a site build; frames go to the folder returned."""
    monkeypatch.setenv("BNCORE_FACE", "page")
    monkeypatch.setenv("BNCORE_FRAMES_DIR", str(tmp_path))
    monkeypatch.setenv("BNCORE_FRAMES_URL", "../_frames")
    return tmp_path
