"""Job arguments and job reports: what crosses the wire between a launcher and a job, the same on every target."""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from orchard_jobs.contract.digests import canonical_json, digest_of
from orchard_jobs.contract.evaluations import Captured as Captured
from orchard_jobs.contract.evaluations import Evaluation
from orchard_jobs.contract.manifest import ModelReference

Stage = Literal["featurize", "reduce", "project", "classify"]
# Who reads the images: the Python workers themselves, or Spark, for platforms whose workers have no network.
Source = Literal["fetch", "spark"]
# How rows are held out of a fit: whole batches, or images by the digest of their content.
HoldOut = Literal["batches", "contents"]
PROGRESS_SECONDS = 2.0
STALL_MINUTES = 15.0
_PCA = "pca"


@dataclass(frozen=True)
class JobArguments:
    """A job's command line.

    Attributes:
        stage: which stage the job runs.
        warehouse: the warehouse's URI.
        input_digest: the manifest's digest, or the projection plan's for `project` and `classify`.
        source: who reads the images.
        credential: Unity Catalog's service credential by which the driver reaches an `s3:` warehouse; None: its own log-in.
        stall_minutes: the job ends itself after so long without progress.
    """

    stage: Stage
    warehouse: str
    input_digest: str
    source: Source = "fetch"
    credential: str | None = None
    stall_minutes: float = STALL_MINUTES

    def to_argv(self) -> list[str]:
        """Return the arguments as the CLI reads them."""
        where = ["--warehouse", self.warehouse, "--source", self.source]
        where += ["--credential", self.credential] if self.credential else []
        where += ["--stall-minutes", f"{self.stall_minutes:g}"] if self.stall_minutes != STALL_MINUTES else []
        return [self.stage, *where, "--input-digest", self.input_digest]


@dataclass(frozen=True)
class StagedFile:
    """One Parquet file that a job wrote: the path relative to the warehouse, its size, rows and SHA-256."""

    path: str
    size_bytes: int
    rows: int
    sha256: str


@dataclass(frozen=True)
class StagedPartition:
    """The staged files of one table partition; no files means an empty replacement.

    Attributes:
        table: the table's name.
        partition: the values of the table's partition columns, in their order.
        files: every file of the partition's next version.
    """

    table: str
    partition: tuple[str, ...]
    files: tuple[StagedFile, ...]

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(file.rows for file in self.files)


@dataclass(frozen=True)
class JobReport:
    """What a finished job says of itself; created once at `layout.report_path(work)`, then never changed.

    Attributes:
        work: the work digest.
        stage: the stage.
        input_digest: the manifest's or the plan's digest.
        backbone: the backbone's id.
        jobs_version: version of the wheel.
        job_id: Spark's application id.
        partitions: what was staged, a table partition each.
        counts: listed, featurized, reused, quarantined, missing, network_runs, ...; what the stage counts.
        reasons: quarantined images by reason code.
        captured: one entry a projected batch and PCA model (`reduce`, `project`).
        evaluations: one entry a predicted batch and classifier. While there are none, they are not in the report's text.
        seconds: wall seconds by step of the job.
        network: what the worker tasks counted and how long the backbone ran (`featurize`); the name is that of old reports.
    """

    work: str
    stage: Stage
    input_digest: str
    backbone: str
    jobs_version: str
    job_id: str
    partitions: tuple[StagedPartition, ...]
    counts: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    captured: tuple[Captured, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    network: dict[str, float] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()

    def of_table(self, table: str) -> tuple[StagedPartition, ...]:
        """Return the partitions staged for one table."""
        return tuple(partition for partition in self.partitions if partition.table == table)

    def to_json(self) -> str:
        """Return the report's text."""
        fields = asdict(self)
        if not self.evaluations:
            del fields["evaluations"]
        return canonical_json(fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> "JobReport":
        """Return the report of a text that `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        fields["partitions"] = tuple(
            StagedPartition(
                table=partition["table"],
                partition=tuple(partition["partition"]),
                files=tuple(StagedFile(**file) for file in partition["files"]),
            )
            for partition in fields["partitions"]
        )
        fields["captured"] = tuple(Captured(**entry) for entry in fields["captured"])
        fields["evaluations"] = tuple(map(Evaluation.from_fields, fields.get("evaluations", ())))
        return cls(**fields)


@dataclass(frozen=True)
class BatchVersion:
    """One published batch version and its feature files, relative to the warehouse."""

    batch_id: str
    manifest_digest: str
    number: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class Projection:
    """The published batch versions that get rows of one model."""

    model: ModelReference
    batches: tuple[BatchVersion, ...]


@dataclass(frozen=True)
class ClassifierFit:
    """The fit of a classifier, all of whose inputs are frozen.

    Attributes:
        model: the classifier's id, the file that the job writes, and its number of classes.
        versions: the batch versions to fit it on, sorted by batch.
        class_of: (label, class) of each label that is of a class, sorted.
        left_out: (class, rows) of each class that has too few, sorted.
        unlabelled: labels that mean no label, sorted.
        held_out: `batches` where a part that is held out is whole batches, `contents` where it is images by their digest.
        rows: labelled rows, about: a share of them is held out where they are many.
        current: the classifier that it is compared with on rows that neither has seen; None where there is none.
        margin: the share of those rows by which it may get fewer right, and is promoted all the same.
        class_moments: (batch_id, file) of the class moments of batch versions, relative to the warehouse, where whole batches are
            held out. The job sums up the rows of the others itself.
    """

    model: ModelReference
    versions: tuple[BatchVersion, ...]
    class_of: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[str, int], ...]
    unlabelled: tuple[str, ...]
    held_out: HoldOut
    rows: int
    current: ModelReference | None
    margin: float = 0.0
    class_moments: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "ClassifierFit":
        """Return the fit of the fields of its text."""
        pairs = {name: tuple((name, value) for name, value in fields[name]) for name in ("class_of", "left_out", "class_moments")}
        return cls(
            **{
                **fields,
                **pairs,
                "model": ModelReference(**fields["model"]),
                "versions": _versions(fields["versions"]),
                "unlabelled": tuple(fields["unlabelled"]),
                "current": ModelReference(**fields["current"]) if fields["current"] else None,
            }
        )


@dataclass(frozen=True)
class ProjectionPlan:
    """The work of one job of a model's DAG: which published batch versions get rows of which models.

    Attributes:
        backbone: the backbone's id.
        projections: the models, each with its batch versions.
        attempt: rises when staged files of the same plan were lost or damaged, so that they are made again under another name.
        kind: the models' kind. At its default it is in no text and no digest, so that they are those of earlier releases.
        fit: the classifier that the job fits first; None where it fits none, and then in no text and no digest.
    """

    backbone: str
    projections: tuple[Projection, ...]
    attempt: int = 1
    kind: str = _PCA
    fit: ClassifierFit | None = None

    @property
    def stage(self) -> Stage:
        """The stage that does the work."""
        return "project" if self.kind == _PCA else "classify"

    @property
    def pairs(self) -> tuple[tuple[ModelReference, BatchVersion], ...]:
        """Each model with each of its batch versions, in the order of a job's report."""
        return tuple((one.model, batch) for one in self.projections for batch in one.batches)

    @property
    def models(self) -> tuple[ModelReference, ...]:
        """The models that the work reads or writes, each once."""
        of_fit = (self.fit.model, self.fit.current) if self.fit else ()
        return tuple(dict.fromkeys(filter(None, (*of_fit, *(one.model for one in self.projections)))))

    @property
    def tables_files(self) -> tuple[str, ...]:
        """The files of tables of batches that the work reads, relative to the warehouse, each once."""
        versions = (*(self.fit.versions if self.fit else ()), *(batch for _, batch in self.pairs))
        class_moments = (path for _, path in self.fit.class_moments) if self.fit else ()
        return tuple(dict.fromkeys((*class_moments, *(path for version in versions for path in version.files))))

    @cached_property
    def digest(self) -> str:
        """The plan's name."""
        return digest_of(self._fields())

    def to_json(self) -> str:
        """Return the plan's text."""
        return canonical_json(self._fields())

    def _fields(self) -> dict[str, Any]:
        defaults = {"kind": _PCA, "fit": None}
        return {name: value for name, value in asdict(self).items() if name not in defaults or value != defaults[name]}

    @classmethod
    def from_json(cls, text: str | bytes) -> "ProjectionPlan":
        """Return the plan of a text that `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        fit = ClassifierFit.from_fields(fields["fit"]) if fields.get("fit") else None
        return cls(**{**fields, "projections": tuple(_projection(one) for one in fields["projections"]), "fit": fit})


def _projection(fields: dict[str, Any]) -> Projection:
    return Projection(ModelReference(**fields["model"]), _versions(fields["batches"]))


def _versions(batches: list[dict[str, Any]]) -> tuple[BatchVersion, ...]:
    return tuple(BatchVersion(**{**batch, "files": tuple(batch["files"])}) for batch in batches)


@dataclass(frozen=True)
class Progress:
    """The running count of one worker task: the images that it has done, and those of all tasks together."""

    done: int
    total: int
