"""Use cases with one step taken out, to prove that a test would see it."""

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from orchard.batch import run
from orchard.models import run as model_run

MODULES = (run, model_run)


@dataclass(frozen=True)
class BrokenStep:
    """A use case without one of its statements.

    Attributes:
        module: where the use case stands.
        name: the use case.
        step: the statement that is left out, as text.
        function: the use case without it.
    """

    module: ModuleType
    name: str
    step: str
    function: Callable[..., Any]

    def __str__(self) -> str:
        return f"{self.module.__name__}.{self.name} without {self.step[:60]}"


def broken_steps() -> Iterator[BrokenStep]:
    """Yield each use case once for each of its statements that acts or decides, without that statement."""
    for module in MODULES:
        for use_case in _use_cases(ast.parse(inspect.getsource(module))):
            for body, index in list(_places(use_case)):
                step = body[index]
                body[index] = ast.Pass()
                namespace = dict(vars(module))
                exec(compile(ast.fix_missing_locations(ast.Module([use_case], [])), module.__name__, "exec"), namespace)
                body[index] = step
                yield BrokenStep(module, use_case.name, ast.unparse(step).splitlines()[0], namespace[use_case.name])


def is_seen_by(check: Callable[[], None]) -> bool:
    """Tell whether a check fails, in whatever way."""
    try:
        check()
    except Exception:
        return True
    return False


def _use_cases(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(decorator) == "use_case" for decorator in node.decorator_list):
            yield node


def _places(node: ast.AST) -> Iterator[tuple[list[ast.stmt], int]]:
    for child in ast.walk(node):
        body: list[ast.stmt] = child.body if isinstance(child, ast.FunctionDef | ast.If | ast.For) else []
        for index, statement in enumerate(body):
            if _acts(statement) and not _only_logs(statement):
                yield body, index


def _acts(statement: ast.stmt) -> bool:
    is_call = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    return is_call or isinstance(statement, ast.If | ast.For | ast.Return)


def _only_logs(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.If | ast.For):
        return all(_only_logs(one) for one in statement.body)
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
        return False
    call = statement.value
    acts = any(isinstance(inner, ast.Call) for argument in call.args for inner in ast.walk(argument))
    return ast.unparse(call.func).startswith("log.") and not acts
