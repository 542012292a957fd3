"""Use cases, and the publishing inside them, with one step taken out, to prove that a test would see it."""

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from orchard.batch import publish, run
from orchard.models import publish as model_publish
from orchard.models import run as model_run

# (module of some functions, module that calls them, the functions' names; None: the use cases, which tasks call).
PLACES = (
    (run, run, None),
    (model_run, model_run, None),
    (publish, run, {"publish_batch"}),
    (model_publish, model_run, {"publish_model"}),
)
# Steps that only a classifier takes: neither the histories nor the DAGs' scenario fit one (docs/limits.md).
OF_CLASSIFIERS = ("PREDICTIONS", "record_evaluations")


@dataclass(frozen=True)
class BrokenStep:
    """A function without one of its statements.

    Attributes:
        module: where it is called by its name.
        name: its name.
        step: the statement that is left out, as text.
        function: the function without it.
    """

    module: ModuleType
    name: str
    step: str
    function: Callable[..., Any]

    def __str__(self) -> str:
        return f"{self.module.__name__}.{self.name} without {self.step[:60]}"


def broken_steps() -> Iterator[BrokenStep]:
    """Yield each function once for each of its statements that acts or decides, without that statement."""
    for module, caller, names in PLACES:
        for function in _functions(ast.parse(inspect.getsource(module)), names):
            for body, index in list(_places(function)):
                step = body[index]
                body[index] = ast.Pass()
                namespace = dict(vars(module))
                exec(compile(ast.fix_missing_locations(ast.Module([function], [])), module.__name__, "exec"), namespace)
                body[index] = step
                yield BrokenStep(caller, function.name, ast.unparse(step).splitlines()[0], namespace[function.name])


def is_seen_by(check: Callable[[], None]) -> bool:
    """Tell whether a check fails, in whatever way."""
    try:
        check()
    except Exception:
        return True
    return False


def _functions(tree: ast.Module, names: set[str] | None) -> Iterator[ast.FunctionDef]:
    """Yield the functions of some names; the use cases where no name is given."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            is_use_case = any(ast.unparse(decorator) == "use_case" for decorator in node.decorator_list)
            if node.name in names if names is not None else is_use_case:
                yield node


def _places(node: ast.AST) -> Iterator[tuple[list[ast.stmt], int]]:
    for child in ast.walk(node):
        body: list[ast.stmt] = child.body if isinstance(child, ast.FunctionDef | ast.If | ast.For) else []
        for index, statement in enumerate(body):
            is_lived = not any(name in ast.unparse(statement) for name in OF_CLASSIFIERS)
            if is_lived and _acts(statement) and not _only_logs(statement):
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
