"""A bucket and its tables, and the runs of the DAGs over them, with a model of what each version was made of."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from orchard.batch import run as batch_run
from orchard.batch.manifests import read_head
from orchard.landing_zone.batch_lock import BatchLock, RunName
from orchard.models import run as model_run
from orchard.models.kinds import CLASSIFIER, KINDS, PCA, Kind
from orchard.models.model import current_promotion
from orchard.models.model_plan import read_projection
from orchard.models.refit import pending_work
from orchard.outcomes import Done, Skipped
from orchard.settings import Settings
from orchard.tables.batch_versions import BatchVersions
from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import Snapshot, TableFile
from orchard.tables.reports import PlannedJobs
from orchard_jobs.contract.columns import QUARANTINE, RUNS
from orchard_jobs.contract.jobs import Stage
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import NoTableError

from support.changed_settings import is_broke
from support.fake_jobs import FakeJobs
from support.faked_flow import value_of
from support.simulation.landing_zone import Contents, SimulatedBucket, SimulatedLandingZone, message_of
from support.simulation.run_records import Begun, Run, Seen
from support.simulation.scheduler import Actor
from support.simulation.store import Storage
from support.simulation.tasks import RunFailed, TaskRunner
from support.simulation.vendor import SimulatedOperator, Vendor
from support.state_store import Memory
from support.warehouse_faults import damage_staged, stretched

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
PROVENANCE = ("manifest_digest", "computed_in", "jobs_version", "uploaded_at")


@dataclass
class World:
    """A bucket, the tables, and what has been seen by whom.

    Attributes:
        messages: S3's, of every upload; each may be lost, or come again and again.
        seen: by manifest digest.
        states: what Airflow keeps of the batches' locks.
        prepared: the backbones that the target was asked about.
        recorded: the lineage of what was published.
        vendor: runs the jobs; None where they are the task's own processes.
    """

    storage: Storage
    settings: Settings
    bucket: SimulatedBucket
    messages: list[str] = field(default_factory=list)
    seen: dict[str, Seen] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    operation: int = 0
    model_runs: int = 0
    states: Memory = field(default_factory=Memory)
    prepared: set[str] = field(default_factory=set)
    recorded: list[batch_run.LineageRecord] = field(default_factory=list)
    vendor: Vendor | None = None

    def __post_init__(self) -> None:
        self.tasks = TaskRunner(self.storage.calls)

    @classmethod
    def of(cls, storage: Storage, settings: Settings, contents: Contents) -> "World":
        """Return the world of a store and of what its bucket holds."""
        return cls(storage, settings, SimulatedBucket(storage.calls, contents))

    @property
    def tables(self) -> Tables:
        return self.storage.tables

    @property
    def calm(self) -> Tables:
        """The same tables, of which nothing fails and at which nobody waits: for the model of what must be."""
        return self.storage.calm

    def upload(self, key: str, content: bytes) -> None:
        """Put an object, and leave S3's message of it."""
        self.bucket.put(key, content)
        self.messages.append(message_of(self.settings.landing_zone.bucket, key))

    def of_batch(self, batch_id: str) -> Contents:
        return self.bucket.below(self.settings.landing_zone.batch_prefix(batch_id))

    def of_version(self, batch_id: str) -> Contents:
        """Return the contents of a batch's published version."""
        return self._in_version(self.calm.load(RUNS), self.settings.backbone.id, batch_id) if self.has_tables else {}

    def _in_version(self, runs: Snapshot, backbone: str, batch_id: str) -> Contents:
        rows = self.calm.rows_of(runs.files(backbone=backbone, batch_id=batch_id), ("version", "manifest_digest"))
        newest = max(rows, key=lambda row: int(row["version"]), default=None)
        return self.seen[newest["manifest_digest"]].contents if newest else {}

    def last_seen(self, batch_id: str) -> Contents:
        """Return what a batch comes to that is planned now: what it lists, and the missing images whose rows stay."""
        own = self.of_batch(batch_id)
        return own if own and not self.settings.images.keeps_missing else self.of_version(batch_id) | own

    def run_batch(self, batch_id: str, settings: Settings | None = None, damages: bool = False) -> None:
        """Run image_batches; the bucket, the settings and the tables may change at each call of the store.

        Args:
            batch_id: the batch.
            settings: other ones than the world's.
            damages: a staged file is damaged before it is validated; the run then ends with that.
        """
        begun = self.begin_batch(batch_id, settings or self.settings)
        if begun is None:
            return
        if damages and damage_staged(self.calm, begun.planned.required_report(self.calm.warehouse, "featurize")):
            assert not isinstance(batch_run.validate(self.tables, begun.settings, begun.planned), Done)
            begun.run.computed = ()  # lost with the damaged file
            return
        self.end_batch(begun)

    def begin_batch(self, batch_id: str, settings: Settings, is_planned_only: bool = False) -> Begun | None:
        """Run image_batches until its jobs are over, or until it is planned; None when there is nothing to do."""
        self.runs.append(run := Run(self.operation))
        name = f"run {len(self.runs)}"
        try:
            # wait_for_uploads skips an empty batch
            if not self.of_batch(batch_id) and self._is_complete(batch_id):
                return None
            planned = self.tasks.run("plan", lambda: self._plan(settings, batch_id, name))
            if planned is None:
                return None
            begun = Begun(run, name, planned, settings)
            if not is_planned_only:
                self._run_jobs(begun)
            return begun
        finally:
            run.ended = self.operation

    def end_batch(self, begun: Begun, is_late: bool = False) -> None:
        """Go on with a run whose jobs are over; one that is late may find that its report was cleaned away."""
        task = partial(self._clearing_task, begun) if is_late else self.tasks.run
        try:
            verdict = task("validate", lambda: value_of(batch_run.validate(self.tables, begun.settings, begun.planned)))
            published = task("publish", lambda: self.publish_batch(begun, verdict))
            if isinstance(published, Done):
                versions = asdict(published.value)
                reduced = begun.planned.report(self.calm.warehouse, "reduce")
                staged = {partition.table for partition in reduced.partitions} if reduced else set()
                assert all(versions[table] is not None for table in staged), "what a job reduced is not published"
                task("record", lambda: self._record(begun, versions))
        finally:
            begun.run.ended = self.operation

    def _run_jobs(self, begun: Begun) -> None:
        for stage in begun.planned.stages:
            self.tasks.run(stage, partial(self._run_job, begun.planned, stage, begun.run))

    def _clearing_task(self, begun: Begun, name: str, work: Callable[[], Any]) -> Any:
        """Run a task; where a cleaning has removed the report that it reads, clear the jobs' tasks, as the error asks."""
        try:
            return self.tasks.run(name, work)
        except RunFailed as error:
            if "no longer exists: clear the task" not in str(error):
                raise
            self._run_jobs(begun)
            return self.tasks.run(name, work)

    def publish_batch(self, begun: Begun, verdict: str) -> Any:
        """Publish what a run's jobs staged."""
        self._note_vanished(begun.planned)
        return batch_run.publish(self.tables, begun.settings, begun.planned, verdict, begun.name)

    def _record(self, begun: Begun, versions: dict[str, int | None]) -> None:
        value_of(batch_run.record(self.tables, begun.planned, versions, begun.name, self.recorded.append))
        assert self.recorded[-1].head.digest == begun.planned.input_digest

    def _plan(self, settings: Settings, batch_id: str, run_id: str) -> PlannedJobs | None:
        """Plan as a run that has promised to list; None when it is skipped, or refused for its cost."""
        lock = BatchLock(batch_id, RunName("image_batches", run_id), self.states, lambda name, states: True)
        other = replace(lock, me=RunName("image_batches", "another"))
        lock.promise_listing()
        actor = self.storage.calls.scheduler.current or Actor("nobody", lambda: None)

        def check_promise() -> None:
            assert other.run_that_will_list() != lock.me, "an upload during the listing would be left to this run"
            actor.seen.clear()

        zone = SimulatedLandingZone(self.bucket, check_promise)
        planned = batch_run.plan(self.tables, settings, lock, zone, lambda backbone: self.prepared.add(backbone.id))
        if not isinstance(planned, Done):
            assert isinstance(planned, Skipped) or is_broke(settings), planned
            return None
        head = read_head(self.calm.warehouse, planned.value.input_digest)
        assert not (is_broke(settings) and head.actions.get("compute")), "a batch was planned that nobody can pay for"
        assert head.backbone.id in self.prepared, "the target was not asked whether it can load the backbone"
        compared = actor.seen.get(RUNS.name) or self.calm.load(RUNS)
        self._note_seen(settings, head, zone.shown, compared)
        return planned.value

    def _note_seen(self, settings: Settings, head: ManifestHead, listed: Contents, compared: Snapshot) -> None:
        """Note what a new manifest must hold: what was listed, and of the version it was compared with what is kept."""
        former = self._in_version(compared, head.backbone.id, head.batch_id)
        is_kept = settings.images.keeps_missing or not listed
        missing = {key: content for key, content in former.items() if key not in listed} if is_kept else {}
        self.seen.setdefault(head.digest, Seen(listed, missing))

    def _run_job(self, planned: PlannedJobs, stage: Stage, run: Run) -> None:
        """Run a stage's job: within the task, or by the vendor."""

        def work() -> None:
            self._compute(read_head(self.tables.warehouse, planned.input_digest), stage, run)

        if self.vendor is None or self.storage.calls.scheduler.current is None:
            work()
        else:
            SimulatedOperator(self.vendor, self.tables.warehouse, stage, work).execute(planned)

    def _compute(self, head: ManifestHead, stage: Stage, run: Run) -> None:
        jobs = FakeJobs(self.tables, self.bucket)
        if stage == "reduce":
            jobs.reduce(head, jobs.featurize(head))
            return
        jobs.featurize(head)
        if jobs.network_runs:
            run.computed = tuple((head.backbone.id, content) for content in jobs.network_runs)

    def _note_vanished(self, planned: PlannedJobs) -> None:
        """What counts is what the first finished job of a manifest read."""
        report = planned.report(self.calm.warehouse, "featurize")
        staged = report.of_table(QUARANTINE.name)[0].files if report else ()
        rows = self.calm.rows_of(TableFile(file.path, file.size_bytes, file.rows, {}) for file in staged)
        gone = {row["image_uri"].removeprefix("s3://landing/") for row in rows if row["reason"] == "vanished"}
        self.seen[planned.input_digest].vanished = frozenset(gone)

    @property
    def has_tables(self) -> bool:
        try:
            self.calm.load(RUNS)
        except NoTableError:
            return False
        return True

    def _is_complete(self, batch_id: str) -> bool:
        if not self.has_tables:
            return True
        return BatchVersions.load(self.calm, self.settings.backbone.id, batch_id).is_complete(batch_id)

    def run_models(self) -> None:
        """Run pca_model and, once there is a classifier, classifier_model, one after the other."""
        self.run_model()
        if self.has_tables and current_promotion(self.calm, self.settings.backbone.id, CLASSIFIER) is not None:
            self.run_model(kind=CLASSIFIER)

    def run_model(self, damages: str = "", kind: Kind = PCA) -> None:
        """Run a kind's DAG; where it damages `rows` or a `model`, the run ends with its validation."""
        settings = self.settings
        self.model_runs += 1
        run_id, warehouse = f"model {self.model_runs}", self.calm.warehouse
        outcome = self.tasks.run("plan_model", lambda: model_run.plan(self.tables, settings, run_id, kind))
        if isinstance(outcome, Skipped):
            return
        planned = value_of(outcome)
        projection = read_projection(warehouse, planned.input_digest)
        report = self.tasks.run("project", lambda: FakeJobs(self.tables, {}).run_planned(projection))
        if damages == "rows" and damage_staged(self.calm, report):
            assert not isinstance(model_run.validate(self.tables, planned), Done)
            return
        if damages == "model":
            with stretched(warehouse, projection.projections[0].model.path):
                assert not isinstance(model_run.validate(self.tables, planned), Done)
            return
        self.tasks.run("validate", lambda: value_of(model_run.validate(self.tables, planned)))
        published = self.tasks.run("publish", lambda: model_run.publish(self.tables, planned, run_id))
        assert isinstance(published, Skipped | Done)

    def differences(self) -> tuple[str, ...]:
        """Return the batches that reconcile_uploads finds."""
        found = batch_run.reconcile(self.tables, self.settings, SimulatedLandingZone(self.bucket))
        return () if isinstance(found, Skipped) else value_of(found)

    def run_each(self, batch_ids: Iterable[str]) -> None:
        for batch_id in batch_ids:
            self.operation += 1
            self.run_batch(batch_id)

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
        return pending_work(self.tables, self.settings) is not None

    def settle_model(self) -> None:
        """Run the models' DAGs until they are idle; without a classifier none is fitted."""
        backbone = self.settings.backbone.id
        for kind in KINDS if current_promotion(self.calm, backbone, CLASSIFIER) else (PCA,):
            self._settle(kind)

    def _settle(self, kind: Kind) -> None:
        for _ in range(4):
            if pending_work(self.tables, self.settings, kind) is None:
                return
            self.operation += 1
            self.run_model(kind=kind)
        raise AssertionError(f"{kind.dag_id} is never idle: {pending_work(self.tables, self.settings, kind)}")
