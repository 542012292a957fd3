"""A bucket and its tables, and the use cases of the DAGs as chains of steps that can take turns or be killed."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from urllib.parse import quote_plus

from orchard.batch import run as batch_run
from orchard.batch.manifests import read_head
from orchard.landing_zone.batch_lock import BatchLock, RunName
from orchard.models import run as model_run
from orchard.models.model_plan import read_projection
from orchard.outcomes import Done, Skipped
from orchard.settings import Settings
from orchard.tables.batch_versions import BatchVersions
from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import TableFile
from orchard.tables.reports import PlannedJobs
from orchard_jobs.contract.columns import QUARANTINE, RUNS, TABLES
from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import JobError

from support.fake_jobs import FakeJobs
from support.flow import value_of
from support.listed_bucket import ListedBucket
from support.state_store import Memory
from support.storage import Storage
from support.warehouse_faults import stretched

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
PROVENANCE = ("manifest_digest", "computed_in", "jobs_version", "uploaded_at")
Bucket = dict[str, bytes]
Steps = Iterator[None]


@dataclass
class Run:
    """One run of image_batches for one batch: its steps, and what it put through the backbone.

    Attributes:
        began: the number of the operation in which it began.
        ended: that in which it ended, well or killed.
        computed: (backbone, content) that its featurize job put through the backbone; a killed job's work is lost with it.
    """

    began: int
    ended: int = 0
    computed: tuple[tuple[str, str], ...] = ()


@dataclass
class Seen:
    """What a manifest was made of: the listing's contents by key, and those of the missing images whose rows stay."""

    listed: Bucket
    missing: Bucket
    vanished: frozenset[str] = frozenset()

    @property
    def contents(self) -> Bucket:
        """The last seen content of every key of the version."""
        return {key: content for key, content in (self.missing | self.listed).items() if key not in self.vanished}


@dataclass
class World:
    """A bucket, the tables, and what has been seen by whom.

    Attributes:
        messages: S3's, of every upload; each may be lost, or come again and again.
        seen: by manifest digest.
        states: what Airflow keeps of the batches' locks.
        prepared: the backbones that the target was asked about.
        recorded: the lineage of what was published.
    """

    storage: Storage
    settings: Settings
    bucket: Bucket = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    seen: dict[str, Seen] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    operation: int = 0
    states: Memory = field(default_factory=Memory)
    prepared: set[str] = field(default_factory=set)
    recorded: list[batch_run.LineageRecord] = field(default_factory=list)

    @property
    def tables(self) -> Tables:
        return self.storage.tables

    def upload(self, key: str, content: bytes) -> None:
        """Put an object, and leave S3's message of it."""
        self.bucket[key] = content
        s3 = {"bucket": {"name": self.settings.landing_zone.bucket}, "object": {"key": quote_plus(key)}}
        self.messages.append(json.dumps({"Records": [{"eventName": "ObjectCreated:Put", "s3": s3}]}))

    def of_batch(self, batch_id: str) -> Bucket:
        prefix = self.settings.landing_zone.batch_prefix(batch_id)
        return {key: content for key, content in self.bucket.items() if key.startswith(prefix)}

    def of_version(self, batch_id: str) -> Bucket:
        """Return the contents of a batch's published version."""
        if not self.has_tables:
            return {}
        rows = self.tables.rows(RUNS, backbone=self.settings.backbone.id, batch_id=batch_id)
        newest = max(rows, key=lambda row: int(row["version"]), default=None)
        return self.seen[newest["manifest_digest"]].contents if newest else {}

    def last_seen(self, batch_id: str) -> Bucket:
        """Return what a batch comes to that is planned now: what it lists, and the missing images whose rows stay."""
        own = self.of_batch(batch_id)
        return own if own and not self.settings.images.keeps_missing else self.of_version(batch_id) | own

    def steps(self, batch_id: str, damages: bool = False) -> Steps:
        """Run image_batches, a pause after each task; the bucket and the settings may change in the pauses.

        Args:
            batch_id: the batch.
            damages: a staged file is damaged before it is validated; the run then ends with that.
        """
        own, settings = self.of_batch(batch_id), self.settings
        if not own and self._is_complete(batch_id):
            return  # wait_for_uploads skips an empty batch
        run, jobs = Run(self.operation), FakeJobs(self.tables, self.bucket)
        self.runs.append(run)
        run_id = f"run {len(self.runs)}"
        try:
            seen = Seen(own, {key: content for key, content in self.last_seen(batch_id).items() if key not in own})
            planned = self._plan(batch_id, run_id)
            yield
            if planned is None:
                return
            head = read_head(self.tables.warehouse, planned.input_digest)
            self.seen.setdefault(head.digest, seen)
            assert head.backbone.id in self.prepared, "the target was not asked whether it can load the backbone"
            featurized = jobs.featurize(head)
            run.computed = tuple((head.backbone.id, content) for content in jobs.network_runs)
            self._note_vanished(head)
            yield
            if "reduce" in planned.stages:
                jobs.reduce(head, featurized)
            yield
            if damages and self._damage(planned.required_report(self.tables.warehouse, "featurize")):
                assert not isinstance(batch_run.validate(self.tables, settings, planned), Done)
                run.computed = ()  # lost with the damaged file
                return
            verdict = value_of(batch_run.validate(self.tables, settings, planned))
            yield
            published = batch_run.publish(self.tables, settings, planned, verdict, run_id)
            if isinstance(published, Done):
                value_of(batch_run.record(self.tables, planned, asdict(published.value), run_id, self.recorded.append))
                assert self.recorded[-1].head == head
        finally:
            run.ended = self.operation

    def _plan(self, batch_id: str, run_id: str) -> PlannedJobs | None:
        """Plan as a run that has promised to list; None when it is skipped, or refused for its cost."""
        lock = BatchLock(batch_id, RunName("image_batches", run_id), self.states, lambda name, states: True)
        other = replace(lock, me=RunName("image_batches", "another"))
        lock.promise_listing()

        def check_promise() -> None:
            assert other.run_that_will_list() != lock.me, "an upload during the listing would be left to this run"

        bucket = ListedBucket(self.bucket, check_promise, tells_encryption=False)
        planned = batch_run.plan(self.tables, self.settings, lock, bucket, lambda backbone: self.prepared.add(backbone.id))
        if isinstance(planned, Done):
            head = read_head(self.tables.warehouse, planned.value.input_digest)
            assert not (self.is_broke and head.actions.get("compute")), "a batch was planned that nobody can pay for"
            return planned.value
        assert isinstance(planned, Skipped) or self.is_broke, planned
        return None

    @property
    def is_broke(self) -> bool:
        """Whether the settings allow no image to be computed."""
        return self.settings.jobs.target != "local" and self.settings.jobs.max_executor_hours == 0

    @property
    def has_tables(self) -> bool:
        try:
            self.tables.load(RUNS)
        except JobError:
            return False
        return True

    def _is_complete(self, batch_id: str) -> bool:
        if not self.has_tables:
            return True
        return BatchVersions.load(self.tables, self.settings.backbone.id, batch_id).is_complete(batch_id)

    def _damage(self, report: JobReport) -> bool:
        """Overwrite a staged file that no table names; tell whether there was one."""
        named = {file.path for table in TABLES for file in self.tables.load(table).files()}
        staged = [file for part in report.partitions for file in part.files if file.path not in named]
        for file in staged[:1]:
            self.tables.warehouse.rewrite(file.path, bytes(file.size_bytes))
        return bool(staged)

    def _note_vanished(self, head: ManifestHead) -> None:
        """What counts is what the first finished job of a manifest read."""
        staged = FakeJobs(self.tables, {}).featurize(head).of_table(QUARANTINE.name)
        files = [TableFile(file.path, file.size_bytes, file.rows, {}) for file in staged[0].files]
        rows = self.tables.rows_of(files)
        gone = {row["image_uri"].removeprefix("s3://landing/") for row in rows if row["reason"] == "vanished"}
        self.seen[head.digest].vanished = frozenset(gone)

    def model_steps(self, damages: str = "") -> Steps:
        """Run pca_model, a pause after each task; where it damages `rows` or a `model`, the run ends with its validation."""
        run_id = f"model {self.operation}"
        outcome = model_run.plan(self.tables, self.settings, run_id)
        yield
        if isinstance(outcome, Skipped):
            return
        planned, warehouse = value_of(outcome), self.tables.warehouse
        projection = read_projection(warehouse, planned.input_digest)
        report = FakeJobs(self.tables, {}).project(projection)
        yield
        if damages == "rows" and self._damage(report):
            assert not isinstance(model_run.validate(self.tables, planned), Done)
            return
        if damages == "model":
            with stretched(warehouse, projection.projections[0].model.path):
                assert not isinstance(model_run.validate(self.tables, planned), Done)
            return
        value_of(model_run.validate(self.tables, planned))
        published = model_run.publish(self.tables, planned, run_id)
        assert isinstance(published, Skipped | Done)

    def differences(self) -> tuple[str, ...]:
        """Return the batches that reconcile_uploads finds."""
        found = batch_run.reconcile(self.tables, self.settings, ListedBucket(self.bucket))
        return () if isinstance(found, Skipped) else value_of(found)

    def run_each(self, batch_ids: Iterable[str]) -> None:
        for batch_id in batch_ids:
            self.operation += 1
            finish(self.steps(batch_id))

    def settle(self) -> None:
        """Reconcile until nothing differs, then run pca_model until it is idle."""
        for _ in range(4):
            different = self.differences()
            self.run_each(different)
            if not different:
                break
        else:
            raise AssertionError("reconciling does not come to an end")
        self.settle_model()

    @property
    def has_model_work(self) -> bool:
        return not isinstance(model_run.find_pending(self.tables, self.settings), Skipped)

    def settle_model(self) -> None:
        for _ in range(4):
            if not self.has_model_work:
                return
            self.operation += 1
            finish(self.model_steps())
        raise AssertionError(f"pca_model is never idle: {model_run.find_pending(self.tables, self.settings)}")


def finish(steps: Steps) -> None:
    for _ in steps:
        pass
