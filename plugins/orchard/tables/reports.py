"""Jobs as the Airflow side sees them: which ones a plan asks for, their finished reports, and what these name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import JobReport, Stage
from orchard_jobs.contract.layout import ProgressPath, RemovalNotePath, manifest_path, report_path
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import DamagedFileError, JobError
from orchard_jobs.storage import Warehouse

T = TypeVar("T")


def parsed(warehouse: Warehouse, path: str, text: bytes, parse: Callable[[bytes], T]) -> T:
    """Return what a file of the warehouse's `_work` folder holds; DamagedFileError when it is damaged."""
    try:
        return parse(text)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        fault = f"is damaged, {type(error).__name__}: {error}"
        raise DamagedFileError(warehouse.uri_of(path), fault, "remove this file, then run again") from error


def finished_report(warehouse: Warehouse, work: str) -> JobReport | None:
    """Return the report of a finished piece of work, or None."""
    path = report_path(work)
    text = warehouse.read_if_there(path)
    return None if text is None else parsed(warehouse, path, text, JobReport.from_json)


def take_up(warehouse: Warehouse, *works: str) -> bool:
    """Mark that a run is about to do some pieces of work, and tell whether they can be used.

    A manifest, a plan or a report may be old when it is taken up; a mark is always young, and no cleaning removes what marked
    work reads. A clean-up that saw no mark leaves a note of the work, then looks for the mark once more. This function leaves the
    mark, then looks for the note. So at least one of the two sees the other. Noted work cannot be used.
    """
    for work in works:
        warehouse.rewrite(mark_path(work), b"{}")
    is_going = any(warehouse.size(str(RemovalNotePath(work))) is not None for work in works)
    return not is_going and all(is_intact(warehouse, work) for work in works)


def mark_path(work: str) -> str:
    """File whose age tells when a run last took up a piece of work."""
    return str(ProgressPath(work, "planned", "mark.json"))


def is_intact(warehouse: Warehouse, work: str) -> bool:
    """Tell whether a piece of work can be used: it is not finished yet, or each file of its report is there unharmed.

    A finished report is final, so work whose files were lost or damaged is never done again under its name: it is planned
    under another.
    """
    report = finished_report(warehouse, work)
    files = [file for partition in report.partitions for file in partition.files] if report else []
    return all(warehouse.size(file.path) == file.size_bytes and warehouse.sha256(file.path) == file.sha256 for file in files)


def job_digests(head: ManifestHead) -> tuple[str, ...]:
    """Return the digests of a manifest's work: of its featurize job, and of its reduce job."""
    stages: tuple[Stage, ...] = ("featurize", "reduce")
    return tuple(work_digest(head.digest, head.backbone.id, stage) for stage in stages)


@dataclass(frozen=True)
class PlannedJobs:
    """The jobs that a plan asks for: names of what it wrote to the warehouse, never the thing itself. It crosses XCom.

    Attributes:
        input_uri: where the manifest's head, or the projection plan, lies.
        input_digest: its digest.
        backbone: the backbone's id.
        stages: the stages that have work to do.
        decision: digest of the model plan that asked for a projection; None for a batch.
    """

    input_uri: str
    input_digest: str
    backbone: str
    stages: tuple[Stage, ...]
    decision: str | None = None

    @classmethod
    def of_batch(cls, warehouse: Warehouse, head: ManifestHead) -> "PlannedJobs":
        """Return the jobs that a batch's manifest asks for."""
        stages: tuple[Stage, ...] = ("featurize", "reduce") if head.models else ("featurize",)
        return cls(warehouse.uri_of(manifest_path(head.digest)), head.digest, head.backbone.id, stages)

    def work(self, stage: Stage) -> str:
        """Return a stage's work digest."""
        return work_digest(self.input_digest, self.backbone, stage)

    def report(self, warehouse: Warehouse, stage: Stage) -> JobReport | None:
        """Return a stage's finished report; None where the stage has no work, or has not finished it."""
        return finished_report(warehouse, self.work(stage)) if stage in self.stages else None

    def required_report(self, warehouse: Warehouse, stage: Stage) -> JobReport:
        """Return a stage's finished report; JobError when it is gone."""
        report = self.report(warehouse, stage)
        if report is None:
            what = f"the report of {stage} work={self.work(stage)} no longer exists"
            raise JobError(f"{what}: clear the task {stage}, or start a new run")
        return report
