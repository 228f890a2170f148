"""Recording chapters, serving the site, finding a browser: the small tools around the book."""

import http.server
import subprocess
import sys
from pathlib import Path

import browser
import nbformat
import pytest
import record
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted(
    path for path in (ROOT / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)


def test_recording_keeps_text_and_drops_the_rest():
    outputs = [
        new_output("stream", text="1\n"),
        new_output(
            "display_data", {"image/png": "aGk=", "text/plain": "Figure"}, metadata={"a": 1}
        ),
        new_output(
            "display_data",
            {"application/vnd.jupyter.widget-view+json": {}, "text/html": "<b>", "text/plain": "W"},
        ),
    ]
    cells = [new_markdown_cell("# T"), new_code_cell("1", outputs=outputs)]
    metadata = {"widgets": {"state": 1}, "kernelspec": {"name": "mine", "display_name": "Mine"}}
    notebook = record.only_text(new_notebook(cells=cells, metadata=metadata))
    stream, figure, widget = notebook.cells[1].outputs
    assert stream.text == "1\n"
    assert figure.data == {"text/plain": "Figure"}
    assert figure.metadata == {}
    assert widget.data == {"text/plain": "W"}
    assert "widgets" not in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_committed_chapter_is_as_recording_leaves_it(path):
    committed = nbformat.read(path, as_version=4)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in code), "no recorded output: nbval would compare nothing"
    assert not any(out.output_type == "error" for cell in code for out in cell.outputs)
    assert record.only_text(nbformat.read(path, as_version=4)) == committed
    for mark in ("NBVAL_SKIP", "NBVAL_IGNORE_OUTPUT"):
        assert not any(mark in cell.source for cell in code)


def test_a_busy_port_is_reported_with_the_way_out():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), None) as server:
        command = [
            sys.executable,
            ROOT / "book/_ext/serve.py",
            "--port",
            str(server.server_port),
            ".",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert "make book PORT=8001" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_browser_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(browser, "NAMES", ())
    monkeypatch.setattr(browser, "MAC", "/nowhere")
    monkeypatch.delenv("CHROME", raising=False)
    assert browser.find() is None
    assert "apt-get install chromium" in browser.MISSING
    assert "\n" not in browser.MISSING


def test_the_browser_named_by_the_reader_comes_first(monkeypatch):
    monkeypatch.setenv("CHROME", sys.executable)
    assert browser.find() == sys.executable
