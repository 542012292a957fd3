"""No module takes a path or a URI apart, or puts one together, by hand: the layout, the locations and the storage do."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.repository import ROOT

# The folders of product code that are held to this.
CHECKED_FOLDERS = ("spark_jobs/orchard_jobs", "plugins/orchard", "sandbox/orchard_sandbox", "dags", "bench")
OWNERS = {
    "spark_jobs/orchard_jobs/contract/layout.py",
    "spark_jobs/orchard_jobs/contract/locations.py",
    "spark_jobs/orchard_jobs/storage.py",
}
# (module, code) of what looks like path surgery and is none.
NO_PATHS = {
    # Addresses of servers, and paths of requests to them.
    ("plugins/orchard/clients.py", "str(extra.get('host') or found.host or '').rpartition('://')"),
    ("plugins/orchard/clients.py", "str(extra.get('host') or found.host or '').rpartition('://')[2].rstrip('/')"),
    ("sandbox/orchard_sandbox/databricks/volumes.py", "request.path.removeprefix(FILES_API).partition('/')"),
    # The name of an S3 event, such as `s3:ObjectCreated:Put`.
    ("plugins/orchard/landing_zone/messages.py", "record['eventName'].removeprefix('s3:')"),
    # Any object's key as a file on this machine, and the other way round.
    ("sandbox/orchard_sandbox/databricks/mounts.py", "key.split('/')"),
    ("sandbox/orchard_sandbox/stack/batches.py", "'/'.join(parts)"),
}
_TAKES_APART = {"split", "rsplit", "partition", "rpartition", "count", "find", "rfind", "index", "replace"}
_TAKES_APART |= {"strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "startswith", "endswith"}
_SCHEME = re.compile(r"(s3[an]?|file):")
# What a name or an attribute that holds a location or a path ends in.
_HOLDS_PATH = re.compile(
    r"(uri|warehouse|root|folder|place|path|key|prefix|logs|store|bucket|WORK|MANIFESTS|PREFIX|BUCKET|name)(_of)?$"
)


def texts_in(node: ast.AST) -> list[str]:
    """Return the literal texts of an expression: of a string, of an f-string's parts, of a tuple's elements."""
    return [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def names_path(text: str) -> bool:
    """Tell whether a literal text is about a path or a location, and not about a server's address."""
    return bool(_SCHEME.match(text)) or ("/" in text and not re.fullmatch(r"(https?|sc)://", text))


def surgery_of(node: ast.AST) -> str | None:
    """Return what a node of a module's code does to paths by hand; None for most nodes."""
    if isinstance(node, ast.JoinedStr):
        return surgery_of_text(node)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        ends = [text for side in (node.left, node.right) for text in texts_in(side) if text.strip("/") != text]
        return "joins" if ends and isinstance(node.left, ast.Name | ast.Attribute | ast.Constant) else None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        return surgery_of_call(node.func, texts_in(node.args[0]))
    return None


def surgery_of_call(called: ast.Attribute, texts: list[str]) -> str | None:
    """Return what a call of a method does to a path, of the texts in its first argument."""
    if called.attr == "join":
        return "joins" if texts_in(called.value) == ["/"] else None
    if isinstance(called.value, ast.Name) and called.value.id == "re":
        return "matches" if any(_SCHEME.match(text) for text in texts) else None
    return "takes apart" if called.attr in _TAKES_APART and any(map(names_path, texts)) else None


def surgery_of_text(text: ast.JoinedStr) -> str | None:
    """Return what an f-string builds: a location, or a path below something."""
    first, literals = text.values[0], "".join(str(part.value) for part in text.values if isinstance(part, ast.Constant))
    if isinstance(first, ast.Constant):
        return "builds a location" if re.fullmatch(r"(s3[an]?|file)://", str(first.value)) else None
    assert isinstance(first, ast.FormattedValue)
    value = first.value.func if isinstance(first.value, ast.Call) else first.value
    is_path = literals.startswith("/") or ("/" in literals and " " not in literals)
    return "builds a path" if is_path and _HOLDS_PATH.search(ast.unparse(value)) else None


def surgery_in(code: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and the code of whatever takes paths apart or builds them by hand."""
    for node in ast.walk(ast.parse(code)):
        what = surgery_of(node)
        if what:
            yield what, ast.unparse(node)


def modules_in(root: Path, folder: str) -> list[Path]:
    """Return the modules of a folder; AssertionError where there is none, so that a renamed folder is seen."""
    found = sorted((root / folder).rglob("*.py"))
    assert found, f"{folder} holds no module: name the folder that it became"
    return found


@pytest.mark.parametrize("folder", CHECKED_FOLDERS)
def test_paths_are_taken_apart_and_built_in_one_place(folder: str) -> None:
    modules = {str(path.relative_to(ROOT)): path.read_text() for path in modules_in(ROOT, folder)}
    found = [(module, what, code) for module in modules.keys() - OWNERS for what, code in surgery_in(modules[module])]
    assert [one for one in found if (one[0], one[2]) not in NO_PATHS] == []


def test_a_renamed_folder_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="holds no module"):
        modules_in(tmp_path, "gone")


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("takes apart", 'path.split("/")[1]'),
        ("takes apart", 'uri.removeprefix("s3://")'),
        ("takes apart", 'uri.replace("s3n://", "s3://")'),
        ("takes apart", 'uri.partition("://")'),
        ("takes apart", 'uri.count("/")'),
        ("takes apart", 'uri.rstrip("/")'),
        ("takes apart", 'uri.startswith(("s3://", "file://"))'),
        ("takes apart", 'warehouse.startswith("s3:")'),
        ("takes apart", 'path.removeprefix(f"{folder}/")'),
        ("takes apart", 'path.endswith("/head.json")'),
        ("matches", 're.fullmatch(r"s3://[^/]+/.+", uri)'),
        ("joins", '"/".join([table.name, element])'),
        ("joins", 'uri + "/head.json"'),
        ("builds a location", 'f"s3://{bucket}/{key}"'),
        ("builds a location", 'f"file://{path}"'),
        ("builds a path", 'f"{WORK}/plans/{digest}.json"'),
        ("builds a path", 'f"{warehouse}/{path}"'),
        ("builds a path", 'f"{settings.jobs.uri}/run_job.py"'),
        ("builds a path", 'f"{uri}applications/{name}"'),
        ("builds a path", 'f"{folder_of(table)}/{name}"'),
    ],
)
def test_each_kind_of_surgery_is_recognised(what: str, code: str) -> None:
    assert what in [found for found, _ in surgery_in(code)]


@pytest.mark.parametrize(
    "code",
    ['text.startswith("https://")', 'f"{address}/api/v2"', 'f"{name} is gone and/or lost"', '"/".join', "a / b"],
)
def test_other_code_is_no_surgery(code: str) -> None:
    assert list(surgery_in(code)) == []


def test_every_exception_is_still_needed() -> None:
    found = {(module, code) for module, _ in NO_PATHS for _, code in surgery_in((ROOT / module).read_text())}
    assert found >= NO_PATHS
    assert [module for module in OWNERS if not list(surgery_in((ROOT / module).read_text()))] == []
