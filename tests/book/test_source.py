"""The directive that shows code from its file, without docstrings."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source import NotThere, columns, lines, located, shown

ROOT = Path(__file__).resolve().parents[2]

MODULE = '''"""A module."""

LIMITS = {"low": 1, "high": 2}
WIDTH: int = 3


@decorated(with_a="name")
def forward(x, gamma, *, with_a_long_name=1.0, and_another_long_name=2.0):
    r"""Return y.

    There is more to say.
    """

    if x is None:
        raise ValueError("x is None")

    # why, kept
    def inner(y):
        """Halve."""
        return y / 2

    return inner(gamma) * x


class Layer:
    """A layer."""

    eps = 1e-5

    def update(self, x):
        """Take in a batch."""
        self.mean = x.mean()

    def idle(self):
        """Do nothing."""
'''


@pytest.fixture
def package(tmp_path):
    """A package with one module, in a folder and with a private part."""
    place = tmp_path / "pack" / "wing"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("def here():\n    return 1\n", encoding="utf-8")
    (place / "transform.py").write_text(MODULE, encoding="utf-8")
    return tmp_path


def test_the_docstrings_go_and_the_rest_stays(package):
    code, target = shown("pack.wing.transform.forward", root=package)
    assert code == (
        '@decorated(with_a="name")\n'
        "def forward(\n"
        "    x, gamma, *, with_a_long_name=1.0, and_another_long_name=2.0\n"
        "):\n"
        "    if x is None:\n"
        '        raise ValueError("x is None")\n'
        "\n"
        "    # why, kept\n"
        "    def inner(y):\n"
        "        return y / 2\n"
        "\n"
        "    return inner(gamma) * x\n"
    )
    assert target == "_modules/pack/wing/transform.html#forward"
    assert lines(code) == 10
    assert columns(code) == 64


@pytest.mark.parametrize(
    ("name", "code", "anchor"),
    [
        (
            "transform.Layer.update",
            "def update(self, x):\n    self.mean = x.mean()\n",
            "#Layer.update",
        ),
        ("transform.Layer.idle", "def idle(self): ...\n", "#Layer.idle"),
        ("transform.LIMITS", 'LIMITS = {"low": 1, "high": 2}\n', ""),
        ("transform.WIDTH", "WIDTH: int = 3\n", ""),
    ],
)
def test_methods_and_constants_are_shown_too(package, name, code, anchor):
    expected = (code, f"_modules/pack/wing/transform.html{anchor}")
    assert shown(f"pack.wing.{name}", root=package) == expected


def test_a_class_loses_the_docstrings_of_its_methods(package):
    code, _ = shown("pack.wing.transform.Layer", root=package)
    assert '"""' not in code
    assert [n.name for n in ast.parse(code).body[0].body[1:]] == ["update", "idle"]


def test_what_a_package_defines_itself_is_found_in_its_init(package):
    code, target = shown("pack.wing.here", root=package)
    assert code == "def here():\n    return 1\n"
    assert target == "_modules/pack/wing.html#here"
    assert located("pack.wing.transform.Layer.update", package) == (
        "pack.wing.transform",
        "Layer.update",
    )


def test_a_part_begins_at_the_line_that_is_named(package):
    code, _ = shown("pack.wing.transform.forward", "def inner", package)
    assert code == "def inner(y):\n    return y / 2\n\nreturn inner(gamma) * x\n"


@pytest.mark.parametrize(
    ("name", "start_at", "words"),
    [
        ("pack.wing.transform.backward", "", "defines no backward, expected one of LIMITS, WIDTH, forward"),
        ("pack.wing.transform.Layer.fit", "", "defines no Layer.fit, expected one of eps, update"),
        ("pack.wing.transform.forward.x.y", "", "defines no forward.x.y, expected one of inner"),
        ("pack.wing.transform", "", "is a module, expected a function"),
        ("other.transform.forward", "", "there is no module other.transform"),
        ("forward", "", "there is no module forward"),
        ("pack.wing.transform.forward", "elsewhere", "has no line with 'elsewhere'"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named(package, name, start_at, words):
    with pytest.raises(NotThere, match=re.escape(words)):
        shown(name, start_at, package)


@given(st.lists(st.sampled_from(["", "    ", "x = 1", "# why"]), max_size=30))
def test_lines_are_counted_but_for_the_empty_ones(rows):
    assert lines("\n".join(rows)) == sum(row in ("x = 1", "# why") for row in rows)
    assert columns("\n".join(rows)) == max(map(len, rows), default=0)


def _without_docstrings(tree):
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.FunctionDef, ast.ClassDef))
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Expr(ast.Constant(...))]
    return ast.dump(tree)


@pytest.mark.parametrize("module", ["mechanics.transform", "mechanics.folding", "lab.studies"])
def test_every_object_of_a_module_is_itself_but_for_docstrings(module):
    path = ROOT / "bncore" / f"{module.replace('.', '/')}.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            code, _ = shown(f"bncore.{module}.{node.name}")
            whole = ast.Module([node], [])
            assert ast.dump(ast.parse(code)) == _without_docstrings(whole), node.name


CONF = """
extensions = ["myst_parser", "sphinx.ext.viewcode", "source"]
html_theme = "basic"
viewcode_line_numbers = True
"""
PAGE = """
# Page

```{py:module} bncore.mechanics.inference
```
```{py:function} fold_linear
```

```{source} bncore.mechanics.folding._fold_before
```

````{note}
```{source} bncore.mechanics.transform.forward
```
````
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Build a site of one page below a folder: the page, and what Sphinx complained of."""
    source = tmp_path / "source"
    (source / "wing").mkdir(parents=True)
    index = "# Root\n\n```{toctree}\nwing/page\n```\n"
    (source / "index.md").write_text(index, encoding="utf-8")
    (source / "conf.py").write_text(CONF, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "book" / "_ext")]))

    def build(text):
        (source / "wing" / "page.md").write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", str(source), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        page = (tmp_path / "wing" / "page.html").read_text(encoding="utf-8")
        return page, done.stderr

    build.folder = tmp_path
    return build


def test_the_page_shows_python_and_links_to_an_anchor_that_links_back(site):
    page, complaints = site(PAGE)
    assert complaints == ""
    assert page.count('<div class="highlight-python') == 2
    assert '<span class="k">def</span>' in page
    for module, name in (("mechanics/folding", "_fold_before"), ("mechanics/transform", "forward")):
        link = f"../_modules/bncore/{module}.html#{name}"
        assert f'href="{link}"' in page
        source = (site.folder / "wing" / link.split("#")[0]).resolve().read_text(encoding="utf-8")
        assert f'id="{name}"' in source
        back = re.search(
            rf'id="{name}">\s*<a class="viewcode-back" href="[^"#]*page.html#(.*?)"', source
        )
        assert f'id="{back[1]}"' in page


def test_an_object_shown_later_gets_its_anchor_too(site):
    """The page of source is there already, and viewcode writes it anew only if the file changed."""
    site(PAGE)
    page, _ = site(PAGE + "\n```{source} bncore.mechanics.folding._scale_and_shift\n```\n")
    name = re.search(r"folding.html#(_scale_and_shift)", page)[1]
    source = site.folder / "_modules/bncore/mechanics/folding.html"
    assert f'id="{name}"' in source.read_text(encoding="utf-8")


def test_an_object_that_is_not_there_is_a_complaint_with_its_place(site):
    _, complaints = site(PAGE.replace("_fold_before", "_felt"))
    assert re.search(
        r"page.md:9: WARNING: source: bncore.mechanics.folding defines no _felt", complaints
    )
