"""Serving the built site."""

import functools
import http.client
import http.server
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from serve import QuietHandler

ROOT = Path(__file__).resolve().parents[2]


def test_a_busy_port_is_reported_with_the_way_out():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), None) as server:
        command = [
            sys.executable,
            ROOT / "book/_ext/serve.py",
            "--port",
            str(server.server_port),
            ".",
        ]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=30, check=False
        )
    assert done.returncode != 0
    assert "make book PORT=8001" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_is_not_there_is_answered_by_the_site_s_own_page(tmp_path, own, method):
    (tmp_path / "index.html").write_text("here", encoding="utf-8")
    if own:
        (tmp_path / "404.html").write_text("not here", encoding="utf-8")
    handler = functools.partial(QuietHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = {}
        for path in ("/", "/a/b/c.html"):
            asked = http.client.HTTPConnection("127.0.0.1", server.server_port)
            asked.request(method, path)
            answer = asked.getresponse()
            found[path] = answer.status, answer.read()
        server.shutdown()
    shown = method == "GET"
    assert found["/"] == (200, b"here" if shown else b"")
    status, body = found["/a/b/c.html"]
    assert status == 404
    assert (body == b"not here") == (own and shown)
