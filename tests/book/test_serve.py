"""Serving the built site."""

import http.server
import subprocess
import sys
from pathlib import Path

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
