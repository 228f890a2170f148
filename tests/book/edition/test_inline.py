"""Inline Markdown is taken apart as markdown-it takes it, and what is not touched stays."""

from urllib.parse import unquote

import pytest
from edition.inline import scan
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

PARSER = create_md_parser(
    MdParserConfig(enable_extensions={"dollarmath", "substitution", "amsmath", "colon_fence"}),
    RendererHTML,
)
WORDS = st.sampled_from(
    ["a", "b c", "d.", "(e)", "f_g", "{h}", r"\$", r"\`", r"\[", "<https://i.j>"]
)
PLAIN = [
    WORDS,
    st.text("k$[](){}", min_size=1, max_size=6).map(lambda inner: f"`{inner}`"),
    st.lists(st.sampled_from(["l", "`m", "$", "[", "]"]), max_size=6).map(
        lambda inner: f"``l{''.join(inner)}m``"  # behind "[", markdown-it loses track of "```"
    ),
    st.text("n`[](){}^_", min_size=1, max_size=6).map(lambda inner: f"$o{inner}$"),
    st.text("p$[]<>", min_size=1, max_size=6).map(lambda inner: f"{{ref}}`{inner}`"),
]
PIECES = st.one_of(
    *PLAIN,
    st.lists(st.one_of(*PLAIN[:-1]), min_size=1, max_size=3).map(
        lambda inner: f"[{' '.join(inner)}](to.md)"
    ),
    st.text("q$`", max_size=3).map(lambda inner: f"![r](<s{inner}> 't')"),
)


def seen(text):
    """What the scan sees, in order, with what markdown-it gives it."""
    found = []

    def write(seen, source):
        if seen.kind == "role":
            found.append(("role", seen.name, " ".join(seen.content.split())))
        elif seen.kind == "code":
            found.append(("code", " ".join(seen.content.split())))
        elif seen.kind == "math":
            found.append(("math", seen.content[1:-1]))
        elif seen.kind in ("link", "image"):
            found.append((seen.kind, seen.content))
        return source

    scan(text, write)
    return sorted(found)


def parsed(text):
    """The same, from markdown-it."""
    found = []
    for block in PARSER.parse(text, {}):
        for token in block.children or []:
            if token.type == "myst_role":
                found.append(("role", token.meta["name"], " ".join(token.content.split())))
            elif token.type == "code_inline":
                found.append(("code", " ".join(token.content.split())))
            elif token.type == "math_inline":
                found.append(("math", token.content))
            elif token.type == "link_open" and token.info != "auto":
                found.append(("link", unquote(token.attrs["href"])))
            elif token.type == "image":
                found.append(("image", unquote(token.attrs["src"])))
    return sorted(found)


def is_one_paragraph(text):
    return [token.type for token in PARSER.parse(text, {})] == [
        "paragraph_open", "inline", "paragraph_close",
    ]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=6).map(" ".join))
@example("A `$` and $`$, {ref}`a`")
@example("[`]`](u) and `[a](b)`")
def test_it_is_taken_apart_as_markdown_it_does(text):
    if is_one_paragraph(text):
        assert seen(text) == parsed(text)


@given(st.text(alphabet="ab `$[](){}!\\<>\n*_|^", max_size=30))
def test_what_is_not_touched_stays(text):
    assert scan(text, lambda seen, source: source) == text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a `{ref}` b", "a `{ref}` b"),
        ("$a`b$ {r}`x` $c`d$", "$a`b$ ROLE $c`d$"),
        ("`a$b` {r}`x` `c$d`", "`a$b` ROLE `c$d`"),
        ("[of {r}`x` $y$](z)", "LINK(of ROLE $y$)"),
        ("[[a](b)](c)", "[LINK(a)](c)"),
        (r"\[a](b) \{r}`x`", r"\[a](b) \{r}`x`"),
        ("[a] (b) [c]", "[a] (b) [c]"),
    ],
)
def test_whoever_begins_first_wins(text, written):
    def write(seen, source):
        if seen.kind == "role":
            return "ROLE"
        return f"LINK({seen.name})" if seen.kind == "link" else source

    assert scan(text, write) == written
