"""No module takes a path or a URI apart, or puts one together, by hand: the layout, the locations and the storage do."""

import re

import pytest
from support.repository import ROOT

# The folders of product code that are held to this.
CHECKED_FOLDERS = ("spark_jobs/orchard_jobs", "plugins/orchard")
OWNERS = {
    "spark_jobs/orchard_jobs/contract/layout.py",
    "spark_jobs/orchard_jobs/contract/locations.py",
    "spark_jobs/orchard_jobs/storage.py",
}
# (module, text of the line) of what looks like path surgery and is none.
NO_PATHS = {
    # The name of an S3 event, such as `s3:ObjectCreated:Put`.
    ("plugins/orchard/landing_zone/messages.py", 'event = record["eventName"].removeprefix("s3:")'),
}
SURGERY = {
    "splits at a slash": r"""\b(split|rsplit|partition|rpartition)\(["']/["']""",
    "joins with a slash": r"""["']/["']\.join\(""",
    "cuts a scheme off": r"""removeprefix\(f?["'](s3|s3a|file):""",
    "asks for a scheme": r"""startswith\(\(?["'](s3|file)://""",
    "cuts a folder off": r"""removeprefix\(f?["'][^"']*/["']\)""",
    "asks for a folder": r"""startswith\(f?["'][^"':]*/["']\)""",
    "asks for a file's name": r"""endswith\(f?["']/""",
    "builds a path": r"""f["']\{(WORK|MANIFESTS|[A-Za-z_.]*\.name|[a-z_]*folder(\([^)]*\))?)\}/""",
    "builds a location": r"""f["']s3://\{""",
}
EXAMPLES = {
    "splits at a slash": 'work = path.split("/")[1]',
    "joins with a slash": 'path = "/".join([table.name, element])',
    "cuts a scheme off": 'bucket = uri.removeprefix("s3://")',
    "asks for a scheme": 'if uri.startswith("s3://"):',
    "cuts a folder off": 'name = path.removeprefix(f"{folder}/")',
    "asks for a folder": 'if path.startswith(f"{MANIFESTS}/"):',
    "asks for a file's name": 'if path.endswith("/head.json"):',
    "builds a path": 'path = f"{WORK}/plans/{digest}.json"',
    "builds a location": 'uri = f"s3://{bucket}/{key}"',
}


def surgery_in(text: str) -> list[str]:
    """Return what a line does to paths by hand."""
    return [what for what, pattern in SURGERY.items() if re.search(pattern, text)]


@pytest.mark.parametrize("folder", CHECKED_FOLDERS)
def test_paths_are_taken_apart_and_built_in_one_place(folder: str) -> None:
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        module = str(path.relative_to(ROOT))
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if module not in OWNERS and (module, line.strip()) not in NO_PATHS:
                found += [f"{module}:{number} {what}: {line.strip()}" for what in surgery_in(line)]
    assert found == []


@pytest.mark.parametrize("what", SURGERY)
def test_each_kind_of_surgery_is_recognised(what: str) -> None:
    assert what in surgery_in(EXAMPLES[what])


def test_every_exception_is_still_needed() -> None:
    modules = {module: (ROOT / module).read_text() for module, _ in NO_PATHS}
    assert [line for module, line in NO_PATHS if line not in modules[module] or not surgery_in(line)] == []
    assert [module for module in OWNERS if not any(map(surgery_in, (ROOT / module).read_text().splitlines()))] == []
