"""Command line of the jobs: `orchard-jobs featurize|reduce|project|classify`, `prepare`, `embed`, `rehearse`, `archive-classes`.

Exit status: 0 done (or done before), 1 a job fault that a retry may fix (`embed`: or a bad image), 2 a fault of configuration.
On a platform that calls a function of the wheel (`orchard-jobs-task`) an error takes the place of the exit status.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from orchard_jobs import __version__
from orchard_jobs.contract.backbones import Backbone, backbone_named
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import STALL_MINUTES, JobArguments, JobReport, ProjectionPlan, Source, Stage
from orchard_jobs.contract.layout import FaultPath, ProjectionPlanPath, manifest_path, report_path
from orchard_jobs.contract.manifest import ManifestHead, ModelReference
from orchard_jobs.errors import ConfigurationError, JobError, OrchardError
from orchard_jobs.local_spark import JAVA_OPTIONS, local_spark_conf
from orchard_jobs.storage import SERVICE_CREDENTIAL, Warehouse

_PACKAGE = Path(__file__).parent
# A trace of Python, of which the error at its end is taken, with all its lines.
_TRACE = r"Traceback \(most recent call last\):\n(?:[ \t].*\n)+(\S.*(?:\n(?!JVM stacktrace|Traceback| SQLSTATE|\n).+)*)"

if TYPE_CHECKING:
    from orchard_jobs.embedding import Classified, Embedded
    from orchard_jobs.images.decode import Rejected
    from orchard_jobs.stages.workers import Workers


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit status."""
    try:
        return _run(command_parser().parse_args(argv))
    except OrchardError as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigurationError) else 1


def run_as_task() -> None:
    """Run one command of `sys.argv`; raise the error it failed on, since the platform that calls this ignores exit statuses."""
    status = _run(command_parser().parse_args())
    if status != 0:
        raise JobError(f"{sys.argv[1]} ended with status {status}")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "rehearse":
        return _warm_up()
    if arguments.command == "archive-classes":
        return _archive_classes(Path(arguments.file))
    warehouse = Warehouse.at(arguments.warehouse)
    if arguments.command == "prepare":
        return _prepare(warehouse, arguments.backbone, arguments.load)
    if arguments.command == "embed":
        return _embed(warehouse, arguments)
    if arguments.credential:
        os.environ[SERVICE_CREDENTIAL] = arguments.credential
    given = {name: getattr(arguments, name) for name in ("input_digest", "source", "credential", "stall_minutes")}
    return _run_stage(warehouse, JobArguments(arguments.command, warehouse.uri, **given))


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of the command `orchard-jobs`, with every subcommand."""
    parser = argparse.ArgumentParser(prog="orchard-jobs", description="Spark jobs of Orchard.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for stage, text in (
        ("featurize", "stage a manifest's features, quarantine rows, moments and class moments"),
        ("reduce", "stage the pca_features and predictions of what `featurize` staged"),
        ("project", "stage the pca_features of published batches"),
        ("classify", "fit a classifier on published features"),
    ):
        command = commands.add_parser(stage, help=text, description=text)
        command.add_argument("--warehouse", required=True, help="URI of the warehouse")
        command.add_argument("--input-digest", required=True, help="digest of the manifest, or of the projection plan")
        command.add_argument(
            "--source", choices=get_args(Source), default="fetch", help="who reads images: the Python workers, or Spark for them"
        )
        command.add_argument("--credential", help="Unity Catalog's service credential for the warehouse, on Databricks")
        command.add_argument(
            "--stall-minutes", type=float, default=STALL_MINUTES, help="minutes without progress after which the job ends itself"
        )
    prepare = commands.add_parser("prepare", help="check a backbone's weights and export it once")
    prepare.add_argument("--warehouse", required=True, help="URI of the warehouse")
    prepare.add_argument("--backbone", help="the backbone's definition as JSON; without it, that of efficientnet_lite0")
    prepare.add_argument("--load", action="store_true", help="also see that this machine can run it")
    embed = commands.add_parser("embed", help="print the vectors of image files, or their classes, as JSON lines")
    embed.add_argument("--warehouse", required=True, help="URI of the warehouse")
    embed.add_argument("--backbone", required=True, help="the backbone's definition as JSON")
    embed.add_argument("--model", help="the model's reference as JSON; without it there are no pca_features")
    embed.add_argument("--classifier", help="a classifier's reference as JSON; what it says takes the place of the vectors")
    embed.add_argument("--pixel-limit", type=int, required=True, help="width x height above which an image is rejected")
    embed.add_argument("files", nargs="+", metavar="FILE", help="an image file, or - for stdin")
    commands.add_parser("rehearse", help="run the stages' Spark operations once on made-up rows")
    archive = commands.add_parser("archive-classes", help="rehearse, and archive the JVM's classes, so that jobs start faster")
    archive.add_argument("file", help="the archive to write; ORCHARD_CLASS_ARCHIVE names it to the launcher")
    return parser


def _warm_up() -> int:
    from orchard_jobs.session import session
    from orchard_jobs.stages.jvm_warmup import warm_up

    with session("orchard rehearse") as spark:
        print(f"rehearsed on {warm_up(spark)} rows")
    return 0


def _archive_classes(file: Path) -> int:
    file.unlink(missing_ok=True)
    own = {"spark.driver.extraJavaOptions": f'{JAVA_OPTIONS} -XX:ArchiveClassesAtExit="{file.absolute()}"'}
    command = [str(Path(sys.executable).with_name("spark-submit")), "--master", "local[2]"]
    conf = local_spark_conf(None) | own
    command += [word for name, value in conf.items() for word in ("--conf", f"{name}={value}")]
    command += [str(_PACKAGE / "entry" / "run_job.py"), "rehearse"]
    python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    return subprocess.run(command, env=os.environ | python, check=False).returncode


def _prepare(warehouse: Warehouse, definition: str | None, must_load: bool) -> int:
    from orchard_jobs.images.loaded_backbone import load_backbone, prepare_backbone

    backbone = Backbone(**json.loads(definition)) if definition else backbone_named("efficientnet_lite0")
    prepare_backbone(backbone, warehouse)
    if must_load and backbone.is_exported:  # of the others the preparation is the loading
        load_backbone(backbone, warehouse)
    return 0


def _embed(warehouse: Warehouse, arguments: argparse.Namespace) -> int:
    """Print one line of JSON for each file, as soon as it is done; return 1 if a file could not be read or is a bad image."""
    from orchard_jobs.embedding import Embedder, Recognizer

    backbone, limit = Backbone(**json.loads(arguments.backbone)), arguments.pixel_limit
    look: Callable[[bytes], Embedded | Classified | Rejected]
    if arguments.classifier:
        look = Recognizer.load(warehouse, backbone, ModelReference(**json.loads(arguments.classifier)), limit).classify
    else:
        model = ModelReference(**json.loads(arguments.model)) if arguments.model else None
        look = Embedder.load(warehouse, backbone, model, limit).embed
    status = 0
    for file in arguments.files:
        row = _row_of(look, file)
        status = 1 if "reason" in row else status
        print(json.dumps({"file": file} | row), flush=True)
    return status


def _row_of(look: "Callable[[bytes], Embedded | Classified | Rejected]", file: str) -> dict[str, object]:
    """Return what is found out of a file, as JSON takes it: its reason and message where it is a bad image."""
    try:
        found = look(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except OSError as error:
        return {"reason": "not readable", "message": str(error)}
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in vars(found).items()}


def _run_stage(warehouse: Warehouse, given: JobArguments) -> int:
    print(f"orchard-jobs {__version__} from {_PACKAGE}, Python {platform.python_version()}", flush=True)
    planned = _read_planned(warehouse, given)
    backbone = planned.backbone if isinstance(planned, ProjectionPlan) else planned.backbone.id
    work = work_digest(given.input_digest, backbone, given.stage)
    if warehouse.read_if_there(report_path(work)) is not None:
        print(f"work={work} is finished: its report is reused")
        return 0

    from orchard_jobs.session import end_with_owner, session
    from orchard_jobs.stages import staging
    from orchard_jobs.stages.stall import ended_when_stalled
    from orchard_jobs.stages.workers import Workers

    end_with_owner()
    with _recording_fault(warehouse, work), session(f"orchard {given.stage} {work[:12]}") as spark:
        workers = Workers(spark, given.source)
        with ended_when_stalled(workers, warehouse, given.stage, work, given.stall_minutes):
            staged = _stage_rows(workers, warehouse, given.stage, planned, work)
        finished = staging.finish(warehouse, staged)
        print(f"stage={given.stage} work={work} counts={finished.counts} seconds={finished.seconds} backbone={finished.network}")
    return 0


def _read_planned(warehouse: Warehouse, given: JobArguments) -> ManifestHead | ProjectionPlan:
    if given.stage in ("project", "classify"):
        return ProjectionPlan.from_json(warehouse.read(str(ProjectionPlanPath(given.input_digest))))
    return ManifestHead.from_json(warehouse.read(manifest_path(given.input_digest)))


def _stage_rows(
    workers: "Workers", warehouse: Warehouse, stage: Stage, planned: ManifestHead | ProjectionPlan, work: str
) -> JobReport:
    from orchard_jobs.stages.classify import classify
    from orchard_jobs.stages.featurize import featurize
    from orchard_jobs.stages.project import project
    from orchard_jobs.stages.reduce import reduce

    if isinstance(planned, ProjectionPlan) and planned.stage == "classify":
        return classify(workers, warehouse, planned, work)
    if isinstance(planned, ProjectionPlan):
        return project(workers, warehouse, planned, work)
    if stage == "featurize":
        return featurize(workers, warehouse, planned, work)
    featurized = report_path(work_digest(planned.digest, planned.backbone.id, "featurize"))
    return reduce(workers, warehouse, planned, work, JobReport.from_json(warehouse.read(featurized)))


@contextmanager
def _recording_fault(warehouse: Warehouse, work: str) -> Iterator[None]:
    """Write the error that a job fails on next to its work, for `orchard status`."""
    try:
        yield
    except Exception as error:
        fault = {"error": _last_error(error), "at": datetime.now(UTC).isoformat(timespec="seconds")}
        try:
            warehouse.rewrite(str(FaultPath(work)), json.dumps(fault).encode())
        except Exception as second:  # the store itself may have failed
            print(f"{str(FaultPath(work))} cannot be written: {second}", file=sys.stderr)
        raise


def _last_error(error: Exception) -> str:
    """Return one line of at most 1,000 characters: what a worker raised, where Spark quotes its trace, else the error itself."""
    text = str(error)
    traces = re.findall(_TRACE, text)
    in_java = re.search(r"^: (\S+: .*)$", text, re.MULTILINE)
    line = traces[-1] if traces else in_java[1] if in_java else f"{type(error).__name__}: {text}"
    return re.sub(r"[\x00-\x20\x7f]+", " ", line).strip()[:1000]


if __name__ == "__main__":
    sys.exit(main())
