"""The rules for the tests: what they share, what they are called, and that none of them takes the time at import."""

import ast
import re
from collections.abc import Callable, Iterator

import pytest
from support.repository import ROOT, sources_of_tests

# The first name of every import by which a test file could reach another.
OF_TESTS = {"tests", *(path.name for path in (ROOT / "tests").iterdir()), *(path.stem for path in (ROOT / "tests").rglob("*.py"))}
LONGEST_NAME = 70
CLOCKS = {"now", "utcnow", "today", "time", "monotonic", "perf_counter"}


def imports_of_tests(tree: ast.AST) -> Iterator[str]:
    """Yield what a test file imports from the tests, except from what they share: `support`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            top, *inner = name.split(".")
            if not top or (top in OF_TESTS and top != "support") or any(part.startswith("test_") for part in inner):
                yield name


def unreadable_names(tree: ast.AST) -> Iterator[str]:
    """Yield the names of test functions that are long, or too short for a sentence."""
    for node in ast.walk(tree):
        name = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else ""
        if name.startswith("test") and (len(name) > LONGEST_NAME or not re.fullmatch(r"test(_[a-z0-9]+){2,}", name)):
            yield name


def clocks_at_import(node: ast.AST) -> Iterator[str]:
    """Yield the calls of a clock that run at import: outside of functions, and in their decorators and defaults."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
        yield ast.unparse(node)
    for field, value in ast.iter_fields(node):
        if field == "body" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from clocks_at_import(child)


RULES = (imports_of_tests, unreadable_names, clocks_at_import)


@pytest.mark.parametrize("rule", RULES)
def test_the_tests_keep_their_rules(rule: Callable[[ast.AST], Iterator[str]]) -> None:
    found = {str(path.relative_to(ROOT)): list(rule(ast.parse(path.read_text()))) for path in sources_of_tests()}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        *((imports_of_tests, line) for line in ("import test_rules", "from . import x", "from unit.orchard import x")),
        *((imports_of_tests, line) for line in ("from conftest import x", "import tests.support", "import support.test_x")),
        (unreadable_names, f"def test_{'long_' * 13}name(): pass"),
        (unreadable_names, "def test_plan(): pass"),
        (clocks_at_import, "NOW = datetime.now(UTC)"),
        (clocks_at_import, "@parametrize('day', [date.today()])\ndef test_it(): pass"),
    ],
)
def test_what_breaks_a_rule_is_found(rule: Callable[[ast.AST], Iterator[str]], line: str) -> None:
    assert len(list(rule(ast.parse(line)))) == 1


def test_a_clock_inside_a_function_is_no_fault() -> None:
    assert list(clocks_at_import(ast.parse("def test_it():\n    return datetime.now(UTC)"))) == []
