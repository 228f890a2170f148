import pytest
import tqdm.notebook
import tqdm.std

from bncore import progress


@pytest.mark.parametrize("kind", [tqdm.std.tqdm, tqdm.notebook.tqdm])
@pytest.mark.parametrize(("value", "silent"), [("1", True), ("0", False), ("", False)])
def test_the_environment_silences_every_kind_of_bar(monkeypatch, kind, value, silent):
    monkeypatch.setattr(progress, "tqdm", kind)
    monkeypatch.setenv("TQDM_DISABLE", value)
    bar = progress.bar(range(3), "Training", "step")
    assert bar.disable == silent
    assert list(bar) == [0, 1, 2]


def test_a_short_loop_shows_nothing(monkeypatch, capsys):
    monkeypatch.setattr(progress, "tqdm", tqdm.std.tqdm)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    list(progress.bar(range(1000), "Training", "step"))
    assert capsys.readouterr().err.strip() == ""
