"""Numbers that the documents share with the code are the code's."""

import ast
import re
from collections.abc import Callable, Iterator

import pytest
from support.documents import PAGES
from support.repository import ROOT

MEGABYTE = 1024 * 1024
Numbers = tuple[float, ...]


def constants_in(source: str) -> dict[str, float]:
    """Return the numbers that a module and its classes name, functions apart; products of literals are multiplied."""
    found: dict[str, float] = {}
    module = ast.parse(source)
    of_classes = [node for one in module.body if isinstance(one, ast.ClassDef) for node in one.body]
    for node in [*module.body, *of_classes]:
        pairs: list[tuple[ast.expr, ast.expr]]
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            pairs = [(node.target, node.value)]
        elif isinstance(node, ast.Assign):
            pairs = list(_pairs(node.targets[0], node.value))
        else:
            continue
        for target, value in pairs:
            number = _number(value)
            if isinstance(target, ast.Name) and number is not None:
                found[target.id] = number
    return found


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        yield from zip(target.elts, value.elts, strict=True)
    else:
        yield target, value


def _number(value: ast.expr) -> float | None:
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult):
        left, right = _number(value.left), _number(value.right)
        return None if left is None or right is None else left * right
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, int | float) else None


def of(module: str, *names: str, unit: float = 1) -> Numbers:
    """Return constants of a module, in a unit."""
    constants = constants_in((ROOT / module).read_text())
    return tuple(constants[name] / unit for name in names)


def in_text(file: str, pattern: str) -> Numbers:
    """Return the numbers that the groups of a pattern find in a file, at their only place there."""
    (found,) = set(re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE))
    return tuple(map(float, [found] if isinstance(found, str) else found))


JOBS, AIRFLOW = "spark_jobs/orchard_jobs", "plugins/orchard"
STACK = "sandbox/orchard_sandbox/stack/process_environment.py"


def pixel_limit() -> float:
    """Return the default of ORCHARD_PIXEL_LIMIT."""
    return in_text(f"{AIRFLOW}/settings/groups.py", r'"PIXEL_LIMIT", "(\d+)"')[0]


def decoder_bytes() -> float:
    """Return how much memory the decoder's process may take for each pixel of the limit."""
    return of(f"{JOBS}/images/decoder_process.py", "BYTES_PER_PIXEL")[0]


def header_bytes() -> float:
    """Return how much memory an image's header may announce for each pixel of the limit."""
    return of(f"{JOBS}/images/formats/picture.py", "_BYTES_A_PIXEL")[0]


def pythons() -> Numbers:
    """Return the Pythons 3.x that the Airflow side runs on."""
    first, beyond = in_text("pyproject.toml", r'^requires-python = ">=3\.(\d+),<3\.(\d+)"')
    return tuple(float(minor) for minor in range(int(first), int(beyond)))


# (what the pages say, with a group for each number; what gives the numbers). Each stands on some page.
FACTS: list[tuple[str, Callable[[], Numbers]]] = [
    (r"applies the rule again, at most (\d+) times", lambda: of(f"{AIRFLOW}/tables/commit_rule.py", "COMMIT_TRIES")),
    (r"because (\d+) commits in a row conflicted", lambda: of(f"{AIRFLOW}/tables/commit_rule.py", "COMMIT_TRIES")),
    (r"resized whole to (\d+) x (\d+)", lambda: of(f"{JOBS}/contract/backbones.py", "input_pixels") * 2),
    (r"Decoder (\d+) changes it", lambda: in_text(f"{JOBS}/contract/backbones.py", r'^DECODER = "(\d+):')),
    (r"Python 3\.(\d+), 3\.(\d+) or 3\.(\d+)", pythons),
    (r"Python 3\.(\d+) to 3\.(\d+)", lambda: (pythons()[0], pythons()[-1])),
    (
        r"[jJ]obs need Python 3\.(\d+) or later",
        lambda: in_text("spark_jobs/pyproject.toml", r'^requires-python = ">=3\.(\d+)'),
    ),
    (r"Java (\d+) or (\d+)", lambda: in_text("sandbox/interpreters.py", r"^JAVAS = \((\d+), (\d+)\)")),
    (r"Airflow 3\.(\d)", lambda: in_text("pyproject.toml", r'"apache-airflow>=3\.(\d+)')),
    (r"tested on Spark 4\.(\d+)", lambda: in_text("requirements/jobs.txt", r"^pyspark\S*==4\.(\d+)\.")),
    (
        r"(\d+) minutes after `ORCHARD_JOB_MINUTES` on a cluster of its own",
        lambda: of(f"{AIRFLOW}/launchers/emr.py", "_START_MINUTES"),
    ),
    (
        r"(\d+) minutes after `ORCHARD_JOB_MINUTES` on an existing cluster",
        lambda: of(f"{AIRFLOW}/launchers/emr.py", "_QUEUE_MINUTES"),
    ),
    (r"images read ahead \| (\d+) MB", lambda: of(f"{JOBS}/images/sources.py", "ahead_bytes", unit=MEGABYTE)),
    (r"one shard of images: (\d+) MB", lambda: of(f"{JOBS}/stages/spark_reader.py", "BYTES_PER_SHARD", unit=MEGABYTE)),
    (
        r"process is (\d+) bytes x `ORCHARD_PIXEL_LIMIT`, ([\d.]+) GB by default",
        lambda: (decoder_bytes(), decoder_bytes() * pixel_limit() / 1e9),
    ),
    (r"limit of its own, (\d+) bytes for each pixel", lambda: (decoder_bytes(),)),
    (r"limit is never below (\d+) MB", lambda: of(f"{JOBS}/images/decoder_process.py", "LEAST_BYTES", unit=MEGABYTE)),
    (r"above (\d+) bytes of memory for each pixel", lambda: (header_bytes(),)),
    (r"`too costly to decode`. That is (\d+) GB by default", lambda: (header_bytes() * pixel_limit() / 1e9,)),
    (r"walk more than (\d+) samples for each pixel", lambda: of(f"{JOBS}/images/formats/picture.py", "_SAMPLES_A_PIXEL")),
    (r"or over ([\d,]+) images of a batch have the same size", lambda: of(f"{AIRFLOW}/batch/plan.py", "_MOST_ALIKE")),
    (r"is larger than (\d+) MB and read in part", lambda: of(f"{JOBS}/parquet.py", "_SMALL_BYTES", unit=MEGABYTE)),
    (r"only if more than (\d+) images are bad", lambda: of(f"{JOBS}/audit/batch_checks.py", "min_quarantined")),
    (
        r"`ORCHARD_QUIET_SECONDS` is (\d+), `ORCHARD_POLL_SECONDS` is (\d+)",
        lambda: in_text(STACK, r'"ORCHARD_QUIET_SECONDS": "(\d+)",\s+"ORCHARD_POLL_SECONDS": "(\d+)"'),
    ),
    (r"exits? with (\d+)", lambda: of(f"{AIRFLOW}/cli.py", "FAULT")),
    (r"\| (\d+) \| wrong usage or configuration", lambda: of(f"{AIRFLOW}/cli.py", "REFUSED")),
    (r"\| (\d+) \| interrupted", lambda: of(f"{AIRFLOW}/cli.py", "INTERRUPTED")),
]
TEXT = "\n".join(page.read_text() for page in PAGES if page.parent.name != "decisions")


def numbers_said(text: str, pattern: str) -> set[Numbers]:
    """Return the numbers that a text gives in each place that says so."""
    found = re.findall(pattern, text)
    return {tuple(float(one.replace(",", "")) for one in ([hit] if isinstance(hit, str) else hit)) for hit in found}


@pytest.mark.parametrize(("pattern", "numbers"), FACTS, ids=[pattern for pattern, _ in FACTS])
def test_the_pages_give_the_codes_number(pattern: str, numbers: Callable[[], Numbers]) -> None:
    assert numbers_said(TEXT, pattern) == {numbers()}


@pytest.mark.parametrize(("pattern", "numbers"), FACTS, ids=[pattern for pattern, _ in FACTS])
def test_a_wrong_number_is_found(pattern: str, numbers: Callable[[], Numbers]) -> None:
    said = re.search(pattern, TEXT)
    assert said is not None
    first = said.start(1) - said.start()
    wrong = f"{said[0][:first]}9{said[0][first:]}"
    assert numbers_said(TEXT.replace(said[0], wrong, 1), pattern) != {numbers()}


def test_constants_are_read_as_the_code_has_them() -> None:
    source = "A, B = 2, 3.5\nC = 4 * 1024\nD = len('x')\nclass E:\n    f: int = 6\n    g: str = 'h'\ndef h():\n    A = 7"
    assert constants_in(source) == {"A": 2, "B": 3.5, "C": 4096, "f": 6}
