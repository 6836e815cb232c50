"""What comments and docstrings may not say: docs/words.md, "How we write"."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "cosco" / "protocol" / "pb"
FILES = {
    str(path.relative_to(ROOT)): path
    for folder in ("cosco", "benchmarks", "examples", "tools")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not path.is_relative_to(GENERATED)
}

#: "a frame of so many bytes": name the parameter, or say "this many".
PRONOUN = re.compile(r"\bso (many|much|long|few|little|often)\b(?! (as|that)\b)", re.IGNORECASE)
#: A comment that begins in the middle of a sentence.
BEGINS_WITH_OF = re.compile(r"^#:? Of\b")
#: "Stamp a frame; the lane it is in now." What comes back is said under `Returns:`.
TRAILING_NOUN = re.compile(
    r";\s+(the|an?|its|those|these|whether|how many|what|who|where|them\.|it\.|they\.)(\s|$)"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def docstrings(source: str) -> Iterator[tuple[int, ast.AST, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | Function):
            text = ast.get_docstring(node)
            if text is not None:
                yield getattr(node, "lineno", 1), node, text


def gives_something(node: ast.AST) -> bool:
    if not isinstance(node, Function) or node.returns is None:
        return False
    return not (isinstance(node.returns, ast.Constant) and node.returns.value is None)


def faults(source: str) -> Iterator[str]:
    lines = source.splitlines()
    for number, text in comments(source):
        before = lines[number - 2].strip() if number > 1 else ""
        if BEGINS_WITH_OF.match(text) and not before.startswith("#"):
            yield f"line {number} begins with Of: {text}"
        if found := PRONOUN.search(text):
            yield f"line {number} says {found[0]!r}: {text}"
    for number, node, text in docstrings(source):
        if found := PRONOUN.search(text):
            yield f"the docstring at line {number} says {found[0]!r}"
        if text.startswith("Of "):
            yield f"the docstring at line {number} begins with Of"
        first = re.split(r"(?<=\.)\s", text.replace("\n", " "))[0]
        says_it = text.startswith(("Return", "Yield", "Whether"))
        if gives_something(node) and not says_it and TRAILING_NOUN.search(first):
            yield f"the docstring at line {number} says what comes back as a noun: {first}"


@pytest.mark.parametrize("name", sorted(FILES))
def test_comments_and_docstrings_are_plain(name: str) -> None:
    found = list(faults(FILES[name].read_text()))
    assert not found, "\n".join(found)


def test_the_faults_are_noticed() -> None:
    source = '''
def stamp(frame: bytes) -> int:
    """Stamp a frame; the lane it is in now."""
    # Of this daemon.
    return 1  # so many bytes
'''
    assert len(list(faults(source))) == 3
