"""The JupyterLab in which notebooks are looked at."""

import pytest
from lab_server import run_all, serve
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_cell_is_there_and_runs_and_the_theme_is_the_readers(lab, theme):
    cells = [new_markdown_cell("Words.\n\n" * 30), *(new_code_cell(f"{i} + 40") for i in range(20))]
    tab = lab(new_notebook(cells=cells), theme=theme)
    run_all(tab)
    shown = tab.locator(".jp-OutputArea-output").all_inner_texts()
    assert shown == [str(i + 40) for i in range(20)]
    assert tab.locator("body").get_attribute("data-jp-theme-light") == str(theme == "light").lower()


def test_a_cell_that_fails_ends_the_run(lab):
    tab = lab(new_notebook(cells=[new_code_cell("1 / 0"), new_code_cell("2")]))
    run_all(tab)
    assert "ZeroDivisionError" in tab.locator(".jp-OutputArea-output").first.inner_text()


def test_a_server_that_does_not_start_shows_its_log(tmp_path):
    with (
        pytest.raises(RuntimeError, match=r"did not start:[^$]*nowhere"),
        serve("/nowhere", tmp_path),
    ):
        pass
