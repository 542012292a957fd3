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
    # The names of staged files, and those that Delta's protocol gives.
    "spark_jobs/orchard_jobs/contract/digests.py",
    "plugins/orchard/tables/log_paths.py",
    "spark_jobs/orchard_jobs/contract/layout.py",
    "spark_jobs/orchard_jobs/contract/locations.py",
    "spark_jobs/orchard_jobs/storage.py",
}
# Modules that build paths of requests to a server.
SPEAKS_HTTP = {"sandbox/orchard_sandbox/stack/airflow_api.py", "sandbox/orchard_sandbox/job_execution/run_pages.py"}
# (module, code) of what looks like path surgery and is none.
NO_PATHS = {
    # Addresses of servers, and paths of requests to them.
    ("plugins/orchard/clients.py", "str(extra.get('host') or found.host or '').rpartition('://')"),
    ("plugins/orchard/clients.py", "str(extra.get('host') or found.host or '').rpartition('://')[2].rstrip('/')"),
    ("sandbox/orchard_sandbox/databricks/volumes.py", "request.path.removeprefix(FILES_API).partition('/')"),
    # The name of an S3 event, such as `s3:ObjectCreated:Put`.
    ("plugins/orchard/landing_zone/messages.py", "record['eventName'].removeprefix('s3:')"),
    # The address of a page.
    ("plugins/orchard/pages/app.py", "f\"/{name.removesuffix('.html')}\""),
    # Patterns of characters that a key or a path must not have.
    ("plugins/orchard/deployment/destinations.py", "_ODD.search(path)"),
    ("plugins/orchard/settings/parsers.py", "_ODD.search(found.key)"),
    ("sandbox/orchard_sandbox/databricks/mounts.py", r"re.search('[\\x00-\\x1f\\x7f:]', key)"),
    # Files of this machine, in what starts before pathlib is imported.
    ("spark_jobs/orchard_jobs/entry/__init__.py", "os.path.join(os.path.dirname(pyspark.origin), 'python', 'lib')"),
    ("spark_jobs/orchard_jobs/entry/__init__.py", "os.path.dirname(pyspark.origin)"),
    ("spark_jobs/orchard_jobs/entry/__init__.py", "os.path.dirname(place)"),
    # The name of a setting of Hadoop, which holds a bucket and a folder.
    ("sandbox/orchard_sandbox/databricks/mounts.py", "f'fs.viewfs.mounttable.{bucket}.link./{top.name}'"),
    # Any object's key, or a path on a volume, as a file on this machine, and the other way round.
    ("sandbox/orchard_sandbox/databricks/volumes.py", "PurePosixPath(path)"),
    ("sandbox/orchard_sandbox/databricks/mounts.py", "key.split('/')"),
    ("sandbox/orchard_sandbox/stack/batches.py", "'/'.join(parts)"),
}
_TAKES_APART = {"split", "rsplit", "partition", "rpartition", "count", "find", "rfind", "index", "replace"}
_TAKES_APART |= {"strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "startswith", "endswith"}
_MATCHES = {"match", "fullmatch", "search", "compile", "sub", "split", "findall", "finditer"}
_PATH_CLASSES = {"PurePath", "PurePosixPath", "PureWindowsPath"}
_PATH_MODULES = {"os.path", "posixpath", "ntpath"}
_PATH_FUNCTIONS = {"split", "splitext", "dirname", "basename", "commonprefix", "commonpath", "relpath", "normpath"}
_SCHEME = re.compile(r"(s3[an]?|file):")
# What a name or an attribute that holds a location or a path ends in.
_HOLDS_PATH = re.compile(
    r"(uri|warehouse|root|folder|place|path|key|prefix|logs|store|bucket|WORK|MANIFESTS|PREFIX|BUCKET|name)(_of)?$"
)
# What is taken apart by another value, or matched by a pattern.
_TAKEN = re.compile(r"(uri|warehouse|folder|path|key|prefix|PREFIX)$")
# What a transaction in a table's log is called, before the ids: Delta's versions of `txn`, no places.
_TRANSACTIONS = ("model/", "model_run/", "promotions/", "pins/", "captured/", "evaluation/", "considered/")
# What else begins a text with slashes: addresses, names and signatures of AWS, this machine's processes, markup.
_NO_PATH = (*_TRANSACTIONS, "http:", "https:", "sc:", "sqlite:", "arn:", "AWS4-", "/proc/", "<")


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
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        return "builds a path" if isinstance(node.left, ast.Constant) and is_path_form(texts_in(node.left)) else None
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in _PATH_CLASSES:
        return "takes apart"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and (node.args or node.keywords):
        return surgery_of_call(node.func, node.args)
    return None


def is_path_form(texts: list[str]) -> bool:
    """Tell whether literal texts are the form of a path, to be filled in: words with slashes, and no server's address."""
    form = "".join(texts)
    return "/" in form and not re.search(r"\s", form) and not form.startswith(_NO_PATH)


def surgery_of_call(called: ast.Attribute, given: list[ast.expr]) -> str | None:
    """Return what a call of a method does to a path."""
    owner, texts = ast.unparse(called.value), texts_in(given[0]) if given else []
    if owner in _PATH_MODULES:
        return "joins" if called.attr == "join" else "takes apart" if called.attr in _PATH_FUNCTIONS else None
    if called.attr == "join":
        return "joins" if texts_in(called.value) == ["/"] else None
    if called.attr in ("format", "format_map"):
        return "builds a path" if is_path_form(texts_in(called.value)) else None
    if owner == "re" or (called.attr in _MATCHES and re.fullmatch("_?[A-Z_]+", owner)):
        is_pattern = owner == "re" and any(map(names_path, texts)) and not texts[0].startswith(_NO_PATH)
        return "matches" if is_pattern or any(holds_path(one) for one in given) else None
    is_taken = _TAKEN.search(owner) and given and holds_path(given[0])
    return "takes apart" if called.attr in _TAKES_APART and (is_taken or any(map(names_path, texts))) else None


def holds_path(value: ast.expr) -> bool:
    """Tell whether a value is a name or an attribute that holds a path or a location."""
    return isinstance(value, ast.Name | ast.Attribute) and bool(_TAKEN.search(ast.unparse(value)))


def surgery_of_text(text: ast.JoinedStr) -> str | None:
    """Return what an f-string builds: a location, or a path below something."""
    first, literals = text.values[0], [str(part.value) for part in text.values if isinstance(part, ast.Constant)]
    if isinstance(first, ast.Constant):
        if re.fullmatch(r"(s3[an]?|file)://", str(first.value)):
            return "builds a location"
        return "builds a path" if is_path_form(literals) else None
    assert isinstance(first, ast.FormattedValue)
    value = first.value.func if isinstance(first.value, ast.Call) else first.value
    is_path = "".join(literals).startswith("/") or is_path_form(literals)
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
    found = [one for one in found if one[0] not in SPEAKS_HTTP or one[1] != "builds a path"]
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
        ("takes apart", "key.startswith(zone.prefix)"),
        ("takes apart", "key.removeprefix(prefix)"),
        ("takes apart", "PurePosixPath(path).parts"),
        ("takes apart", "pathlib.PurePosixPath(path).name"),
        ("takes apart", "os.path.basename(path)"),
        ("takes apart", "posixpath.split(key)"),
        ("matches", 're.fullmatch(r"s3://[^/]+/.+", uri)'),
        ("matches", 're.match("part-([0-9a-f]+)", path)'),
        ("matches", 're.search(r"-([0-9a-f]{12})$", settings.uri)'),
        ("matches", 're.compile(rf"{LOG}/([0-9]{{20}})")'),
        ("matches", "_FORM.fullmatch(path)"),
        ("joins", "os.path.join(folder, name)"),
        ("joins", '"/".join([table.name, element])'),
        ("joins", 'uri + "/head.json"'),
        ("builds a location", 'f"s3://{bucket}/{key}"'),
        ("builds a location", 'f"file://{path}"'),
        ("builds a path", 'f"{WORK}/plans/{digest}.json"'),
        ("builds a path", 'f"{warehouse}/{path}"'),
        ("builds a path", 'f"{settings.jobs.uri}/run_job.py"'),
        ("builds a path", 'f"{uri}applications/{name}"'),
        ("builds a path", 'f"{folder_of(table)}/{name}"'),
        ("builds a path", 'f"moments/{name}"'),
        ("builds a path", 'f"_work/plans/{digest}.json"'),
        ("builds a path", 'f"/{key}"'),
        ("builds a path", '"{}/head.json".format(digest)'),
        ("builds a path", '"_work/{work}/report.json".format_map(values)'),
        ("builds a path", '"%s/%s" % (folder, name)'),
    ],
)
def test_each_kind_of_surgery_is_recognised(what: str, code: str) -> None:
    assert what in [found for found, _ in surgery_in(code)]


@pytest.mark.parametrize(
    "code",
    [
        *('text.startswith("https://")', 'f"{address}/api/v2"', 'f"{name} is gone and/or lost"', '"/".join', "a / b"),
        *('f"http://127.0.0.1:{port}/"', 'f"arn:aws:iam::{account}:role/jobs"', 'f"promotions/{backbone}"'),
        *('re.fullmatch("[0-9a-f]+", text)', "_DIGITS.search(name)", "text.startswith(begin)", "os.path.isabs(path)"),
        *('"%s images/s" % rate', '"{} of {}".format(a, b)', "'a / b'.format(c)"),
    ],
)
def test_other_code_is_no_surgery(code: str) -> None:
    assert list(surgery_in(code)) == []


def test_every_exception_is_still_needed() -> None:
    found = {(module, code) for module, _ in NO_PATHS for _, code in surgery_in((ROOT / module).read_text())}
    assert found >= NO_PATHS
    assert [module for module in SPEAKS_HTTP if "builds a path" not in dict(surgery_in((ROOT / module).read_text()))] == []
    assert [module for module in OWNERS if not list(surgery_in((ROOT / module).read_text()))] == []
