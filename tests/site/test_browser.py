"""Finding a browser."""

import sys

import browser


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
