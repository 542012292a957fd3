"""The rules that hold the design together; to change one, write a decision note."""

import ast
import re
import subprocess
import sys
import tokenize
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from support.repository import ROOT, sources_in, sources_of_tests

DOCKERFILES = ("Dockerfile", "spark_jobs/Dockerfile")
SOURCES = sources_in("dags", "plugins", "spark_jobs", "sandbox", "bench", "docs")


def test_no_check_is_switched_off() -> None:
    found = []
    for path in SOURCES + sources_of_tests():
        pattern = r"noqa|type: ignore|pragma|fmt: off|fmt: skip"
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type == tokenize.COMMENT and re.search(pattern, token.string):
                    found.append(f"{path.relative_to(ROOT)}:{token.start[0]} {token.string}")
    assert found == []


def test_parquet_is_read_and_written_in_one_place() -> None:
    users = {path.name for path in SOURCES if "import pyarrow.parquet" in path.read_text()}
    assert users - {"plan_times.py", "refit_times.py", "rivals.py"} == {
        "parquet.py",
        "export.py",
    }  # the first three are measurements


def test_files_stay_short() -> None:
    assert [path.name for path in SOURCES if len(path.read_text().splitlines()) > 300] == []


# What may stand twice: one file a package, and one a kind of run or of model, whose rooms are built alike.
ONE_EACH = {
    "__init__.py": "orchard|orchard_jobs|orchard_sandbox|support",
    "conftest.py": "tests",
    "cli.py": "plugins/orchard|spark_jobs/orchard_jobs|sandbox/orchard_sandbox/stack",
    "errors.py": "spark_jobs/orchard_jobs|sandbox/orchard_sandbox",
    "run.py": "plugins/orchard/batch|plugins/orchard/models",
    "publish.py": "plugins/orchard/batch|plugins/orchard/models",
    "fit.py": "spark_jobs/orchard_jobs/pca|spark_jobs/orchard_jobs/classifier",
}
# A command has the name of what it calls; deployments hold the class paths of what only re-exports.
SHARED_NAMES = re.compile(r"plugins/orchard/(commands/\w+|notify|preload|sensors)\.py")


def repeated_names(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Return the file names that stand twice without a reason, each with its paths."""
    places: dict[str, list[str]] = {}
    for path in paths:
        is_one_of_each = re.search(rf"(^|/)({ONE_EACH.get(path.name, '(?!)')})($|/)", str(path.parent))
        if not is_one_of_each and not SHARED_NAMES.fullmatch(str(path)):
            places.setdefault(path.name, []).append(str(path))
    return {name: found for name, found in places.items() if len(found) > 1}


def test_a_files_name_says_which_it_is() -> None:
    assert repeated_names(path.relative_to(ROOT) for path in SOURCES + sources_of_tests()) == {}


@pytest.mark.parametrize(
    "pair",
    [
        ("spark_jobs/orchard_jobs/audit/batch.py", "plugins/orchard/workflow/tasks/batch.py"),
        ("plugins/orchard/batch/fit.py", "plugins/orchard/models/fit.py"),
        ("tests/unit/orchard/batch/test_run.py", "tests/unit/orchard/models/test_run.py"),
    ],
)
def test_a_name_that_stands_twice_is_found(pair: tuple[str, str]) -> None:
    assert list(repeated_names(map(Path, pair))) == [Path(pair[0]).name]


def test_a_command_may_have_the_name_of_what_it_calls() -> None:
    assert repeated_names([Path("plugins/orchard/commands/clean.py"), Path("plugins/orchard/maintenance/clean.py")]) == {}


def test_every_module_says_its_duty() -> None:
    bare = [
        path.relative_to(ROOT)
        for path in SOURCES + sources_of_tests()
        if path.name != "run_job.py" and not path.read_text().startswith('"""') and path.read_text().strip()
    ]
    assert bare == []


def test_the_plugins_loader_leaves_the_package_alone() -> None:
    """The loader runs every module that it finds as a top-level one, named by its stem."""
    assert (ROOT / "plugins" / ".airflowignore").read_text() == "orchard/\n"
    assert [path.name for path in (ROOT / "plugins").glob("*.py")] == ["orchard_plugin.py"]


def test_a_job_deletes_no_object() -> None:
    """Its role needs no s3:DeleteObject: `Warehouse.delete` is for the Airflow side."""
    calls = [
        f"{path.name}:{node.lineno}"
        for path in sources_in("spark_jobs")
        if path.name != "storage.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("delete", "delete_object", "delete_objects")
    ]
    assert calls == []


PIN = r"[A-Za-z0-9._-]+(\[[^\]]+\])?==[^ ]+( ; [^\\\n]*)? \\\n"
HASH = r"    --hash=sha256:[0-9a-f]{64}"


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_pinned_files_hold_versions_with_hashes_alone(path: Path) -> None:
    """No address of a registry, and nothing that the installer could not check."""
    assert re.fullmatch(rf"({PIN}({HASH} \\\n)*{HASH}\n)+", path.read_text())


def test_environments_share_one_version_of_each_package() -> None:
    pins: dict[str, set[str]] = {}
    for path in (ROOT / "requirements").glob("*.txt"):
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(.*?)(?: \\)?$", path.read_text(), re.MULTILINE):
            pins.setdefault(name, set()).add(version)
    # jobs35.txt is for another Spark, and for what is old beside it.
    versions = {name: {pin.partition(" ; ")[0] for pin in found} for name, found in pins.items()}
    several = {name for name in pins if len(versions[name]) > 1} - {"pyspark", "numpy", "pandas", "pyarrow", "tzdata"}
    # Some have one version for each Python, which the markers tell apart.
    assert several <= {name for name in several if all(" ; " in pin for pin in pins[name])}


@pytest.mark.parametrize("name", ["bootstrap.py", "interpreters.py"])
def test_an_old_python_gets_as_far_as_the_line_that_refuses_it(name: str) -> None:
    tree = ast.parse((ROOT / "sandbox" / name).read_text(), feature_version=(3, 8))
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.partition(".")[0] for module in named} <= {"interpreters", *sys.stdlib_module_names}


def test_files_of_several_languages_name_the_same_versions() -> None:
    said = {
        "version": (r'^version = "(.*)"$|^__version__ = "(.*)"$|ARG VERSION=(.*)$|ORCHARD_VERSION:-([^}]*)}', 8),
        "base image": (r"^(?:ARG BASE|base)=(.*?)(?:@sha256:.*)?$|BASE_IMAGE:-(.*?)@sha256", 4),
        "base image's digest": (r"python:.*@(sha256:[0-9a-f]{64})", 3),
        "PostgreSQL's digest": (r"postgres:[0-9.]+@(sha256:[0-9a-f]{64})", 2),
        "S3 server": (r"versitygw[:@](v[0-9.]+[0-9])", 3),
        "PostgreSQL": (r"(?:there |IMAGE:?[-=])postgres:([0-9]+)", 3),
    }
    files = ["pyproject.toml", "spark_jobs/pyproject.toml", "spark_jobs/orchard_jobs/__init__.py", "sandbox/bootstrap.py"]
    files += [*DOCKERFILES, "docker-compose.yaml", "tests/containers/engine.sh"]
    text = "\n".join((ROOT / file).read_text() for file in files)
    for what, (pattern, times) in said.items():
        found = ["".join(groups) for groups in re.findall(pattern, text, re.MULTILINE)]
        assert len(found) >= times, what
        assert len(set(found)) == 1, f"{what}: {found}"


def test_images_that_are_not_built_here_are_named_by_digest() -> None:
    composed = (ROOT / "docker-compose.yaml").read_text()
    named = re.findall(r"(?:image: |IMAGE:-)\$?\{?(?:\w+:-)?([a-z]\S*)", composed)
    named += re.findall(r"^ARG \w*BASE=(\S+)", "\n".join((ROOT / file).read_text() for file in DOCKERFILES), re.MULTILINE)
    foreign = [name for name in named if not name.startswith(("orchard-", "marquezproject/", "${BASE}"))]
    assert len(foreign) >= 6
    assert [name for name in foreign if not re.search(r"@sha256:[0-9a-f]{64}\W*$", name)] == []


def test_the_wheel_of_the_airflow_side_holds_the_pages_and_registers_them(tmp_path: Path) -> None:
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], check=True, capture_output=True, cwd=ROOT)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        (registered,) = [wheel.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    static = ROOT / "plugins" / "orchard" / "pages" / "static"
    assert {f"orchard/pages/static/{file.name}" for file in static.iterdir()} <= names
    assert "[airflow.plugins]\norchard = orchard.pages.plugin:OrchardPlugin" in registered


def test_the_jobs_wheel_is_whole_and_needs_nothing_at_base(tmp_path: Path) -> None:
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], check=True, capture_output=True, cwd=ROOT / "spark_jobs")
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT / "spark_jobs")) for path in (ROOT / "spark_jobs" / "orchard_jobs").rglob("*.py")}
    assert modules <= names
    metadata = next(zipfile.ZipFile(wheel).read(name).decode() for name in names if name.endswith("METADATA"))
    assert [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line] == []
    contract = "import orchard_jobs.contract.jobs, orchard_jobs.contract.layout, orchard_jobs.contract.columns"
    bare = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(wheel)!r}); {contract}"]
    subprocess.run(bare, check=True, capture_output=True)
